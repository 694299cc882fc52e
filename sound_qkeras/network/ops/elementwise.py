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
from sound_qkeras.interval import Interval, Precision, Reals, inflate
from sound_qkeras.network.ops.base import Facts, Remainder, Rows, Shape, contract
from sound_qkeras.network.ops.linear import About, Linear, LinearOp, Lines

Line = tuple[Reals, Interval]


class Elementwise(LinearOp):
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

    def value_bounds(self, z: Interval) -> Lines | None:
        """A line above the values and one below; None where `value_line` says as much."""
        return None

    def difference_bounds(self, z: Interval, zq: Interval, d: Interval) -> Lines | None:
        """A line above the differences and one below; None where `value_bounds` is."""
        return None

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

    @property
    @abstractmethod
    def breakpoints(self) -> tuple[float, ...]:
        """Where the function has kinks, or its slope turns from rising to falling or back."""

    def ahead(self, directions: Sequence[Reals], *inputs: Reals) -> Reals:
        """To the nearest of the breakpoints."""
        z, direction = (part.reshape(len(part), -1) for part in (inputs[0], directions[0]))
        nearest = np.full(z.shape, np.inf)
        for point in self.breakpoints:
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = (point - z) / direction
            nearest = np.where(distance > 0.0, np.minimum(nearest, distance), nearest)
        return nearest

    def linear_value(self, x: Interval, about: About, precision: Precision) -> Linear:
        """The line, and what it leaves over."""
        return _about(self.value_line(x), about, precision)

    def linear_difference(
        self, parameters: Any, facts: Facts, value: About, difference: About, precision: Precision
    ) -> Linear:
        """The line, and what it leaves over."""
        return _about(self.difference_line(parameters, *facts.pair()), difference, precision)

    def pull(self, parameters: Any, rows: Rows, value: Reals | None, difference: Reals | None) -> Rows:
        """Rows times slopes."""

        def times(part: Reals | None, slope: Reals | None) -> Reals | None:
            return None if part is None or slope is None else part * slope[:, None]

        return Rows(times(rows.value, value), times(rows.difference, difference))


def _about(line: Line, about: About, precision: Precision) -> Linear:
    """With the rounding of the point, of slopes to the precision, and of coefficients times slopes."""
    slope, rest = line
    used = slope.astype(precision.kind)
    moved, size = slope * about.point, 2.0 * precision.unit * np.abs(slope) + np.abs(slope - used)
    point = moved + rest.center
    radius = rest.radius + 2.0**-52 * (np.abs(moved) + np.abs(point)) + size * about.size
    return Linear(point, inflate(radius, 8), used)


def absorb(remainder: Remainder, rows: Reals, rest: Interval) -> None:
    """Add `rows . rest` to the remainder; the rounding of the centre's sum is part of the radius."""
    center, radius = rest.center, rest.radius
    terms = int(np.prod(rest.shape[1:]))
    magnitude = np.abs(rows)
    rounding = 2.0**-51 * (terms + 4) * np.abs(center)
    remainder.add(contract(rows, center), inflate(contract(magnitude, radius + rounding), terms + 4))
