"""What the exact proof knows of a tensor, and linear forms in it; tensors are flattened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.exact.dyadic import Dyadic, Range


@dataclass(frozen=True)
class ExactFacts:
    """Proved of one tensor, flattened: the float value, the fixed-point value, and the second minus the first.

    All values of the fixed-point tensor are multiples of `2**-grid`; None for a real input.
    """

    value: Range
    fixed: Range
    difference: Range
    grid: int | None

    def consistent(self) -> ExactFacts:
        """Each range cut down to what the other two and the grid allow."""
        value = self.value.outward()
        fixed = self.fixed.intersect(value + self.difference)
        if self.grid is not None:
            fixed = Range(fixed.lower.ceil(self.grid), fixed.upper.floor(self.grid))
        return ExactFacts(value, fixed, self.difference.intersect(fixed - value).outward(), self.grid)


@dataclass(frozen=True)
class ExactRows:
    """Linear forms `difference . d + value . x` in a tensor's difference and float value, each `(rows, size)`."""

    value: Dyadic
    difference: Dyadic

    def __add__(self, other: ExactRows) -> ExactRows:
        return ExactRows(self.value + other.value, self.difference + other.difference)

    def cut(self, facts: ExactFacts) -> tuple[ExactRows, Range | None]:
        """Rows of fewer bits, and the range of what they leave over for all members of the facts."""
        (value, lost), (difference, missed) = self.value.cut(), self.difference.cut()
        rests = [_times(unit, x) for unit, x in ((lost, facts.value), (missed, facts.difference)) if unit is not None]
        return ExactRows(value, difference), sum(rests[1:], rests[0]) if rests else None

    def at(self, facts: ExactFacts) -> Range:
        """The range of the forms over all members of the facts."""
        return facts.value.under(self.value) + facts.difference.under(self.difference)


def _times(unit: Dyadic, x: Range) -> Range:
    """The range of `rows . x` for rows from nothing to a unit."""
    ones = Dyadic.codes(np.ones((1, x.lower.shape[0]), np.int64), 0)
    return Range(ones @ x.lower.negative() * unit, ones @ x.upper.positive() * unit)
