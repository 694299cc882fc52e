"""Awkward floats, arrays of them, and exact rational arithmetic on arrays to judge the library by."""

import math
from fractions import Fraction
from functools import cache

import hypothesis.strategies as st
import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import AffineCodes, Dense

to_fractions = np.vectorize(Fraction, otypes=[object])

# Subnormals, ties, neighbours of the integers float32 and float64 stop at, weights that are huge, tiny or not dyadic.
SPECIAL = [
    *(0.0, -0.0, 5e-324, 2.0**-1022, 1.5 * 2.0**-1060, 1e-300),
    *(2.0**-149, 1e-40, 3 * 2.0**-150),
    *(0.5, 1.5, 2.5, 0.125, 0.375, 1.0, 1.0 + 2.0**-52, 1.0 - 2.0**-53, 1.0 + 2.0**-23, 0.1, 1.0 / 3.0, math.pi),
    *(2.0**24 - 1, 2.0**24, 2.0**24 + 1, 2.0**24 + 0.5, 2.0**53 - 1, 2.0**53, 2.0**53 + 2),
    *(1e10, 1e30, 3.4028234663852886e38),
]
SIGNED_SPECIAL = np.array([*SPECIAL, *(-x for x in SPECIAL)])


def _table(largest):
    """Floats to draw from, simple ones first: special ones again and again, ties of small formats, ordinary ones."""
    rng = np.random.default_rng(20)
    ties = rng.integers(-257, 258, 400) * 2.0 ** -rng.integers(0, 10, 400)
    ordinary = rng.uniform(-2.0, 2.0, 400)
    wide = rng.normal(size=400) * 2.0 ** rng.uniform(-160, 130, 400)
    table = np.concatenate([[0.0, 1.0], np.tile(SIGNED_SPECIAL, 12), ties, ordinary, wide])
    return table[np.abs(table) <= largest]


@cache
def reals(largest=1e38):
    """A table of floats of magnitude up to `largest`; see `arrays`."""
    return _table(largest)


# Parameters a stored network has: float32 numbers, subnormal ones too.
WEIGHTS = reals(1e31).astype(np.float32).astype(np.float64)
MEMBERS = np.array([0.0, 1.0, 2.0, 0.5, 0.25, 0.75])


def scalars(table):
    """Single floats of a table."""
    return st.sampled_from([float(x) for x in table])


def arrays(table, *shape):
    """Float64 arrays of a shape with elements of a table. One draw of bytes each: an order faster than a draw each."""
    return _indices(*shape).map(lambda drawn: table[drawn % len(table)])


@cache
def _indices(*shape):
    size = 2 * math.prod(shape)
    return st.binary(min_size=size, max_size=size).map(lambda drawn: np.frombuffer(drawn, np.uint16).reshape(shape))


def choices(*shape):
    """Which member to take of each interval: see `member`."""
    return arrays(MEMBERS, *shape)


KINDS = st.sampled_from(["any", "point", "mixed", "one-sided", "neighbours"])


@cache
def intervals(*shape, largest=1e38):
    """Intervals of any kind: points, one-sided, straddling zero, neighbours, wide."""
    return st.composite(_interval)(shape, largest)


def _interval(draw, shape, largest):
    a = draw(arrays(reals(largest), *shape))
    kind = draw(KINDS)
    if kind == "neighbours":
        return Interval(a, np.nextafter(a, np.inf))
    b = np.zeros(shape) if kind == "one-sided" else draw(arrays(reals(largest), *shape))
    if kind in {"point", "mixed"}:
        b = np.where(draw(choices(*shape)) < 1.0, a, b) if kind == "mixed" else a
    return Interval(np.minimum(a, b), np.maximum(a, b))


