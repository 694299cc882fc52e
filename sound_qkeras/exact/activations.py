"""Tables, clipped and leaky units in exact rational arithmetic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from sound_qkeras.exact.dyadic import Dyadic, Integers, Range
from sound_qkeras.exact.functions import ExactFunction, Span, exact_function
from sound_qkeras.exact.ops import Lines, Meaning
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.network import Node, Pair

# Irrational ends are rounded outward, and slopes to nearest, to so many bits.
BITS = 128
SLOPE_BITS = 64
# Pieces of a table whose errors are kept together.
BLOCK = 64
Line = tuple[Dyadic, Range]


class ExactUnit(Meaning):
    """A function of one variable, replaced by lines: slopes, and ranges of what they leave over."""

    known: tuple[ExactFacts, Line, tuple[Line, ...]] | None = None

    @abstractmethod
    def value_line(self, z: Range) -> Line:
        """For the float value."""

    @abstractmethod
    def difference_lines(self, facts: ExactFacts) -> tuple[Line, ...]:
        """For the difference, one or more to choose from."""

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Through the lines of the policy; a proof pulls many rows through the lines of one tensor."""
        facts = inputs[0]
        if self.known is None or self.known[0] is not facts:
            self.known = facts, self.value_line(facts.value), self.difference_lines(facts)
        _, (slope, rest), lines = self.known
        difference_slope, difference_rest = lines[min(policy, len(lines) - 1)]
        pulled = ExactRows(rows.value * slope, rows.difference * difference_slope)
        return (pulled,), rest.under(rows.value) + difference_rest.under(rows.difference)


class ExactClip(ExactUnit):
    """`min(max(z, 0), m) = relu(z) - relu(z - m)`."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """The bound as an exact number."""
        super().__init__(node, quantized)
        self.maximum = Dyadic.of(np.array(node.op.settings()["maximum"]))

    def real(self, *inputs: Range) -> Range:
        """The image."""
        clipped = [end.positive().minimum(self.maximum) for end in (inputs[0].lower, inputs[0].upper)]
        return Range(clipped[0], clipped[1])

    def fixed(self, *inputs: Range) -> Range:
        """The image."""
        return self.real(*inputs)

    def _both(self, facts: ExactFacts) -> tuple[Lines, Lines]:
        shift = Range.point(self.maximum)
        above = ExactFacts(facts.value - shift, facts.fixed - shift, facts.difference, facts.grid)
        return Lines(facts), Lines(above)

    def difference(self, *inputs: ExactFacts) -> Range:
        """That of both ReLUs, and between nothing and all of the input's."""
        low, high = self._both(inputs[0])
        d = inputs[0].difference
        return (low.image() - high.image()).intersect(Range(d.lower.negative(), d.upper.positive()))

    def difference_lines(self, facts: ExactFacts) -> tuple[Line, ...]:
        """Both ReLUs' lines, or half of the difference where that leaves less."""
        half = Range.symmetric(facts.difference.magnitude().halved())
        low, high = self._both(facts)
        found: list[Line] = []
        for (slope, rest), (other, other_rest) in zip(low.differences, high.differences, strict=True):
            total = rest - other_rest
            better = half.width.less(total.width)
            found.append(((Dyadic.power(-1)).where(better, slope - other), half.where(better, total)))
        return tuple(found)

    def value_line(self, z: Range) -> Line:
        """Both ReLUs' chords."""
        facts = ExactFacts(z, z, z, None)
        low, high = (lines.value for lines in self._both(facts))
        return low[0] - high[0], low[1] - high[1] + Range.point(high[0] * self.maximum)

    def grid(self, *grids: int) -> int:
        """The input's, or that of the bound."""
        return max(grids[0], self.maximum.bits)


