"""What the exact proof knows of a tensor, and linear forms in it; tensors are flattened."""

from __future__ import annotations

from dataclasses import dataclass

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
        fixed = self.fixed.intersect(self.value + self.difference)
        if self.grid is not None:
            fixed = Range(fixed.lower.ceil(self.grid), fixed.upper.floor(self.grid))
        return ExactFacts(self.value, fixed, self.difference.intersect(fixed - self.value), self.grid)


@dataclass(frozen=True)
class ExactRows:
    """Linear forms `difference . d + value . x` in a tensor's difference and float value, each `(rows, size)`."""

    value: Dyadic
    difference: Dyadic

    def __add__(self, other: ExactRows) -> ExactRows:
        return ExactRows(self.value + other.value, self.difference + other.difference)

    def at(self, facts: ExactFacts) -> Range:
        """The range of the forms over all members of the facts."""
        return facts.value.under(self.value) + facts.difference.under(self.difference)
