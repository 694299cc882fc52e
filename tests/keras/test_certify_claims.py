"""What `certify` says about exactness, saturation and other tiers, what it refuses, and that faults are noticed."""

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InputError, ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.qkeras.matching import match
from sound_qkeras.keras_io.qkeras.reader import read_steps
from sound_qkeras.keras_io.session.environment import float_type
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.verify.proof import bound_leaves

from .models import LAYERS, keras, qk, sequential
from .quantised import BITS, IN, check, dense, float_network, points, region, twin_of

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]


def test_inputs_that_are_not_rounded_are_exact_in_the_proof_only():
    model = sequential(*dense("quantized_relu(6,2)", first=None))
    assert not check(model, points(model)).exact
    assert check(model, points(model, bits=6), bits=6).exact
    found = sq.certify(model, box=(-2, 2), input_bits=6)
    assert found.evaluation.exact
    assert not found.certificate.claims_distance
    assert found.model.sums[0].accumulator is not None


def test_the_float64_model_is_exact_where_float32_is_not():
    with sq.float64():
        model = sequential(*dense("quantized_bits(22,2,alpha=1.0)", "quantized_bits(16,1,alpha=1.0)"), seed=3)
        x = points(model).astype(np.float64)
        theirs = np.asarray(model(x))
    found = sq.certify(model, box=(-2, 2))
    assert found.model.dtype == "float64"
    assert found.evaluation.exact
    assert np.array_equal(twin_of(model).evaluate(x), theirs)
    with float_type("float32"):
        assert sq.certify(model, box=(-2, 2)).evaluation.exact


def test_quantized_relu_narrows_a_float64_model():
    with sq.float64():
        wide = qk.QDense(6, kernel_quantizer="quantized_bits(24,1,alpha=1.0)", bias_quantizer=BITS)
        model = sequential(
            qk.QActivation("quantized_bits(22,2,alpha=1.0)"), wide, qk.QActivation("quantized_relu(20,2)")
        )
        x = points(model, count=4000).astype(np.float64)
        theirs = np.asarray(model(x), np.float64)
    found = sq.certify(model, box=(-2, 2))
    difference = np.abs(twin_of(model).evaluate(x) - theirs).max()
    assert 0.0 < difference <= found.evaluation.error


def test_what_floating_point_loses_is_charged():
    """Sums without a grid, quantizers of values beyond 2**24 of their steps, normalisations whose offset cancels."""
    sums = sequential(LAYERS.Dense(8), shape=(40,))
    far = sequential(
        qk.QActivation("quantized_bits(8,0,1,alpha=1.0)"), qk.QDense(2, kernel_quantizer=BITS, bias_quantizer=BITS)
    )
    normal = sequential(LAYERS.BatchNormalization(), LAYERS.Dense(2), shape=(5,))
    normal.layers[0].set_weights([np.full(5, v) for v in (1.0, 40000.3, 4000.03, 0.009)])
    for model, box in ((sums, (-2, 2)), (far, (131070, 262100)), (normal, (-0.01, 0.01))):
        x = points(model, box=box, count=1000)
        report = check(model, x, box=box)
        assert not report.exact
        assert np.abs(twin_of(model).evaluate(x) - np.asarray(model(x), np.float64)).max() > 0.0


def test_saturation_is_proved_possible_where_it_is_seen_and_impossible_elsewhere():
    model = sequential(*dense("quantized_relu(4,0)"))
    row = sq.certify(model, box=(-2, 2)).model.quantizers[1]
    assert row.quantizer == "quantized_relu(4,0)"
    assert row.may_saturate
    assert row.seen > 0.0
    assert row.maximum == 15 / 16
    wide = sq.certify(sequential(*dense("quantized_relu(12,6)")), box=(-2, 2))
    assert wide.model.saturating == ()
    assert all(row.seen == 0.0 for row in wide.model.quantizers)


