"""The integers of a layer normalisation, and what they are off by.

A row of n codes x with f fractional bits has, exactly,

    u_i = n x_i - sum x,    r = sum x_i u_i = n**2 2**2f var,    y_i = u_i / sqrt(r + n**2 2**2f epsilon).

Only the root is looked up. With h more bits, `v = (r << h) + E` and E the integer nearest to `n**2 2**(2f+h) epsilon`, v is
scaled by a power of four: `w = v >> p`, p even and `2**B <= w < 4 * 2**B`, which is `2**M` pieces for each power of two and
J = B - M bits within a piece. A table of `1 / sqrt(w 2**-B)` with g fractional bits is read as in `table_pair`, straight
between two entries, and the result is

    u_i ((T[k] << J) + (T[k+1] - T[k]) j) << (P - p/2)

exactly, P the largest p/2, and then one rounding to the output's format. All of M, B and g follow from how many bits results
have beside their sign, so the table is the same for wide and narrow rows, whatever their range.

The proof takes entries as they are: `w - 1/2 <= (r + n**2 2**2f epsilon) 2**h 2**-p <= w + 1`, so a result is the exact one
times `t sqrt(w 2**-B + e)` with t what was read and e within `2**-B [-1/2, 1]`. That factor is one up to `relative_error`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.interval import Interval, Reals, down, read_only, up
from sound_qkeras.network.ops.lookup import Lookup

# Every integer fits int64, with a bit to spare.
MAX_BITS = 62
# A table has at most three times two to this power of entries.
MAX_PIECE_BITS = 14
# Bits of entries, and of what they are read at, beyond those of results: rounding them costs a fifth of a step or less.
ENTRY_BITS, INDEX_BITS = 4, 2


@dataclass(frozen=True)
class LayerNormPair(Lookup):
    """The integers between two formats.

    Args:
        size: of a row.
        epsilon: what is added to the variance, taken as the exact value of the float64 number.
        source: the format of what is read.
        output: the format that results are rounded to.
    """

    size: int
    epsilon: float
    source: Format
    output: Format

    @property
    def magnitude_bits(self) -> int:
        """Bits of the largest result there may be, `sqrt(n - 1)`, without its sign."""
        return max(1, self.output.fractional_bits + ((self.size - 1).bit_length() + 1) // 2)

    @property
    def piece_bits(self) -> int:
        """M: each power of two has two to this power of pieces."""
        return (self.magnitude_bits + INDEX_BITS) // 2

    @property
    def index_bits(self) -> int:
        """B, an even number: bits of what the table is read at, from the smallest on."""
        return (self.magnitude_bits + INDEX_BITS + 1) // 2 * 2

    @property
    def shift(self) -> int:
        """J: bits within a piece."""
        return self.index_bits - self.piece_bits

    @property
    def entry_bits(self) -> int:
        """g: fractional bits of the entries, which are at most one."""
        return self.magnitude_bits + ENTRY_BITS

    @cached_property
    def _epsilon_at(self) -> tuple[int, int]:
        """H and E: with the fewest more bits at which the integer is no smaller than the table's first index."""
        exact = Fraction(self.epsilon) * self.size**2 * Fraction(4) ** self.source.fractional_bits
        bits = 0
        while round(exact * 4 ** (bits // 2)) < 1 << self.index_bits:
            bits += 2
        return bits, round(exact * 4 ** (bits // 2))

    @property
    def epsilon_shift(self) -> int:
        """h: bits that the sum of squares is shifted by before epsilon is added, an even number."""
        return self._epsilon_at[0]

    @property
    def epsilon_code(self) -> int:
        """E: epsilon as an integer."""
        return self._epsilon_at[1]

    @property
    def largest_deviation(self) -> int:
        """The largest `|u_i|` of codes of the source's format."""
        return (self.size - 1) * (self.source.max_code - self.source.min_code)

    @property
    def largest_square(self) -> int:
        """The largest v."""
        width = self.source.max_code - self.source.min_code
        return (self.size**2 * width**2 // 4 << self.epsilon_shift) + self.epsilon_code

    @property
    def halvings(self) -> int:
        """P: half of the largest p."""
        return (self.largest_square.bit_length() - 1 - self.index_bits) // 2

    @property
    def result_bits(self) -> int:
        """Fractional bits of results before their rounding."""
        return self.halvings + self.index_bits // 2 + self.entry_bits + self.shift - self.epsilon_shift // 2

    @property
    def result_length(self) -> int:
        """Bits of results before their rounding, the sign included."""
        return self.result_bits + (self.size.bit_length() + 1) // 2 + 2

    @property
    def problem(self) -> str:
        """Why there can be no such integers, or nothing."""
        if self.piece_bits > MAX_PIECE_BITS:
            return (
                f"its results have {self.magnitude_bits} bits; accepted: at most {2 * MAX_PIECE_BITS - INDEX_BITS + 1}"
            )
        needed = max(self.largest_square.bit_length(), self.result_length)
        if needed > MAX_BITS:
            return f"normalising rows of {self.size} values needs {needed} bits; accepted: at most {MAX_BITS}"
        return ""

    @property
    def codes(self) -> Codes:
        """The entries.

        Raises:
            InputError: there can be no such integers.
        """
        if self.problem:
            raise InputError(
                f"{self.problem}; give what is normalised ({self.source}) or its result ({self.output}) fewer bits, or ask "
                "for a larger eps"
            )
        return derived(self.piece_bits, self.index_bits, self.entry_bits)

    @cached_property
    def relative_error(self) -> float:
        """How far a result may be off before its rounding, as a share of the exact one; see `measured`."""
        return measured(self.codes, self.piece_bits, self.index_bits, self.entry_bits)

    def error(self, exact: Interval) -> Reals:
        """Bound on |result before rounding - exact result| where those are in some intervals.

        Where there can be no integers, what good ones would be off by: for the search, never for a proof.
        """
        if self.problem:
            return np.full(exact.shape, 0.25 * self.output.step)
        return up(self.relative_error * exact.magnitude)

    def results(self, codes: Codes) -> Codes:
        """Results before rounding, for codes of the source's format, rows last; int64, and none of them wraps."""
        held = self.codes
        deviation = self.size * codes - codes.sum(axis=-1, keepdims=True)
        square = (codes * deviation).sum(axis=-1, keepdims=True)
        square = (square << self.epsilon_shift) + self.epsilon_code
        fours = np.int64(1) << np.arange(self.index_bits, self.largest_square.bit_length(), 2, dtype=np.int64)
        halvings = np.asarray(np.searchsorted(fours, square, side="right"), dtype=np.int64) - 1
        index = square >> 2 * halvings
        piece, rest = (index >> self.shift) - (1 << self.piece_bits), index & ((1 << self.shift) - 1)
        root = (held[piece] << self.shift) + (held[piece + 1] - held[piece]) * rest
        return deviation * root << (self.halvings - halvings)


@lru_cache(maxsize=32)
def derived(piece_bits: int, index_bits: int, entry_bits: int) -> Codes:
    """Entries from 1 to 4, the nearest to the root in the middle of what is read there.

    Made of correctly rounded operations only, so every machine derives the same integers.
    """
    count = 3 << piece_bits
    places = 1.0 + np.arange(count + 1) * 2.0**-piece_bits + 2.0 ** -(index_bits + 2)
    return read_only(np.rint(2.0**entry_bits / np.sqrt(places)).astype(np.int64))


def measured(codes: Codes, piece_bits: int, index_bits: int, entry_bits: int) -> float:
    """The largest `|t sqrt(a + e) - 1|` over all pieces, for `-2**-(B+1) <= e <= 2**-B`.

    On a piece `t = c - b a`. For b > 0 the product rises up to `a = (c - 2 b e) / 3b`, is `2/3 (c + b e) sqrt((c + b e) / 3b)`
    there, and falls; for b <= 0 and t > 0 it rises. So it is smallest at an end of the piece, and largest at one or there.
    """
    if int(codes.min()) <= 0:
        return math.inf
    held, places = codes * 2.0**-entry_bits, 1.0 + np.arange(codes.size) * 2.0**-piece_bits
    low, high = -(2.0 ** -(index_bits + 1)), 2.0**-index_bits
    roots = Interval(down(np.sqrt(down(places + low))), up(np.sqrt(up(places + high))))
    ends = Interval.point(held) * roots
    falling = (codes[:-1] - codes[1:]) * 2.0 ** (piece_bits - entry_bits)
    steep = np.where(falling > 0.0, falling, 1.0)
    start = up(held[:-1] + up(steep * up(places[:-1] + high)))  # c + b e
    top = up(up(up(2.0 * start) / 3.0) * up(np.sqrt(up(start / down(3.0 * steep)))))
    at = (held[:-1] / steep + places[:-1] - 2.0 * high) / 3.0
    inside = (falling > 0.0) & (at >= places[:-1] - 2.0**-40) & (at <= places[1:] + 2.0**-40)
    largest = max(float(ends.upper.max()), float(np.where(inside, top, 0.0).max()))
    return max(float(up(largest - 1.0)), float(up(1.0 - ends.lower.min())))
