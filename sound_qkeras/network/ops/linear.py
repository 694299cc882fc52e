"""Operations of one tensor that are a linear map but for a rest that no form has an influence on.

Forms are written about points: with `x~ = x - point` the operation is `y~ = L x~ + e` and `|e| <= radius`, elementwise. The point
of the result is where the map leads the point of the input, so that nothing but radii is left over on the way back.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from sound_qkeras.interval import DOUBLE, SINGLE, TINY, Interval, Precision, up_sum
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, charge
from sound_qkeras.types import Indices

# Slope and constant of a line above, and of a line below.
Lines = tuple[tuple[Reals, Reals], tuple[Reals, Reals]]


@dataclass(frozen=True)
class About:
    """Points near the values, or the differences, of a tensor on every box, and how far these are from them at most.

    Both arrays have shape `(boxes, *shape)`.
    """

    point: Reals
    size: Reals

    @classmethod
    def of(cls, members: Interval, point: Reals) -> About:
        """About a point, which need not be inside."""
        return cls(point, np.maximum(up_sum(np.abs(members.lower - point)), up_sum(np.abs(members.upper - point))))

    @classmethod
    def zero(cls, members: Interval) -> About:
        """About zero."""
        return cls(np.zeros(members.shape), members.magnitude)


@dataclass(frozen=True)
class Linear:
    """What an operation is on every box, beside its linear map.

    Args:
        point: about which the result is written.
        radius: bound of what the map leaves over, and of what rounding coefficients on the way back adds to that; None for zero.
        slope: of elementwise maps.
    """

    point: Reals
    radius: Reals | None
    slope: Reals | None = None


class LinearOp(Op):
    """Base of these operations."""

    @abstractmethod
    def linear_value(self, x: Interval, about: About, precision: Precision) -> Linear:
        """The map of values in `x`, written about a point, for coefficients in some precision."""

    @abstractmethod
    def linear_difference(
        self, parameters: Any, facts: Facts, value: About, difference: About, precision: Precision
    ) -> Linear:
        """The map of values and differences, written about a point each, to differences."""

    def fits(self, parameters: Any, precision: Precision) -> bool:
        """Whether nothing that coefficients are multiplied with is too large or too small for a precision."""
        return True

    @abstractmethod
    def pull(self, parameters: Any, rows: Rows, value: Reals | None, difference: Reals | None) -> Rows:
        """The rows in the input; slopes of values and of differences where maps have them."""

    def unit_rows(self, parameters: Any, chosen: Indices, precision: Precision) -> Rows | None:
        """What `pull` makes of the unit rows of single differences, where that is known without a product, else None.

        It is asked of operations whose result has one axis.

        Args:
            parameters: the node's parameter pair, or None: then the rows are those of single values.
            chosen: flat numbers of the results, shape `(boxes, rows)` or `(rows,)` for all boxes.
            precision: of the coefficients.
        """
        return None

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Written about zero."""
        facts, precision = inputs[0], precision_of(rows)
        about, slopes = About.zero(facts.value), dict[str, Reals | None]()
        if rows.value is not None:
            slopes["value"] = _left_over(remainder, rows.value, facts, self.linear_value(facts.value, about, precision))
        if rows.difference is not None:
            found = self.linear_difference(parameters, facts, about, About.zero(facts.pair()[2]), precision)
            slopes["difference"] = _left_over(remainder, rows.difference, facts, found)
        return (self.pull(parameters, rows, slopes.get("value"), slopes.get("difference")),)


def precision_of(rows: Rows) -> Precision:
    """That of the coefficients."""
    some = rows.value if rows.value is not None else rows.difference
    return SINGLE if some is not None and some.dtype == SINGLE.kind else DOUBLE


def _left_over(remainder: Remainder, rows: Reals, facts: Facts, found: Linear) -> Reals | None:
    """Charge what is left over; returns the slope."""
    if found.radius is not None:
        remainder.widen_for_underflow(facts, tiny=SINGLE.tiny if rows.dtype == SINGLE.kind else TINY)
        charge(remainder, rows, found.point, found.radius)
    return found.slope
