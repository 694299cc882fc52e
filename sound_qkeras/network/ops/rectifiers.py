"""Relatives of the ReLU: `Clip`, `min(max(z, 0), m)`, and `Leaky`, `z` above zero and `a z` below.

Both are sums of ReLUs of one input, so the lines of the ReLU serve them:

    clip(z)  = relu(z) - relu(z - m)
    leaky(z) = a z + (1 - a) relu(z)

The fixed-point network multiplies by slopes `a_q` of few bits; with `z_q` what it reads, that adds
`(a_q - a) min(z_q, 0)`. A bound m is kept exactly: it is a float32 number, and the result gets its fractional bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import Codes, Format, from_codes, to_grid
from sound_qkeras.interval import Interval, down, exact_difference, inflate, read_only, up
from sound_qkeras.network.ops.base import Facts, Reals, Shape
from sound_qkeras.network.ops.elementwise import Elementwise, Line
from sound_qkeras.network.ops.relu import positive, relu_difference, relu_difference_line, relu_value_line

# Bits of a slope beyond those of what it multiplies: its own error is then below that of the rounding before it.
EXTRA_SLOPE_BITS = 6
# A float32 number has no more.
MOST_SLOPE_BITS = 24
# Most fractional bits a bound may have: those of a float32 number of at least 1/4.
MOST_MAXIMUM_BITS = 26


def _point_bits(number: float) -> int:
    """Fractional bits of a number, 0 for integers.

    >>> _point_bits(6.0), _point_bits(0.375)
    (0, 3)
    """
    return number.as_integer_ratio()[1].bit_length() - 1


@dataclass(frozen=True)
class Clip(Elementwise):
    """`min(max(z, 0), maximum)`, elementwise: ReLU6 and its like."""

    kind: ClassVar[str] = "clip"
    maximum: float

    def __post_init__(self) -> None:
        """Refuse bounds that are no positive number of few bits."""
        if not (math.isfinite(self.maximum) and self.maximum > 0.0) or self.maximum_bits > MOST_MAXIMUM_BITS:
            raise ModelError(
                f"max_value is {self.maximum!r}; accepted: a positive number of at most {MOST_MAXIMUM_BITS} fractional "
                "bits, which every float32 number from 1/4 on is"
            )

    @property
    def maximum_bits(self) -> int:
        """Fractional bits of the bound."""
        return _point_bits(self.maximum)

    def _clip(self, z: Reals) -> Reals:
        return np.minimum(positive(z), self.maximum)

    def evaluate(self, *inputs: Reals) -> Reals:
        """The value."""
        return self._clip(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(self._clip)

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(self._clip)

    def _above(self, z: Interval) -> Interval:
        """`z - m`, where the other ReLU reads."""
        return Interval(down(z.lower - self.maximum), up(z.upper - self.maximum))

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """That of both ReLUs, and between nothing and all of the input's."""
        z, zq, d = inputs[0].pair()
        found = relu_difference(z, zq, d) - relu_difference(self._above(z), self._above(zq), d)
        return found.intersect(Interval(np.minimum(d.lower, 0.0), np.maximum(d.upper, 0.0)))

    def difference_line(self, parameters: Any, z: Interval, zq: Interval, d: Interval) -> Line:
        """Both ReLUs' lines, or half of the difference where that leaves less."""
        low, high = relu_difference_line(z, zq, d), relu_difference_line(self._above(z), self._above(zq), d)
        slope, rest = low[0] - high[0], low[1] - high[1]
        half = 0.5 * d.magnitude
        better = 2.0 * half < rest.upper - rest.lower
        return np.where(better, 0.5, slope), Interval(
            np.where(better, -half, rest.lower), np.where(better, half, rest.upper)
        )

    def value_line(self, z: Interval) -> Line:
        """Both ReLUs' chords; the rounding of their difference is charged."""
        (low, below), (high, above) = relu_value_line(z), relu_value_line(self._above(z))
        shift = Interval.point(high) * Interval.point(self.maximum)
        return low - high, (below - above + shift).widened(2.0**-51 * z.magnitude)

    def slopes(self, z: Interval) -> Interval:
        """0, 1 or both."""
        flat = (z.lower < 0.0) | (z.upper > self.maximum)
        return Interval((~flat).astype(np.float64), ((z.upper > 0.0) & (z.lower < self.maximum)).astype(np.float64))

    def derivative(self, z: Reals) -> Reals:
        """Whether the unit is between its bounds."""
        return ((z > 0.0) & (z < self.maximum)).astype(np.float64)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Both ends."""
        return (0.0, self.maximum)

    def fractional_bits(self, parameters: Any, *inputs: int) -> int:
        """Those of the input or of the bound, whichever are more."""
        return max(inputs[0], self.maximum_bits)

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Clipped codes; they are cut to the bound's size before they are shifted, so that nothing grows."""
        shift = max(0, self.maximum_bits - fractional_bits[0])
        number, denominator = self.maximum.as_integer_ratio()
        scale = fractional_bits[0] + shift - (denominator.bit_length() - 1)
        bound = number << scale
        rough = -(-bound >> shift)
        cut = np.minimum(np.maximum(codes[0], 0), _like(rough, codes[0]))
        return np.minimum(cut * _like(1 << shift, codes[0]), _like(bound, codes[0]))

    def code_magnitude(self, parameters: Any, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """The input's codes, shifted to the result's fractional bits."""
        return np.ldexp(magnitudes[0], max(0, self.maximum_bits - fractional_bits[0]))

    def carried_error(self, parameters: Any, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """No more than before."""
        return errors[0]


def _like(number: int, codes: npt.NDArray[Any]) -> Any:
    """An integer as the codes' own kind; one beyond int64 limits nothing there."""
    if codes.dtype == object:
        return number
    return float(number) if codes.dtype == np.float64 else min(number, (1 << 62) - 1)


class SlopeComparison:
    """The slopes that another network has in place of these, and an enclosure of how far they are from them."""

    def __init__(self, slope: Reals, residual: Interval) -> None:
        """Keep both."""
        self.slope, self.residual = slope, residual


class LeakyPair(SlopeComparison):
    """Slopes beside the integers that stand for them: the nearest of `bits` fractional bits."""

    def __init__(self, slope: Reals, bits: int) -> None:
        """Round the slopes, half to even, and drop zeros that all of their codes end with."""
        codes = to_grid(slope, bits).astype(np.int64)
        while bits > 0 and not np.any(codes & 1):
            codes, bits = codes >> 1, bits - 1
        self.codes: Codes = read_only(codes)
        self.bits = bits
        rounded = read_only(from_codes(codes, bits))
        residual, lost = exact_difference(rounded, slope)
        super().__init__(rounded, Interval(down(residual - lost), up(residual + lost)))


@dataclass(frozen=True, eq=False)
class Leaky(Elementwise):
    """`max(z, 0) + slope min(z, 0)`, elementwise: LeakyReLU with one slope, PReLU with several.

    Args:
        slope: float64, of a shape that is broadcast against one sample.
    """

    kind: ClassVar[str] = "leaky"
    uniform: ClassVar[bool] = False
    multiplies: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True
    derives: ClassVar[bool] = True
    slope: Reals

    def __post_init__(self) -> None:
        """Keep a copy that cannot change; refuse slopes that are not finite or far beyond any use."""
        object.__setattr__(self, "slope", read_only(self.slope))
        if self.slope.dtype != np.float64 or self.slope.size == 0 or not np.all(np.abs(self.slope) <= 256.0):
            raise ModelError(
                f"slopes are {self.slope.dtype}{self.slope.shape} up to {np.max(np.abs(self.slope), initial=0.0):.3g}; "
                "accepted: float64 numbers of magnitude up to 256; retrain with smaller ones"
            )

    @property
    def longest_input(self) -> int:
        """With the bits of a slope, exact in float64."""
        return 28

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The input's shape, if the slopes fit it."""
        shape = super().output_shape(*input_shapes)
        try:
            fits = np.broadcast_shapes(self.slope.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ModelError(f"slopes of shape {self.slope.shape} do not fit values of shape {shape}")
        return shape

    def pair(self, sources: Sequence[Format], output: Format | None) -> LeakyPair:
        """Slopes a few bits finer than what they multiply."""
        finest = max(source.fractional_bits for source in sources)
        return LeakyPair(self.slope, int(np.clip(finest + EXTRA_SLOPE_BITS, 0, MOST_SLOPE_BITS)))

    def evaluate(self, *inputs: Reals) -> Reals:
        """The value."""
        return positive(inputs[0]) + self.slope * np.minimum(inputs[0], 0.0)

    def interval(self, *inputs: Interval) -> Interval:
        """What the two ends give, and zero between them."""
        return _image(inputs[0], self.slope)

    def fixed_interval(self, parameters: SlopeComparison, *inputs: Interval) -> Interval:
        """The same with the fixed-point network's slopes."""
        return _image(inputs[0], parameters.slope)

    def _lines(self, parameters: SlopeComparison, zq: Interval) -> tuple[Interval, Interval]:
        """`1 - a`, and `(a_q - a) min(z_q, 0)`."""
        rest = Interval.point(1.0) - Interval.point(self.slope)
        return rest, parameters.residual * Interval(np.minimum(zq.lower, 0.0), np.minimum(zq.upper, 0.0))

    def difference(self, parameters: SlopeComparison, *inputs: Facts) -> Interval:
        """`a d + (1 - a) d_relu`, and what the slopes' rounding adds."""
        z, zq, d = inputs[0].pair()
        rest, rounding = self._lines(parameters, zq)
        return Interval.point(self.slope) * d + rest * relu_difference(z, zq, d) + rounding

    def difference_line(self, parameters: SlopeComparison, z: Interval, zq: Interval, d: Interval) -> Line:
        """The ReLU's line, scaled and turned."""
        rest, rounding = self._lines(parameters, zq)
        return self._turned(relu_difference_line(z, zq, d), rest, rounding, d)

    def value_line(self, z: Interval) -> Line:
        """The ReLU's chord, scaled and turned."""
        rest = Interval.point(1.0) - Interval.point(self.slope)
        return self._turned(relu_value_line(z), rest, Interval.point(np.zeros(z.shape)), z)

    def _turned(self, line: Line, rest: Interval, extra: Interval, x: Interval) -> Line:
        """`a x + (1 - a) (s x + left) + extra`; what the rounded slope is off by is charged for all members of `x`."""
        slope = self.slope + (1.0 - self.slope) * line[0]
        exact = Interval.point(self.slope) + rest * Interval.point(line[0])
        return slope, rest * line[1] + extra + (exact - Interval.point(slope)) * x

    def slopes(self, z: Interval) -> Interval:
        """The slope below zero, one, or both."""
        below, above = z.lower < 0.0, z.upper > 0.0
        low = np.where(below, np.where(above, np.minimum(self.slope, 1.0), self.slope), 1.0)
        return Interval(low, np.where(above, np.where(below, np.maximum(self.slope, 1.0), 1.0), low))

    def derivative(self, z: Reals) -> Reals:
        """One above zero, the slope below."""
        return np.where(z > 0.0, 1.0, np.broadcast_to(self.slope, z.shape))

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Zero."""
        return (0.0,)

    def fractional_bits(self, parameters: LeakyPair, *inputs: int) -> int:
        """Those of the input and of the slopes together."""
        return inputs[0] + parameters.bits

    def integer(
        self, parameters: LeakyPair, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """Codes above zero shifted, those below times the slope's."""
        z = codes[0]
        slope = parameters.codes.astype(z.dtype)
        return np.maximum(z, 0) * _like(1 << parameters.bits, z) + np.minimum(z, 0) * slope

    def code_magnitude(self, parameters: LeakyPair, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """Codes times the larger of one and the slope."""
        return inflate(magnitudes[0] * np.maximum(np.abs(parameters.codes), 2.0**parameters.bits), 2)

    def absolute_terms(self, parameters: SlopeComparison, *magnitudes: Reals) -> Reals:
        """Magnitudes times the larger of one and the slope."""
        return inflate(magnitudes[0] * np.maximum(np.abs(parameters.slope), 1.0), 2)

    def carried_error(self, parameters: SlopeComparison, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """Errors times the larger of one and the slope."""
        return self.absolute_terms(parameters, errors[0])


def _image(z: Interval, slope: Reals) -> Interval:
    low, high = (
        Interval.point(positive(end)) + Interval.point(slope) * Interval.point(np.minimum(end, 0.0))
        for end in (z.lower, z.upper)
    )
    low, high = _exact_above(low, z.lower), _exact_above(high, z.upper)
    straddles = (z.lower < 0.0) & (z.upper > 0.0)
    lower, upper = np.minimum(low.lower, high.lower), np.maximum(low.upper, high.upper)
    return Interval(
        np.where(straddles, np.minimum(lower, 0.0), lower), np.where(straddles, np.maximum(upper, 0.0), upper)
    )


def _exact_above(found: Interval, end: Reals) -> Interval:
    """Ends from zero up are their own images."""
    above = end >= 0.0
    return Interval(np.where(above, end, found.lower), np.where(above, end, found.upper))
