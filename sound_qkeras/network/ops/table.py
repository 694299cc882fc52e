"""Tables: any function of one variable, read at a code; see `table_pair` for the integers.

What is left is the mean value theorem, `phi(x_q) - phi(x) = phi'(t) (x_q - x)` for some t between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval, inflate, up
from sound_qkeras.network.ops.base import Facts, Reals
from sound_qkeras.network.ops.elementwise import Elementwise, Line
from sound_qkeras.network.ops.function_pair import FunctionPair
from sound_qkeras.network.ops.lookup import joint_format
from sound_qkeras.network.ops.table_pair import TablePair
from sound_qkeras.network.smooth import Smooth, smooth


@dataclass(frozen=True)
class Table(Elementwise):
    """A function of one variable, elementwise.

    Args:
        function: its name, one of `smooth.NAMES`.
        alpha: the parameter of "elu".
    """

    kind: ClassVar[str] = "table"
    multiplies: ClassVar[bool] = True
    rounds: ClassVar[bool] = True
    derives: ClassVar[bool] = True
    function: str
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Refuse functions that nobody knows."""
        _ = self.smooth

    @property
    def longest_input(self) -> int:
        """More would leave too few bits for the results of interpolation."""
        return 28

    @property
    def smooth(self) -> Smooth:
        """The function's enclosures."""
        return smooth(self.function, self.alpha)

    def pair(self, sources: Sequence[Format], output: Format | None) -> TablePair:
        """The table between the formats; what is read from several is read in one that holds them all."""
        if output is None:
            raise TypeError("a table's result has a format")
        return TablePair(self.function, self.alpha, joint_format(sources), output)

    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.smooth.plain(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """The image."""
        return self.smooth.image(inputs[0])

    def fixed_interval(self, parameters: TablePair | FunctionPair, *inputs: Interval) -> Interval:
        """The image of what the fixed-point network has in the function's place."""
        return parameters.image(inputs[0])

    def difference(self, parameters: TablePair | FunctionPair, *inputs: Facts) -> Interval:
        """A slope between those at both arguments times the difference, and the entries' errors."""
        z, zq, d = inputs[0].pair()
        return (self.smooth.slopes(_hull(z, zq)) * d).widened(parameters.error(zq))

    def difference_line(self, parameters: TablePair | FunctionPair, z: Interval, zq: Interval, d: Interval) -> Line:
        """The middle of the slopes, which leaves the others times the difference."""
        slopes = self.smooth.slopes(_hull(z, zq))
        slope = slopes.center
        return slope, ((slopes - Interval.point(slope)) * d).widened(parameters.error(zq))

    def value_line(self, z: Interval) -> Line:
        """A line near the chord."""
        return self.smooth.line(z)

    def slopes(self, z: Interval) -> Interval:
        """The range of the slope."""
        return self.smooth.slopes(z)

    def derivative(self, z: Reals) -> Reals:
        """The slope."""
        return self.smooth.slope(z).center

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Kinks, and where the slope turns; what is looked up steps where its argument is rounded."""
        return tuple(0.5 * (low + high) for low, high in self.smooth.bends)

    def integer(
        self, parameters: TablePair, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """The entries, or the points between them."""
        read = np.asarray(codes[0]).astype(np.int64) << (parameters.source.fractional_bits - fractional_bits[0])
        return parameters.results(read).astype(np.float64)

    def fractional_bits(self, parameters: TablePair, *inputs: int) -> int:
        """Those of the entries, and of a code within a piece."""
        return parameters.result_bits

    def code_magnitude(self, parameters: TablePair, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """The largest code there can be."""
        output = parameters.output
        largest = float(max(output.max_code, -output.min_code))
        return np.full_like(magnitudes[0], largest * 2.0 ** (parameters.result_bits - output.fractional_bits))

    def carried_error(self, parameters: TablePair, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """The steepest piece's slope times the error of the code: what is read is rounded to one, right while it is near.

        An integer evaluation adds no error of its own.
        """
        step = parameters.source.step
        moved = np.floor(up(errors[0] / step) + 0.5) * step
        return np.where(moved > 0.0, inflate(parameters.steepest * moved, 2), 0.0)


def _hull(a: Interval, b: Interval) -> Interval:
    return Interval(np.minimum(a.lower, b.lower), np.maximum(a.upper, b.upper))
