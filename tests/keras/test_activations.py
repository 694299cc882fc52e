"""Activation functions: read as Keras means them, emitted as layers that compute the simulator's integers."""

import numpy as np
import pytest

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.fixed_point import Format
from sound_qkeras.floating.fixed import float_reports
from sound_qkeras.interval import Interval
from sound_qkeras.keras_io import load_model, read_model, save_model, to_keras, to_qkeras
from sound_qkeras.keras_io.session.environment import float_type, import_tensorflow
from sound_qkeras.keras_io.write.table_layer import TableActivation, real_function, table_layer
from sound_qkeras.network.ops import TablePair
from sound_qkeras.network.simulate import simulate
from sound_qkeras.network.smooth import NAMES, smooth
from sound_qkeras.tuning.clipping import clipped, narrow_in_box
from tests import units

from .models import LAYERS, inputs, keras, qk, sequential

pytestmark = pytest.mark.keras
tf = import_tensorflow()
BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])
PLAIN, FINE = {"x": 6, "first": 5, "unit": 9}, {"x": 9, "first": 12, "unit": 10}

NAMED = ("elu", "exponential", "gelu", "hard_sigmoid", "selu", "sigmoid", "softplus", "softsign", "swish", "tanh")
FUNCTIONS = {
    **{name: name for name in NAMED},
    "silu": "silu",
    "relu6": tf.nn.relu6,
    "leaky": tf.nn.leaky_relu,
    "tf.exp": tf.exp,
    "tf.nn.gelu": tf.nn.gelu,
}
MODELS = {
    **{name: [LAYERS.Dense(6, activation=given), LAYERS.Dense(2)] for name, given in FUNCTIONS.items()},
    "activation layers": [LAYERS.Dense(6), LAYERS.Activation("tanh"), LAYERS.Dense(2), LAYERS.Activation("swish")],
    "two in a row": [LAYERS.Dense(4, "tanh"), LAYERS.Activation("softplus"), LAYERS.Dense(2)],
    "at the input": [LAYERS.Activation("tanh"), LAYERS.Dense(2)],
    "elu": [LAYERS.Dense(4), LAYERS.ELU(0.3), LAYERS.Dense(2)],
    "max_value": [LAYERS.Dense(4), LAYERS.ReLU(1.1), LAYERS.Dense(2)],
    "theta": [LAYERS.Dense(4), LAYERS.ThresholdedReLU(0.0), LAYERS.Dense(2)],
    "negative_slope": [LAYERS.Dense(4), LAYERS.ReLU(negative_slope=0.1), LAYERS.Dense(2)],
    "leaky layer": [LAYERS.Dense(4), LAYERS.LeakyReLU(0.25), LAYERS.Dense(2), LAYERS.LeakyReLU()],
    "prelu": [LAYERS.Dense(4), LAYERS.PReLU(), LAYERS.Dense(2)],
    "shared prelu": [
        LAYERS.Dense(12),
        LAYERS.Reshape((3, 4)),
        LAYERS.PReLU(shared_axes=[1]),
        LAYERS.Flatten(),
        LAYERS.Dense(2),
    ],
    "norm between": [LAYERS.Dense(4), LAYERS.BatchNormalization(), LAYERS.Activation("sigmoid"), LAYERS.Dense(2)],
    "norm behind": [LAYERS.Dense(4, "tanh"), LAYERS.BatchNormalization(), LAYERS.Dense(2)],
}


