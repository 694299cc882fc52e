"""QKeras models equal the integer simulator, with no tolerance, and live in any session."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.fixed_point import Format, from_codes
from sound_qkeras.floating.fixed import float_reports
from sound_qkeras.interval import Interval
from sound_qkeras.keras_io import (
    float64,
    load_model,
    model_quantize,
    quantizer_config,
    read_model,
    save_model,
    to_qkeras,
)
from sound_qkeras.keras_io.session.environment import float_type
from sound_qkeras.keras_io.write.quantizers import activation_quantizer
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Relu, Reshape
from sound_qkeras.network.simulate import simulate
from tests.networks import (
    Box,
    box,
    by_channel,
    nearest,
    quantized,
    random_network,
    random_quantized,
    samples,
    with_parameters,
)

from .models import LAYERS, inputs, keras, qk, sequential

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]

BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])


def call(model, x):
    """The model's result as it is, without the casts of `predict`."""
    return np.asarray(model(x.astype(model.dtype)))


def awkward(output, rng):
    """Codes of a format (all of up to 2,048), the ties between them, their neighbours, and values far outside."""
    low, high = output.min_code, output.max_code
    codes = np.arange(low, high + 1) if high - low < 2048 else rng.integers(low, high, 1000, endpoint=True)
    ties = np.concatenate([codes - 0.5, [high + 0.5]])
    outside = [low - 1, low - 0.75, high + 1, high + 1.25, 3 * low - 7, 3 * high + 7, -(2**20), 2**20]
    points = np.concatenate([codes, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), outside])
    points = np.concatenate([points, rng.uniform(low - 2, high + 2, 200)])
    return np.ldexp(points.astype(np.float64), -output.fractional_bits)


