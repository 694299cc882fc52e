"""Published architectures: every layer is read as Keras means it."""

from typing import Any

import numpy as np
import pytest

from sound_qkeras.keras_io import float64, read_model

from .models import keras, randomise

pytestmark = [pytest.mark.keras, pytest.mark.slow]


def adjusted(layer: Any) -> Any:
    """The layer anew: logits for probabilities, statistics without momentum, a factor for each colour."""
    settings = layer.get_config()
    settings |= {"activation": "linear"} if settings.get("activation") == "softmax" else {}
    settings |= {"momentum": 0.0} if "momentum" in settings else {}
    settings |= {"scale": [1 / 127, 1 / 120, 1 / 130]} if "offset" in settings else {}
    return type(layer).from_config(settings)


@pytest.mark.parametrize(
    ("name", "kinds"), [("EfficientNetB0", {"multiply", "scale", "table"}), ("MobileNetV2", {"add", "pad", "clip"})]
)
def test_applications(name, kinds):
    rng = np.random.default_rng(0)
    with float64():
        model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)
        model = keras.models.clone_model(model, clone_function=adjusted)
        randomise(model)
        x = rng.uniform(0, 255, (6, 96, 96, 3))
        model(x, training=True)  # statistics become those of this batch, so that nothing dies out
        network = read_model(model)
        expected = model.predict(x, verbose=0)
    assert {node.op.kind for node in network.nodes} >= kinds
    assert np.all(expected.std(axis=0) > 1e-3 * np.abs(expected).max())
    assert np.allclose(network.evaluate(x), expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
