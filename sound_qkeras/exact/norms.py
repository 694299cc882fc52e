"""Layer normalisation in exact rational arithmetic: Jacobians as matrices of intervals, row by row.

`y = P x / s` with `P = I - 11'/n` has the Jacobian `(P - y y'/n) / s`; see `network/ops/layer_norm.py` for why, and for what the
integers compute. Roots are enclosed in decimal arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.activations import SLOPE_BITS, objects, rounded_outward
from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.functions import ONE, ZERO, Bracket, Span
from sound_qkeras.exact.ops import Meaning
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.network.graph import Node
from sound_qkeras.network.pair import Pair

Row = list[Bracket]
# Fractional bits of roots that a bound on the table is made of.
ROOT_BITS = 200
# For each row its matrix of `SLOPE_BITS` fractional bits, and for each result the range of what that leaves over.
Parts = tuple[list[Dyadic], Range]


@dataclass(frozen=True)
class _Known:
    """What is known of a row: its root, and its normalised values."""

    root: Span
    values: list[Span]

    def jacobian(self, i: int, j: int) -> Span:
        """An entry of all Jacobians."""
        size = Span.of(Fraction(len(self.values)))
        return ((ONE if i == j else ZERO) - (ONE + self.values[i] * self.values[j]) / size) / self.root


class ExactLayerNorm(Meaning):
    """Rows along the last axis."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Size and epsilon as exact numbers."""
        super().__init__(node, quantized)
        settings = node.op.settings()
        self.size, self.epsilon = int(settings["size"]), Fraction(settings["epsilon"])
        self.pair = quantized.pairs[node.name]
        self.met: tuple[ExactFacts, Parts, Parts] | None = None

    def _rows(self, x: Range) -> list[Row]:
        ends = list(zip(x.lower.fractions(), x.upper.fractions(), strict=True))
        return [ends[at : at + self.size] for at in range(0, len(ends), self.size)]

    def _known(self, row: Row) -> _Known:
        n = self.size
        low, high = (sum(ends, Fraction(0)) for ends in zip(*row, strict=True))
        deviations = [(a - (high - b + a) / n, b - (low - a + b) / n) for a, b in row]
        middle = (low + high) / (2 * n)
        least = _squares(max(a, -b, Fraction(0)) for a, b in deviations) / n
        most = min(
            _squares(max(abs(a), abs(b)) for a, b in deviations) / n,
            _squares(max(abs(a - middle), abs(b - middle)) for a, b in row) / n,
        )
        root = Span.of(least + self.epsilon, most + self.epsilon).root()

        def highest(end: Fraction) -> Decimal:
            if end <= 0:
                return (Span.of(end) / root).high
            own = Span.of(max(least, end**2 / (n - 1)) + self.epsilon).root()
            return (Span.of(end) / own).high

        return _Known(root, [Span(highest(-a).copy_negate(), highest(b)) for a, b in deviations])

    def real(self, *inputs: Range) -> Range:
        """Deviations over roots."""
        return _range([value for row in self._rows(inputs[0]) for value in self._known(row).values])

    def fixed(self, *inputs: Range) -> Range:
        """The integers of a row that is known, else the same and what they are off by."""
        found: list[Bracket] = []
        for row in self._rows(inputs[0]):
            if all(low == high for low, high in row):
                found += [(value, value) for value in self._results([low for low, _ in row])]
                continue
            off = self.relative_error
            for value in self._known(row).values:
                low, high = Fraction(value.low), Fraction(value.high)
                found.append((low - abs(low) * off, high + abs(high) * off))
        return rounded_outward([low for low, _ in found], [high for _, high in found])

    def _results(self, row: Sequence[Fraction]) -> list[Fraction]:
        """What the integers are for codes, which saturate at the format's ends."""
        pair, source = self.pair, self.pair.source
        scaled = [round(x * Fraction(2) ** source.fractional_bits) for x in row]
        codes = [min(max(code, source.min_code), source.max_code) for code in scaled]
        total = sum(codes)
        deviations = [self.size * code - total for code in codes]
        square = sum(code * u for code, u in zip(codes, deviations, strict=True))
        square = (square << pair.epsilon_shift) + round(
            self.epsilon * self.size**2 * Fraction(2) ** (2 * source.fractional_bits + pair.epsilon_shift)
        )
        dropped = (square.bit_length() - 1 - pair.index_bits) // 2 * 2
        piece, rest = divmod((square >> dropped) - (1 << pair.index_bits), 1 << pair.shift)
        first, last = int(pair.codes[piece]), int(pair.codes[piece + 1])
        root = Fraction((first << pair.shift) + (last - first) * rest, 1 << (pair.entry_bits + pair.shift))
        scale = Fraction(2) ** ((pair.epsilon_shift - dropped - pair.index_bits) // 2)
        return [u * root * scale for u in deviations]

    @cached_property
    def relative_error(self) -> Fraction:
        """A bound on `|t sqrt(a + e) - 1|`, hardly above the smallest.

        On a piece with `t = c - b a`, `t**2 (a + e)` is largest at an end or, for b > 0, at `a = (c - 2 b e) / 3b`, where it is
        `4/27 (c + b e)**3 / b`; it is smallest at an end.
        """
        pair, largest, smallest = self.pair, Fraction(1), Fraction(1)
        low, high = Fraction(-1, 2 << pair.index_bits), Fraction(1, 1 << pair.index_bits)
        entries = [Fraction(int(code), 1 << pair.entry_bits) for code in pair.codes]
        places = [1 + Fraction(k, 1 << pair.piece_bits) for k in range(len(entries))]
        if min(entries) <= 0:
            raise VerificationError(
                f"layer '{self.node.layer}': a root that is looked up is not positive", layer_name=self.node.layer
            )
        for k in range(len(entries) - 1):
            slope = (entries[k] - entries[k + 1]) / (places[k + 1] - places[k])
            start = entries[k] + slope * (places[k] + high)
            tops = [entries[end] ** 2 * (places[end] + high) for end in (k, k + 1)]
            if slope > 0 and places[k] <= (start - 3 * slope * high) / (3 * slope) <= places[k + 1]:
                tops.append(Fraction(4, 27) * start**3 / slope)
            largest = max(largest, *tops)
            smallest = min(smallest, *(entries[end] ** 2 * (places[end] + low) for end in (k, k + 1)))
        above, below = (math.isqrt(math.floor(square * 4**ROOT_BITS)) for square in (largest, smallest))
        return max(Fraction(above + 1, 2**ROOT_BITS) - 1, 1 - Fraction(below, 2**ROOT_BITS))

    def _hull(self, facts: ExactFacts) -> list[Row]:
        value, fixed = facts.value, facts.fixed
        return self._rows(Range(value.lower.minimum(fixed.lower), value.upper.maximum(fixed.upper)))

    def _off(self, facts: ExactFacts) -> list[Fraction]:
        """What the integers are off by, per result."""
        largest = self.real(facts.fixed).magnitude().fractions()
        return [value * self.relative_error for value in largest]

    def difference(self, *inputs: ExactFacts) -> Range:
        """The Jacobians times the difference, no longer than that over the root, and what the integers are off by."""
        facts = inputs[0]
        found: list[Span] = []
        for row, d in zip(self._hull(facts), self._rows(facts.difference), strict=True):
            found += self._moved(self._known(row), d)
        return _widened(_range(found), self._off(facts))

    def _moved(self, known: _Known, d: Row) -> list[Span]:
        spans = [Span.of(low, high) for low, high in d]
        square = _squares(max(abs(low), abs(high)) for low, high in d)
        length = (Span.of(square).root() / known.root).high if square else Decimal(0)
        total = [_sum([known.jacobian(i, j) * span for j, span in enumerate(spans)]) for i in range(self.size)]
        return [Span(max(one.low, length.copy_negate()), min(one.high, length)) for one in total]

    def _linear(
        self, known: _Known, d: Row, offsets: list[list[Span]] | None, whole: list[Span]
    ) -> tuple[Dyadic, list[Span]]:
        """The middle of the Jacobians, and what it leaves; no row of it where that is more than the whole.

        Args:
            known: of the row.
            d: what the Jacobians multiply.
            offsets: for each result its value at the middle, and that middle itself, which the matrix multiplies.
            whole: of each result, what encloses it without a matrix.
        """
        matrix: list[list[int]] = []
        left: list[Span] = []
        for i in range(self.size):
            entries = [known.jacobian(i, j) for j in range(self.size)]
            numbers = [_middle(entry) for entry in entries]
            held = [Span.of(Fraction(number, 1 << SLOPE_BITS)) for number in numbers]
            rest = _sum([(entry - one) * Span.of(*ends) for entry, one, ends in zip(entries, held, d, strict=True)])
            if offsets is not None:
                value, middle = offsets[0][i], offsets[1]
                rest = rest + value - _sum([one * at for one, at in zip(held, middle, strict=True)])
            used = rest.high - rest.low < whole[i].high - whole[i].low
            matrix.append(numbers if used else [0] * self.size)
            left.append(rest if used else whole[i])
        return Dyadic(objects([one for line in matrix for one in line]).reshape(self.size, self.size), SLOPE_BITS), left

    def _parts(self, facts: ExactFacts) -> tuple[Parts, Parts]:
        """Of values, and of differences."""
        values: list[tuple[Dyadic, list[Span]]] = []
        for row in self._rows(facts.value):
            known, middles = self._known(row), [(low + high) / 2 for low, high in row]
            at = [Span.of(middle) for middle in middles]
            offsets = [self._known([(one, one) for one in middles]).values, at]
            moves = [(low - middle, high - middle) for (low, high), middle in zip(row, middles, strict=True)]
            values.append(self._linear(known, moves, offsets, known.values))
        differences: list[tuple[Dyadic, list[Span]]] = []
        for row, d in zip(self._hull(facts), self._rows(facts.difference), strict=True):
            known = self._known(row)
            differences.append(self._linear(known, d, None, self._moved(known, d)))
        (matrices, rest), (others, left) = _joined(values), _joined(differences)
        return (matrices, rest), (others, _widened(left, self._off(facts)))

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Through the matrices; a proof pulls many rows through those of one tensor."""
        facts = inputs[0]
        if self.met is None or self.met[0] is not facts:
            self.met = facts, *self._parts(facts)
        _, (matrices, rest), (others, left) = self.met
        pulled = ExactRows(self._through(rows.value, matrices), self._through(rows.difference, others))
        return (pulled,), rest.under(rows.value) + left.under(rows.difference)

    def _through(self, rows: Dyadic, matrices: list[Dyadic]) -> Dyadic:
        n = self.size
        parts = [rows[:, n * at : n * (at + 1)] @ matrix for at, matrix in enumerate(matrices)]
        return Dyadic(np.concatenate([part.numbers for part in parts], axis=1), parts[0].bits)

    def grid(self, *grids: int) -> int:
        """That of the products."""
        return self.pair.result_bits


def _squares(numbers: Iterable[Fraction]) -> Fraction:
    return sum((number**2 for number in numbers), Fraction(0))


def _middle(entry: Span) -> int:
    return round((Fraction(entry.low) + Fraction(entry.high)) / 2 * (1 << SLOPE_BITS))


def _sum(spans: Sequence[Span]) -> Span:
    total = spans[0]
    for span in spans[1:]:
        total = total + span
    return total


def _range(spans: Sequence[Span]) -> Range:
    return rounded_outward([Fraction(span.low) for span in spans], [Fraction(span.high) for span in spans])


def _joined(parts: list[tuple[Dyadic, list[Span]]]) -> Parts:
    return [matrix for matrix, _ in parts], _range([span for _, spans in parts for span in spans])


def _widened(x: Range, by: list[Fraction]) -> Range:
    ends: Any = zip(x.lower.fractions(), x.upper.fractions(), by, strict=True)
    wide = [(low - more, high + more) for low, high, more in ends]
    return rounded_outward([low for low, _ in wide], [high for _, high in wide])
