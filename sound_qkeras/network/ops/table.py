"""Tables: any function of one variable, read at a code of few bits.

The fixed-point network rounds what a table reads to a format of at most `MAX_TABLE_BITS` bits and holds one output code for
each of that format's codes: `rint(phi(x_q) * 2**f)`, half to even, of a float64 `phi(x_q)` that is made of correctly
rounded operations only (see `elementary`). So every machine derives the same integers from the function and the two
formats, and they are hashed with the network's other integers.

The proof takes entries as they are: the distance of each from a rigorous enclosure of `phi(x_q)` is enumerated, and an
element is charged the largest among the codes it may read. The rest is the mean value theorem,
`phi(x_q) - phi(x) = phi'(t) (x_q - x)` for some t between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, Format, from_codes, scaled, to_grid
from sound_qkeras.interval import Interval, inflate, read_only, up
from sound_qkeras.network.ops.base import Facts, Reals
from sound_qkeras.network.ops.elementwise import Elementwise, Line
from sound_qkeras.network.smooth import Smooth, smooth

# A table has at most this power of two of entries; formats are chosen with a bit or two to spare, as their proved ranges
# may turn out a little wider than they were thought to be.
MAX_TABLE_BITS, CHOSEN_TABLE_BITS = 18, 16


@dataclass(frozen=True)
class Entries:
    """The entries of a table and their errors, from the smallest code it reads to the largest."""

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
        """The largest error of the entries numbered `first` to `last`, elementwise."""
        level = np.frexp((last - first + 1).astype(np.float64))[1] - 1
        result = np.zeros(first.shape)
        for k in np.unique(level):
            here = level == k
            table = self._largest[int(k)]
            result[here] = np.maximum(table[first[here]], table[last[here] - 2 ** int(k) + 1])
        return result


@lru_cache(maxsize=32)
def entries(function: str, alpha: float, source: Format, output: Format) -> Entries:
    """The table of a function between two formats: nearest codes, saturated at the ends of the output's format."""
    codes = np.arange(source.min_code, source.max_code + 1, dtype=np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        value = smooth(function, alpha).value(from_codes(codes, source.fractional_bits))
        made = output.quantize(np.nan_to_num(value.center, nan=0.0))
    held = from_codes(made, output.fractional_bits)
    with np.errstate(invalid="ignore"):
        errors = np.maximum(up(value.upper - held), up(held - value.lower))
    return Entries(read_only(made), read_only(np.where(np.isfinite(errors), errors, np.inf)))


@dataclass(frozen=True)
class TablePair:
    """One table: the function, and the formats of what it reads and holds."""

    function: str
    alpha: float
    source: Format
    output: Format

    @property
    def smooth(self) -> Smooth:
        """The function."""
        return smooth(self.function, self.alpha)

    @property
    def enumerable(self) -> bool:
        """Whether the table is small enough to exist. While formats are searched it need not be."""
        return self.source.word_length <= MAX_TABLE_BITS

    @property
    def entries(self) -> Entries:
        """The integers and their errors.

        Raises:
            InputError: the format it reads has too many bits.
        """
        if not self.enumerable:
            raise InputError(
                f"a table of '{self.function}' reads {self.source}; accepted: at most {MAX_TABLE_BITS} bits; round what it "
                "reads to fewer fractional bits, or ask for a larger eps or a smaller box"
            )
        return entries(self.function, self.alpha, self.source, self.output)

    def error(self, zq: Interval) -> Reals:
        """Bound on |entry - phi| over the codes in the intervals.

        Of a table that is too large to exist, what a nearest entry would be off by: for the search, never for a proof.
        """
        if not self.enumerable:
            return np.full(zq.shape, 0.5 * self.output.step) + 2.0**-44 * self.smooth.image(zq).magnitude
        source, size = self.source, self.source.max_code - self.source.min_code
        first, last = (
            np.clip(np.nan_to_num(to_grid(end, source.fractional_bits)) - source.min_code, 0, size).astype(np.int64)
            for end in (zq.lower, zq.upper)
        )
        return self.entries.largest_error(first, last)


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
    longest_input: ClassVar[int] = CHOSEN_TABLE_BITS
    function: str
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Refuse functions that nobody knows."""
        _ = self.smooth

    @property
    def smooth(self) -> Smooth:
        """The function's enclosures."""
        return smooth(self.function, self.alpha)

    def pair(self, sources: Sequence[Format], output: Format | None) -> TablePair:
        """The table between the formats; what is read from several is read in one that holds them all."""
        if output is None:
            raise TypeError("a table's result has a format")
        bits = max(source.fractional_bits for source in sources)
        shifts = [bits - source.fractional_bits for source in sources]
        low = min(source.min_code << shift for source, shift in zip(sources, shifts, strict=True))
        high = max(source.max_code << shift for source, shift in zip(sources, shifts, strict=True))
        return TablePair(self.function, self.alpha, Format.for_codes(low, high, bits), output)

    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.smooth.plain(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """The image."""
        return self.smooth.image(inputs[0])

    def fixed_interval(self, parameters: TablePair, *inputs: Interval) -> Interval:
        """The image and the entries' errors, cut to the grid of the entries."""
        image, error = self.smooth.image(inputs[0]), parameters.error(inputs[0])
        bits = parameters.output.fractional_bits
        wide = image.widened(error)
        lower, upper = np.ceil(scaled(wide.lower, bits)), np.floor(scaled(wide.upper, bits))
        return Interval(from_codes(np.minimum(lower, upper), bits), from_codes(np.maximum(lower, upper), bits))

    def difference(self, parameters: TablePair, *inputs: Facts) -> Interval:
        """A slope between those at both arguments times the difference, and the entries' errors."""
        z, zq, d = inputs[0].pair()
        return (self.smooth.slopes(_hull(z, zq)) * d).widened(parameters.error(zq))

    def difference_line(self, parameters: TablePair, z: Interval, zq: Interval, d: Interval) -> Line:
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

    def integer(
        self, parameters: TablePair, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """The entries."""
        held = parameters.entries.codes
        index = np.asarray(codes[0]).astype(np.int64) << (parameters.source.fractional_bits - fractional_bits[0])
        return held[np.clip(index - parameters.source.min_code, 0, held.size - 1)].astype(np.float64)

    def fractional_bits(self, parameters: TablePair, *inputs: int) -> int:
        """Those of the entries."""
        return parameters.output.fractional_bits

    def code_magnitude(self, parameters: TablePair, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """The largest code there can be."""
        output = parameters.output
        return np.full_like(magnitudes[0], float(max(output.max_code, -output.min_code)))

    def carried_error(self, parameters: TablePair, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """The steepest slope times the error, and the errors of two entries, where there is an error at all."""
        reach = Interval(-magnitudes[0], magnitudes[0])
        moved = inflate(self.smooth.slopes(reach).magnitude * errors[0] + 2.0 * parameters.error(reach), 4)
        return np.where(errors[0] > 0.0, moved, 0.0)

    def settings(self) -> Mapping[str, Any]:
        """The function."""
        return {"function": self.function, "alpha": self.alpha}


def _hull(a: Interval, b: Interval) -> Interval:
    return Interval(np.minimum(a.lower, b.lower), np.maximum(a.upper, b.upper))
