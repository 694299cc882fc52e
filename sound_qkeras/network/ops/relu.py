"""The rectified linear unit, `max(z, 0)`.

Write `d = z_q - z`. The difference after the unit is `relu(z + d) - relu(z)`, and `relu(v) = v + relu(-v)` makes the
active and the inactive case mirror images of one another:

    slope 0:    d+       in [max(min(d_lo, 0), -relu(z_hi)),   min(max(d_hi, 0), relu(zq_hi))]
    slope 1:    d+ - d   in [max(min(-d_hi, 0), -relu(-z_lo)), min(max(-d_lo, 0), relu(-zq_lo))]
    slope 1/2:  d+ - d/2 in [-max|d| / 2, max|d| / 2]

The first is {0} when the unit is inactive in both networks, the second when it is active in both. A neuron uses the slope
whose interval is narrowest. Two lines with slopes of their own are the chords of `min(d, 0) <= d+ <= max(d, 0)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Interval, down, up
from sound_qkeras.network.ops.base import Facts, Reals
from sound_qkeras.network.ops.elementwise import Elementwise, Line
from sound_qkeras.network.ops.linear import Lines

# By so much the identity must leave less below a unit than zero to be taken: where both leave the same, rounding errors would
# decide, and otherwise in the exact proof.
CLEARLY = 1.0 + 2.0**-20


def positive(x: Reals) -> Reals:
    """`max(x, 0)`."""
    return np.maximum(x, 0.0)


def _slope_zero(z: Interval, zq: Interval, d: Interval) -> Interval:
    lower = np.maximum(np.minimum(d.lower, 0.0), -positive(z.upper))
    upper = np.minimum(np.maximum(d.upper, 0.0), positive(zq.upper))
    return Interval(lower, upper)


def _slope_one(z: Interval, zq: Interval, d: Interval) -> Interval:
    return _slope_zero(-z, -zq, -d)


def relu_difference(z: Interval, zq: Interval, d: Interval) -> Interval:
    """The difference after the unit: the intersection of the slope-0 and the slope-1 enclosures."""
    zero, one = _slope_zero(z, zq, d), _slope_one(z, zq, d)
    shifted = Interval(down(d.lower + one.lower), up(d.upper + one.upper))
    return zero.intersect(shifted)


def relu_difference_line(z: Interval, zq: Interval, d: Interval) -> Line:
    """The best slope of 0, 1 and 1/2 for each unit, and what it leaves over."""
    zero, one = _slope_zero(z, zq, d), _slope_one(z, zq, d)
    half = 0.5 * d.magnitude
    widths = np.stack([zero.upper - zero.lower, one.upper - one.lower, 2.0 * half])
    best = np.argmin(widths, axis=0)
    slope = np.choose(best, [0.0, 1.0, 0.5])
    lower = np.choose(best, [zero.lower, one.lower, -half])
    upper = np.choose(best, [zero.upper, one.upper, half])
    return slope, Interval(lower, upper)


def relu_value_line(z: Interval) -> Line:
    """`relu(z) - slope z` on `[l, u]` lies between 0 and `max(-slope l, (1 - slope) u)` for any slope in [0, 1]."""
    unstable = (z.lower < 0.0) & (z.upper > 0.0)
    chord = z.upper / np.where(unstable, z.upper - z.lower, 1.0)
    slope = np.where(unstable, np.clip(chord, 0.0, 1.0), np.where(z.lower >= 0.0, 1.0, 0.0))
    gap = up(np.maximum(up(-slope * z.lower), up(up(1.0 - slope) * z.upper)))
    return slope, Interval(np.zeros_like(gap), np.where(unstable, gap, 0.0))


def relu_difference_bounds(z: Interval, zq: Interval, d: Interval) -> Lines:
    """`min(d, 0) <= d+ <= max(d, 0)`: the chord of the one side above, of the other below, unless parallel lines are closer."""
    slope, rest = relu_difference_line(z, zq, d)
    opens = 0.5 * (np.abs(d.lower) + np.abs(d.upper)) < rest.upper - rest.lower
    (above, over), (below, under) = relu_value_line(d), relu_value_line(-d)
    return (
        (np.where(opens, above, slope), np.where(opens, over.upper, rest.upper)),
        (np.where(opens, below, slope), np.where(opens, -under.upper, rest.lower)),
    )


@dataclass(frozen=True)
class Relu(Elementwise):
    """`max(z, 0)`, elementwise."""

    kind: ClassVar[str] = "relu"

    def evaluate(self, *inputs: Reals) -> Reals:
        """The value."""
        return positive(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(positive)

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(positive)

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """The intersection of the slope-0 and the slope-1 enclosures."""
        return relu_difference(*inputs[0].pair())

    def difference_line(self, parameters: Any, z: Interval, zq: Interval, d: Interval) -> Line:
        """The best slope per neuron."""
        return relu_difference_line(z, zq, d)

    def value_line(self, z: Interval) -> Line:
        """The chord of the unstable units."""
        return relu_value_line(z)

    def value_bounds(self, z: Interval) -> Lines | None:
        """The chord above; below the identity or zero, whichever leaves the smaller triangle, and zero if neither clearly does."""
        above, rest = relu_value_line(z)
        steep = (z.upper > -CLEARLY * z.lower).astype(np.float64)
        below = np.where((z.lower < 0.0) & (z.upper > 0.0), steep, above)
        return (above, rest.upper), (below, np.zeros_like(below))

    def difference_bounds(self, z: Interval, zq: Interval, d: Interval) -> Lines | None:
        """Two lines where they enclose less than the two parallel ones."""
        return relu_difference_bounds(z, zq, d)

    def slopes(self, z: Interval) -> Interval:
        """0, 1 or both."""
        return Interval((z.lower >= 0.0).astype(np.float64), (z.upper > 0.0).astype(np.float64))

    def derivative(self, z: Reals) -> Reals:
        """Whether the unit is active."""
        return (z > 0.0).astype(np.float64)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Zero."""
        return (0.0,)

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The positive part of the codes."""
        return np.maximum(codes[0], 0)
