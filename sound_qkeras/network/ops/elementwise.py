"""Operations that act on each element alone: a line in place of the function, and an enclosure of what it leaves over.

With `d = z_q - z`, a line for the difference is a slope `s` and an interval that holds `f_q(z + d) - f(z) - s d`; a line for
the value is a slope and an interval that holds `f(z) - s z`. The adjoint needs nothing else of a function.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, Reals, inflate
from sound_qkeras.network.ops.base import Facts, Op, Remainder, Rows, Shape, contract

Line = tuple[Reals, Interval]


class Elementwise(Op):
    """Base of the operations on single elements.

    Attributes:
        uniform: whether every element goes through the same function.
    """

    relaxes: ClassVar[bool] = True
    uniform: ClassVar[bool] = True

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The input's shape."""
        if len(input_shapes) != 1:
            raise ModelError(f"{self.kind} takes one tensor, received {len(input_shapes)}")
        return input_shapes[0]

    @abstractmethod
    def difference_line(self, parameters: Any, z: Interval, zq: Interval, d: Interval) -> Line:
        """A slope per element, and what it leaves of the difference."""

    @abstractmethod
    def value_line(self, z: Interval) -> Line:
        """A slope per element, and what it leaves of the value."""

    @abstractmethod
    def slopes(self, z: Interval) -> Interval:
        """The slopes of the function over intervals: wherever they differ, tighter intervals help."""

    @abstractmethod
    def derivative(self, z: Reals) -> Reals:
        """A slope at points, in float64, for heuristics."""

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Rows times the slopes."""
        return (rows * self.derivative(inputs[0])[:, None],)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """Directions times the slopes."""
        return rows[0] * self.derivative(inputs[0])[:, None]

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """The rows times the lines' slopes; the rounding of that product joins what the lines leave over."""
        facts = inputs[0]
        value, difference = None, None
        remainder.widen_for_underflow(facts)
        if rows.difference is not None:
            slope, rest = self._difference_line(parameters, facts)
            difference = rows.difference * slope[:, None]
            lost = 2.0**-52 * np.abs(slope) * facts.pair()[2].magnitude
            absorb(remainder, rows.difference, rest.widened(lost))
        if rows.value is not None:
            slope, rest = self._value_line(facts)
            value = rows.value * slope[:, None]
            absorb(remainder, rows.value, rest.widened(2.0**-52 * np.abs(slope) * facts.value.magnitude))
        return (Rows(value, difference),)

    def _difference_line(self, parameters: Any, facts: Facts) -> Line:
        return facts.once((id(self), id(parameters)), lambda: self.difference_line(parameters, *facts.pair()))

    def _value_line(self, facts: Facts) -> Line:
        return facts.once((id(self), None), lambda: self.value_line(facts.value))


def absorb(remainder: Remainder, rows: Reals, rest: Interval) -> None:
    """Add `rows . rest` to the remainder; the rounding of the centre's sum is part of the radius."""
    center, radius = rest.center, rest.radius
    terms = int(np.prod(rest.shape[1:]))
    magnitude = np.abs(rows)
    rounding = 2.0**-51 * (terms + 4) * np.abs(center)
    remainder.add(contract(rows, center), inflate(contract(magnitude, radius + rounding), terms + 4))
