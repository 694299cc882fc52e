"""A small image classifier through the command line in the weaker tiers: one set of integers in all executions."""

from __future__ import annotations

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.backends import compile_and_run
from sound_qkeras.cli import main

pytestmark = [pytest.mark.keras, pytest.mark.slow]
keras = pytest.importorskip("tf_keras")
LAYERS = keras.layers


def model() -> object:
    keras.utils.set_random_seed(0)
    x = source = LAYERS.Input((8, 8, 3))
    x = LAYERS.Conv2D(6, 3, padding="same", activation="relu")(x)
    y = LAYERS.DepthwiseConv2D(3, padding="same")(x)
    y = LAYERS.BatchNormalization()(y)
    x = LAYERS.Add()([x, LAYERS.ReLU()(y)])
    x = LAYERS.MaxPooling2D()(x)
    x = LAYERS.GlobalAveragePooling2D()(x)
    return keras.Model(source, LAYERS.Dense(3, activation="softmax")(x))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiers")
    trained = model()
    trained.save(folder / "model.keras")
    x = np.random.default_rng(0).uniform(0.3, 0.7, (40, 8, 8, 3)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=trained.predict(x, verbose=0).argmax(axis=1))
    return folder


@pytest.mark.parametrize("options", [["statistical"], ["local", "--radius", "0.01"]], ids=["statistical", "local"])
def test_the_same_integers_everywhere(place, options):
    data, out = f"{place / 'data.npz'}:", place / options[0]
    arguments = f"quantize {place / 'model.keras'} --eps 0.05 --box -4 4 --effort fast --task classifier".split()
    arguments += ["--tier", *options, "--samples", f"{data}x", "--labels", f"{data}y", "--out", str(out)]
    assert main(arguments) == 0
    assert main(["verify", str(out)]) == 0
    result = sq.load(out)
    assert result.pair.saturating
    assert result.classification.float_accuracy == 1.0
    far = np.random.default_rng(1).uniform(-4.0, 4.0, (64, 8, 8, 3)).astype(np.float32)
    codes = result.simulate(far)
    hidden = result.pair.simulate_all(far)
    assert any(np.max(np.abs(hidden[name])) >= result.pair.formats[name].max_code for name in result.pair.saturating)
    with sq.float64():
        found = result.to_qkeras(dtype="float64")(far.astype(np.float64)).numpy()
    assert np.array_equal(found, codes)
    for target in ("c", "hls") if options[0] == "statistical" else ("c",):
        written = result.export_hls(place / f"{options[0]}-{target}", target=target, style="loops", overwrite=True)
        assert compile_and_run(written).passed
