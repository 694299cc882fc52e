"""Functions that become tables: enclosures of their values and slopes at points, and where they turn and bend.

Between the points at which a function turns it is monotone, and so is its slope between the points at which it bends:
that is all that is needed to enclose both over intervals. Adding a function is one entry of `FUNCTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, Reals, up
from sound_qkeras.network.elementary import erf, exp, log1p, quotient

# An interval that holds one point of interest: its two ends.
Point = tuple[float, float]
Enclosure = Callable[[Reals], Interval]

ONE = Interval.point(1.0)
# No slope here changes faster than this beside a point that is only enclosed, nor does a value.
STEEPEST = 4.0
# Pieces into which an interval is cut to find what a line leaves over.
PIECES = 8
# Enclosures of slopes are narrower than this where there is no kink.
JUMP = 1e-6
# From here on exp(-x) is less than every positive float64, which its enclosure says of any larger x too.
FLAT = 1e3


@dataclass(frozen=True)
class Smooth:
    """A function of one variable and its slope.

    Args:
        value: enclosures of the function at points.
        slope: enclosures of its slope at points; at a kink, of all slopes beside it.
        turns: the points where the function changes from rising to falling or back.
        bends: the same for the slope, kinks included.
        curvature: about how fast the slope changes at most between kinks, to choose how fine a table is.
        fast: the function in float64, where that is much faster: for searches, nothing proved depends on it.
    """

    value: Enclosure
    slope: Enclosure
    turns: tuple[Point, ...] = ()
    bends: tuple[Point, ...] = ()
    curvature: float = 1.0
    fast: Callable[[Reals], Reals] | None = None

    def plain(self, x: Reals) -> Reals:
        """The function in float64."""
        return self.value(x).center if self.fast is None else self.fast(x)

    def image(self, x: Interval) -> Interval:
        """Every value on the intervals."""
        return _over(x, self.value(x.lower), self.value(x.upper), self._special[0])

    def slopes(self, x: Interval) -> Interval:
        """Every slope on the intervals."""
        return _over(x, self.slope(x.lower), self.slope(x.upper), self._special[1])

    @cached_property
    def _special(self) -> tuple[list[tuple[Point, Interval]], ...]:
        """The points of interest with the values and the slopes there."""
        return tuple(
            [(point, _at(function, point)) for point in points]
            for function, points in ((self.value, self.turns), (self.slope, self.bends))
        )

    def line(self, x: Interval) -> tuple[Reals, Interval]:
        """A slope `s` per interval, near the chord's, and an enclosure of `f - s x` on the interval."""
        steep = self.slopes(x)
        width = x.upper - x.lower
        with np.errstate(invalid="ignore", over="ignore"):
            chord = (self.value(x.upper).center - self.value(x.lower).center) / np.where(width > 0.0, width, 1.0)
        slope = np.where((width > 0.0) & np.isfinite(chord), np.clip(chord, steep.lower, steep.upper), steep.center)
        return slope, self.beside(slope, x)

    def beside(self, slope: Reals, x: Interval) -> Interval:
        """An enclosure of `f - s x` on intervals.

        On each of a few pieces `f - s x` lies between its values at the ends where its slope has one sign, and else within
        half the piece's width times that slope of them.
        """
        width, line = x.upper - x.lower, Interval.point(slope)
        cuts = [np.clip(x.lower + width * (n / PIECES), x.lower, x.upper) for n in range(PIECES)] + [x.upper]
        values = [self.value(cut) - line * Interval.point(cut) for cut in cuts]
        pieces: list[Interval] = []
        for n in range(PIECES):
            piece = Interval(cuts[n], cuts[n + 1])
            rise, margin = self._rise(piece, line)
            turning = (rise.lower < 0.0) & (rise.upper > 0.0)
            reach = up(0.5 * up(piece.upper - piece.lower) * rise.magnitude)
            pieces.append(_hull(values[n], values[n + 1]).widened(np.where(turning, reach, 0.0)).widened(margin))
        return Interval(
            np.minimum.reduce([piece.lower for piece in pieces]), np.maximum.reduce([piece.upper for piece in pieces])
        )

    def _rise(self, x: Interval, line: Interval) -> tuple[Interval, Reals]:
        """Slopes of `f - s x` inside of intervals, and what it may change by on the way there from their ends.

        A kink at an end is none of the inside's: slopes are taken one float64 number further in.
        """
        rise = self.slopes(x) - line
        if not self._kinked:
            return rise, np.zeros(x.shape)
        inner = Interval(np.nextafter(x.lower, x.upper), np.nextafter(x.upper, x.lower))
        crossed = up((inner.lower - x.lower) + (x.upper - inner.upper))
        return self.slopes(inner) - line, up(crossed * rise.magnitude)

    @cached_property
    def _kinked(self) -> bool:
        """Whether the slope jumps somewhere."""
        return any(float(np.max(there.upper - there.lower)) > JUMP for _, there in self._special[1])


