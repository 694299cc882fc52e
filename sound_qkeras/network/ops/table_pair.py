"""The integers of a table, and what each of them is off by.

A table holds codes of `phi` at points `2**-e` apart, and between two of them the fixed-point network goes straight from one
to the other: with a code `c = i 2**s + j` of what it reads, counted from the smallest,

    (base[i] << s) + (base[i+1] - base[i]) j

exactly, and then one rounding to the output's format. Where what is read is no finer than the points, or has few codes,
s is zero: that is plain look-up, and the entries are codes of the output's format.

Entries are `rint(phi(x) 2**g)`, half to even, of a float64 `phi(x)` made of correctly rounded operations only (see
`elementary`): every machine derives the same integers from the function and the two formats. They are hashed with the
network's other integers.

The proof takes entries as they are: the distance of the straight piece from a rigorous enclosure of `phi` is bounded piece
by piece, and an element is charged the largest among the pieces it may read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, Format, from_codes, scaled, to_grid
from sound_qkeras.interval import Interval, Reals, read_only
from sound_qkeras.network.ops.lookup import Lookup
from sound_qkeras.network.smooth import Smooth, smooth

# A table has at most two to this power of pieces.
MAX_TABLE_BITS = 17
# Up to so many bits every code has an entry of its own.
PLAIN_BITS = 10
# Its results before rounding stay exact in float64.
MAX_RESULT_BITS = 52
# The entries' fractional bits beyond the output's, where pieces are interpolated.
ENTRY_BITS = 3
# What interpolation and the entries' rounding cost at most where the curvature is as declared, in steps of the output.
INTERPOLATION_STEPS = 0.14


@dataclass(frozen=True)
class Entries:
    """The entries of a table, from the smallest code it reads on, and the errors of its pieces.

    Plain look-up has one entry a piece, interpolation one more.
    """

    codes: Codes
    errors: Reals

    @cached_property
    def _largest(self) -> list[Reals]:
        """`_largest[k][i]` is the largest of the `2**k` errors from `i` on."""
        found = [self.errors]
        while 2 ** len(found) <= self.errors.size:
            last, width = found[-1], 2 ** (len(found) - 1)
            found.append(np.maximum(last[:-width], last[width:]))
        return found

    def largest_error(self, first: Codes, last: Codes) -> Reals:
        """The largest error of the pieces numbered `first` to `last`, elementwise."""
        level = np.frexp((last - first + 1).astype(np.float64))[1] - 1
        result = np.zeros(first.shape)
        for k in np.unique(level):
            here = level == k
            table = self._largest[int(k)]
            result[here] = np.maximum(table[first[here]], table[last[here] - 2 ** int(k) + 1])
        return result


@dataclass(frozen=True)
class TablePair(Lookup):
    """One table: the function, and the formats of what it reads and of what its results are rounded to."""

    function: str
    alpha: float
    source: Format
    output: Format

    @property
    def smooth(self) -> Smooth:
        """The function."""
        return smooth(self.function, self.alpha)

    @cached_property
    def shift(self) -> int:
        """Bits of a code within a piece; none where there are few codes anyway.

        Straight pieces of width h are off by at most `h**2 / 8` times the curvature: a sixteenth of the output's step.
        """
        if self.source.word_length <= PLAIN_BITS:
            return 0
        bits = self.output.fractional_bits + 1 + math.log2(self.smooth.curvature)
        points = max(1, math.ceil(bits / 2.0))  # kinks are at multiples of one half
        return max(0, self.source.fractional_bits - points)

    @property
    def entry_bits(self) -> int:
        """Fractional bits of the entries."""
        return self.output.fractional_bits + (ENTRY_BITS if self.shift else 0)

    @property
    def result_bits(self) -> int:
        """Fractional bits of results before their rounding."""
        return self.entry_bits + self.shift

    @property
    def problem(self) -> str:
        """Why there can be no such table, or nothing. While formats are searched there need not be."""
        pieces = self.source.word_length - self.shift
        result = self.output.integer_bits + 1 + self.result_bits
        if pieces > MAX_TABLE_BITS:
            return f"a table of '{self.function}' would have 2^{pieces} pieces; accepted: at most 2^{MAX_TABLE_BITS}"
        if result > MAX_RESULT_BITS:
            return f"a table of '{self.function}' would need {result} bits; accepted: at most {MAX_RESULT_BITS}"
        return ""

    @property
    def entries(self) -> Entries:
        """The integers and their errors.

        Raises:
            InputError: the table would be too large.
        """
        if self.problem:
            raise InputError(
                f"{self.problem}; give what it reads ({self.source}) or its result ({self.output}) fewer bits, or ask "
                "for a larger eps or a smaller box"
            )
        return derived(self)

    @property
    def codes(self) -> Codes:
        """The integers alone."""
        return self.entries.codes

    def points(self) -> Reals:
        """Where the entries are, exactly."""
        count = (1 << max(0, self.source.word_length - self.shift)) + (self.shift > 0)
        codes = self.source.min_code + (np.arange(count, dtype=np.int64) << self.shift)
        return from_codes(codes, self.source.fractional_bits)

    def error(self, zq: Interval) -> Reals:
        """Bound on |result before rounding - phi| over the codes in the intervals.

        Of a table that is too large, what a good one would be off by: for the search, never for a proof.
        """
        if self.problem:
            steps = INTERPOLATION_STEPS if self.shift else 0.5
            return np.full(zq.shape, steps * self.output.step) + 2.0**-44 * self.smooth.image(zq).magnitude
        pieces = self.entries.errors.size - 1
        first, last = (
            np.clip(np.nan_to_num(self._offset(end)), 0, (pieces + 1 << self.shift) - 1).astype(np.int64) >> self.shift
            for end in (zq.lower, zq.upper)
        )
        return self.entries.largest_error(first, last)

    def image(self, zq: Interval) -> Interval:
        """The function's image and the pieces' errors, cut to the grid of plain entries."""
        wide = self.smooth.image(zq).widened(self.error(zq))
        if self.shift:
            return wide
        bits = self.entry_bits
        lower, upper = np.ceil(scaled(wide.lower, bits)), np.floor(scaled(wide.upper, bits))
        return Interval(from_codes(np.minimum(lower, upper), bits), from_codes(np.maximum(lower, upper), bits))

    def _offset(self, x: Reals) -> Reals:
        """How many codes a value lies above the smallest."""
        return to_grid(x, self.source.fractional_bits) - self.source.min_code

    def results(self, codes: Codes) -> Codes:
        """Results before rounding, for codes of the source's format; codes outside of it saturate."""
        held = self.entries.codes
        offset = np.clip(codes, self.source.min_code, self.source.max_code) - self.source.min_code
        if not self.shift:
            return held[offset]
        piece, rest = offset >> self.shift, offset & ((1 << self.shift) - 1)
        return (held[piece] << self.shift) + (held[piece + 1] - held[piece]) * rest

    @cached_property
    def steepest(self) -> float:
        """The largest slope of a straight piece."""
        rise = float(np.max(np.abs(np.diff(self.entries.codes)), initial=0))
        return rise * 2.0 ** (self.source.fractional_bits - self.shift - self.entry_bits)