def test_a_format_that_may_not_saturate_widens_what_is_behind_it():
    """A sum that is a tie, proved a hair beyond it: what is not clipped is a step wider, and fills the next format."""
    layers = [qk.QDense(1, kernel_quantizer=BITS, bias_quantizer=BITS) for _ in range(2)]
    rounded = [qk.QActivation(f"quantized_bits({bits},1,alpha=1.0)") for bits in ("6,2", "4,0")]
    model = sequential(qk.QActivation(IN), layers[0], rounded[0], layers[1], rounded[1], shape=(1,))
    for layer, bias in zip(layers, (0.0, 0.125), strict=True):
        layer.set_weights([np.ones((1, 1)), np.array([bias])])
    found = sq.certify(model, "latent", box=(-0.8125, 0.8125), effort="fast")
    assert len(found.pair.saturating) == 1


def test_other_tiers():
    model = sequential(*dense("quantized_relu(5,1)"))
    reference = sequential(LAYERS.Dense(6), LAYERS.ReLU(), LAYERS.Dense(3))
    x = points(model, count=40)
    whole = sq.certify(model, reference, box=(-2, 2))
    local = sq.certify(model, reference, box=(-2, 2), tier="local", samples=x, radius=0.01, eps=whole.certificate.bound)
    assert local.certificate.bound <= whole.certificate.bound
    assert local.model.met == 1.0
    assert local.certificate.evidence.bounds.shape == (40, 3)
    counted = sq.certify(model, reference, box=(-2, 2), tier="statistical", samples=x, eps=whole.certificate.bound / 8)
    errors = np.abs(twin_of(model).evaluate(x) - float_network(reference).evaluate(x)).max(axis=1)
    assert counted.model.met == pytest.approx(np.mean(errors <= whole.certificate.bound / 8))
    assert counted.certificate.evidence.probability < 1.0
    largest = sq.certify(model, reference, box=(-2, 2), tier="statistical", samples=x)
    assert errors.max() <= largest.certificate.bound <= errors.max() + 1e-6
    assert counted.summary().startswith("counted, not proved")
    assert "violates" in counted.certificate.claim
    with pytest.raises(InputError, match="needs samples"):
        sq.certify(model, reference, box=(-2, 2), tier="local", radius=0.1)


def test_refusals_of_quantised_layers_name_those_that_can_be_certified(tmp_path):
    class QOther(LAYERS.Dense):
        """A layer that QKeras could have."""

    model = sequential(QOther(2, name="other"))
    model.save(tmp_path / "model.h5")
    for given in (model, tmp_path / "model.h5"):
        with pytest.raises(UnsupportedLayerError, match=r"'other'.*kind QOther; accepted: .*QConv2D, .*; replace it"):
            sq.certify(given, box=(-1.0, 1.0))


def test_lines_between_values_are_refused_where_float32_computes_them():
    layers = [LAYERS.UpSampling2D(2, interpolation="bilinear", name="up"), LAYERS.Conv2D(1, 2), LAYERS.Flatten()]
    model = sequential(*layers, qk.QDense(2, kernel_quantizer=BITS), shape=(2, 2, 1))
    with pytest.raises(UnsupportedLayerError, match=r"'up'.*bilinear.*in a quantised model.*'nearest'"):
        sq.certify(model, box=(-1.0, 1.0))


