"""Models that `to_qkeras` emits, judged as what others made: nothing about them is known but the layers."""

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import ModelError
from sound_qkeras.keras_io import save_model, to_qkeras
from sound_qkeras.keras_io.qkeras.matching import match
from sound_qkeras.keras_io.qkeras.reader import open_model, read_steps
from sound_qkeras.keras_io.qkeras.unscaling import unscaled
from sound_qkeras.network.simulate import simulate

from .models import LAYERS, keras, qk, sequential
from .quantised import BITS, IN, check, points, twin_of
from .test_counting import of_channels, small

pytestmark = pytest.mark.keras


def dense():
    return sequential(LAYERS.Dense(5, activation="relu"), LAYERS.Dense(3), shape=(4,))


def narrow():
    """Results far below one: formats with negative integer bits, which QKeras does not have."""
    model = dense()
    model.set_weights([0.05 * weight for weight in model.get_weights()])
    return model


def conv(pooling=LAYERS.MaxPooling2D):
    return sequential(
        LAYERS.Conv2D(3, 2, activation="relu"), pooling(2), LAYERS.Flatten(), LAYERS.Dense(2), shape=(5, 5, 1)
    )


def pooled():
    return conv(LAYERS.AveragePooling2D)


def conv1d():
    return sequential(LAYERS.Conv1D(3, 2, activation="relu"), LAYERS.Flatten(), LAYERS.Dense(2), shape=(5, 2))


def deep():
    return sequential(*(LAYERS.Dense(units, activation="relu") for units in (5, 4)), LAYERS.Dense(3), shape=(4,))


def convs():
    return sequential(LAYERS.Conv2D(3, 2, activation="relu"), LAYERS.Conv2D(2, 2), shape=(4, 4, 1))


@pytest.mark.slow
@pytest.mark.parametrize("lower", [0.0, -1.0])
@pytest.mark.parametrize("make", [dense, narrow, conv, pooled, conv1d])
def test_what_is_emitted_is_certified_as_it_was_proved(make, lower):
    model = make()
    box, eps = (lower, 1.0), 1e-3 if make is narrow else 0.1
    options = {"keep_architecture": True, "rescale_units": False, "effort": "fast"}
    result = sq.quantize(model, eps, box, **options)
    emitted = result.to_qkeras()
    x = points(emitted, box)
    np.testing.assert_array_equal(twin_of(emitted).evaluate(x), result.simulate(x))
    check(emitted, x, box)
    errors = np.abs(result.simulate(x) - result.pair.reference.evaluate(x)).max(axis=0)
    for reference in (model, result.pair.reference, result.pair.network):
        twin = twin_of(emitted, reference if reference is not model else read_steps(model))
        np.testing.assert_array_equal(twin.evaluate(x), result.simulate(x))
        found = sq.certify(emitted, reference, box=box, effort="fast")
        assert np.all(errors <= found.certificate.output_bounds)
        assert (found.certificate.bound or 0.0) <= 1.01 * result.certificate.bound
        assert found.model.saturating == ()
        noted = [note for note in found.certificate.notes if "unsigned quantizer" in note]
        assert bool(noted) == (lower == 0.0 or make is pooled)


@pytest.mark.parametrize("make", [small, of_channels])
def test_scales_are_read_exactly(make, tmp_path):
    pair = make()
    emitted = to_qkeras(pair)
    save_model(emitted, tmp_path / "emitted.keras")
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (50, *pair.network.input_shape))
    for model in (emitted, open_model(tmp_path / "emitted.keras")):
        steps, latent = read_steps(model), read_steps(model, latent=True)
        found = match(steps, latent).pair
        np.testing.assert_array_equal(found.evaluate(x), simulate(pair, x))
        assert sorted(output.step for output in found.formats.values()) == sorted(
            output.step for output in pair.formats.values()
        )
        for network in (found.network, found.subject):
            for (_, op), (name, _) in zip(network.affine(), pair.network.affine(), strict=True):
                np.testing.assert_array_equal(op.kernel, pair.parameters[name.name].kernel_value)
                np.testing.assert_array_equal(op.bias, pair.parameters[name.name].bias_value)


def test_multiplications_whose_results_are_outputs_too_stay():
    x = LAYERS.Input((3,))
    up = LAYERS.Rescaling(4.0, name="up")(x)
    rounded = qk.QActivation("quantized_bits(8,0,alpha=1.0)", name="rounded")(up)
    down = LAYERS.Rescaling(0.25, name="down")(rounded)
    for outputs, kept in ((down, False), ([down, rounded], True), ([down, up], True)):
        steps = unscaled(read_steps(keras.Model(x, outputs))).steps
        assert ("up" in [step.name for step in steps]) == kept


def test_an_unsigned_quantizer_saturates_at_zero_where_values_are_negative():
    unsigned = [qk.QActivation("quantized_relu(8,1)", name="first"), qk.QDense(3, kernel_quantizer=BITS)]
    model, reference = sequential(*unsigned), sequential(LAYERS.Dense(3))
    reference.set_weights(model.get_weights())
    x = points(model, (-1.0, 1.0))
    found = sq.certify(model, reference, box=(-1.0, 1.0), effort="fast")
    errors = np.abs(twin_of(model).evaluate(x) - twin_of(reference).evaluate(x)).max(axis=0)
    assert np.all(errors > 0.5)
    assert np.all(errors <= found.certificate.output_bounds)
    assert any("'first'" in note and "negative" in note for note in found.certificate.notes)


@pytest.mark.parametrize("kept", [LAYERS.ReLU(), qk.QActivation(BITS)], ids=["relu", "relu, then signed"])
def test_a_rectifier_that_the_reference_lacks_is_refused_unless_a_quantizer_is_unsigned(kept):
    layers = [qk.QActivation(IN), qk.QDense(4, kernel_quantizer=BITS), LAYERS.ReLU(name="extra"), kept]
    model = sequential(*layers, qk.QDense(3, kernel_quantizer=BITS))
    with pytest.raises(ModelError, match="'extra'"):
        sq.certify(model, sequential(LAYERS.Dense(4), LAYERS.Dense(3)), box=(-1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("make", [deep, convs])
def test_hidden_units_that_were_rescaled_are_recognised(make):
    model = make()
    # Units of very different sizes, which rescaling makes alike.
    kernel, bias, *others = model.get_weights()
    sizes = 8.0 ** np.arange(kernel.shape[-1])
    model.set_weights([kernel * sizes, bias * sizes, *others])
    result = sq.quantize(model, 1.0, (-1.0, 1.0), keep_architecture=True, effort="fast", word_lengths=(2, 24))
    assert any(np.any(shifts) for shifts in result.pair.rewrite.exponents.values())
    found = sq.certify(result.to_qkeras(), model, box=(-1.0, 1.0), effort="fast")
    assert "powers of two" in " ".join(found.certificate.notes)
    assert found.observed_error <= found.certificate.bound <= 1.01 * result.certificate.bound