SMALL = [
    Format(bits, integer, signed)
    for bits in range(1, 11)
    for signed in (False, True)
    for integer in sorted({-2, 0, 1, bits // 2, bits - 1, bits, bits + 3})
    if bits > signed
]


@BOTH
def test_every_small_format_is_quantised_as_by_qkeras(dtype):
    rng = np.random.default_rng(0)
    with float_type(dtype):
        for output in SMALL:
            x = awkward(output, rng).astype(dtype)
            if output.integer_bits < 0:  # QKeras has a wider range there
                x = x[(x >= output.minimum) & (x <= output.maximum)]
            quantizer = qk.get_quantizer(activation_quantizer(output, dtype))
            expected = from_codes(output.quantize(x), output.fractional_bits)
            np.testing.assert_array_equal(np.asarray(quantizer(x)), expected, err_msg=str(output))


def test_wide_formats_are_quantised_as_by_qkeras():
    rng = np.random.default_rng(1)
    with float64():
        for _ in range(100):
            bits, signed = int(rng.integers(11, 52)), bool(rng.integers(2))
            output = Format(bits, int(rng.integers(0, 31)), signed)
            x = awkward(output, rng)
            quantizer = qk.get_quantizer(output.to_quantized_bits())
            expected = from_codes(output.quantize(x), output.fractional_bits)
            np.testing.assert_array_equal(np.asarray(quantizer(x)), expected, err_msg=str(output))


SIX_BITS = Format(6, 2, True)


def one_layer(output, codes, activation=SIX_BITS):
    """A one-layer network with the given kernel codes and format."""
    kernel = from_codes(codes, output.fractional_bits)
    network = Network(
        (Node("x", Input((codes.shape[0],)), (), "x"), Node("d", Dense(kernel, np.zeros(codes.shape[1])), ("x",), "d"))
    )
    bias = Format(8, 0, True)
    parameters = {"d": AffineCodes(codes, output, np.arange(codes.shape[1]) % 256 - 128, bias)}
    return Pair(network, parameters, {"x": activation}, {})


@pytest.mark.parametrize(
    "output", [Format(10, 3, True), Format(10, 12, False), Format(9, -5, True), Format(1, 0, False)], ids=str
)
def test_every_code_of_a_kernel_is_multiplied_exactly(output):
    codes = np.arange(output.min_code, output.max_code + 1)[None, :]
    network = one_layer(output, codes)
    x = awkward(network.formats["x"], np.random.default_rng(2))[:, None]
    with float64():
        np.testing.assert_array_equal(call(to_qkeras(network, dtype="float64"), x), simulate(network, x))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_equal_the_simulator_in_float64(seed):
    rng = np.random.default_rng(seed)
    network, ranges = random_quantized(rng, low=-2.0, high=3.0)
    x = samples(rng, ranges, 200)
    beyond = samples(rng, ranges, 200, scale=50.0)
    with float64():
        model = to_qkeras(network, dtype="float64")
        np.testing.assert_array_equal(call(model, x), simulate(network, x))
        np.testing.assert_array_equal(model.predict(x, verbose=0), simulate(network, x))
        np.testing.assert_array_equal(call(model, beyond), simulate(network, beyond))


def rounded_output(seed: int, last: str) -> tuple[Pair, Box]:
    """A random network whose result is rounded to few bits, each output channel with a format of its own."""
    rng = np.random.default_rng(seed)
    plain = random_network(rng, (4, 6, 5, 3), linear=(1,))
    ends = {
        "dense": (),
        "positive": (),
        "relu": (Node("end", Relu(), ("dense_2",), "end"),),
        "reshape": (Node("end", Reshape((3,), (3, 1)), ("dense_2",), "end"),),
    }
    network = Network((*plain.nodes, *ends[last]))
    if last == "positive":
        above = dataclasses.replace(network.output.op, bias=np.full(3, 50.0))  # type: ignore[type-var]
        network = Network((*network.nodes[:-1], dataclasses.replace(network.output, op=above)))
    parameters = {n.name: by_channel(nearest(op, 7, 9), rng) for n, op in network.affine() if isinstance(op, Dense)}
    bits = {**dict.fromkeys(network.rounding_points, 6), network.output.name: int(rng.integers(-1, 5))}
    ranges = box(network, -3.0, 3.0)
    return with_parameters(network, ranges, parameters, bits), ranges


@BOTH
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("last", ["dense", "positive", "relu", "reshape"])
def test_a_rounded_output_and_channels_equal_the_simulator(dtype, seed, last):
    twin, ranges = rounded_output(seed, last)
    output = twin.formats[twin.network.output.name]
    assert output.signed == (last in ("dense", "reshape"))
    assert max(twin.accumulator_magnitudes.values()) <= 2**24
    x = samples(np.random.default_rng(seed), ranges, 200).astype(dtype)
    with float_type(dtype):
        found = call(to_qkeras(twin, dtype=dtype), x)
    np.testing.assert_array_equal(found, simulate(twin, x))
    exact = dataclasses.replace(twin, formats={n: f for n, f in twin.formats.items() if n != twin.network.output.name})
    assert np.any(found != simulate(exact, x))  # the rounding does something


@pytest.mark.parametrize("bits", [(20, 20), (30, 14), (10, 34)])
def test_wide_networks_equal_the_simulator_in_float64(bits):
    rng = np.random.default_rng(3)
    network = random_network(rng, (4, 6, 5, 2), linear=(1,))
    wide = quantized(network, box(network), *bits)
    x = samples(rng, box(network), 300)
    with float64():
        np.testing.assert_array_equal(call(to_qkeras(wide, dtype="float64"), x), simulate(wide, x))


@pytest.mark.parametrize("seed", range(8))
def test_float32_equals_the_simulator_where_sums_fit_24_bits(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, [int(size) for size in rng.integers(1, 30, size=3)])
    narrow = quantized(network, box(network), 7, 6)
    assert max(narrow.accumulator_magnitudes.values()) <= 2**24
    for scale in (1.0, 20.0):
        x = samples(rng, box(network), 300, scale).astype(np.float32)
        np.testing.assert_array_equal(call(to_qkeras(narrow), x), simulate(narrow, x))


@BOTH
@pytest.mark.parametrize("scaled", [True, False])
def test_a_relu_narrower_than_qkeras_can_say_saturates_all_the_same(dtype, scaled):
    kernel, integers = (
        np.ones((1, 1)),
        AffineCodes(np.ones((1, 1), np.int64), Format(2, 1, True), np.zeros(1, np.int64), Format(1, 0, False)),
    )
    nodes = (
        Node("x", Input((1,)), (), "x"),
        Node("a", Dense(kernel, np.zeros(1)), ("x",), "a"),
        Node("r", Relu(), ("a",), "a"),
        Node("b", Dense(kernel, np.zeros(1)), ("r",), "b"),
    )
    formats = {"x": Format(12, 2, True), "r": Format(3, -2, False)}
    network = Pair(Network(nodes), {"a": integers, "b": integers}, formats, {})
    x = np.linspace(-5, 5, 2001)[:, None].astype(dtype)
    with float_type(dtype):
        result = call(to_qkeras(network, dtype=dtype, scaled=scaled), x)
    np.testing.assert_array_equal(result, simulate(network, x))
    assert result.max() == formats["r"].maximum


def test_layers_names_and_strings():
    network = random_network(np.random.default_rng(4), (2, 3, 3, 1), linear=(1,))
    model = to_qkeras(quantized(network, box(network)))
    assert [(layer.name, type(layer).__name__) for layer in model.layers] == [
        ("x", "InputLayer"),
        ("x_rounded", "QActivation"),
        ("flatten", "Reshape"),
        ("dense_0", "QDense"),
        ("dense_0_relu", "QActivation"),
        ("dense_1", "QDense"),
        ("dense_1_rounded", "QActivation"),
        ("dense_2", "QDense"),
    ]
    assert model.get_layer("x_rounded").activation == "quantized_bits(8,1,keep_negative=1,alpha=1.0)"
    assert [quantizer.alpha for quantizer in model.get_layer("dense_0").quantizers] == [1.0, 0.5]


@pytest.mark.parametrize("head", ["softmax", "sigmoid", None])
def test_the_head_can_be_put_back(head):
    network = dataclasses.replace(random_network(np.random.default_rng(5), (3, 4, 2)), head=head)
    twin = quantized(network, box(network))
    x = samples(np.random.default_rng(5), box(network), 20)
    logits = simulate(twin, x).astype(np.float32)
    expected = keras.layers.Activation(head)(logits)
    np.testing.assert_allclose(call(to_qkeras(twin, head=True), x), expected, rtol=1e-6)
    np.testing.assert_array_equal(call(to_qkeras(twin), x), logits)


@BOTH
@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_a_saved_model_is_loaded_by_qkeras_and_trains(tmp_path, dtype, name):
    rng = np.random.default_rng(6)
    network = random_network(rng, (4, 6, 5, 2), linear=(1,))
    ranges: Box = box(network, -3.0, 3.0)
    twin = quantized(network, ranges)
    x = samples(rng, ranges, 64).astype(dtype)
    with float_type(dtype):
        save_model(to_qkeras(twin, dtype=dtype), tmp_path / name)
        for load in (qk.utils.load_qmodel, load_model):
            model = load(str(tmp_path / name))
            np.testing.assert_array_equal(call(model, x), simulate(twin, x))
        before = model.get_weights()
        model.compile(keras.optimizers.Adam(0.1), "mse")
        model.fit(x, simulate(twin, x) + 1.0, verbose=0)
        assert any(np.any(old != new) for old, new in zip(before, model.get_weights(), strict=True))
    assert [file.name for file in tmp_path.iterdir()] == [name]


# What QKeras asks of those who use it by itself.
KERAS_2 = {"TF_USE_LEGACY_KERAS": "1"}

PLAIN_SESSION = """
import sys, numpy as np
from qkeras.utils import load_qmodel
model = load_qmodel(sys.argv[1])
data = np.load(sys.argv[2])
np.testing.assert_array_equal(model.predict(data["x"], verbose=0), data["y"])
model.compile("adam", "mse")
model.fit(data["x"], data["y"], verbose=0)
assert not any(name.startswith("sound_qkeras") for name in sys.modules)
"""


@pytest.mark.slow
def test_a_plain_session_needs_nothing_of_ours(tmp_path):
    rng = np.random.default_rng(7)
    network = random_network(rng, (3, 6, 2))
    twin = quantized(network, box(network))
    x = samples(rng, box(network), 32).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=simulate(twin, x))
    save_model(to_qkeras(twin), tmp_path / "model.keras")
    command = [sys.executable, "-c", PLAIN_SESSION, tmp_path / "model.keras", tmp_path / "data.npz"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | KERAS_2, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_storage_refusals(tmp_path):
    network = random_network(np.random.default_rng(8), (3, 2))
    twin = quantized(network, box(network))
    with float64():
        model = to_qkeras(twin, dtype="float64")
        save_model(model, tmp_path / "exact.keras")
    with pytest.raises(InputError, match=r"float64 model and the session is in float32.*sound_qkeras\.float64\(\)"):
        load_model(tmp_path / "exact.keras")
    with pytest.raises(InputError, match=r"accepted: \.keras or \.h5"):
        save_model(model, tmp_path / "model.pb")
    with pytest.raises(InputError, match="cannot be written"):
        save_model(model, tmp_path / "nowhere" / "model.keras")
    with pytest.raises(FileFormatError, match="does not exist"):
        load_model(tmp_path / "missing.keras")


def test_refusals():
    codes = np.zeros((1, 1), np.int64)
    with pytest.raises(InputError, match=r"'d' kernel: .* one signed bit as sign"):
        to_qkeras(one_layer(Format(1, 0, True), codes))
    with pytest.raises(InputError, match=r"'d' kernel: .* integer_bits up to 30"):
        to_qkeras(one_layer(Format(8, 31, True), codes))
    with pytest.raises(InputError, match=r"'x' activation: .* needs 148 bits"):
        to_qkeras(one_layer(Format(8, 0, True), codes, Format(8, -140, True)))
    with pytest.raises(InputError, match="'float16' is not known"):
        to_qkeras(one_layer(Format(8, 0, True), codes), dtype="float16")  # type: ignore[arg-type]


def test_sums_beyond_53_bits_are_emitted_and_reported_as_inexact():
    wide = one_layer(Format(40, 0, True), np.full((1, 1), 2**38), Format(40, 0, True))
    assert wide.wide_layers == {"d"}
    to_qkeras(wide, dtype="float64")
    report = float_reports(wide, Interval(np.array([-0.9]), np.array([0.9])), 1e-3)[1]
    assert not report.exact
    assert report.bound > 1e-3


def test_the_configuration_quantises_the_original_model():
    model = sequential(
        LAYERS.Dense(6, activation="relu", name="inline"),
        LAYERS.Dense(5, name="linear"),
        LAYERS.Activation("relu", name="apart"),
        LAYERS.Dense(4, use_bias=False, name="before"),
        LAYERS.ReLU(name="rectifier"),
        LAYERS.Dropout(0.5),
        LAYERS.Dense(3, name="hidden"),
        LAYERS.Dense(2, activation="sigmoid", name="last"),
        shape=(3,),
    )
    network = read_model(model)
    twin = quantized(network, box(network))
    config = quantizer_config(twin)
    assert set(config) == {model.input_names[0], "inline", "linear", "apart", "before", "rectifier", "hidden", "last"}
    assert set(config["hidden"]) == {"kernel_quantizer", "bias_quantizer", "activation_quantizer"}
    assert set(config["linear"]) == {"kernel_quantizer", "bias_quantizer"}
    converted = model_quantize(model, config, transfer_weights=True)
    assert converted.get_layer("last").activation is keras.activations.sigmoid
    converted.get_layer("last").activation = None
    x = from_codes(twin.formats[network.nodes[0].name].quantize(inputs(model).clip(-1, 1)), 6)
    np.testing.assert_array_equal(call(converted, x), simulate(twin, x))


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_the_configuration_rounds_the_output_unless_a_head_is_in_its_place(activation):
    model = sequential(LAYERS.Dense(5, activation="relu", name="a"), LAYERS.Dense(2, activation, name="b"), shape=(3,))
    network = read_model(model)
    parameters = {node.name: nearest(op, 6, 8) for node, op in network.affine() if isinstance(op, Dense)}
    bits = dict.fromkeys((*network.rounding_points, network.output.name), 6)
    twin = with_parameters(network, box(network), parameters, bits)
    config = quantizer_config(twin)
    assert ("activation_quantizer" in config["b"]) == (activation is None)
    converted = model_quantize(model, config, transfer_weights=True)
    x = from_codes(twin.formats[network.nodes[0].name].quantize(inputs(model).clip(-1, 1)), 6)
    if activation is None:
        np.testing.assert_array_equal(call(converted, x), simulate(twin, x))
    else:
        assert converted.get_layer("b").activation is keras.activations.sigmoid


CONVERT = """
import sys
import numpy as np
import tf_keras
sys.modules["keras"] = tf_keras  # or hls4ml takes the model for a Keras 3 one
import hls4ml
from qkeras.utils import load_qmodel
model = load_qmodel(sys.argv[1], compile=False)
data = np.load(sys.argv[2])
config = hls4ml.utils.config_from_keras_model(model, granularity="name", backend="Vitis")
options = {"backend": "Vitis", "output_dir": sys.argv[3], "hls_config": config, "bit_exact": True}
hls = hls4ml.converters.convert_from_keras_model(model, **options)
hls.compile()
np.testing.assert_array_equal(hls.predict(data["x"]), data["y"])
"""


@pytest.mark.slow
@pytest.mark.hls
@pytest.mark.parametrize("scale", [1.0, 0.05], ids=["ordinary", "negative integer bits"])
def test_hls4ml_converts_it_bit_for_bit(tmp_path, scale):
    pytest.importorskip("hls4ml")
    rng = np.random.default_rng(9)
    network = random_network(rng, (5, 6, 5, 4, 2), linear=(1,))
    ranges = box(network, -scale, scale)
    twin = quantized(network, ranges, 7, 9)
    x = samples(rng, ranges, 200).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=simulate(twin, x))
    save_model(to_qkeras(twin, scaled=False), tmp_path / "model.h5")
    command = [sys.executable, "-c", CONVERT, tmp_path / "model.h5", tmp_path / "data.npz", tmp_path / "hls"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | KERAS_2, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