REFUSED = {
    "bernoulli": lambda: qk.QActivation(qk.bernoulli()),
    "stochastic": lambda: qk.QActivation(qk.stochastic_ternary()),
    "batch": lambda: qk.QActivation(qk.quantized_bits(4, 0, 1, alpha="auto")),
    "po2": lambda: qk.QActivation("quantized_po2(4)"),
    "leaky po2": lambda: qk.QActivation(qk.quantized_relu_po2(4, negative_slope=0.25)),
    "floor po2": lambda: qk.QActivation(qk.quantized_relu_po2(4, log2_rounding="floor")),
    "ulaw": lambda: qk.QActivation("quantized_ulaw(6)"),
    "noise": lambda: qk.QActivation(qk.quantized_relu(6, 2, qnoise_factor=0.5)),
    "weights": lambda: qk.QDense(3, kernel_quantizer=qk.quantized_bits(4, 0, alpha=1.0, use_stochastic_rounding=True)),
    "wide": lambda: qk.QActivation("quantized_bits(26,0,alpha=1.0)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_proved_meaning_is_named(kind):
    layer = REFUSED[kind]()
    model = sequential(layer, qk.QDense(2, kernel_quantizer=BITS))
    with pytest.raises(UnsupportedLayerError) as caught:
        sq.certify(model, box=(-1, 1))
    assert caught.value.layer_name == layer.name


def test_rectifiers_that_repeat_one_another_are_one():
    model = sequential(*dense("quantized_relu(5,1)"))
    twice = [qk.QDense(6, activation="relu", kernel_quantizer=BITS), qk.QActivation("quantized_relu(5,1)")]
    double = sequential(qk.QActivation(IN), *twice, qk.QDense(3, kernel_quantizer=BITS))
    reference = sequential(LAYERS.Dense(6), LAYERS.ReLU(), LAYERS.Dense(3))
    capped = sequential(LAYERS.Dense(6), LAYERS.ReLU(max_value=6.0), LAYERS.Dense(3))
    x = points(model)
    for one in (model, double):
        for other in (reference, capped):
            found = sq.certify(one, other, box=(-2, 2), effort="fast")
            errors = np.abs(twin_of(one).evaluate(x) - float_network(other).evaluate(x)).max(axis=0)
            assert np.all(errors <= found.certificate.output_bounds)


def test_models_that_do_not_match_say_which_layer():
    model = sequential(*dense("quantized_relu(5,1)"))
    with pytest.raises(ModelError, match=r"'dense.*kernel \(5, 7\)"):
        sq.certify(model, sequential(LAYERS.Dense(7), LAYERS.ReLU(), LAYERS.Dense(3)), box=(-1, 1))
    with pytest.raises(ModelError, match=r"\(Activation\)"):
        sq.certify(model, sequential(LAYERS.Dense(6), LAYERS.Activation("tanh"), LAYERS.Dense(3)), box=(-1, 1))
    wide = sequential(*dense("quantized_relu(8,4)"))
    with pytest.raises(ModelError, match=r"\(ReLU\)"):
        sq.certify(wide, sequential(LAYERS.Dense(6), LAYERS.ReLU(max_value=6.0), LAYERS.Dense(3)), box=(-1, 1))
    longer = sequential(LAYERS.Dense(6), LAYERS.ReLU(), LAYERS.Dense(3), LAYERS.ReLU())
    with pytest.raises(ModelError, match="no counterpart"):
        sq.certify(model, longer, box=(-1, 1))
    with pytest.raises(UnsupportedLayerError, match="quantised already"):
        sq.certify(model, model, box=(-1, 1))


def test_scales_that_depend_on_the_batch_are_frozen_on_samples():
    class quantized_bits_featuremap:  # noqa: N801 - the name it has in research code
        """The current batch decides scale and zero point."""

        bits = 6

        def __call__(self, x):
            scale = 2.0 * keras.backend.max(keras.backend.abs(x)) / (2.0**self.bits - 2.0)
            return keras.backend.round(x / scale) * scale

    for given in (quantized_bits_featuremap(), qk.quantized_bits(6, 0, 1, alpha="auto")):
        layer = qk.QActivation(given, name="moving")
        model = sequential(qk.QActivation(IN), qk.QDense(6, kernel_quantizer=BITS), layer)
        x = points(model, bits=5)
        with pytest.raises(UnsupportedLayerError, match="depends on the batch"):
            sq.certify(model, box=(-2, 2))
        found = sq.certify(model, "latent", box=(-2, 2), freeze=x)
        assert layer.quantizer is given
        assert "frozen on the samples as quantized_bits(6," in " ".join(found.certificate.notes)
        row = next(row for row in found.model.quantizers if row.layer == "moving")
        before = np.asarray(keras.Model(model.input, model.layers[-2].output)(x))
        assert row.minimum <= before.min()
        assert before.max() <= row.maximum + 1e-6
        assert 0.0 < found.observed_error <= found.certificate.bound


@pytest.mark.parametrize(
    ("low", "high", "frozen"),
    [
        (-31 / 16, 1.0, "quantized_bits(6,1,1,alpha=1.0)"),
        (-1.938, 1.0, "quantized_bits(6,2,1,alpha=1.0)"),
        (0.0, 31 / 16, "quantized_bits(5,1,0,keep_negative=False,alpha=1.0)"),
        (-31 / 256, 0.0, "quantized_bits(9,0,1,alpha=1.0)"),
    ],
)
def test_the_frozen_step_is_the_smallest_that_cuts_nothing_off(low, high, frozen):
    given = qk.quantized_bits(6, 0, 1, alpha="auto")
    model = sequential(qk.QActivation(given, name="moving"), qk.QDense(2, kernel_quantizer=BITS))
    found = sq.certify(model, box=(-2, 2), freeze=np.linspace(low, high, 55).reshape(11, 5))
    assert [row.quantizer for row in found.model.quantizers] == [frozen]


def test_files_are_read_without_running_code(tmp_path):
    activations = ["quantized_relu(5,1)", qk.quantized_tanh(6), "quantized_bits(6,1,1,alpha=1.0)"]
    for number, activation in enumerate(activations):
        model = sequential(*dense(activation), LAYERS.Softmax(), seed=number)
        path = tmp_path / f"{number}.h5"
        model.save(path)
        first, second = sq.certify(model, box=(-2, 2)), sq.certify(path, box=(-2, 2))
        assert first.model.quantizers == second.model.quantizers
        assert first.model.sums == second.model.sums
        assert "softmax" in " ".join(second.certificate.notes)
    model = sequential(qk.QActivation(qk.bernoulli()), qk.QDense(2, kernel_quantizer=BITS))
    model.save(tmp_path / "random.h5")
    with pytest.raises(UnsupportedLayerError, match="random quantizer bernoulli"):
        sq.certify(tmp_path / "random.h5", box=(-2, 2))


def test_residual_connections_and_several_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    left = qk.QDense(4, kernel_quantizer=BITS, bias_quantizer=BITS, name="left")(a)
    rounded = qk.QActivation("quantized_relu(6,2)", name="rounded")(LAYERS.Add()([left, b]))
    model = keras.Model([a, b], qk.QDense(2, kernel_quantizer=BITS, name="last")(LAYERS.Add()([rounded, left])))
    c, d = keras.Input((4,), name="c"), keras.Input((4,), name="d")
    dense_left = LAYERS.Dense(4, name="left")(c)
    relu = LAYERS.ReLU()(LAYERS.Add()([dense_left, d]))
    reference = keras.Model([c, d], LAYERS.Dense(2, name="last")(LAYERS.Add()([relu, dense_left])))
    reference.set_weights([value + 0.01 for value in model.get_weights()])
    found = sq.certify(model, reference, box=(-1, 1), effort="fast")
    x = [np.random.default_rng(n).uniform(-1, 1, (100, 4)).astype(np.float32) for n in range(2)]
    errors = np.abs(np.asarray(model(x), np.float64) - np.asarray(reference(x), np.float64)).max()
    assert 0.0 < errors <= found.certificate.bound + found.evaluation.error + 1e-5


# Seeded faults: each makes a claim that is too small, which the tests above have to notice.
def test_faults_are_noticed(monkeypatch):
    model = sequential(*dense("quantized_relu(4,0)"))
    reference = sequential(LAYERS.Dense(6), LAYERS.ReLU(), LAYERS.Dense(3))
    x = points(model, count=2000)
    errors = np.abs(twin_of(model).evaluate(x) - float_network(reference).evaluate(x)).max()
    true = FixedPoint.error

    def forgets_saturation(self, box, grid):
        return np.minimum(true(self, box, grid), 0.5 * self.step)

    matched = match(read_steps(model), float_network(reference)).pair
    assert errors <= bound_leaves(matched, region(model)).bound
    monkeypatch.setattr(FixedPoint, "error", forgets_saturation)
    with pytest.raises((AssertionError, sq.VerificationError)):
        assert errors <= bound_leaves(matched, region(model)).bound