def member(interval, choice):
    """Exact members: 0 and 1 are the ends, 2 is zero where zero is inside, anything else a mixture."""
    lower, upper = to_fractions(interval.lower), to_fractions(interval.upper)
    t = to_fractions(np.minimum(choice, 1.0))
    inside = lower + t * (upper - lower)
    zero = (choice == 2.0) & (interval.lower <= 0.0) & (interval.upper >= 0.0)
    return np.where(zero, to_fractions(0.0), inside)


def round_down(x):
    """The largest float64 array that is at most the exact `x`."""
    near = np.array(x, dtype=np.float64)
    return np.where(to_fractions(near) <= x, near, np.nextafter(near, -np.inf))


def around(*members):
    """The narrowest intervals that hold every one of some arrays of exact members."""
    lower, upper = members[0], members[0]
    for one in members[1:]:
        lower, upper = np.minimum(lower, one), np.maximum(upper, one)
    return Interval(round_down(lower), -round_down(-upper))


def encloses(interval, x):
    """Whether every exact element lies in its interval; NaN ends never enclose."""
    for lower, upper, value in zip(interval.lower.flat, interval.upper.flat, np.asarray(x, object).flat, strict=True):
        if not (at_most(lower, value) and at_least(upper, value)):
            return False
    return True


def at_most(bound, x):
    """Whether a float bound is at most an exact number; false for NaN."""
    return bound == -math.inf or (math.isfinite(bound) and Fraction(bound) <= x)


def at_least(bound, x):
    """Whether a float bound is at least an exact number; false for NaN."""
    return bound == math.inf or (math.isfinite(bound) and Fraction(bound) >= x)


def relu(x):
    """The exact positive part."""
    return np.maximum(x, to_fractions(0.0))


RADII = np.array([0.0, 1e-40, 2.0**-53, 2.0**-30, 1e-3, 1e20])
SMALL_SIZES = st.integers(1, 3)
DROPPED = st.sampled_from(["both", "neither", "kernel", "bias"])
WORDS, FINE, COARSE, EITHER = st.integers(2, 24), st.integers(-30, 30), st.integers(0, 3), st.booleans()


@st.composite
def denses(draw):
    """A Dense operation and its integers; some have radii, as after folding; some integers are far from the floats."""
    inputs, outputs = draw(SMALL_SIZES), draw(SMALL_SIZES)
    kernel, bias = draw(arrays(WEIGHTS, inputs, outputs)), draw(arrays(WEIGHTS, outputs))
    dropped = draw(DROPPED)
    kernel_radius = None if dropped in {"both", "kernel"} else draw(arrays(RADII, inputs, outputs))
    bias_radius = None if dropped in {"both", "bias"} else draw(arrays(RADII, outputs))
    return Dense(kernel, bias, kernel_radius, bias_radius), draw_codes(draw, kernel, bias)


def draw_codes(draw, kernel, bias):
    """Integers for a kernel and a bias: rounded to a fine or a coarse grid, or having nothing to do with them."""
    integer_bits = COARSE if draw(EITHER) else FINE
    formats = [Format(draw(WORDS), draw(integer_bits), True) for _ in range(2)]
    codes = [f.quantize(x) for f, x in zip(formats, (kernel, bias), strict=True)]
    return AffineCodes(codes[0], formats[0], codes[1], formats[1])


def exact_parameters(op, choice):
    """An exact kernel and bias an operation may stand for: the centres moved by parts of the radii, -1 to 1."""
    kernel, bias = to_fractions(op.kernel), to_fractions(op.bias)
    part = Fraction(choice)
    if op.kernel_radius is not None:
        kernel = kernel + part * to_fractions(op.kernel_radius)
    if op.bias_radius is not None:
        bias = bias - part * to_fractions(op.bias_radius)
    return kernel, bias


def exact_codes(codes):
    """The exact kernel and bias of the fixed-point network, straight from the integers."""
    scale = [Fraction(2) ** -f.fractional_bits for f in (codes.kernel_format, codes.bias_format)]
    return to_fractions(codes.kernel) * scale[0], to_fractions(codes.bias) * scale[1]
