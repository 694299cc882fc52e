"""What numbers a tensor may take: fixed point, one format or one for every channel or element; `staircases` has the others.

A grid is a nondecreasing rounding, elementwise. It acts on real numbers (`apply`, exact on float64 numbers; `image`, `error`), and
on integer codes (`round_codes`), which is the same, number for number, where all values of the grid have one common step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, CutFormat, Format, round_integers, scaled
from sound_qkeras.interval import Interval, read_only, up
from sound_qkeras.network.pickling import Rebuilt
from sound_qkeras.types import Codes, Reals, Shape

# Steps stay far from the ends of float64, so that scaling by them is exact.
MOST_FRACTIONAL_BITS = 300


class Grid(Rebuilt, ABC):
    """The numbers that every element of a tensor may take, and which of them a real number becomes.

    Attributes:
        kind: its name in files.
    """

    kind: ClassVar[str]

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What defines it besides arrays, as plain json."""

    @abstractmethod
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """The arrays that define it, by name."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Broadcasts against the tensor's: `()` where all elements are alike, `(channels,)` where channels are."""

    @property
    @abstractmethod
    def minimum(self) -> float:
        """The smallest value of all elements."""

    @property
    @abstractmethod
    def maximum(self) -> float:
        """The largest value of all elements."""

    @property
    @abstractmethod
    def levels(self) -> int:
        """One less than the number of values of an element that has most."""

    @property
    @abstractmethod
    def fractional_bits(self) -> int | None:
        """Fractional bits that all values of all elements have, if float64 knows them."""

    @property
    @abstractmethod
    def word_lengths(self) -> Codes:
        """Bits that tell the values of an element apart, of the grid's shape."""

    @property
    @abstractmethod
    def reach(self) -> tuple[Reals, Reals]:
        """Values beyond these ends are cut off, rather than rounded."""

    @abstractmethod
    def apply(self, x: Reals) -> Reals:
        """The value that float64 numbers become, exactly."""

    @abstractmethod
    def neighbours(self, x: Reals) -> tuple[Reals, Reals]:
        """The largest value at most, and the smallest at least a float64 number; beyond the ends, the end twice."""

    @abstractmethod
    def error(self, x: Interval, bits: int | None) -> Reals:
        """Bound on `|apply(v) - v|` for every v in the intervals.

        Args:
            x: the intervals.
            bits: the fractional bits of v where it is known to have so few.
        """

    @property
    @abstractmethod
    def codes(self) -> Format | None:
        """The narrowest format that has all values of all elements; None where that is none of at most 53 bits."""

    @abstractmethod
    def round_codes(self, codes: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
        """What `apply` makes of numbers with so many fractional bits, as codes of the format `codes`, exactly.

        Args:
            codes: integers as float64, int64 or Python integers, `(..., *tensor's shape)`.
            bits: their fractional bits.
        """

    def nearest(self, x: Reals) -> Reals:
        """The nearest value, the lower one of two; `apply` may be another one where the grid has edges of its own."""
        below, above = self.neighbours(x)
        return np.where(above - x < x - below, above, below)

    def image(self, x: Interval) -> Interval:
        """The image of intervals; exact."""
        return x.mapped(self.apply)

    def bits(self, shape: Shape) -> int:
        """Bits that storing one tensor takes."""
        return int(np.broadcast_to(self.word_lengths, shape).sum())


@dataclass(frozen=True, eq=False)
class FixedPoint(Grid):
    """The nearest of the numbers `code * 2**-fractional`, half to even, with codes from `low` to `high`.

    Args:
        fractional: fractional bits, one number or an array that broadcasts against the tensor; an element whose only code is zero
            takes the fewest of the others.
        low: the smallest code, likewise.
        high: the largest code, likewise.

    Raises:
        ModelError: float64 cannot hold all values on one common grid.

    >>> FixedPoint(2, -3, 3).apply(np.array([-9.0, 0.125, 0.375, 0.4])).tolist()
    [-0.75, 0.0, 0.5, 0.5]
    >>> FixedPoint(np.array([0, 1, 5]), -2, np.array([1, 1, 1])).apply(np.full(3, 0.3)).tolist()
    [0.0, 0.5, 0.03125]
    """

    kind: ClassVar[str] = "fixed_point"
    fractional: Codes
    low: Codes
    high: Codes

    def __post_init__(self) -> None:
        """Keep copies that cannot change; refuse what float64 cannot hold exactly."""
        given = [np.asarray(getattr(self, name)) for name in ("fractional", "low", "high")]
        whole = all(np.issubdtype(one.dtype, np.integer) for one in given)
        bits, low, high = np.broadcast_arrays(*given) if whole else given
        zero = (low == 0) & (high == 0)
        if whole:
            bits = np.where(zero, bits[~zero].min() if not np.all(zero) else 0, bits)
        for name, array in (("fractional", bits), ("low", low), ("high", high)):
            object.__setattr__(self, name, read_only(array.astype(np.int64) if whole else array))
        held = whole and np.all(low <= high) and np.all(np.abs(bits) <= MOST_FRACTIONAL_BITS)
        if not (held and max(abs(end) for end in self._ends) <= 2**MAX_WORD_LENGTH):
            raise ModelError(
                f"a quantizer with codes {_listed(low)} to {_listed(high)} and {_listed(bits)} fractional bits; accepted: whole "
                f"numbers, at most {MAX_WORD_LENGTH} bits from the largest value to the finest step"
            )

    @classmethod
    def of(cls, output: Format) -> FixedPoint:
        """What rounding to a format does."""
        return cls(np.array(output.fractional_bits), np.array(output.min_code), np.array(output.max_code))

    @property
    def shape(self) -> Shape:
        """That of its arrays."""
        return self.fractional.shape

    def settings(self) -> Mapping[str, Any]:
        """Nothing but arrays."""
        return {}

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """All that it is."""
        return {"fractional": self.fractional, "low": self.low, "high": self.high}

    @property
    def fractional_bits(self) -> int:
        """Those of the finest element."""
        return int(self.fractional.max())

    @cached_property
    def _ends(self) -> tuple[int, int]:
        """The smallest and the largest code on the finest grid."""
        finer = self.fractional_bits - self.fractional
        return int(np.ldexp(self.low.astype(float), finer).min()), int(np.ldexp(self.high.astype(float), finer).max())

    @property
    def codes(self) -> Format:
        """The format of the finest step with both ends."""
        return covering(*self._ends, self.fractional_bits)

    @property
    def word_lengths(self) -> Codes:
        """Two's complement, with a sign where there is one; none where zero is all there is."""
        signed = self.low < 0
        magnitudes = np.maximum(self.high, np.where(signed, -self.low - 1, self.low)).astype(np.float64)
        return signed + np.frexp(magnitudes)[1].astype(np.int64)

    @property
    def levels(self) -> int:
        """One less than the number of codes."""
        return int((self.high - self.low).max())

    @cached_property
    def step(self) -> Reals:
        """The distance of neighbours."""
        return np.ldexp(1.0, -self.fractional)

    @cached_property
    def ends(self) -> tuple[Reals, Reals]:
        """The smallest and the largest value of every element."""
        return self.low * self.step, self.high * self.step

    @property
    def minimum(self) -> float:
        """The smallest value of all elements."""
        return float(self.ends[0].min())

    @property
    def maximum(self) -> float:
        """The largest value of all elements."""
        return float(self.ends[1].max())

    @property
    def reach(self) -> tuple[Reals, Reals]:
        """Half a step beyond its ends."""
        return self.ends[0] - 0.5 * self.step, self.ends[1] + 0.5 * self.step

    def apply(self, x: Reals) -> Reals:
        """The nearest code's value."""
        return np.clip(np.rint(x * np.ldexp(1.0, self.fractional)), self.low, self.high) * self.step

    def neighbours(self, x: Reals) -> tuple[Reals, Reals]:
        """The codes below and above."""
        exact = x * np.ldexp(1.0, self.fractional)
        below, above = (np.clip(end(exact), self.low, self.high) * self.step for end in (np.floor, np.ceil))
        return below, above

    def nearest(self, x: Reals) -> Reals:
        """As `apply`."""
        return self.apply(x)

    def error(self, x: Interval, bits: int | None) -> Reals:
        """Half a step, or what is cut off where that is more; nothing for what is on the grid already."""
        low, high = self.ends
        beyond = np.maximum(up(x.upper - high), up(low - x.lower))
        single = (x.lower == x.upper) & (self.apply(x.lower) == x.lower)
        fine = False if bits is None else bits <= self.fractional
        inside = np.where(single | fine, 0.0, 0.5 * self.step)
        within = (x.lower >= low) & (x.upper <= high)
        return np.where(within, inside, np.maximum(inside, np.maximum(beyond, 0.0)))

    def round_codes(self, codes: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
        """Every element is rounded on its own grid, cut off at its own ends, and then put on the finest one."""
        found = np.empty(codes.shape, np.float64)
        kinds = np.unique(self.fractional).tolist()
        for fractional in kinds:
            here: Any = ... if len(kinds) == 1 else np.broadcast_to(self.fractional == fractional, codes.shape)
            own = round_integers(codes[here], fractional - bits)
            low, high = (np.broadcast_to(end, codes.shape)[here] for end in (self.low, self.high))
            cut = np.clip(own, low, high).astype(np.float64)
            found[here] = scaled(cut, self.fractional_bits - fractional)
        return found

    def __str__(self) -> str:
        """Bits before and after the point, and where elements differ the fewest and the most of them."""
        lengths, after = self.word_lengths, self.fractional
        texts = [
            f"{part.min()}" if part.min() == part.max() else f"{part.min()}..{part.max()}" for part in (lengths, after)
        ]
        return f"fixed point of {texts[0]} bits, {texts[1]} of them fractional"


def covering(low: int, high: int, fractional_bits: int) -> Format:
    """The narrowest format with the codes from `low` to `high`, cut where it has more."""
    signed = low < 0
    length = signed + max(high.bit_length(), (-low - 1).bit_length() if signed else 0, 1)
    whole = Format(length, length - signed - fractional_bits, signed)
    if (whole.min_code, whole.max_code) == (low, high):
        return whole
    return CutFormat(whole.word_length, whole.integer_bits, signed, low, high)


def fractional_bits_of(values: Reals) -> int | None:
    """The fewest fractional bits that hold every number exactly; None beyond what float64 sums could be exact for.

    >>> fractional_bits_of(np.array([0.75, 3.0])), fractional_bits_of(np.array([8.0])), fractional_bits_of(np.array([1e-200]))
    (2, -3, None)
    """
    mantissas, exponents = np.frexp(values[values != 0.0])
    if mantissas.size == 0:
        return 0
    numbers = np.abs(np.ldexp(mantissas, 53)).astype(np.int64)
    trailing = np.log2((numbers & -numbers).astype(np.float64)).astype(np.int64)
    bits = int(np.max(53 - exponents - trailing))
    return bits if bits <= MOST_FRACTIONAL_BITS else None


def _listed(numbers: npt.NDArray[Any]) -> str:
    """The first few of an array."""
    flat = numbers.reshape(-1)[:4].tolist()
    return str(flat[0]) if numbers.size == 1 else f"{flat}{'...' if numbers.size > 4 else ''}"
