"""Enclosures of smooth functions against mpmath, at points and over intervals; the decimal ones of the exact proof too."""

from fractions import Fraction
from itertools import pairwise

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.errors import ModelError, VerificationError
from sound_qkeras.exact.functions import Span, exact_function
from sound_qkeras.interval import Interval
from sound_qkeras.network.elementary import erf, exp, log1p
from sound_qkeras.network.smooth import NAMES, SELU_ALPHA, SELU_SCALE, smooth

ALPHA = 0.7
mp = mpmath.mp.clone()
mp.prec = 300


def number(x):
    return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else mp.mpf(str(x))


def elu(x, alpha, scale):
    return scale * (x if x > 0 else alpha * mp.expm1(x))


REAL = {
    "elu": lambda x: elu(x, mp.mpf(ALPHA), 1),
    "exponential": mp.exp,
    "gelu": lambda x: x * mp.ncdf(x),
    "hard_sigmoid": lambda x: min(max(x / 5 + mp.mpf(1) / 2, 0), 1),
    "hard_sigmoid_6": lambda x: min(max(x / 6 + mp.mpf(1) / 2, 0), 1),
    "hard_swish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "selu": lambda x: elu(x, mp.mpf(SELU_ALPHA), mp.mpf(SELU_SCALE)),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "swish": lambda x: x / (1 + mp.exp(-x)),
    "tanh": mp.tanh,
}
SLOPE = {
    "elu": lambda x: mp.mpf(1) if x > 0 else mp.mpf(ALPHA) * mp.exp(x),
    "exponential": mp.exp,
    "gelu": lambda x: mp.ncdf(x) + x * mp.npdf(x),
    "hard_sigmoid": lambda x: mp.mpf(1) / 5 if abs(x) < 2.5 else mp.mpf(0),
    "hard_sigmoid_6": lambda x: mp.mpf(1) / 6 if abs(x) < 3 else mp.mpf(0),
    "hard_swish": lambda x: (2 * x + 3) / 6 if abs(x) < 3 else mp.mpf(int(x > 0)),
    "selu": lambda x: mp.mpf(SELU_SCALE) * (1 if x > 0 else mp.mpf(SELU_ALPHA) * mp.exp(x)),
    "sigmoid": lambda x: 1 / (2 + mp.exp(x) + mp.exp(-x)),
    "softplus": lambda x: 1 / (1 + mp.exp(-x)),
    "softsign": lambda x: 1 / (1 + abs(x)) ** 2,
    "swish": lambda x: (1 + mp.exp(-x) * (1 + x)) / (1 + mp.exp(-x)) ** 2,
    "tanh": lambda x: mp.sech(x) ** 2,
}
KINKS = {
    "elu": {0.0},
    "selu": {0.0},
    "hard_sigmoid": {-2.5, 2.5},
    "hard_sigmoid_6": {-3.0, 3.0},
    "hard_swish": {-3.0, 3.0},
}
POINTS = np.concatenate(
    [
        [0.0, -0.0, 5e-324, -1e-300, 1e-17, -(2.0**-30), 0.5, -1.0, 3.0, -3.0, 2.5, -2.5, 1.0 - 2.0**-53, 88.0, -700.0],
        [-1.278464, -0.751791, 2.399357, 1.414213, 36.7, -36.7, 8.5, -40.1, 650.0],
        np.random.default_rng(0).normal(size=200) * 2.0 ** np.random.default_rng(1).uniform(-30, 4, 200),
    ]
)
points = st.lists(st.sampled_from([float(x) for x in POINTS]), min_size=1, max_size=6).map(np.array)


def every(test):
    """For every function; too many for the core tests."""
    return pytest.mark.slow(pytest.mark.parametrize("name", NAMES)(test))


def made(name):
    return smooth(name, ALPHA if name == "elu" else 1.0)


def inside(lower, upper, exact):
    """Whether an exact value lies between two floats; what is exactly an end may be computed a last digit off."""
    slack = abs(exact) * mp.mpf(2) ** -250
    return mp.mpf(float(lower)) <= exact + slack and exact - slack <= mp.mpf(float(upper))


@every
@given(points)
def test_values_and_slopes_at_points(name, x):
    for found, real in ((made(name).value(x), REAL[name]), (made(name).slope(x), SLOPE[name])):
        for lower, upper, at in zip(found.lower, found.upper, x, strict=True):
            if real is SLOPE[name] and float(at) in KINKS.get(name, ()):
                continue
            exact = real(mp.mpf(float(at)))
            assert inside(lower, upper, exact), (name, at)
            assert upper - lower <= 2.0**-40 * (abs(upper) + abs(at) + 1.0)