def _over(x: Interval, first: Interval, last: Interval, special: list[tuple[Point, Interval]]) -> Interval:
    """The range over intervals from what is at their ends and at the points of interest inside."""
    found = _hull(first, last)
    for (low, high), there in special:
        inside = (x.lower <= high) & (x.upper >= low)
        found = Interval(
            np.where(inside, np.minimum(found.lower, there.lower), found.lower),
            np.where(inside, np.maximum(found.upper, there.upper), found.upper),
        )
    return found


def _at(function: Enclosure, point: Point) -> Interval:
    ends = function(np.array(point))
    return Interval(ends.lower.min(), ends.upper.max()).widened(up(STEEPEST * (point[1] - point[0])))


def _hull(a: Interval, b: Interval) -> Interval:
    return Interval(np.minimum(a.lower, b.lower), np.maximum(a.upper, b.upper))


def _where(condition: np.ndarray, a: Interval, b: Interval) -> Interval:
    return Interval(np.where(condition, a.lower, b.lower), np.where(condition, a.upper, b.upper))


def _within(x: Interval, low: float, high: float) -> Interval:
    """What is known to lie in `[low, high]`."""
    return Interval(np.clip(x.lower, low, high), np.clip(x.upper, low, high))


def _sigmoid(x: Reals) -> Interval:
    small = exp(-np.abs(x))
    total = ONE + small
    return _within(_where(x < 0.0, quotient(small, total), quotient(ONE, total)), 0.0, 1.0)


def _sigmoid_slope(x: Reals) -> Interval:
    """`e / (1 + e)**2` with `e = exp(-|x|)`."""
    small = exp(-np.abs(x))
    total = ONE + small
    return _within(quotient(small, total * total), 0.0, 0.25)


def _tanh(x: Reals) -> Interval:
    small = exp(-2.0 * np.minimum(np.abs(x), FLAT))
    size = _within(quotient(ONE - small, ONE + small), 0.0, 1.0)
    return _where(x < 0.0, -size, size)


def _tanh_slope(x: Reals) -> Interval:
    return _sigmoid_slope(2.0 * np.clip(x, -FLAT, FLAT)).scaled(4.0)


def _swish(x: Reals) -> Interval:
    return Interval.point(x) * _sigmoid(x)


def _swish_slope(x: Reals) -> Interval:
    return _sigmoid(x) + Interval.point(x) * _sigmoid_slope(x)


def _softplus(x: Reals) -> Interval:
    """`max(x, 0) + log1p(exp(-|x|))`."""
    return Interval.point(np.maximum(x, 0.0)) + log1p(_within(exp(-np.abs(x)), 0.0, 1.0))


def _softsign(x: Reals) -> Interval:
    return quotient(Interval.point(x), ONE + Interval.point(np.abs(x)))


def _softsign_slope(x: Reals) -> Interval:
    total = ONE + Interval.point(np.minimum(np.abs(x), 1e150))
    return _within(quotient(ONE, total * total), 0.0, 1.0)