class ExactLeaky(ExactUnit):
    """`a z + (1 - a) relu(z)`, in the fixed-point network with slopes of few bits."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Slopes and integers as exact numbers, one per element."""
        super().__init__(node, quantized)
        shape, pair = quantized.network.shapes[node.name], quantized.pairs[node.name]
        self.slope = Dyadic.of(np.broadcast_to(node.op.arrays()["slope"], shape).reshape(-1))
        self.fixed_slope = Dyadic.codes(np.broadcast_to(pair.codes, shape).reshape(-1), pair.bits)
        self.bits = pair.bits
        self.rest = Dyadic.power(0) - self.slope

    def real(self, *inputs: Range) -> Range:
        """The image."""
        return _leaky(inputs[0], self.slope)

    def fixed(self, *inputs: Range) -> Range:
        """The image."""
        return _leaky(inputs[0], self.fixed_slope)

    def _rounding(self, fixed: Range) -> Range:
        """`(a_q - a) min(z_q, 0)`."""
        return _times(Range(fixed.lower.negative(), fixed.upper.negative()), self.fixed_slope - self.slope)

    def difference(self, *inputs: ExactFacts) -> Range:
        """`a d + (1 - a) d_relu`, and what the slopes' rounding adds."""
        facts = inputs[0]
        return (
            _times(facts.difference, self.slope) + _times(Lines(facts).image(), self.rest) + self._rounding(facts.fixed)
        )

    def difference_lines(self, facts: ExactFacts) -> tuple[Line, ...]:
        """The ReLU's lines, scaled and turned."""
        rounding = self._rounding(facts.fixed)
        return tuple(
            (self.slope + self.rest * slope, _times(rest, self.rest) + rounding)
            for slope, rest in Lines(facts).differences
        )

    def value_line(self, z: Range) -> Line:
        """The ReLU's chord, scaled and turned."""
        slope, rest = Lines(ExactFacts(z, z, z, None)).value
        return self.slope + self.rest * slope, _times(rest, self.rest)

    def grid(self, *grids: int) -> int:
        """The input's and that of the slopes together."""
        return grids[0] + self.bits


class ExactTable(ExactUnit):
    """A table, its entries as they are."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """The entries, and the function they stand for."""
        super().__init__(node, quantized)
        settings, table = node.op.settings(), quantized.pairs[node.name]
        self.function: ExactFunction = exact_function(settings["function"], settings["alpha"])
        self.source, self.shift, self.entry_bits = table.source, table.shift, table.entry_bits
        self.codes = table.entries.codes
        self.errors: dict[int, tuple[int, int]] = {}
        self.blocks: dict[int, tuple[int, int]] = {}
        self.read: tuple[ExactFacts, Range, Range] | None = None

    def real(self, *inputs: Range) -> Range:
        """The image, rounded outward."""
        return _enclosed(self.function.values, inputs[0])

    def _offsets(self, fixed: Range) -> list[tuple[int, int]]:
        """How far above the smallest the codes that may be read lie, per element; they saturate at the format's ends."""
        ends = (end.rounded(self.source.fractional_bits) for end in (fixed.lower, fixed.upper))
        low, high = self.source.min_code, self.source.max_code
        return [
            (min(max(int(a), low), high) - low, min(max(int(b), low), high) - low) for a, b in zip(*ends, strict=True)
        ]

    def _result(self, offset: int) -> int:
        """A result before rounding, with `entry_bits + shift` fractional bits."""
        if not self.shift:
            return int(self.codes[offset])
        piece, rest = divmod(offset, 1 << self.shift)
        first, last = int(self.codes[piece]), int(self.codes[piece + 1])
        return (first << self.shift) + (last - first) * rest

    def fixed(self, *inputs: Range) -> Range:
        """The smallest and the largest result there may be: at an end, or at an entry between the ends."""
        lower: list[int] = []
        upper: list[int] = []
        for low, high in self._offsets(inputs[0]):
            inner = self.codes[(low >> self.shift) + 1 : (high >> self.shift) + 1]
            found = [self._result(low), self._result(high)]
            found += [int(code) << self.shift for code in (inner.min(), inner.max())] if inner.size else []
            lower.append(min(found))
            upper.append(max(found))
        bits = self.entry_bits + self.shift
        return Range(Dyadic.codes(objects(lower), bits), Dyadic.codes(objects(upper), bits))

    def _error(self, piece: int) -> tuple[int, int]:
        """What the results of a piece are off by, in units of `2**-BITS`, rounded outward."""
        if piece not in self.errors:
            at = [Fraction(self.source.min_code + (n << self.shift)) * self._step for n in (piece, piece + 1)]
            held = [Fraction(int(code)) * Fraction(2) ** -self.entry_bits for code in self.codes[piece : piece + 2]]
            slope = (held[1] - held[0]) / (at[1] - at[0]) if self.shift else Fraction(0)
            value = self.function.beside(slope, *at) if self.shift else self.function.values(at[0], at[0])
            start = held[0] - slope * at[0]
            self.errors[piece] = _floor(start - Fraction(value.high)), -_floor(Fraction(value.low) - start)
        return self.errors[piece]

    @property
    def _step(self) -> Fraction:
        return Fraction(2) ** -self.source.fractional_bits

    def _errors(self, first: int, last: int) -> tuple[int, int]:
        """The least and the largest error of the pieces from `first` to `last`, by blocks of them that are kept."""
        parts: list[tuple[int, int]] = []
        while first <= last:
            if first % BLOCK or first + BLOCK > last + 1:
                parts.append(self._error(first))
                first += 1
                continue
            block = first // BLOCK
            if block not in self.blocks:
                errors = [self._error(first + n) for n in range(BLOCK)]
                self.blocks[block] = min(low for low, _ in errors), max(high for _, high in errors)
            parts.append(self.blocks[block])
            first += BLOCK
        return min(low for low, _ in parts), max(high for _, high in parts)

    def _rounding(self, fixed: Range) -> Range:
        """The errors of the entries that may be read."""
        errors = [self._errors(low >> self.shift, high >> self.shift) for low, high in self._offsets(fixed)]
        ends = ([low for low, _ in errors], [high for _, high in errors])
        return Range(*(Dyadic(objects(end), BITS) for end in ends))

    def _found(self, facts: ExactFacts) -> tuple[Range, Range]:
        """The slopes between both arguments, and the entries' errors; asked for twice of one tensor."""
        if self.read is None or self.read[0] is not facts:
            both = Range(facts.value.lower.minimum(facts.fixed.lower), facts.value.upper.maximum(facts.fixed.upper))
            self.read = facts, _enclosed(self.function.slopes, both), self._rounding(facts.fixed)
        return self.read[1:]

    def difference(self, *inputs: ExactFacts) -> Range:
        """A slope between those at both arguments times the difference, and the entries' errors."""
        slopes, rounding = self._found(inputs[0])
        return _product(slopes, inputs[0].difference) + rounding

    def difference_lines(self, facts: ExactFacts) -> tuple[Line, ...]:
        """The middle of the slopes, which leaves the others times the difference."""
        slopes, rounding = self._found(facts)
        slope = _middle(slopes)
        return ((slope, _product(slopes - Range.point(slope), facts.difference) + rounding),)

    def value_line(self, z: Range) -> Line:
        """The chord, with a slope there is on the interval."""
        slopes: list[int] = []
        left: list[Span] = []
        for low, high in zip(z.lower.fractions(), z.upper.fractions(), strict=True):
            steep = self.function.slopes(low, high)
            first, last = (self.function.values(end, end) for end in (low, high))
            chord = (Fraction(last.low) - Fraction(first.low)) / (high - low) if high > low else Fraction(steep.low)
            slope = int(min(max(chord, Fraction(steep.low)), Fraction(steep.high)) * 2**SLOPE_BITS)
            slopes.append(slope)
            left.append(self.function.beside(Fraction(slope, 2**SLOPE_BITS), low, high))
        rests = [Fraction(span.low) for span in left], [Fraction(span.high) for span in left]
        return Dyadic(objects(slopes), SLOPE_BITS), rounded_outward(*rests)

    def grid(self, *grids: int) -> int:
        """That of the entries, and of a code within a piece."""
        return self.entry_bits + self.shift


