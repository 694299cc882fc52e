"""Dense against exact fractions: values, differences, linear forms and integers."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import AffineCodes, AffinePair, Dense, Facts, Relu, Remainder, Rows, Scale

from .rationals import (
    arrays,
    choices,
    denses,
    draw_codes,
    encloses,
    exact_codes,
    exact_parameters,
    intervals,
    member,
    reals,
    to_fractions,
)

# A part of a radius: the exact parameters lie anywhere between the centres minus and plus the radii.
PARTS = st.sampled_from([-1.0, 1.0, 0.0, 0.5])
LARGEST = st.sampled_from([1.0, 1e38])
DENSES = denses()
BOXES = 2


def draw_case(draw):
    """An operation, its integers, facts about its input, and exact members of all of them."""
    op, codes = draw(DENSES)
    x = draw(intervals(BOXES, op.fan_in))
    d = draw(intervals(BOXES, op.fan_in, largest=draw(LARGEST)))
    value, difference = (member(i, draw(choices(BOXES, op.fan_in))) for i in (x, d))
    return op, codes, Facts(x, x + d, d), value, difference, exact_parameters(op, draw(PARTS))


cases = st.composite(draw_case)


@given(cases())
def test_interval_encloses_the_real_result(case):
    op, _, facts, x, _, (kernel, bias) = case
    assert encloses(op.interval(facts.value), x @ kernel + bias)


@given(cases())
def test_fixed_interval_encloses_the_result_of_the_integers(case):
    op, codes, facts, x, _, _ = case
    kernel, bias = exact_codes(codes)
    assert encloses(op.fixed_interval(AffinePair(op, codes), facts.value), x @ kernel + bias)


@given(cases())
def test_difference_encloses_fixed_minus_real(case):
    op, codes, facts, x, d, (kernel, bias) = case
    fixed_kernel, fixed_bias = exact_codes(codes)
    exact = (x + d) @ fixed_kernel + fixed_bias - (x @ kernel + bias)
    assert encloses(op.difference(AffinePair(op, codes), facts), exact)


@given(cases())
def test_residuals_are_known_up_to_their_slack(case):
    op, codes, _, _, _, parameters = case
    pair = AffinePair(op, codes)
    residuals = ((pair.kernel_residual, pair.kernel_slack), (pair.bias_residual, pair.bias_slack))
    for (center, slack), fixed, real in zip(residuals, exact_codes(codes), parameters, strict=True):
        radius = np.zeros_like(center) if slack is None else slack
        error = np.abs(fixed - real - to_fractions(center))
        assert (error <= to_fractions(radius)).all()


def form(rows, value, difference):
    """The exact value of linear forms `(boxes, rows)` at exact members `(boxes, n)`."""
    total = Fraction(0)
    if rows.value is not None:
        total = total + (to_fractions(rows.value) * value[:, None]).sum(axis=-1)
    if rows.difference is not None:
        total = total + (to_fractions(rows.difference) * difference[:, None]).sum(axis=-1)
    return total


def draw_rows(draw, size, which):
    """Linear forms in a result of some size: two rows per box, awkward coefficients."""
    coefficients = [draw(arrays(reals(1e30), BOXES, 2, size)) for _ in range(2)]
    return Rows(coefficients[0] if "p" in which else None, coefficients[1] if "a" in which else None)


@pytest.mark.parametrize("which", ["p", "a", "ap"])
@given(data=st.data())
def test_adjoint_keeps_the_value_of_every_form(which, data):
    op, codes, facts, x, d, (kernel, bias) = draw_case(data.draw)
    rows = draw_rows(data.draw, op.fan_out, which)
    before = Remainder(*(data.draw(arrays(reals(), BOXES, 2)) for _ in range(2)))
    before.radius = np.abs(before.radius)
    remainder = Remainder(before.center, before.radius)
    pair = AffinePair(op, codes) if "a" in which else None
    (pulled,) = op.adjoint(pair, rows, remainder, facts if "a" in which else Facts(facts.value))

    fixed_kernel, fixed_bias = exact_codes(codes)
    y = x @ kernel + bias
    moved = form(rows, y, (x + d) @ fixed_kernel + fixed_bias - y) - form(pulled, x, d)
    for sign in (-1, 1):
        start = to_fractions(before.center) + sign * to_fractions(before.radius)
        assert encloses(remainder.enclose(), start + moved)


@pytest.mark.parametrize(("boxes", "inputs", "outputs"), [(3, 60, 40), (2, 1, 90), (1, 90, 1)])
def test_wide_layers_are_enclosed(boxes, inputs, outputs):
    """Cancelling sums of many terms, where the roundings of the products are all there is to enclose."""
    rng = np.random.default_rng(5)
    kernel = rng.normal(size=(inputs, outputs)).astype(np.float32).astype(np.float64)
    op = Dense(kernel, np.zeros(outputs))
    codes = AffineCodes(
        Format(12, 3, True).quantize(kernel), Format(12, 3, True), np.zeros(outputs, np.int64), Format(2, 0, True)
    )
    x, d = rng.normal(size=(boxes, inputs)), 1e-3 * rng.normal(size=(boxes, inputs))
    facts = Facts(Interval.point(x), Interval.point(x), Interval.point(d))
    exact_x, exact_d, exact_kernel = to_fractions(x), to_fractions(d), to_fractions(kernel)
    fixed_kernel, _ = exact_codes(codes)
    y = exact_x @ exact_kernel
    e = (exact_x + exact_d) @ fixed_kernel - y
    assert encloses(op.interval(facts.value), y)
    assert encloses(op.difference(AffinePair(op, codes), facts), e)
    rows = Rows(rng.normal(size=(boxes, 4, outputs)), rng.normal(size=(boxes, 4, outputs)))
    remainder = Remainder.zero(boxes, 4)
    (pulled,) = op.adjoint(AffinePair(op, codes), rows, remainder, facts)
    assert encloses(remainder.enclose(), form(rows, y, e) - form(pulled, exact_x, exact_d))


def far_codes(kernel, bias):
    """Integers so far below the parameters that all saturate: residuals are as long as the parameters themselves."""
    output = Format(20, -10, True)
    return AffineCodes(output.quantize(kernel), output, output.quantize(bias), output)


@pytest.mark.parametrize("seed", range(8))
def test_the_corner_of_a_symmetric_box_is_enclosed(seed):
    """The centre is zero, so every rounding is one of the radius: the corner `sign(W)` reaches the sum of `|W| r`."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(70, 1)).astype(np.float32).astype(np.float64)
    op, half = Dense(kernel, np.zeros(1)), np.abs(rng.normal(size=(1, 70)))
    box, zero = Interval(-half, half), Interval.point(np.zeros((1, 70)))
    corner = to_fractions(half * np.sign(kernel[:, 0]))
    pair = AffinePair(op, far_codes(kernel, np.zeros(1)))
    y = corner @ to_fractions(kernel)
    fixed = corner @ exact_codes(pair.codes)[0]
    for image, exact in (
        (op.interval(box), y),
        (op.fixed_interval(pair, box), fixed),
        (op.difference(pair, Facts(box, box, zero)), fixed - y),
        (op.difference(pair, Facts(zero, box, box)), fixed),
    ):
        assert encloses(image, exact)
        assert encloses(image, -exact)


