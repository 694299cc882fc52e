"""What integers that are looked up have in common: they follow from a function and the formats around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sound_qkeras.fixed_point import Codes, Format


class Lookup(ABC):
    """A table in place of a function.

    Attributes:
        source: the format of the codes it reads.
        output: the format its results are rounded to.
    """

    source: Format
    output: Format

    @property
    @abstractmethod
    def problem(self) -> str:
        """Why there can be no such table, or nothing. While formats are searched there need not be."""

    @property
    @abstractmethod
    def codes(self) -> Codes:
        """The integers it holds, one axis.

        Raises:
            InputError: there can be no such table.
        """

    @property
    def width(self) -> int:
        """Bits of an integer, stored in as few as all of them need."""
        return Format.for_codes(int(self.codes.min()), int(self.codes.max()), 0).word_length

    @property
    def bits(self) -> int:
        """Bits of all its integers; none where there can be no such table."""
        return 0 if self.problem else self.codes.size * self.width


def joint_format(sources: Sequence[Format]) -> Format:
    """The narrowest format that holds the codes of all, at the finest step among them."""
    bits = max(source.fractional_bits for source in sources)
    shifts = [bits - source.fractional_bits for source in sources]
    low = min(source.min_code << shift for source, shift in zip(sources, shifts, strict=True))
    high = max(source.max_code << shift for source, shift in zip(sources, shifts, strict=True))
    return Format.for_codes(low, high, bits)