@pytest.mark.parametrize("name", MODELS)
def test_the_network_is_the_model(name):
    model = sequential(*MODELS[name])
    network, x = read_model(model), inputs(model)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(network.evaluate(x), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(to_keras(network).predict(x, verbose=0), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_keras_own(name):
    x = np.linspace(-12.0, 12.0, 20_001).astype(np.float32)
    expected = np.asarray(real_function(name, 0.7, tf.constant(x)))
    alpha = 0.7 if name == "elu" else 1.0
    np.testing.assert_allclose(smooth(name, alpha).value(x.astype(np.float64)).center, expected, rtol=4e-6, atol=2e-6)
    np.testing.assert_allclose(smooth(name, alpha).plain(x.astype(np.float64)), expected, rtol=4e-6, atol=2e-6)


def test_a_sigmoid_is_a_head_only_at_the_end():
    network = read_model(sequential(LAYERS.Dense(3, "sigmoid"), LAYERS.Dense(2, "sigmoid")))
    assert network.head == "sigmoid"
    assert [node.op.kind for node in network.nodes] == ["input", "dense", "table", "dense"]
    assert network.rounding_points == tuple(node.name for node in network.nodes[:3])


@pytest.mark.parametrize(
    ("layer", "error", "match"),
    [
        (LAYERS.ReLU(threshold=0.5, name="r"), UnsupportedLayerError, "'r'.*threshold=0.5.*jumps"),
        (LAYERS.ReLU(max_value=0.0, name="r"), UnsupportedLayerError, "'r'.*max_value=0"),
        (LAYERS.ReLU(6.0, 0.1, name="r"), UnsupportedLayerError, "'r'.*negative_slope=0.1"),
        (LAYERS.ThresholdedReLU(name="r"), UnsupportedLayerError, "'r'.*theta=1; accepted: theta=0.*jumps by 1"),
        (LAYERS.ELU(-1.0, name="r"), ModelError, "'r'.*alpha=-1"),
        (LAYERS.LeakyReLU(1e9, name="r"), ModelError, "'r'.*up to 256"),
        (LAYERS.Activation("mish", name="r"), UnsupportedLayerError, "'r'.*mish.*swish, tanh"),
    ],
)
def test_refusals(layer, error, match):
    with pytest.raises(error, match=match):
        read_model(sequential(LAYERS.Dense(3), layer, LAYERS.Dense(1)))


@BOTH
@pytest.mark.parametrize("bits", [PLAIN, FINE], ids=["plain", "fine"])
def test_models_equal_the_simulator(dtype, bits):
    for name, op in units.UNITS.items():
        for after in (True, False):
            quantized, (low, high) = units.twin(units.network(op, after=after), bits, weight_bits=5)
            x = np.random.default_rng(1).uniform(low, high, (200, 3)).astype(dtype)
            with float_type(dtype):
                found = np.asarray(to_qkeras(quantized, dtype=dtype)(x))
            report = float_reports(quantized, Interval(low, high), 0.0)[dtype == "float64"]
            assert report.exact or (dtype == "float32" and name in units.LEAKIES)
            assert np.max(np.abs(found - simulate(quantized, x))) <= report.error, name


@BOTH
@pytest.mark.parametrize("function", NAMES)
def test_every_code_of_a_table(dtype, function):
    for source, output in (
        (Format(9, 3, True), Format(8, 4, True)),
        (Format(12, 3, False), Format(9, 4, True)),
        (Format(15, 3, True), Format(9, 4, True)),
        (Format(11, 0, True), Format(20, 1, True)),
    ):
        pair = TablePair(function, 1.0, source, output)
        codes = np.arange(source.min_code, source.max_code + 1)
        with float_type(dtype):
            layer = table_layer(pair, "table", dtype)
            found = np.asarray(layer((codes * source.step).astype(dtype)[None]))[0]
        shift = pair.result_bits - output.fractional_bits
        exact = [round_half_even(int(code), shift) for code in pair.results(codes)]
        expected = np.clip(np.array(exact), output.min_code, output.max_code) * output.step
        np.testing.assert_array_equal(found.astype(np.float64), expected)


def round_half_even(code, bits):
    below, rest = divmod(code, 2**bits)
    return below + (2 * rest > 2**bits or (2 * rest == 2**bits and below % 2 == 1))


@BOTH
@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_a_saved_table_is_loaded_and_trains(tmp_path, dtype, name):
    quantized, (low, high) = units.twin(units.network(units.TABLES["tanh"]), FINE, weight_bits=5)
    x = np.random.default_rng(2).uniform(low, high, (64, 3)).astype(dtype)
    with float_type(dtype):
        save_model(to_qkeras(quantized, dtype=dtype), tmp_path / name)
        for load in (qk.utils.load_qmodel, load_model):
            model = load(str(tmp_path / name))
            np.testing.assert_array_equal(np.asarray(model(x)), simulate(quantized, x))
        table = model.get_layer("unit")
        assert isinstance(table, TableActivation)
        before = [np.array(weight) for weight in model.get_weights()]
        model.compile(keras.optimizers.Adam(0.05), "mse")
        model.fit(x, simulate(quantized, x) + 1.0, verbose=0)
        assert np.any(before[0] != model.get_weights()[0])  # through the table
        np.testing.assert_array_equal(table.get_weights()[0], quantized.tables["unit"].entries.codes)


def test_the_gradient_is_that_of_the_real_function():
    pair = TablePair("swish", 1.0, Format(12, 3, True), Format(10, 4, True))
    x = tf.constant(np.linspace(-6.0, 6.0, 97).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = table_layer(pair, "table", "float32")(x)
    slope = smooth("swish").slope(x.numpy().astype(np.float64)).center
    np.testing.assert_allclose(tape.gradient(y, x), slope, atol=1e-5)


@pytest.mark.parametrize("name", [*units.UNITS, "relu"])
def test_what_saturates_within_the_box_saturates_alike_in_qkeras(name):
    """Also where QKeras has no words for the format, which has negative integer bits."""
    network = units.relu_network() if name == "relu" else units.network(units.UNITS[name])
    quantized, (low, high) = units.twin(network, FINE)
    x = np.random.default_rng(3).uniform(low, high, (200, *network.input_shape))
    values = network.evaluate_all(x)
    ends = {node: (0.02 * float(values[node].min()), 0.02 * float(values[node].max())) for node in quantized.formats}
    narrow = narrow_in_box(clipped(quantized, ends | {"x": (-1.0, 1.0)}), Interval(low, high))
    assert narrow.saturating or name == "narrow"  # whose box then asks for nothing that QKeras cannot say
    with float_type("float64"):
        found = np.asarray(to_qkeras(narrow, dtype="float64")(x))
    np.testing.assert_array_equal(found, simulate(narrow, x))
