"""The analytic estimate against slow definitions of the same quantities."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.backends.cost import bram_blocks, csd_digits, dsp_slices, estimate
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import Add, Input, LayerNorm, MatMul, MaxPool, Multiply, Permute, Relu, Scale, Upsample
from sound_qkeras.tuning.costs import cost_of
from tests.graphs import random_graph, random_twin
from tests.networks import nearest, with_parameters

from .networks import channelled, dense, steering


def signed_digits(number: int) -> list[int]:
    """Canonical signed digits, least significant first: no two neighbours are nonzero."""
    digits = []
    while number:
        digit = 0 if number % 2 == 0 else 2 - number % 4
        digits.append(digit)
        number = (number - digit) // 2
    return digits


@given(st.lists(st.integers(-(2**60), 2**60), min_size=1, max_size=20))
def test_signed_digits(numbers: list[int]):
    for number in numbers:
        digits = signed_digits(number)
        assert sum(digit * 2**place for place, digit in enumerate(digits)) == number
        assert not any(a and b for a, b in pairwise(digits))
    assert csd_digits(np.array(numbers)).tolist() == [sum(map(abs, signed_digits(number))) for number in numbers]


def test_every_quantity_of_a_small_network():
    quantized, _ = steering()
    cost = estimate(quantized)
    for node, op in quantized.network.affine():
        codes, layer = quantized.parameters[node.name], next(c for c in cost.layers if c.node == node.name)
        source = quantized.formats["x" if node.name == "dense" else "dense_relu"].word_length
        weights = [int(w) for w in codes.kernel.reshape(-1) if w]
        assert layer.weights == op.kernel.size
        assert layer.nonzero_weights == layer.products == len(weights)
        assert layer.multiplier_bits == len(weights) * codes.kernel_format.word_length * source
        chains = [sum(map(abs, signed_digits(w))) - 1 for w in weights]
        assert layer.constant_adders == sum(chains)
        terms = [int(np.count_nonzero(codes.kernel[:, k])) + (codes.bias[k] != 0) for k in range(codes.bias.size)]
        assert layer.sum_adders == sum(max(0, count - 1) for count in terms)
        width = quantized.accumulators[node.name].word_length
        in_constants = sum(n * (source + abs(w).bit_length()) for n, w in zip(chains, weights, strict=True))
        assert layer.adder_bits == in_constants + layer.sum_adders * width
        bias_bits = codes.bias.size * codes.bias_format.word_length
        assert layer.memory_bits == op.kernel.size * codes.kernel_format.word_length + bias_bits
    relu = next(layer for layer in cost.layers if layer.node == "dense_relu")
    assert relu.adder_bits == 4 * 6  # the rounding's increment
    assert cost.adders == cost.total("constant_adders") + cost.total("sum_adders")
    assert json.loads(json.dumps(cost.to_json()))["total"]["products"] == 13


def test_channels_count_their_own_bits():
    quantized, _ = channelled()
    found = estimate(quantized)
    first, last = (next(c for c in found.layers if c.node == name) for name in ("dense", "steer"))
    assert first.multiplier_bits == 8 * (2 * 5 + 2 * 6 + 2 * 3)
    assert first.memory_bits == 3 * (5 + 6 + 3 + 1) + 4 * 8
    assert last.multiplier_bits == 6 * (3 * 5 + 3 * 4)
    plain = replace(quantized.parameters["dense"], channel_formats=None)
    whole = estimate(replace(quantized, parameters={**quantized.parameters, "dense": plain}))
    assert whole.total("multiplier_bits") - found.total("multiplier_bits") == 8 * (6 * 6 - 28)
    assert whole.total("constant_adders") == found.total("constant_adders")  # trailing zeros cost no adder


def test_reuse_shares_multipliers():
    quantized, _ = dense((11, 20, 3), bits=10)
    full, shared = estimate(quantized).total("dsp"), estimate(quantized, reuse_factor=20).total("dsp")
    assert full == estimate(quantized).total("products")  # one slice each
    assert 0 < shared <= full // 20 + 2
    with pytest.raises(InputError, match="reuse_factor 0"):
        estimate(quantized, reuse_factor=0)


def test_large_layers_are_quick_and_need_block_memory():
    quantized, _ = dense((1001, 500, 2))
    cost = estimate(quantized)
    assert cost.total("weights") == 501_500
    assert cost.total("bram") >= cost.total("memory_bits") // 18432
    assert bram_blocks(500_500, 8) == 245


def test_operations_without_weights_are_counted():
    """A product, a sum of three, and pooling whose windows overhang, with every number written down."""
    nodes = [
        Node("x", Input((3, 3, 2)), (), "x"),
        Node("s", Scale(np.ones(2), np.zeros(2)), ("x",), "s"),
        Node("r", Relu(), ("s",), "r"),
        Node("m", Multiply(), ("r", "x"), "m"),
        Node("a", Add((False, True, False)), ("m", "x", "m"), "a"),
        Node("p", MaxPool((2, 2), (2, 2), "same"), ("a",), "p"),
        Node("u", Upsample((1, 2, 1)), ("p",), "u"),
    ]
    network = Network(tuple(nodes))
    parameters = {"s": nearest(network.by_name["s"].op, 2, 2)}
    box = np.full((3, 3, 2), -1.0), np.full((3, 3, 2), 1.0)
    quantized = with_parameters(network, box, parameters, {"x": 5, "r": 3})
    x, r = (quantized.formats[name].word_length for name in "xr")
    total = quantized.accumulators["a"].word_length
    *_, m, a, p, u = estimate(quantized, reuse_factor=4).layers
    assert (m.products, m.multiplier_bits, m.sum_adders) == (18, 18 * x * r, 18 * (min(x, r) - 1))
    assert m.adder_bits == m.sum_adders * max(x, r)
    assert (m.dsp, a.sum_adders, a.adder_bits) == (
        5 * dsp_slices(*(quantized.formats[n] for n in "xr")),
        36,
        36 * total,
    )
    # Four windows hold 4, 2, 2 and 1 of the 9 places.
    assert (p.sum_adders, p.adder_bits) == (2 * (3 + 1 + 1), 2 * 5 * total)
    assert (u.sum_adders, u.adder_bits, u.products) == (0, 0, 0)
    kernel = parameters["s"].kernel_format.word_length
    assert cost_of(quantized).bit_operations == 18 * (kernel * x + x * r)
    assert estimate(replace(quantized, accumulators={})).layers[4].adder_bits >= 36 * total


def test_products_of_tensors_and_normalisations_are_counted():
    nodes = [
        Node("x", Input((2, 3)), (), "x"),
        Node("s", Scale(np.ones(3), np.zeros(3)), ("x",), "s"),
        Node("t", Permute((1, 0)), ("x",), "t"),
        Node("m", MatMul(3), ("s", "t"), "m"),
        Node("n", LayerNorm(2, 1e-3), ("m",), "n"),
    ]
    network = Network(tuple(nodes))
    formats = {"x": Format(7, 1, True), "s": Format(5, 2, True), "m": Format(9, 4, True), "n": Format(8, 0, True)}
    quantized = Pair(network, {"s": nearest(network.by_name["s"].op, 2, 2)}, formats, {"m": Format(13, 5, True)})
    *_, m, n = estimate(quantized).layers
    assert (m.products, m.multiplier_bits, m.sum_adders) == (12, 12 * 5 * 7, 8)
    assert m.adder_bits == 8 * 13 + 4 * 9
    pair = quantized.pairs["n"]
    deviation = 1 + pair.largest_deviation.bit_length()
    root, square = pair.entry_bits + pair.shift + 1, pair.largest_square.bit_length()
    assert (n.products, n.sum_adders, n.memory_bits) == (10, 14, pair.codes.size * pair.width)
    assert n.multiplier_bits == 4 * 9 * deviation + 2 * pair.width * pair.shift + 4 * deviation * root
    assert n.adder_bits == 14 * square + 4 * 8
    kernel = quantized.parameters["s"].kernel_format.word_length
    assert cost_of(quantized).bit_operations == 6 * kernel * 7 + 12 * 5 * 7 + 8 * 9 * 9


def test_every_random_graph_has_a_cost():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        quantized, _ = random_twin(rng, random_graph(rng, 5))
        assert estimate(quantized).total("adder_bits") > 0
