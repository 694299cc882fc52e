"""Sums of constant multiples as two-input adders: each constant in canonical signed digit form, each sum as a tree.

A wire carries an integer; `Term` is plus or minus that integer shifted left. Adders never look at bits they do not need:
the low bits that only one operand has are passed through, and nothing is wider than the accumulator, whose value modulo
its own width is all that matters.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from sound_qkeras.fixed_point import Format


@dataclass(frozen=True)
class Wire:
    """A signed integer in a net of its own.

    Args:
        name: its name.
        low, high: smallest and largest value.
    """

    name: str
    low: int
    high: int

    @property
    def constant(self) -> bool:
        """Whether it is a number, which has no bits to select."""
        return not self.name[0].isalpha()

    @property
    def bits(self) -> int:
        """Two's complement bits that hold every value."""
        return max(max(self.high, 0).bit_length(), max(-self.low - 1, 0).bit_length()) + 1


@dataclass(frozen=True)
class Term:
    """`sign * wire * 2**shift`."""

    wire: Wire
    shift: int
    sign: int

    def __str__(self) -> str:
        """Its text, for a net as wide as the sum."""
        shifted = f"({self.wire.name} <<< {self.shift})" if self.shift else self.wire.name
        return shifted if self.sign > 0 else f"-{shifted}"

    def shifted(self, bits: int) -> Term:
        """The same times a power of two."""
        return replace(self, shift=self.shift + bits)

    @property
    def top(self) -> int:
        """The bit above the highest one it can set."""
        return self.wire.bits + self.shift


@dataclass(frozen=True)
class Adder:
    """One two-input adder or subtractor with the right operand shifted left.

    Args:
        kind: "add" or "sub", the kind of instance.
        reverse: whether the left operand is subtracted from the right one.
        left, right: the operands; `shift` belongs to the right one.
        result: what it drives.
    """

    kind: str
    reverse: bool
    left: Wire
    right: Wire
    shift: int
    result: Wire

    @property
    def passes(self) -> bool:
        """Whether the low bits of the result are those of the left operand, so that the adder is that much shorter."""
        return not self.reverse and not self.left.constant and 0 < self.shift < min(self.left.bits, self.result.bits)

    @property
    def first(self) -> tuple[str, int]:
        """Text and width of the first port, where nothing is passed through."""
        return self._shifted() if self.reverse else (self.left.name, self.left.bits)

    @property
    def second(self) -> tuple[str, int]:
        """Text and width of the second port, where nothing is passed through."""
        return (self.left.name, self.left.bits) if self.reverse else self._shifted()

    def _shifted(self) -> tuple[str, int]:
        zeros = f"{{{self.right.name}, {self.shift}'d0}}"
        return (zeros, self.right.bits + self.shift) if self.shift else (self.right.name, self.right.bits)


@dataclass
class AdderGraph:
    """The adders of one layer. Equal multiples of one input are built once."""

    prefix: str
    width: int
    adders: list[Adder] = field(default_factory=list)
    multiples: dict[tuple[str, int], Wire] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def product(self, source: Wire, weight: int) -> Term:
        """`weight * source` for a weight that is not zero."""
        shift = (weight & -weight).bit_length() - 1
        odd = abs(weight) >> shift
        if (source.name, odd) not in self.multiples:
            terms = [Term(source, place, digit) for place, digit in signed_digits(odd)]
            found = self._sum(terms)
            self.multiples[source.name, odd] = found.wire
        return Term(self.multiples[source.name, odd], shift, 1 if weight > 0 else -1)

    def sum(self, terms: Iterable[Term]) -> Term | None:
        """The sum modulo 2**width, None for zero."""
        kept = [term for term in terms if term.shift < self.width]
        return self._sum(kept) if kept else None

    def _sum(self, terms: Sequence[Term]) -> Term:
        """Adds the two shortest until one is left, so that carries stay short."""
        order = count()
        heap = [(term.top, next(order), term) for term in terms]
        heapq.heapify(heap)
        while len(heap) > 1:
            first, second = heapq.heappop(heap)[2], heapq.heappop(heap)[2]
            found = self._add(first, second)
            heapq.heappush(heap, (found.top, next(order), found))
        return heap[0][2]

    def _add(self, first: Term, second: Term) -> Term:
        left, right = sorted((first, second), key=lambda term: term.shift)
        shift = right.shift - left.shift
        low, high = right.wire.low << shift, right.wire.high << shift
        sign = 1
        if left.sign == right.sign:
            sign = left.sign
            low, high = left.wire.low + low, left.wire.high + high
        elif left.sign > 0:
            low, high = left.wire.low - high, left.wire.high - low
        else:
            low, high = low - left.wire.high, high - left.wire.low
        result = self._wrapped(f"{self.prefix}{next(self.numbers)}", low, high, self.width - left.shift)
        kind = "add" if left.sign == right.sign else "sub"
        self.adders.append(Adder(kind, left.sign < right.sign, left.wire, right.wire, shift, result))
        return Term(result, left.shift, sign)

    def _wrapped(self, name: str, low: int, high: int, width: int) -> Wire:
        found = Wire(name, low, high)
        if found.bits <= width:
            return found
        return Wire(name, -(1 << (width - 1)), (1 << (width - 1)) - 1)


def signed_digits(number: int) -> list[tuple[int, int]]:
    """A positive number as few signed powers of two, as (place, +1 or -1).

    As many as in canonical signed digit form, but with 2 + 1 for 4 - 1: the sum of two numbers is shorter than the
    difference.

    >>> signed_digits(7), signed_digits(11)
    ([(0, -1), (3, 1)], [(0, 1), (1, 1), (3, 1)])
    """
    digits: list[tuple[int, int]] = []
    place = 0
    while number:
        digit = 2 - number % 4 if number % 2 else 0
        if digit:
            digits.append((place, digit))
            _prefer_sums(digits)
        number = (number - digit) // 2
        place += 1
    return digits


def _prefer_sums(digits: list[tuple[int, int]]) -> None:
    """Replace 4 - 1 by 2 + 1, and 1 - 4 by -2 - 1, from the last digit down."""
    for index in range(len(digits) - 2, -1, -1):
        (low, first), (high, second) = digits[index : index + 2]
        if (high, second) != (low + 2, -first):
            return
        digits[index : index + 2] = [(low, second), (low + 1, second)]


def constant(value: int) -> Wire:
    """A number as a wire; its literal has room for the absolute value, which is negated in the width of what reads it.

    >>> constant(-5).name, constant(3).name, constant(-4).name
    ("-4'sd5", "3'sd3", "-4'sd4")
    """
    return Wire(f"{'-' if value < 0 else ''}{abs(value).bit_length() + 1}'sd{abs(value)}", value, value)


def wire_of(name: str, output: Format) -> Wire:
    """A tensor's element as a wire."""
    return Wire(name, output.min_code, output.max_code)
