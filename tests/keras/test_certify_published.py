"""QKeras models that other people made: each is judged, and agrees with QKeras itself."""

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.keras_io.qkeras.matching import match
from sound_qkeras.keras_io.qkeras.reader import open_model, read_steps

from .models import keras, qk

pytestmark = [pytest.mark.keras]

MODELS = {
    "qkeras_3layer_jets.h5": ("latent", (-4.0, 4.0)),
    "mnist_qcnn_pruned_theodoros.h5": ("mnist_floatcnn_pruned_theodoros.h5", (0.0, 1.0)),
    "mnist_floatcnn_pruned_theodoros.h5": ("mnist_floatcnn_pruned_theodoros.h5", (0.0, 1.0)),
    "cifar_rn07_hls4mlfinn.h5": ("latent", (0.0, 1.0)),
}
# Fractional bits of the inputs at which float32 computes the model exactly, as far as that is proved; float layers never.
EXACT_BITS = {"qkeras_3layer_jets.h5": 8, "cifar_rn07_hls4mlfinn.h5": 8}


def before_softmax(path):
    """QKeras' own reading of the file, without its softmax."""
    model = qk.utils.load_qmodel(str(path), compile=False)
    return keras.Model(model.input, model.layers[-2].output)


def inputs(shape, box, bits=None, count=24):
    """Random inputs of the box, float32."""
    x = np.random.default_rng(0).uniform(*box, (count, *shape))
    return (x if bits is None else np.rint(x * 2.0**bits) / 2.0**bits).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_bound_saturation_and_exactness_are_judged(shared_nets, name):
    reference, box = MODELS[name]
    folder = shared_nets / "qkeras"
    found = sq.certify(
        folder / name, "latent" if reference == "latent" else folder / reference, box=box, effort="fast", seed=1
    )
    model = before_softmax(folder / name)
    x = inputs(model.input_shape[1:], box)
    matched = match(read_steps(open_model(folder / name)), None)
    ours, theirs = matched.pair.evaluate(x), np.asarray(model(x), np.float64)
    assert np.abs(ours - theirs).max() <= found.evaluation.error
    assert found.observed_error <= found.certificate.bound < np.inf
    if reference.endswith(".h5"):
        float_model = before_softmax(folder / reference)
        gap = np.abs(theirs - np.asarray(float_model(x), np.float64)).max()
        assert gap <= found.certificate.bound + found.evaluation.error + 1e-4
    assert not found.evaluation.exact
    rectified = sum("relu" in row.quantizer for row in found.model.quantizers)
    assert len(found.model.saturating) == rectified == len(found.model.quantizers)
    assert any(row.seen > 0.0 for row in found.model.quantizers) == bool(rectified)
    assert len(found.model.sums) == sum(bool(layer.weights) for layer in open_model(folder / name).layers)


@pytest.mark.parametrize("name", EXACT_BITS)
def test_where_inputs_have_a_grid_float32_is_exact_to_the_last_bit(shared_nets, name):
    path, (_, box), bits = shared_nets / "qkeras" / name, MODELS[name], EXACT_BITS[name]
    found = sq.certify(path, box=box, input_bits=bits)
    assert found.evaluation.exact
    assert not found.certificate.claims_distance
    model = before_softmax(path)
    x = inputs(model.input_shape[1:], box, bits)
    assert np.array_equal(match(read_steps(open_model(path)), None).pair.evaluate(x), np.asarray(model(x), np.float64))