def test_a_radius_that_loses_all_its_small_terms_is_made_up_for():
    """Each small term is below half a unit in the last place of the large one it is added to."""
    small = np.full((1, 20_000), 2.0**-54)
    small[0, ::1000] = 1.0
    op, zero = Dense(np.ones((20_000, 1)), np.zeros(1)), Interval.point(np.zeros((1, 20_000)))
    box = Interval(-small, small)
    pair = AffinePair(op, far_codes(op.kernel, op.bias))
    exact = np.array([[20 + Fraction(19_980, 2**54)]])
    step = Fraction(float(pair.kernel[0, 0]))
    for image, factor in (
        (op.interval(box), Fraction(1)),
        (op.fixed_interval(pair, box), step),
        (op.difference(pair, Facts(box, box, zero)), step - 1),
        (op.difference(pair, Facts(zero, box, box)), step),
    ):
        assert encloses(image, factor * exact)
        assert encloses(image, -factor * exact)


@pytest.mark.parametrize("which", ["p", "a"])
@pytest.mark.parametrize("seed", range(4))
def test_the_rounding_of_the_constant_is_charged(which, seed):
    """Nothing but a long sum of biases, or of bias residuals, that cancels."""
    rng = np.random.default_rng(seed)
    bias = rng.normal(size=300).astype(np.float32).astype(np.float64)
    op = Dense(np.zeros((1, 300)), bias)
    pair = AffinePair(op, far_codes(op.kernel, bias))
    zero = Interval.point(np.zeros((1, 1)))
    c = rng.normal(size=(1, 5, 300))
    remainder = Remainder.zero(1, 5)
    op.adjoint(pair, Rows(c if which == "p" else None, c if which == "a" else None), remainder, Facts(zero, zero, zero))
    constant = to_fractions(bias) if which == "p" else exact_codes(pair.codes)[1] - to_fractions(bias)
    assert encloses(remainder.enclose(), to_fractions(c) @ constant)


