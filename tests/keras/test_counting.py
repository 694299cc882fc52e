"""AutoQKeras' own counter finds as many bits in an emitted model as the cost says, which computes the same all the same."""

import dataclasses

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io import float64, load_model, read_model, save_model, to_qkeras
from sound_qkeras.keras_io.autoqkeras.sizes import model_bits
from sound_qkeras.keras_io.session.environment import float_type
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Conv, Dense, Input
from sound_qkeras.network.simulate import simulate
from sound_qkeras.tuning.costs import cost_of
from tests.networks import box, nearest, quantized, random_network, random_quantized, samples, with_parameters

from .models import LAYERS, keras, sequential

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]


def counted(pair: Pair, model=None) -> tuple[int, int, int]:
    """Bits of weights, biases and activations as AutoQKeras counts them."""
    found = model_bits(to_qkeras(pair) if model is None else model, input_bits=0)
    return found.weight_bits, found.bias_bits, found.activation_bits


def expected(pair: Pair) -> tuple[int, int, int]:
    cost = cost_of(pair)
    return cost.weight_bits, cost.bias_bits, cost.activation_bits


def alike(pair: Pair, x) -> None:
    """Both float types compute the integers, inside of what the formats hold and beyond."""
    np.testing.assert_array_equal(
        np.asarray(to_qkeras(pair)(x.astype(np.float32))), simulate(pair, x.astype(np.float32))
    )
    with float64():
        np.testing.assert_array_equal(np.asarray(to_qkeras(pair, dtype="float64")(x)), simulate(pair, x))


def small() -> Pair:
    """Weights and results far below one."""
    network = random_network(np.random.default_rng(0), (4, 6, 5, 2), linear=(1,))
    ranges = box(network, -0.02, 0.02)
    made = quantized(network, ranges, 11, 12)
    assert min(output.integer_bits for output in made.formats.values()) < -1
    assert min(codes.bias_format.integer_bits for codes in made.parameters.values()) < 0
    return made


def of_channels(shifts=(0, 3, 1, 6, 2)) -> Pair:
    """A kernel whose channels have words of one length and steps of their own."""
    rng = np.random.default_rng(1)
    pair = quantized(random_network(rng, (4, 5, 2)), box(random_network(rng, (4, 5, 2))), 5, 9)
    own = rng.integers(-8, 8, (4, len(shifts)))
    own[0] = -8
    formats = tuple(Format(4, 1 + shift, True) for shift in shifts)
    kernel, finest = own << np.array(shifts), 2
    held = Format(4 + max(shifts), 1 + max(shifts), True)
    first = dataclasses.replace(pair.parameters["dense_0"], kernel=kernel, kernel_format=held, channel_formats=formats)
    assert held.fractional_bits == finest
    return dataclasses.replace(pair, parameters={**pair.parameters, "dense_0": first})


def zeros() -> Pair:
    """Kernels and biases of zeros and ones, in one bit."""
    nodes = [Node("x", Input((3,)), (), "x")]
    parameters = {}
    for name, code in (("zeros", 0), ("ones", 1)):
        kernel = np.full((3, 3), code)
        nodes.append(Node(name, Dense(0.125 * kernel, np.zeros(3)), (nodes[-1].name,), name))
        one = Format(1, -2, False)
        parameters[name] = AffineCodes(kernel, one, np.zeros(3, np.int64), Format(1, -7, False))
    formats = {"x": Format(5, -1, True), "zeros": Format(1, -9, False)}
    return Pair(Network(tuple(nodes)), parameters, formats, {})


def of_model(model) -> Pair:
    network = read_model(model)
    ranges = box(network, -0.1, 0.1)
    parameters = {}
    for node, op in network.owners():
        codes = nearest(op, 9, 10)
        if isinstance(op, Conv) and op.is_depthwise:
            # Every channel in as many bits, with a step of its own.
            channels = op.kernel.shape[-1]
            shifts = np.arange(channels) % 3
            own = np.clip(codes.kernel >> 4, -7, 7)
            formats = tuple(Format(4, 3 - 9 + int(shift), True) for shift in shifts)
            held = Format(6, -4, True)
            codes = dataclasses.replace(codes, kernel=own << shifts, kernel_format=held, channel_formats=formats)
        parameters[node.name] = codes
    return with_parameters(network, ranges, parameters, dict.fromkeys(network.rounding_points, 11))