@lru_cache(maxsize=32)
def derived(table: TablePair) -> Entries:
    """The entries that belong to a table."""
    bits = table.entry_bits
    with np.errstate(over="ignore", invalid="ignore"):
        codes = np.nan_to_num(to_grid(table.smooth.value(table.points()).center, bits))
    low, high = (-(2.0**53), 2.0**53) if table.shift else (table.output.min_code, table.output.max_code)
    return measured(table, np.clip(codes, low, high).astype(np.int64))


def measured(table: TablePair, codes: Codes) -> Entries:
    """Any entries, with what they are off by."""
    points, held = table.points(), from_codes(codes, table.entry_bits)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = _errors(table, points, held)
    return Entries(read_only(codes), read_only(np.where(np.isfinite(errors), errors, np.inf)))


def _errors(table: TablePair, points: Reals, held: Reals) -> Reals:
    """Of each piece, the largest distance from the function."""
    if not table.shift:
        return (table.smooth.value(points) - Interval.point(held)).magnitude
    width = scaled(np.ones(()), table.shift - table.source.fractional_bits)
    start, piece = points[:-1], Interval(points[:-1], points[1:])
    slope = (held[1:] - held[:-1]) / width  # exact: integers of less than 53 bits and powers of two
    at_start = Interval.point(held[:-1]) - Interval.point(slope) * Interval.point(start)
    return (table.smooth.beside(slope, piece) - at_start).magnitude
