"""The integer simulator against exact fractions, where sums are wide and where values saturate: no tolerance."""

from __future__ import annotations

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Relu

from .twins import cases, fractions, values


def saturating(x: np.ndarray, output: Format) -> list[int]:
    """Codes of exact values: half to even, then the ends of the format."""
    codes = [round(value * Fraction(2) ** output.fractional_bits) for value in x]
    return [min(max(code, output.min_code), output.max_code) for code in codes]


def exact_values(quantized: Pair, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every node's fixed-point value at one point, anywhere."""
    found: dict[str, np.ndarray] = {}
    for node in quantized.network.nodes:
        value = found[node.inputs[0]] if node.inputs else fractions(x.reshape(-1))
        if isinstance(node.op, Dense):
            codes = quantized.parameters[node.name]
            value = value @ values(codes.kernel, codes.kernel_format) + values(codes.bias, codes.bias_format)
        elif isinstance(node.op, Relu):
            value = np.maximum(value, 0)
        if node.name in quantized.formats:
            output = quantized.formats[node.name]
            value = values(np.array(saturating(value, output), dtype=object), output)
        found[node.name] = value
    return found


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases(bits=st.integers(0, 44), largest_width=5), st.sampled_from([1.0, 3.0, 1e3]))
def test_every_code_is_exact_inside_the_box_and_far_outside(case, scale):
    quantized, box = case.pair, case.box
    x = box.center + scale * (case.rng.random((6, *box.shape)) - 0.5) * (box.upper - box.lower + (scale > 1.0))
    simulated = quantized.simulate_all(x)
    for number, point in enumerate(x):
        for name, value in exact_values(quantized, point).items():
            step = Fraction(2) ** -quantized.fractional_bits[name]
            assert [int(code) * step for code in simulated[name][number].reshape(-1)] == list(value), name


def scaled_by(shift: int, input_bits: int, weight: int, bias: int = 0, ends: Format | None = None) -> Pair:
    """`x -> weight * x + bias`, codes rounded after a shift by so many bits, and then read once more."""
    one = Dense(np.ones((1, 1)), np.zeros(1))
    nodes = (Node("x", Input((1,)), (), "x"), Node("a", one, ("x",), "a"), Node("b", one, ("a",), "b"))
    wide = Format(53, 52 + shift // 2, True)
    half = shift - (shift // 2)
    plain = AffineCodes(np.array([[1]]), Format(2, 1, True), np.array([0]), Format(2, 1, True))
    codes = AffineCodes(np.array([[weight]]), wide, np.array([bias]), Format(53, 52 + shift // 2, True))
    formats = {"x": Format(input_bits, input_bits - 1, True), "a": ends or Format(12, 11 - half, True)}
    return Pair(Network(nodes), {"a": codes, "b": plain}, formats, {})


@pytest.mark.parametrize(
    "shift", [-130, -90, -70, -65, -64, -63, -62, -61, -54, -40, -20, -3, -1, 0, 1, 2, 5, 11, 30, 64]
)
@pytest.mark.parametrize(
    ("input_bits", "weight"), [(20, 3), (30, 2**25 + 1), (31, 2**30 - 1), (40, 2**30 + 1), (50, 2**50 + 1)]
)
def test_rounding_wide_sums_is_exact_for_every_shift(shift, input_bits, weight):
    quantized = scaled_by(shift, input_bits, weight)
    largest = 2 ** (input_bits - 1)
    ends = [0, 1, -1, 2, -2, 3, largest - 1, -largest, largest // 2, largest // 2 + 1, -largest // 2, -largest // 2 - 1]
    x = np.array([*ends, 4 * largest, -4 * largest], dtype=np.float64)[:, None]
    simulated = quantized.simulate_all(x)
    for number, point in enumerate(x):
        value = exact_values(quantized, point)["a"]
        step = Fraction(2) ** -quantized.fractional_bits["a"]
        assert int(simulated["a"][number, 0]) * step == value[0]


@pytest.mark.parametrize("bits", [20, 50, 61, 62, 63, 64, 80, 120])
@pytest.mark.parametrize("zero", ["weight", "bias"])
def test_a_parameter_of_zero_may_have_any_point(bits, zero):
    """Codes of zero cost nothing, however far their point is from the others'."""
    one = Dense(np.ones((1, 1)), np.zeros(1))
    network = Network((Node("x", Input((1,)), (), "x"), Node("a", one, ("x",), "a")))
    fine, wide = Format(2, 1 - bits, True), Format(53, 20, True)
    codes = AffineCodes(np.array([[0]]), fine, np.array([2**45 + 1]), wide)
    if zero == "bias":
        codes = AffineCodes(np.array([[2**45 + 1]]), wide, np.array([0]), fine)
    quantized = Pair(network, {"a": codes}, {"x": Format(16, 15, True)}, {})
    for x in (-7.0, 0.0, 3.0, 1e9):
        point = np.array([x])
        found = quantized.simulate_all(point[None])["a"][0, 0]
        assert int(found) * Fraction(2) ** -quantized.fractional_bits["a"] == exact_values(quantized, point)["a"][0]
