"""Models in half precision: certified in exact arithmetic, and a note says how far Keras' own results are from it."""

import re

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.keras_io import read_model
from sound_qkeras.keras_io.read import resizing

from . import models
from .models3 import keras, randomised

pytestmark = pytest.mark.keras
HALF = ["mixed_float16", "float16", "bfloat16", "mixed_bfloat16"]


def model(kind, policy, head=None):
    layers = kind.layers
    given = [layers.Rescaling(0.3, offset=[0.1, 0.2, 0.3], dtype=policy), layers.Dense(9, "relu", dtype=policy)]
    made = kind.Sequential([layers.Input((3,)), *given, layers.Dense(2, head, dtype=policy)])
    if kind is keras:
        return randomised(made)
    rng = np.random.default_rng(0)
    made.set_weights([rng.normal(size=value.shape) for value in made.get_weights()])
    return made


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("kind", [keras, models.keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_of_another_size_are_read(kind, policy, interpolation):
    source = kind.layers.Input((4, 6, 2))
    y = kind.layers.UpSampling2D(2, interpolation=interpolation, dtype=policy)(kind.layers.Rescaling(0.5)(source))
    made = kind.Model(source, kind.layers.Resizing(5, 9, interpolation=interpolation, dtype=policy)(y))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 6, 2)).astype(np.float32)
    theirs = np.asarray(made(x)).astype(np.float32)
    np.testing.assert_allclose(read_model(made).evaluate(x).reshape(theirs.shape), theirs, atol=0.03)


@pytest.mark.parametrize("policy", ["float32", *HALF])
def test_images_that_keras_takes_from_other_places_are_refused(monkeypatch, policy):
    made = models.keras.Sequential([models.LAYERS.Input((4, 6, 2)), models.LAYERS.UpSampling2D(2, dtype=policy)])
    monkeypatch.setattr(resizing, "evaluated", lambda layer, x: np.roll(np.asarray(layer(x)).astype(np.float32), 1, 1))
    with pytest.raises(UnsupportedLayerError, match="from other places"):
        read_model(made)
    made.layers[0].interpolation = "bilinear"
    with pytest.raises(UnsupportedLayerError, match="from other places"):
        read_model(made)


def in_words(network):
    return next(note for note in network.notes if note.startswith("Keras computes"))


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("kind", [keras, models.keras], ids=["keras", "tf_keras"])
def test_a_note_says_how_far_keras_is_from_what_is_certified(kind, policy):
    made = model(kind, policy)
    network = read_model(made, (-1.0, 1.0))
    note = in_words(network)
    assert "Keras computes 3 layers in" in note
    assert policy.removeprefix("mixed_") in note
    seen = float(re.search(r"by up to ([\d.e-]+)\.$", note).group(1))
    x = np.random.default_rng(1).uniform(-1, 1, (500, 3)).astype(np.float32)
    differ = np.abs(np.asarray(made(x)).astype(np.float64) - network.evaluate(x)).max()
    assert differ > 1e-4
    assert differ / 3 < seen < differ * 3


@pytest.mark.parametrize("policy", HALF)
def test_certify_says_nothing_about_the_arithmetic_of_other_types(policy):
    with pytest.raises(UnsupportedLayerError, match=r"b?float16.*accepted: float32 or float64"):
        sq.certify(model(models.keras, policy), box=(-1, 1))


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_results_are_compared_behind_what_was_set_aside(head):
    note = in_words(read_model(model(keras, "float16", head), (-1.0, 1.0)))
    assert re.search(rf"by up to 0\.00\d+, behind the {head}\.$", note)


def test_the_note_reaches_the_result_and_other_models_have_none():
    result = sq.quantize(model(keras, "mixed_float16"), 0.1, (-1, 1), effort="fast")
    assert "inputs of the box by up to" in in_words(result.pair.network)
    network = read_model(model(keras, "float32"), (-1.0, 1.0))
    assert not any(note.startswith("Keras computes") for note in network.notes)


def test_what_overflows_in_keras_is_said():
    made = model(keras, "float16")
    kernel = made.layers[1].kernel
    kernel.assign(np.full(kernel.shape, 6e4))
    assert re.search(r"on \d+ of them they are infinite or NaN", in_words(read_model(made, (-1.0, 1.0))))


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantised_policies_are_refused_by_name(mode):
    made = model(keras, "float32")
    made.quantize(mode)
    with pytest.raises(UnsupportedLayerError, match=f"Keras quantised \\('{mode}'\\)"):
        read_model(made)
