"""Floating-point evaluation, in any order of summation, stays within the bound that is proved for it; exact is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sound_qkeras.fixed_point import Format
from sound_qkeras.floating.fixed import MANTISSA, float_reports
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Relu, Reshape
from sound_qkeras.network.simulate import simulate
from sound_qkeras.verify.split_tree import SplitTree

from ..networks import random_quantized, samples
from .twins import Case, cases, points, twin

Array = np.ndarray
Sum = Callable[[Array, Array, Array, np.random.Generator], Array]

SMALLEST_NORMAL = {np.float32: 2.0**-126, np.float64: 2.0**-1022}


def by_blas(x: Array, kernel: Array, bias: Array, rng: np.random.Generator) -> Array:
    """One matrix product over permuted inputs, then the bias."""
    order = rng.permutation(len(kernel))
    return x[:, order] @ kernel[order] + bias


def one_by_one(x: Array, kernel: Array, bias: Array, rng: np.random.Generator) -> Array:
    """In a random order, the bias anywhere among the products."""
    terms = [x[:, i : i + 1] * kernel[i] for i in range(len(kernel))] + [np.broadcast_to(bias, (len(x), len(bias)))]
    total = np.zeros_like(terms[-1])
    for number in rng.permutation(len(terms)):
        total = total + terms[number]
    return total


def in_pairs(x: Array, kernel: Array, bias: Array, rng: np.random.Generator) -> Array:
    """Random pairs of partial sums."""
    terms = [x[:, i : i + 1] * kernel[i] for i in range(len(kernel))] + [np.broadcast_to(bias, (len(x), len(bias)))]
    while len(terms) > 1:
        first, second = (terms.pop(int(rng.integers(len(terms)))) for _ in range(2))
        terms.append(first + second)
    return terms[0]


def fused(x: Array, kernel: Array, bias: Array, rng: np.random.Generator) -> Array:
    """Fused multiply-adds (for float32; float64 has none here)."""
    total = np.broadcast_to(bias, (len(x), len(bias)))
    for i in rng.permutation(len(kernel)):
        exact = x[:, i : i + 1].astype(np.float64) * kernel[i].astype(np.float64) + total.astype(np.float64)
        total = exact.astype(x.dtype)
    return total


def flushing(x: Array, kernel: Array, bias: Array, rng: np.random.Generator) -> Array:
    """Subnormal operands and results become zero."""

    def flush(value: Array) -> Array:
        return np.where(np.abs(value) < SMALLEST_NORMAL[value.dtype.type], value.dtype.type(0), value)

    total = np.broadcast_to(flush(bias), (len(x), len(bias)))
    for i in rng.permutation(len(kernel)):
        total = flush(total + flush(flush(x[:, i : i + 1]) * flush(kernel[i])))
    return total


SUMS: list[Sum] = [by_blas, one_by_one, in_pairs, fused, flushing]


def floating(quantized: Pair, x: Array, dtype: type, add: Sum, rng: np.random.Generator) -> Array:
    """What QKeras computes: parameters and values of one type, `x + (round(x) - x)` at rounding points."""
    values: dict[str, Array] = {}
    for node in quantized.network.nodes:
        op = node.op
        if isinstance(op, Input):
            y = x.astype(dtype)
        elif isinstance(op, Dense):
            codes = quantized.parameters[node.name]
            y = add(values[node.inputs[0]], codes.kernel_value.astype(dtype), codes.bias_value.astype(dtype), rng)
        elif isinstance(op, Relu):
            y = np.maximum(values[node.inputs[0]], dtype(0))
        else:
            assert isinstance(op, Reshape)
            y = values[node.inputs[0]].reshape(len(x), *op.shape)
        if node.name in quantized.formats:
            output = quantized.formats[node.name]
            code = np.rint(np.ldexp(y, output.fractional_bits))
            code = np.clip(code, dtype(output.min_code), dtype(output.max_code))
            y = y + (np.ldexp(code, -output.fractional_bits) - y)
        assert y.dtype == dtype
        values[node.name] = y
    return values[quantized.network.output.name].reshape(len(x), -1)


def worst(quantized: Pair, x: Array, dtype: type, add: Sum, rng: np.random.Generator) -> Fraction | None:
    """The largest difference to the integers, exactly; None where floating point gave no number."""
    with np.errstate(all="ignore"):
        found = floating(quantized, x, dtype, add, rng)
    if not np.all(np.isfinite(found)):
        return None
    name = quantized.network.output.name
    step = Fraction(2) ** -quantized.fractional_bits[name]
    codes = quantized.simulate_all(x)[name].reshape(len(x), -1)
    return max(abs(Fraction(float(f)) - int(c) * step) for f, c in zip(found.flat, codes.flat, strict=True))


def in_type(case: Case, dtype: type) -> Case:
    """The case on a box whose ends are numbers of the type."""
    low, high = (end.astype(dtype).astype(np.float64) for end in (case.box.lower, case.box.upper))
    bits = {name: output.fractional_bits for name, output in case.pair.formats.items()}
    box, tree = Interval(np.minimum(low, high), np.maximum(low, high)), SplitTree()
    quantized = twin(case.pair.network, dict(case.pair.parameters), bits, box, tree)
    return replace(case, pair=quantized, box=box, tree=tree)


def attack(case: Case, name: str) -> tuple[bool, bool]:
    """Whether exactness was claimed, and whether floating point was exact."""
    dtype = {"float32": np.float32, "float64": np.float64}[name]
    case = in_type(case, dtype)
    report = float_reports(case.pair, case.box, 0.0)[name == "float64"]
    x = points(case, 8).astype(dtype).astype(np.float64)
    x = np.clip(x, case.box.lower, case.box.upper)
    found = []
    for add in SUMS:
        if add is fused and dtype is np.float64:
            continue
        error = worst(case.pair, x, dtype, add, case.rng)
        assert report.error == np.inf or (error is not None and error <= Fraction(report.error)), add.__name__
        found.append(error)
    assert report.exact == (report.error == 0.0)
    return report.exact, not any(e is None or e > 0 for e in found)


def few(count: int):
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@few(18)
@given(cases(bits=st.integers(-2, 20), folded=False))
def test_float32_stays_within_its_bound(case):
    attack(case, "float32")


@few(8)
@given(cases(bits=st.integers(12, 40), folded=False, largest_width=5))
def test_float64_stays_within_its_bound(case):
    attack(case, "float64")


@pytest.mark.slow
@few(800)
@given(cases(bits=st.integers(-2, 26), folded=False), st.sampled_from(["float32", "float64"]))
def test_floating_point_stays_within_its_bound_at_length(case, name):
    attack(case, name)


def test_exactness_is_claimed_where_it_is_and_not_where_it_is_not():
    """Otherwise the tests above would be about nothing."""
    seen = []

    @few(16)
    @given(cases(bits=st.integers(0, 16), folded=False, largest_width=5))
    def collect(case):
        seen.append(attack(case, "float32"))

    collect()
    claimed = [exact for is_claimed, exact in seen if is_claimed]
    assert all(claimed)
    assert len(claimed) > 2
    assert sum(not exact for _, exact in seen) > 1


# Exponents near the ends of float32.


def chain(weight: float, kernel_bits: int, input_bits: int, depth: int = 1) -> Pair:
    """`x * weight`, then times one, in 8-bit formats."""
    nodes = [Node("x", Input((1,)), (), "x")]
    codes, formats = {}, {"x": Format(8, 7 - input_bits, True)}
    for number in range(depth):
        name = f"d{number}"
        nodes.append(Node(name, Dense(np.array([[weight]]), np.zeros(1)), (nodes[-1].name,), name))
        codes[name] = AffineCodes(
            np.array([[int(np.ldexp(weight, kernel_bits))]]),
            Format(8, 7 - kernel_bits, True),
            np.array([0]),
            Format(2, 0, True),
        )
        if number < depth - 1:
            formats[name] = Format(8, 7 - input_bits, True)
    return Pair(Network(tuple(nodes)), codes, formats, {})


@pytest.mark.parametrize(
    ("weight", "largest"), [(2.0**-80, 2.0**-78), (2.0**-120, 2.0**-10), (2.0**-63, 2.0**-63), (2.0**-62, 2.0**-60)]
)
def test_products_below_float32_are_no_claim(weight, largest):
    quantized = chain(weight, -int(np.log2(weight)), 3 - int(np.log2(largest)))
    box = Interval(np.array([-largest]), np.array([largest]))
    report = float_reports(quantized, box, 0.0)[0]
    x = np.linspace(-largest, largest, 17)[:, None]
    for add in SUMS:
        error = worst(quantized, x, np.float32, add, np.random.default_rng(0))
        assert report.error == np.inf or (error is not None and error <= Fraction(report.error))


@pytest.mark.parametrize("exponent", range(110, 150, 3))
def test_tiny_steps_are_exact_or_not_claimed(exponent):
    quantized = chain(1.0, 4, exponent)
    largest = 2.0 ** (3 - exponent)
    report = float_reports(quantized, Interval(np.array([-largest]), np.array([largest])), 0.0)[0]
    x = np.linspace(-largest, largest, 33)[:, None].astype(np.float32).astype(np.float64)
    for add in SUMS:
        error = worst(quantized, x, np.float32, add, np.random.default_rng(0))
        assert not report.exact or error == 0
    assert report.exact == (exponent + 4 <= 125)


@pytest.mark.parametrize("exponent", [60, 62, 63, 64, 100, 126])
def test_products_above_float32_are_no_claim(exponent):
    quantized = chain(2.0**exponent, 2 - exponent, 2 - exponent)
    box = Interval(np.array([0.0]), np.array([2.0**exponent]))
    report = float_reports(quantized, box, 0.0)[0]
    error = worst(quantized, np.array([[2.0**exponent]]), np.float32, by_blas, np.random.default_rng(0))
    assert report.error == np.inf or (error is not None and error <= Fraction(report.error))
    assert exponent < 64 or report.error == np.inf


def test_a_word_of_more_than_24_bits_is_not_exact_in_float32():
    weight = 1.0 + 2.0**-30
    codes = AffineCodes(np.array([[2**30 + 1]]), Format(32, 1, True), np.array([0]), Format(2, 0, True))
    network = Network(
        (Node("x", Input((1,)), (), "x"), Node("d", Dense(np.array([[weight]]), np.zeros(1)), ("x",), "d"))
    )
    quantized = Pair(network, {"d": codes}, {"x": Format(4, 1, True)}, {})
    box = Interval(np.array([-1.0]), np.array([1.0]))
    single, double = float_reports(quantized, box, 0.25)
    assert not single.exact
    assert single.error >= 2.0**-30
    assert single.bound >= 0.25 + single.error
    assert double.exact
    assert double.bound == 0.25


@pytest.mark.parametrize("terms", [2**12 - 1, 2**12, 2**12 + 1])
def test_a_sum_is_exact_up_to_24_bits_and_not_beyond(terms):
    """All products are 2**12 steps: with 2**12 of them the sum just fits."""
    codes = AffineCodes(np.full((terms, 1), 64), Format(8, 7, True), np.array([0]), Format(2, 1, True))
    network = Network(
        (Node("x", Input((terms,)), (), "x"), Node("d", Dense(np.full((terms, 1), 64.0), np.zeros(1)), ("x",), "d"))
    )
    quantized = Pair(network, {"d": codes}, {"x": Format(8, 7, True)}, {})
    box = Interval(np.full(terms, 64.0), np.full(terms, 64.0))
    assert float_reports(quantized, box, 0.0)[0].exact == (terms < 2**12)


def test_an_error_crosses_ties():
    """A first layer that is off by a part of a step may end up on the next code."""
    found = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        wide = [Format(30, 2, True), Format(30, 3, True)]
        kernel = rng.normal(size=(8, 4))
        codes = {
            "a": AffineCodes(wide[0].quantize(kernel), wide[0], np.zeros(4, np.int64), wide[1]),
            "b": AffineCodes(np.ones((4, 1), np.int64), Format(2, 1, True), np.array([0]), Format(2, 1, True)),
        }
        nodes = (
            Node("x", Input((8,)), (), "x"),
            Node("a", Dense(kernel, np.zeros(4)), ("x",), "a"),
            Node("b", Dense(np.ones((4, 1)), np.zeros(1)), ("a",), "b"),
        )
        box = Interval(-np.ones(8), np.ones(8))
        quantized = twin(Network(nodes), codes, {"x": 20, "a": 22}, box)
        report = float_reports(quantized, box, 0.0)[0]
        x = samples(rng, (box.lower, box.upper), 200).astype(np.float32).astype(np.float64)
        error = worst(quantized, x, np.float32, by_blas, rng)
        assert error is not None
        assert error <= Fraction(report.error)
        assert report.error >= 4 * 2.0**-22
        found += error > 0
    assert found > 6


def near_ties(input_bits: int, weight: int, weight_bits: int, hidden_bits: int) -> tuple[Pair, Interval, Array]:
    """`x * weight` rounded to so many bits, then times eight; and the inputs whose products are closest to ties."""
    codes = {
        "a": AffineCodes(np.array([[weight]]), Format(40, 39 - weight_bits, True), np.array([0]), Format(2, 1, True)),
        "b": AffineCodes(np.array([[8]]), Format(5, 4, True), np.array([0]), Format(2, 1, True)),
    }
    nodes = (
        Node("x", Input((1,)), (), "x"),
        Node("a", Dense(np.array([[float(np.ldexp(weight, -weight_bits))]]), np.zeros(1)), ("x",), "a"),
        Node("b", Dense(np.array([[8.0]]), np.zeros(1)), ("a",), "b"),
    )
    box = Interval(np.array([0.0]), np.array([1.0]))
    quantized = twin(Network(nodes), codes, {"x": input_bits, "a": hidden_bits}, box)
    every = np.arange(2**input_bits, dtype=np.int64)
    dropped = input_bits + weight_bits - hidden_bits
    rest = np.abs((every * weight) % (1 << dropped) - (1 << (dropped - 1)))
    return quantized, box, np.ldexp(every[np.argsort(rest)[:200]].astype(np.float64), -input_bits)[:, None]


@pytest.mark.parametrize("hidden_bits", [8, 12, 14])
def test_an_error_far_below_a_step_still_crosses_ties(hidden_bits):
    """The weight is a half and a little more: float32 drops that little, and with it which side of a tie the product is on."""
    quantized, box, x = near_ties(14, 2**28 + 1, 29, hidden_bits)
    report = float_reports(quantized, box, 0.0)[0]
    error = worst(quantized, x, np.float32, by_blas, np.random.default_rng(0))
    assert error is not None
    assert 8 * Fraction(2) ** -hidden_bits <= error <= Fraction(report.error)


@pytest.mark.parametrize("terms", [1, 16, 200])
def test_every_rounding_of_a_sum_counts(terms):
    """Each product is five eighths of the last bit of the sum so far, and is rounded up to one."""
    codes = AffineCodes(np.full((terms, 1), 5), Format(8, -19, True), np.array([2**26]), Format(28, 1, True))
    kernel = np.full((terms, 1), 5 * 2.0**-26)
    nodes = (Node("x", Input((terms,)), (), "x"), Node("d", Dense(kernel, np.ones(1)), ("x",), "d"))
    quantized = Pair(Network(nodes), {"d": codes}, {"x": Format(2, 1, True)}, {})
    box = Interval(np.ones(terms), np.ones(terms))
    total = np.float32(1.0)
    for _ in range(terms):
        total = np.float32(total + np.float32(5 * 2.0**-26))
    error = abs(Fraction(float(total)) - 1 - terms * Fraction(5, 2**26))
    assert error == terms * Fraction(3, 2**26)
    assert error <= Fraction(float_reports(quantized, box, 0.0)[0].error)


def test_the_types_are_those_of_numpy():
    assert {name: np.finfo(name).nmant + 1 for name in MANTISSA} == MANTISSA


@pytest.mark.keras
@pytest.mark.parametrize("seed", range(6))
def test_qkeras_in_float32_stays_within_its_bound(seed):
    from sound_qkeras.keras_io import to_qkeras

    rng = np.random.default_rng(seed)
    quantized, ranges = random_quantized(rng, sizes=[5, 12, 7, 3])
    report = float_reports(quantized, Interval(*ranges), 0.0)[0]
    x = samples(rng, ranges, 200).astype(np.float32)
    found = np.asarray(to_qkeras(quantized)(x)).astype(np.float64)
    error = np.abs(found - simulate(quantized, x.astype(np.float64))).max()
    assert error <= report.error
    assert not report.exact or error == 0.0
