"""Weights of few values in QKeras: its own quantizers, the same integers, and as many bits as the cost says."""

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import VerificationError
from sound_qkeras.keras_io import save_model
from sound_qkeras.keras_io.files.stored_model import check_stored_model
from sound_qkeras.keras_io.write.scales import Word
from tests.networks import box, random_network, samples

from .test_counting import alike, counted, expected

pytestmark = pytest.mark.keras
FAMILIES = {"po2": "quantized_po2", "ternary": "quantized_bits", "binary": "quantized_bits"}


@pytest.fixture(
    scope="module", params=[(family, channels) for family in FAMILIES for channels in (False, True)], ids=str
)
def result(request):
    family, channels = request.param
    network = random_network(np.random.default_rng(3), (4, 8, 8, 2))
    made = sq.quantize(network, 100.0, box(network), families=family, per_channel=channels, effort="fast")
    assert all(codes.kernel_grid is not None for codes in made.pair.parameters.values())
    return made


def test_qkeras_has_the_integers_and_counts_the_bits(result):
    alike(
        result.pair, samples(np.random.default_rng(0), (result.certificate.box.lower, result.certificate.box.upper), 64)
    )
    assert counted(result.pair) == expected(result.pair)
    kinds = {type(layer.kernel_quantizer_internal).__name__ for layer in result.to_qkeras().layers if layer.weights}
    families = {str(codes.kernel_grid) for codes in result.pair.parameters.values()}
    assert kinds == {"quantized_po2" if families == {"powers of two"} else "quantized_bits"}


def test_a_saved_model_is_checked_and_certified_again(result, tmp_path):
    result.save(tmp_path / "out")
    sq.check(sq.load(tmp_path / "out").pair, result.certificate)
    ends = (result.certificate.box.lower, result.certificate.box.upper)
    found = sq.certify(next((tmp_path / "out").glob("*.keras")), "latent", box=ends)
    assert found.cost.weight_bits == result.cost.weight_bits
    for codes, own in zip(found.pair.parameters.values(), result.pair.parameters.values(), strict=True):
        np.testing.assert_array_equal(codes.kernel_value, own.kernel_value)
        assert str(codes.kernel_grid) == str(own.kernel_grid)


def test_other_signs_and_other_scales_are_noticed(result, tmp_path):
    model = result.to_qkeras()
    layer = next(layer for layer in model.layers if layer.weights)
    kernel, *rest = layer.get_weights()
    for number, changed in enumerate((-kernel, 2.0 * kernel)):
        layer.set_weights([changed, *rest])
        save_model(model, tmp_path / f"{number}.keras")
        with pytest.raises(VerificationError):
            check_stored_model(tmp_path / f"{number}.keras", result.pair)


@pytest.mark.parametrize("setting", ["keep_negative", "symmetric", "bits", "integer"])
@pytest.mark.parametrize("value", [2, 0.5, "1", None])
def test_switches_are_numbers_to_qkeras(setting, value):
    word = Word(1, 0, True)
    settings = {"bits": 1, "integer": 0, "keep_negative": True, "symmetric": 0, "alpha": 0.5}
    assert word.is_saved_as(settings)
    assert not word.is_saved_as({**settings, setting: value})


def test_training_keeps_the_family(result):
    x = samples(np.random.default_rng(2), (result.certificate.box.lower, result.certificate.box.upper), 64)
    better = sq.finetune(result, x, epochs=3, teacher=True)
    assert better.cost.weight_bits == result.cost.weight_bits
    assert better.finetuned
    for name, codes in better.pair.parameters.items():
        assert codes.kernel_grid is result.pair.parameters[name].kernel_grid
        np.testing.assert_array_equal(codes.kernel_grid.apply(codes.kernel_value), codes.kernel_value)