@every
@given(points, points, st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
def test_ranges_hold_every_member(name, a, b, parts):
    size = min(a.size, b.size)
    x = Interval(np.minimum(a[:size], b[:size]), np.maximum(a[:size], b[:size]))
    image, slopes = made(name).image(x), made(name).slopes(x)
    slope, rest = made(name).line(x)
    specials = [float(p[0]) for p in (*made(name).turns, *made(name).bends)]
    for k in range(size):
        members = [float(x.lower[k] + part * (x.upper[k] - x.lower[k])) for part in parts]
        for at in [x.lower[k], x.upper[k], *members, *specials]:
            if not x.lower[k] <= at <= x.upper[k]:
                continue
            exact = REAL[name](mp.mpf(float(at)))
            assert inside(image.lower[k], image.upper[k], exact)
            assert inside(slopes.lower[k], slopes.upper[k], SLOPE[name](mp.mpf(float(at))))
            assert inside(rest.lower[k], rest.upper[k], exact - mp.mpf(float(slope[k])) * mp.mpf(float(at)))


@every
def test_it_turns_and_bends_nowhere_else(name):
    """Brackets hold a change of sign of the derivative, and between them neither value nor slope changes direction."""
    for function, brackets in ((REAL[name], made(name).turns), (SLOPE[name], made(name).bends)):
        grid = np.unique(np.concatenate([np.linspace(-12.0, 12.0, 961), *map(np.array, brackets)]))
        for low, high in pairwise(grid):
            if any(start < high and low < end for start, end in brackets):
                continue
            ends = [mp.mpf(low) + (mp.mpf(high) - low) * t / 4 for t in (mp.mpf(1) / 100, 1, 2, 3, mp.mpf(399) / 100)]
            steps = np.diff([function(end) for end in ends])
            assert all(step >= 0 for step in steps) or all(step <= 0 for step in steps), (low, high)
        for start, end in brackets:
            if start < end:
                rates = [mp.diff(function, mp.mpf(at), h=mp.mpf(2) ** -80) for at in (start, end)]
                assert rates[0] * rates[1] < 0


@pytest.mark.parametrize("name", NAMES)
def test_a_line_over_a_short_interval_leaves_its_curvature(name):
    """No more than twice what the best line would leave, so that splitting pays."""
    center = np.linspace(-4.0, 4.0, 33) + 0.01
    half = 2.0**-8
    _, rest = made(name).line(Interval(center - half, center + half))
    assert np.all(
        rest.upper - rest.lower <= 2.0 * max(made(name).curvature, 60.0 if name == "exponential" else 0.0) * half**2 / 2
    )


@every
@given(points)
def test_decimal_enclosures(name, x):
    function = exact_function(name, ALPHA)
    for at in map(float, x):
        for span, real in ((function.values, REAL[name]), (function.slopes, SLOPE[name])):
            found = span(Fraction(at), Fraction(at))
            if real is SLOPE[name] and at in KINKS.get(name, ()):
                continue
            exact = real(mp.mpf(at))
            slack = abs(exact) * mp.mpf(2) ** -250
            assert number(found.low) <= exact + slack
            assert exact - slack <= number(found.high)
            assert number(found.high) - number(found.low) <= mp.mpf(10) ** -30 * (1 + abs(exact) + abs(at))


@every
@given(points, points, st.floats(0.0, 1.0))
def test_decimal_ranges(name, a, b, part):
    function = exact_function(name, ALPHA)
    low, high = sorted((Fraction(float(a[0])), Fraction(float(b[0]))))
    at = low + Fraction(part) * (high - low)
    for span, real in ((function.values, REAL[name]), (function.slopes, SLOPE[name])):
        found, exact = span(low, high), real(number(at))
        slack = abs(exact) * mp.mpf(2) ** -250
        assert number(found.low) <= exact + slack
        assert exact - slack <= number(found.high)


@given(points)
def test_elementary_functions(x):
    for found, real, arguments in (
        (exp(x), mp.exp, x),
        (erf(x), mp.erf, x),
        (log1p(Interval.point(np.minimum(np.abs(x), 1.0))), mp.log1p, np.minimum(np.abs(x), 1.0)),
    ):
        for lower, upper, at in zip(found.lower, found.upper, arguments, strict=True):
            assert inside(lower, upper, real(mp.mpf(float(at))))


def test_ends_of_the_float_range():
    far = np.array([-1e308, -1e4, -746.0, 710.0, 1e4, 1e308])
    found = exp(far)
    assert np.all(found.lower >= 0.0)
    assert np.all(found.lower[:3] == 0.0)
    assert np.all(found.upper[3:] == np.inf)
    for name in ("sigmoid", "tanh", "softsign", "hard_sigmoid"):
        value, slope = made(name).value(far), made(name).slope(far)
        assert np.all(np.abs(value.upper) <= 1.0 + 2.0**-50)
        assert np.all((slope.lower >= -1e-300) & (slope.upper <= 2e-6))  # softsign's at 710


def test_unknown_functions_are_refused():
    with pytest.raises(ModelError, match=r"'sine'.*accepted.*tanh"):
        smooth("sine")
    with pytest.raises(ModelError, match="alpha=0"):
        smooth("elu", 0.0)
    with pytest.raises(ModelError, match="alpha=2"):
        smooth("tanh", 2.0)
    with pytest.raises(VerificationError, match="'sine'"):
        exact_function("sine", 1.0)
    assert Span.of(Fraction(1, 3)).meets(Fraction(1, 3), Fraction(1, 3))