def test_a_constant_of_many_places_is_charged_for_all_of_them():
    """A scale adds one bias at every place, and numpy's sum of them is off by far more than one layer's terms say."""
    shape = (256, 256, 1)
    op = Scale(np.zeros(1), np.array([0.1]))
    zero = Interval.point(np.zeros((1, *shape)))
    remainder = Remainder.zero(1, 1)
    op.adjoint(None, Rows(np.ones((1, 1, *shape)), None), remainder, Facts(zero))
    assert encloses(remainder.enclose(), np.array([[Fraction(0.1) * 256**2]], dtype=object))


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_radius_of_a_kernel_counts_where_values_are_largest(sign):
    """A folded kernel may lie anywhere within its radius, also at the ends of a box around zero."""
    op = Dense(np.zeros((1, 1)), np.zeros(1), np.ones((1, 1)), np.ones(1))
    pair = AffinePair(op, far_codes(op.kernel, op.bias))
    box, zero = Interval(np.full((1, 1), -3.0), np.full((1, 1), 3.0)), Interval.point(np.zeros((1, 1)))
    reached = np.array([[Fraction(4 * sign)]])
    facts = Facts(box, box, zero)
    assert encloses(op.interval(box), reached)
    assert encloses(op.difference(pair, facts), reached)
    for rows in (Rows(np.ones((1, 1, 1)), None), Rows(None, np.ones((1, 1, 1)))):
        remainder = Remainder.zero(1, 1)
        op.adjoint(pair, rows, remainder, facts)
        assert encloses(remainder.enclose(), reached)


def test_adjoint_survives_underflow():
    """Coefficients so small that pulling them back underflows still meet members of 1e30."""
    op = Dense(np.array([[1e-20]]), np.zeros(1))
    facts = Facts(Interval.point([[1e30]]))
    remainder = Remainder.zero(1, 1)
    (pulled,) = op.adjoint(None, Rows(np.array([[[1e-303]]]), None), remainder, facts)
    assert pulled.value is not None
    exact = Fraction(1e-303) * Fraction(1e-20) * Fraction(1e30)
    got = Fraction(pulled.value[0, 0, 0]) * Fraction(1e30)
    assert encloses(remainder.enclose(), np.array([[exact - got]]))


@given(DENSES, st.integers(1, 10), st.integers(-6, 6), st.data())
def test_integers_equal_exact_arithmetic(dense, word_length, bits, data):
    op, _ = dense
    small = draw_small_codes(data.draw, op)
    codes = data.draw(arrays(np.arange(-(2.0**word_length), 2.0**word_length + 1), 3, op.fan_in))
    pair = AffinePair(op, small)
    sum_bits = op.fractional_bits(pair, bits)
    result = op.integer(pair, [bits], codes)

    kernel, bias = exact_codes(small)
    exact = to_fractions(codes) * Fraction(2) ** -bits @ kernel + bias
    assert (to_fractions(result) * Fraction(2) ** -sum_bits == exact).all()
    assert (result == np.rint(result)).all()
    magnitude = float(np.max(op.code_magnitude(pair, [bits], np.full((1, op.fan_in), 2.0**word_length))))
    assert Fraction(magnitude) >= np.max(np.abs(exact)) * Fraction(2) ** sum_bits
    most = np.full(op.fan_in, Fraction(2) ** (word_length - bits)) @ np.abs(kernel) + np.abs(bias)
    assert Fraction(magnitude) >= np.max(most) * Fraction(2) ** sum_bits


@given(st.integers(1, 3), st.integers(1, 3), st.data())
def test_wide_sums_are_exact_in_python_integers(inputs, outputs, data):
    """Parameters and inputs of 53 bits each: no sum fits float64."""
    wide, limit = Format(53, 0, True), 2.0**52
    numbers = np.rint(reals(limit - 1.0))
    kernel, bias, x = (
        data.draw(arrays(numbers, *s)).astype(np.int64) for s in ((inputs, outputs), (outputs,), (2, inputs))
    )
    pair = AffinePair(Dense(np.zeros((inputs, outputs)), np.zeros(outputs)), AffineCodes(kernel, wide, bias, wide))
    result = Dense(np.zeros((inputs, outputs)), np.zeros(outputs)).integer(pair, [7], x.astype(object))
    exact = x.astype(object) @ kernel.astype(object) + bias.astype(object) * 2**7
    assert result.dtype == object
    assert all(type(one) is int for one in result.flat)
    assert (result == exact).all()
    assert (Relu().integer(None, [7], result) == np.maximum(exact, 0)).all()


def draw_small_codes(draw, op):
    """Integers narrow enough for exact sums, on grids that differ between kernel and bias."""
    formats = [Format(draw(st.integers(2, 12)), draw(st.integers(-4, 4)), True) for _ in range(2)]
    shapes = (op.kernel.shape, op.bias.shape)
    codes = [draw(arrays(np.arange(f.min_code, f.max_code + 1), *s)) for f, s in zip(formats, shapes, strict=True)]
    return AffineCodes(codes[0].astype(np.int64), formats[0], codes[1].astype(np.int64), formats[1])


@given(st.data())
def test_code_values_are_exact(data):
    kernel = data.draw(arrays(reals(1e6), 2, 2))
    codes = draw_codes(data.draw, kernel, kernel[0])
    exact = exact_codes(codes)
    assert (to_fractions(codes.kernel_value) == exact[0]).all()
    assert (to_fractions(codes.bias_value) == exact[1]).all()
