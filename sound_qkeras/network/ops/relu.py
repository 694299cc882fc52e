"""The rectified linear unit, `max(z, 0)`.

Write `d = z_q - z`. The difference after the unit is `relu(z + d) - relu(z)`, and `relu(v) = v + relu(-v)` makes the
active and the inactive case mirror images of one another:

    slope 0:    d+       in [max(min(d_lo, 0), -relu(z_hi)),   min(max(d_hi, 0), relu(zq_hi))]
    slope 1:    d+ - d   in [max(min(-d_hi, 0), -relu(-z_lo)), min(max(-d_lo, 0), relu(-zq_lo))]
    slope 1/2:  d+ - d/2 in [-max|d| / 2, max|d| / 2]

The first is {0} when the unit is inactive in both networks, the second when it is active in both. A neuron uses the slope
whose interval is narrowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, down, inflate, up
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape, contract


def _relu(x: Reals) -> Reals:
    return np.maximum(x, 0.0)


def _slope_zero(z: Interval, zq: Interval, d: Interval) -> Interval:
    lower = np.maximum(np.minimum(d.lower, 0.0), -_relu(z.upper))
    upper = np.minimum(np.maximum(d.upper, 0.0), _relu(zq.upper))
    return Interval(lower, upper)


def _slope_one(z: Interval, zq: Interval, d: Interval) -> Interval:
    return _slope_zero(-z, -zq, -d)


@dataclass(frozen=True)
class Relu(Op):
    """`max(z, 0)`, elementwise."""

    kind: ClassVar[str] = "relu"
    relaxes: ClassVar[bool] = True

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The input's shape."""
        if len(input_shapes) != 1:
            raise ModelError(f"relu takes one tensor, received {len(input_shapes)}")
        return input_shapes[0]

    def evaluate(self, *inputs: Reals) -> Reals:
        """The value."""
        return _relu(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(_relu)

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(_relu)

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """The intersection of the slope-0 and the slope-1 enclosures."""
        z, zq, d = inputs[0].pair()
        zero, one = _slope_zero(z, zq, d), _slope_one(z, zq, d)
        shifted = Interval(down(d.lower + one.lower), up(d.upper + one.upper))
        return zero.intersect(shifted)

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Difference rows take the best slope per neuron, value rows the chord of the unstable units."""
        value, difference = None, None
        remainder.widen_for_underflow(*inputs)
        if rows.difference is not None:
            slope, rest = self._difference_line(*inputs[0].pair())
            difference = rows.difference * slope[:, None]
            _absorb(remainder, rows.difference, rest)
        if rows.value is not None:
            slope, rest = self._value_line(inputs[0].value)
            value = rows.value * slope[:, None]
            _absorb(remainder, rows.value, rest.widened(2.0**-52 * inputs[0].value.magnitude))
        return (Rows(value, difference),)

    def _difference_line(self, z: Interval, zq: Interval, d: Interval) -> tuple[Reals, Interval]:
        zero, one = _slope_zero(z, zq, d), _slope_one(z, zq, d)
        half = 0.5 * d.magnitude
        widths = np.stack([zero.upper - zero.lower, one.upper - one.lower, 2.0 * half])
        best = np.argmin(widths, axis=0)
        slope = np.choose(best, [0.0, 1.0, 0.5])
        lower = np.choose(best, [zero.lower, one.lower, -half])
        upper = np.choose(best, [zero.upper, one.upper, half])
        return slope, Interval(lower, upper)

    def _value_line(self, z: Interval) -> tuple[Reals, Interval]:
        """`relu(z) - slope z` on `[l, u]` lies between 0 and `max(-slope l, (1 - slope) u)` for any slope in [0, 1]."""
        unstable = (z.lower < 0.0) & (z.upper > 0.0)
        chord = z.upper / np.where(unstable, z.upper - z.lower, 1.0)
        slope = np.where(unstable, np.clip(chord, 0.0, 1.0), np.where(z.lower >= 0.0, 1.0, 0.0))
        gap = up(np.maximum(up(-slope * z.lower), up(up(1.0 - slope) * z.upper)))
        return slope, Interval(np.zeros_like(gap), np.where(unstable, gap, 0.0))

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Rows of active units."""
        return (rows * (inputs[0] > 0.0)[:, None],)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """Directions of active units."""
        return rows[0] * (inputs[0] > 0.0)[:, None]

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The positive part of the codes."""
        return np.maximum(codes[0], 0)


def _absorb(remainder: Remainder, rows: Reals, rest: Interval) -> None:
    """Add `rows . rest` to the remainder; the rounding of the centre's sum is part of the radius."""
    center, radius = rest.center, rest.radius
    terms = int(np.prod(rest.shape[1:]))
    magnitude = np.abs(rows)
    rounding = 2.0**-51 * (terms + 4) * np.abs(center)
    remainder.add(contract(rows, center), inflate(contract(magnitude, radius + rounding), terms + 4))
