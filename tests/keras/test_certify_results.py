"""What others quantised, as a result like any other: saved, verified without TensorFlow, reported, exported bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.backends import compile_and_run
from sound_qkeras.cli import OK, main
from sound_qkeras.errors import FileFormatError, InputError, ModelError, VerificationError
from sound_qkeras.results.archive import verify
from sound_qkeras.support.plain import to_plain
from tests.results import content, edit, reseal

from .models import LAYERS, qk, sequential
from .quantised import BITS, IN, dense, points

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]

BIAS = "quantized_bits(8,2,1,alpha=1.0)"
MODELS = {
    "rounded": dense("quantized_relu(5,1)"),
    "symmetric": dense("quantized_bits(6,1,1,alpha=1.0)"),
    "ternary": dense("quantized_relu(5,1)", "ternary(alpha=1.0,threshold=0.4)"),
    "powers": dense("quantized_relu(5,1)", "quantized_po2(4)"),
    "binary": dense("binary(alpha=1)", "binary(alpha=1)"),
    "signs and zero": dense("ternary(alpha=0.5,threshold=0.25)", "ternary(alpha=0.5,threshold=0.4)"),
    "powers of both": dense("quantized_relu_po2(4,4)", "quantized_po2(4)"),
    "signs of inputs": dense("quantized_relu(5,1)", "quantized_po2(3)", first="binary(alpha=1)"),
    "steps": dense("quantized_relu_po2(6)"),
    "real": dense("quantized_tanh(6,use_real_tanh=1)"),
}

FEW = ("binary", "signs and zero", "powers of both", "signs of inputs")


def certified(layers, **options):
    model = sequential(*layers, shape=(5,))
    reference = "latent"
    return model, sq.certify(model, reference, box=(-2, 2), effort="fast", **options)


@pytest.mark.parametrize("kind", MODELS)
def test_results_are_saved_loaded_and_proved_again(kind, tmp_path):
    _, found = certified(MODELS[kind])
    found.save(tmp_path / "out")
    assert content(sq.load(tmp_path / "out")) == content(found)
    again, bounds = verify(tmp_path / "out")
    assert np.all(bounds <= found.certificate.output_bounds)
    assert to_plain(again.model) == to_plain(found.model)
    found.report(tmp_path / "report.html")
    assert "itself with latent weights" in (tmp_path / "report.html").read_text(encoding="utf-8")


FINE = "quantized_bits(16,0,1,alpha=1.0)"


@pytest.mark.parametrize("relu", ["quantized_relu(20,0)", "quantized_relu_po2(4,2)"])
def test_what_is_said_of_float32_is_proved_again_where_nothing_was_folded(relu, tmp_path):
    """Beside itself, too, where its rectifier gets the upper end of its quantizer."""
    _, found = certified(dense(relu, FINE, FINE, first="quantized_bits(20,0,1,alpha=1.0)"))
    assert found.model.as_proved
    assert found.float32.error > 0.0
    exact = tuple(replace(layer, exact=True, error=0.0) for layer in found.float32.layers)
    claimed = replace(found.float32, layers=exact, error=0.0, bound=found.certificate.bound)
    replace(found, float32=claimed).save(tmp_path / "out")
    with pytest.raises(VerificationError, match="evaluation in float32"):
        verify(tmp_path / "out")


def test_what_is_said_of_float32_is_not_shown_as_proved_again_where_layers_were_folded(tmp_path):
    model = sequential(qk.QActivation(IN), qk.QDense(3, kernel_quantizer=BITS), LAYERS.BatchNormalization(), shape=(5,))
    found = sq.certify(model, "latent", box=(-2, 2), effort="fast")
    found.save(tmp_path / "out")
    again, _ = verify(tmp_path / "out")
    assert any(line.startswith("float32 evaluation") and "does not prove again" in line for line in again.lines)


@pytest.mark.parametrize("kind", ["rounded", "symmetric", "ternary", *FEW])
def test_networks_of_integers_are_proved_again_exactly(kind):
    _, found = certified(MODELS[kind])
    bounds = sq.check(found.pair, found.certificate, exact=True)
    assert np.all(bounds <= found.certificate.output_bounds)
    _, again = certified(MODELS[kind], exact=True)
    assert again.certificate.exact
    assert "re-proved in exact arithmetic" in again.summary()


def test_what_exact_arithmetic_makes_nothing_of_is_named():
    _, found = certified(MODELS["steps"])
    with pytest.raises(InputError, match="powers of two"):
        sq.check(found.pair, found.certificate, exact=True)
    model = sequential(*MODELS["rounded"], shape=(5,))
    found = sq.certify(model, box=(-2, 2), input_bits=6)
    with pytest.raises(InputError, match="6 fractional bits"):
        sq.check(found.pair, found.certificate, exact=True)


@pytest.mark.parametrize("tier", ["local", "statistical"])
def test_other_tiers_are_results_too(tier, tmp_path):
    model = sequential(*MODELS["rounded"], shape=(5,))
    x = points(model, count=30)
    found = sq.certify(
        model, "latent", box=(-2, 2), tier=tier, samples=x, radius=0.01 if tier == "local" else None, effort="fast"
    )
    found.save(tmp_path / "out")
    verify(tmp_path / "out")
    assert sq.load(tmp_path / "out").certificate.claim == found.certificate.claim


@pytest.mark.parametrize("part", ["real", "grids", "formats"])
def test_an_altered_subject_is_refused(part, tmp_path):
    """Whoever alters the subject and seals everything again meets the hash, or the proof."""
    _, found = certified(MODELS["real" if part == "real" else "steps"])
    found.save(tmp_path / "out")

    def change(document):
        subject = document["fixed_point"]
        if part == "real":
            next(iter(subject["real"].values()))["settings"]["alpha"] = 0.5
        elif part == "grids":
            subject["grids"].clear()
        else:
            next(iter(subject["formats"].values()))["word_length"] -= 1

    edit(tmp_path / "out" / "network.json", change)
    reseal(tmp_path / "out")
    with pytest.raises((VerificationError, FileFormatError)):
        verify(tmp_path / "out")


@pytest.mark.hls
@pytest.mark.parametrize("kind", ["rounded", "symmetric", "ternary", "powers", *FEW])
def test_what_has_grids_is_exported_bit_for_bit(kind, tmp_path):
    model, found = certified(MODELS[kind])
    x = points(model, count=200, bits=5)
    assert np.array_equal(found.simulate(x), np.asarray(model(x), np.float64))
    for target in ("c", "hls"):
        folder = found.export_hls(tmp_path / target, target=target)
        assert compile_and_run(folder).passed
    assert (tmp_path / "c" / "report.json").exists()


@pytest.mark.parametrize(
    ("kind", "activation", "weights"),
    [
        ("binary", 1, 1),
        ("signs and zero", 2, 2),
        ("powers of both", 4, None),
        ("signs of inputs", 5, 3),
        ("ternary", 5, 2),
    ],
)
def test_bits_are_those_of_the_values(kind, activation, weights):
    """As QKeras counts its quantizers: a sign, two bits of a ternary value, sign and exponent of a power of two."""
    model, found = certified(MODELS[kind])
    inputs = 1 if kind == "signs of inputs" else 8
    assert found.cost.activation_bits == 5 * inputs + 6 * activation
    quantizer = model.layers[1].kernel_quantizer_internal
    most = weights or quantizer.bits
    own = [codes.kernel_bits / codes.kernel.size for codes in found.pair.parameters.values()]
    assert max(own) <= most
    assert weights is None or own == [weights] * 2
    names = {str(codes.kernel_grid) for codes in found.pair.parameters.values()}
    assert names == {{1: "binary values", 2: "ternary values"}.get(weights, "powers of two")}


@pytest.mark.parametrize(("kind", "says"), [("steps", "powers of two"), ("real", "real numbers")])
def test_what_has_none_says_which_tensor_stands_in_the_way(kind, says, tmp_path):
    _, found = certified(MODELS[kind])
    for way in (lambda: found.simulate(np.zeros((1, 5))), lambda: found.export_hls(tmp_path / "c", target="c")):
        with pytest.raises(ModelError, match=says):
            way()
    with pytest.raises(ModelError, match=says):
        found.to_hls4ml(tmp_path / "project")
    assert says in found.summary()


def test_no_qkeras_layers_are_written_for_few_values():
    _, found = certified(MODELS["binary"])
    for way in (found.to_qkeras, lambda: found.quantizer_config):
        with pytest.raises(InputError, match="binary values, for which no QKeras layer is written"):
            way()


def test_float_biases_are_named():
    model = sequential(qk.QActivation(IN), qk.QDense(3, kernel_quantizer=BITS), shape=(5,))
    model.layers[-1].set_weights([model.layers[-1].get_weights()[0], np.array([1e-12, 1.0, 1.0], np.float32)])
    assert "bias" in sq.certify(model, box=(-2, 2)).pair.obstacles[0]


def test_inputs_on_a_grid_need_no_quantizer_to_be_exported(tmp_path):
    layers = [
        qk.QDense(4, kernel_quantizer=BITS, bias_quantizer=BIAS),
        qk.QActivation("quantized_relu(4,1)"),
        LAYERS.Dense(2),
    ]
    model = sequential(*layers, shape=(5,))
    model.layers[-1].set_weights([np.rint(w * 8) / 8 for w in model.layers[-1].get_weights()])
    assert not sq.certify(model, box=(-1, 1)).pair.has_integers
    found = sq.certify(model, "latent", box=(-1, 1), input_bits=4, effort="fast")
    x = np.random.default_rng(0).integers(-16, 17, (100, 5)) / 16
    assert np.array_equal(found.simulate(x), np.asarray(model(x), np.float64))
    assert "fractional bits" in found.certificate.claim
    assert np.array_equal(np.rint(found.observed_input * 16), found.observed_input * 16)
    found.save(tmp_path / "out")
    verify(tmp_path / "out")


def test_the_command_line_goes_all_the_way(capfd, tmp_path):
    model = sequential(*MODELS["rounded"], shape=(5,))
    model.save(tmp_path / "q.h5")
    box, out = ["--box", "-2", "2"], str(tmp_path / "out")
    assert (
        main(["certify", str(tmp_path / "q.h5"), "--reference", "latent", *box, "--effort", "fast", "--out", out]) == OK
    )
    assert main(["verify", out]) == OK
    said = capfd.readouterr()
    assert main(["export", out, "--target", "c", "--to", str(tmp_path / "c")]) == OK, capfd.readouterr().err
    assert "may saturate" in said.out
    assert (tmp_path / "c" / "README.md").exists() or any((tmp_path / "c").iterdir())