def tables() -> Pair:
    """Tables and a normalisation, whose results are values too."""
    model = sequential(
        LAYERS.Dense(4, activation="tanh"), LAYERS.LayerNormalization(), LAYERS.Dense(3, activation="sigmoid"),
        LAYERS.Dense(2), shape=(3,),
    )  # fmt: skip
    return sq.quantize(model, 0.5, (-0.1, 0.1), effort="fast").pair


def convolutions() -> Pair:
    layers = (
        LAYERS.Conv2D(3, 3, activation="relu", use_bias=False),
        LAYERS.DepthwiseConv2D(2, depth_multiplier=2),
        LAYERS.Flatten(),
        LAYERS.Dense(2),
    )
    return of_model(sequential(*layers, shape=(5, 5, 2)))


NETWORKS = {"small": small, "channels": of_channels, "zeros": zeros, "convolutions": convolutions, "tables": tables}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_autoqkeras_counts_the_bits_of_the_cost(make):
    pair = make()
    assert counted(pair) == expected(pair)
    x = np.random.default_rng(0).uniform(-0.02, 0.02, (100, *pair.network.input_shape))
    alike(pair, np.concatenate([x, 100.0 * x]))
    wide = counted(pair, to_qkeras(pair, scaled=False))
    assert wide != expected(pair)  # without scales, and values of tables


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_scales_of_channels_are_saved_loaded_and_trained(tmp_path, name):
    for make in (of_channels, convolutions):
        pair = make()
        save_model(to_qkeras(pair), tmp_path / name)
        model = load_model(tmp_path / name)
        x = np.random.default_rng(0).uniform(-1, 1, (64, *pair.network.input_shape)).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(model(x)), simulate(pair, x))
        assert counted(pair, model) == expected(pair)
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(np.asarray(copy(x)), simulate(pair, x))
        wanted = simulate(pair, x) + 1.0
        model.compile(keras.optimizers.Adam(0.03), "mse")
        before = model.evaluate(x, wanted, verbose=0)
        model.fit(x, wanted, epochs=5, verbose=0)
        assert model.evaluate(x, wanted, verbose=0) < before


def test_channels_of_different_lengths_count_as_the_longest():
    rng = np.random.default_rng(0)
    pair = of_channels((0, 0, 1, 1, 6))
    codes = pair.parameters["dense_0"]
    short = tuple(Format(2, output.integer_bits - 2, True) for output in codes.own_formats[:2])
    kernel = codes.kernel.copy()
    kernel[:, :2] = rng.integers(-2, 2, (4, 2))
    kernel[:, 1] = [1, 0, 1, -2]
    mixed = dataclasses.replace(codes, kernel=kernel, channel_formats=(*short, *codes.own_formats[2:]))
    pair = dataclasses.replace(pair, parameters={**pair.parameters, "dense_0": mixed})
    assert counted(pair)[0] - expected(pair)[0] == 4 * 2 * (4 - 2)
    alike(pair, rng.uniform(-1, 1, (50, *pair.network.input_shape)))


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_count_as_they_cost(seed):
    rng = np.random.default_rng(seed)
    pair, ranges = random_quantized(rng, low=-0.1, high=0.2)
    assert counted(pair) == expected(pair)
    alike(pair, samples(rng, ranges, 100, scale=20.0))


def test_a_word_that_float32_cannot_scale_is_a_wider_one():
    pair = zeros()
    held = Format(24, -3, True)
    kernel = np.array([[held.min_code, held.max_code, 1], [12345677, -7654321, 0], [3, 5, 7]])
    kernel = np.clip(kernel, held.min_code, held.max_code)
    codes = dataclasses.replace(pair.parameters["zeros"], kernel=kernel, kernel_format=held)
    pair = dataclasses.replace(pair, parameters={**pair.parameters, "zeros": codes})
    for dtype, bits in (("float32", 27), ("float64", 24)):
        with float_type(dtype):
            layer = to_qkeras(pair, dtype=dtype).get_layer("zeros")
            assert layer.get_quantizers()[0].bits == bits
            np.testing.assert_array_equal(np.asarray(layer.get_quantizers()[0](layer.kernel)), codes.kernel_value)