def _leaky(z: Range, slope: Dyadic) -> Range:
    ends = [end.positive() + slope * end.negative() for end in (z.lower, z.upper)]
    zero = Dyadic.zeros(*z.lower.shape)
    straddles = z.lower.less(zero) & zero.less(z.upper)
    lower, upper = ends[0].minimum(ends[1]), ends[0].maximum(ends[1])
    return Range(lower.negative().where(straddles, lower), upper.positive().where(straddles, upper))


def _times(x: Range, factor: Dyadic) -> Range:
    """An interval times an exact number, elementwise."""
    ends = x.lower * factor, x.upper * factor
    return Range(ends[0].minimum(ends[1]), ends[0].maximum(ends[1]))


def _product(a: Range, b: Range) -> Range:
    low, high = _times(b, a.lower), _times(b, a.upper)
    return Range(low.lower.minimum(high.lower), low.upper.maximum(high.upper))


def _middle(x: Range) -> Dyadic:
    """A point about the middle, of few bits."""
    middle = (x.lower + x.upper).halved()
    return Dyadic(middle.rounded(SLOPE_BITS), SLOPE_BITS)


def _enclosed(function: Callable[[Fraction, Fraction], Span], x: Range) -> Range:
    """An outward rounded enclosure of a function over intervals, elementwise."""
    found = [function(low, high) for low, high in zip(x.lower.fractions(), x.upper.fractions(), strict=True)]
    return rounded_outward([Fraction(span.low) for span in found], [Fraction(span.high) for span in found])


def _floor(number: Fraction) -> int:
    """In units of `2**-BITS`."""
    return (number.numerator << BITS) // number.denominator


def rounded_outward(low: list[Fraction], high: list[Fraction]) -> Range:
    """Ends of few bits around some others."""
    lower, upper = [_floor(number) for number in low], [-_floor(-number) for number in high]
    return Range(Dyadic(objects(lower), BITS), Dyadic(objects(upper), BITS))


def objects(numbers: list[int]) -> Integers:
    """An array of Python's integers."""
    array: Any = np.empty(len(numbers), dtype=object)
    array[:] = numbers
    return array