def _elu(x: Reals, alpha: float, scale: float) -> Interval:
    below = (exp(np.minimum(x, 0.0)) - ONE).scaled(alpha).scaled(scale)
    return _where(x < 0.0, below, Interval.point(x).scaled(scale) if scale != 1.0 else Interval.point(x))


def _elu_slope(x: Reals, alpha: float, scale: float) -> Interval:
    below, above = exp(np.minimum(x, 0.0)).scaled(alpha).scaled(scale), Interval.point(np.full_like(x, scale))
    return _where(x == 0.0, _hull(below, above), _where(x < 0.0, below, above))


def _normal(x: Reals) -> Interval:
    """The distribution function of the standard normal distribution, `(1 + erf(x / sqrt(2))) / 2`.

    The rounding of the argument moves the result by at most 2**-50: at most 2**-52 |x| times the density, and
    `|x| density` is at most 1/4.
    """
    return _within((erf(x * np.sqrt(0.5)) + ONE).scaled(0.5).widened(2.0**-50), 0.0, 1.0)


def _density(x: Reals) -> Interval:
    """`exp(-x**2 / 2) / sqrt(2 pi)`; the rounding of `x**2 / 2 <= 800` moves the exponential by less than 2**-43."""
    small = exp(-0.5 * np.minimum(np.abs(x), 40.0) ** 2)
    size = Interval(small.lower * (1.0 - 2.0**-42), small.upper * (1.0 + 2.0**-42))
    found = size * Interval(np.array(0.3989422804014326), np.array(0.3989422804014328))
    return Interval(np.where(np.abs(x) > 40.0, 0.0, found.lower), found.upper)


def _gelu(x: Reals) -> Interval:
    return Interval.point(x) * _normal(x)


def _gelu_slope(x: Reals) -> Interval:
    return _normal(x) + Interval.point(x) * _density(x)


def _hard_sigmoid(x: Reals, width: float) -> Interval:
    """`min(max(x / width + 1/2, 0), 1)`."""
    return _within(quotient(Interval.point(x), Interval.point(width)) + Interval.point(0.5), 0.0, 1.0)


def _step(x: Reals, low: float, high: float, inside: Interval, outside: tuple[float, float]) -> Interval:
    """Slopes of a function with kinks at `low` and `high`: constant outside of them."""
    below, above = (Interval.point(np.full_like(x, slope)) for slope in outside)
    found = _where(x < low, below, _where(x > high, above, inside))
    return _where(x == low, _hull(below, inside), _where(x == high, _hull(above, inside), found))


def _hard_sigmoid_slope(x: Reals, width: float) -> Interval:
    inside = quotient(Interval.point(np.ones_like(x)), Interval.point(width))
    return _step(x, -width / 2, width / 2, inside, (0.0, 0.0))


def _hard_swish(x: Reals) -> Interval:
    """`x min(max(x + 3, 0), 6) / 6`."""
    factor = _within(Interval.point(x) + Interval.point(3.0), 0.0, 6.0)
    exact = _where(x >= 3.0, Interval.point(np.full_like(x, 6.0)), factor)
    product = Interval.point(x) * quotient(exact, Interval.point(6.0))
    return _where(x >= 3.0, Interval.point(x), product)


def _hard_swish_slope(x: Reals) -> Interval:
    inside = quotient(Interval.point(np.clip(x, -3.0, 3.0)).scaled(2.0) + Interval.point(3.0), Interval.point(6.0))
    return _step(x, -3.0, 3.0, inside, (0.0, 1.0))


def _hard_tanh(x: Reals) -> Interval:
    """`min(max(x, -1), 1)`."""
    return Interval.point(np.clip(x, -1.0, 1.0))


def _half_sigmoid(x: Reals) -> Interval:
    """`min(max(x / 2 + 1/2, 0), 1)`."""
    return _within(Interval.point(0.5 * x) + Interval.point(0.5), 0.0, 1.0)


def _clipped_slope(x: Reals, slope: float) -> Interval:
    return _step(x, -1.0, 1.0, Interval.point(np.full_like(x, slope)), (0.0, 0.0))


ZERO = (0.0, 0.0)
UNIT_KINKS = ((-1.0, -1.0), (1.0, 1.0))
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
FUNCTIONS: dict[str, Smooth] = {
    "exponential": Smooth(exp, exp),
    "gelu": Smooth(
        _gelu,
        _gelu_slope,
        turns=((-0.7517915247, -0.7517915246),),
        bends=((-1.4142135624, -1.4142135623), (1.4142135623, 1.4142135624)),
    ),
    # Of Keras 2, and of Keras 3.
    "hard_sigmoid": Smooth(
        partial(_hard_sigmoid, width=5.0), partial(_hard_sigmoid_slope, width=5.0), bends=((-2.5, -2.5), (2.5, 2.5))
    ),
    "hard_sigmoid_6": Smooth(
        partial(_hard_sigmoid, width=6.0), partial(_hard_sigmoid_slope, width=6.0), bends=((-3.0, -3.0), (3.0, 3.0))
    ),
    "hard_swish": Smooth(_hard_swish, _hard_swish_slope, turns=((-1.5, -1.5),), bends=((-3.0, -3.0), (3.0, 3.0))),
    "selu": Smooth(
        partial(_elu, alpha=SELU_ALPHA, scale=SELU_SCALE),
        partial(_elu_slope, alpha=SELU_ALPHA, scale=SELU_SCALE),
        bends=(ZERO,),
        curvature=1.76,
    ),
    "sigmoid": Smooth(
        _sigmoid, _sigmoid_slope, bends=(ZERO,), curvature=0.1, fast=lambda x: 0.5 + 0.5 * np.tanh(0.5 * x)
    ),
    "softplus": Smooth(_softplus, _sigmoid, curvature=0.25),
    "softsign": Smooth(_softsign, _softsign_slope, bends=(ZERO,), curvature=2.0),
    "swish": Smooth(
        _swish,
        _swish_slope,
        turns=((-1.2784645428, -1.2784645427),),
        bends=((-2.3993572806, -2.3993572805), (2.3993572805, 2.3993572806)),
        curvature=0.5,
        fast=lambda x: x * (0.5 + 0.5 * np.tanh(0.5 * x)),
    ),
    "tanh": Smooth(_tanh, _tanh_slope, bends=(ZERO,), curvature=0.77, fast=np.tanh),
}
# Every name a table may have: those above, and the one with a parameter.
NAMES = (*FUNCTIONS, "elu")
# What QKeras computes in place of tanh and sigmoid; Keras has no functions of these shapes.
HARD: dict[str, Smooth] = {
    "hard_tanh": Smooth(
        _hard_tanh, partial(_clipped_slope, slope=1.0), bends=UNIT_KINKS, fast=lambda x: np.clip(x, -1.0, 1.0)
    ),
    "half_sigmoid": Smooth(
        _half_sigmoid,
        partial(_clipped_slope, slope=0.5),
        bends=UNIT_KINKS,
        fast=lambda x: np.clip(0.5 * x + 0.5, 0.0, 1.0),
    ),
}


@lru_cache(maxsize=64)
def smooth(name: str, alpha: float = 1.0) -> Smooth:
    """The function of a name.

    Args:
        name: one of `NAMES`, or of `HARD`.
        alpha: of "elu" only, `alpha (e**x - 1)` below zero; positive.

    Raises:
        ModelError: the name is unknown, or alpha is not usable.
    """
    if name == "elu":
        if not 0.0 < alpha <= 1024.0:
            raise ModelError(f"elu has alpha={alpha}; accepted: a positive number up to 1024; retrain with such a one")
        turning = partial(_elu, alpha=alpha, scale=1.0), partial(_elu_slope, alpha=alpha, scale=1.0)
        return Smooth(*turning, bends=(ZERO,), curvature=alpha)
    if name in HARD and alpha == 1.0:
        return HARD[name]
    if name not in FUNCTIONS or alpha != 1.0:
        raise ModelError(f"there is no table function '{name}' with alpha={alpha}; accepted: {', '.join(NAMES)}")
    return FUNCTIONS[name]
