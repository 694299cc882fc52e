"""Exact arithmetic on arrays of dyadic rationals, `numbers * 2**-bits`, with Python's own integers.

Every float64, every code and every rounding step is a dyadic rational, and so are their sums and products: nothing
here is ever rounded, except where a method says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import VerificationError
from sound_qkeras.types import Reals

# Object arrays: their elements are Python integers of any length.
Integers = npt.NDArray[Any]
# Numbers that a proof rounds, always outward, keep so many bits of the largest beside them.
PRECISION = 192
# Matrix products are sums of int64 products of limbs; numpy multiplies integers itself, no BLAS does. The sum of one product's
# terms stays below 2**WORD, and up to MOST_SUMS products are added before they become Python's integers. Sums of fewer terms
# than FEWEST_TERMS are faster in those.
WORD, MOST_SUMS, FEWEST_TERMS = 58, 16, 24


@dataclass(frozen=True, eq=False)
class Dyadic:
    """An array of exact numbers `numbers * 2**-bits`.

    >>> (Dyadic.of(np.array([0.5, 3.0])) + Dyadic.codes(np.array([1, -1]), 2)).fractions()
    [Fraction(3, 4), Fraction(11, 4)]
    """

    numbers: Integers
    bits: int

    @classmethod
    def of(cls, x: Reals) -> Dyadic:
        """The exact values of finite float64 numbers."""
        ratios = [float(value).as_integer_ratio() for value in np.ravel(x)]
        bits = max((denominator.bit_length() - 1 for _, denominator in ratios), default=0)
        numbers = [number << (bits + 1 - denominator.bit_length()) for number, denominator in ratios]
        return cls(_integers(numbers).reshape(np.shape(x)), bits)

    @classmethod
    def codes(cls, codes: npt.NDArray[np.int64], bits: int) -> Dyadic:
        """The exact values of fixed-point codes with `bits` fractional bits, which may be negative."""
        numbers = _integers([int(code) << max(0, -bits) for code in np.ravel(codes)])
        return cls(numbers.reshape(np.shape(codes)), max(0, bits))

    @classmethod
    def zeros(cls, *shape: int) -> Dyadic:
        """Zeros of a shape."""
        return cls(_integers([0] * int(np.prod(shape))).reshape(shape), 0)

    @classmethod
    def identity(cls, size: int) -> Dyadic:
        """The identity matrix."""
        return cls.codes(np.eye(size, dtype=np.int64), 0)

    @classmethod
    def power(cls, exponent: int) -> Dyadic:
        """`2**exponent`, as an array without axes."""
        return cls.codes(np.array(1, dtype=np.int64), -exponent)

    def fractions(self) -> list[Fraction]:
        """The values, flattened."""
        scale = 1 << self.bits
        return [Fraction(number, scale) for number in self.numbers.ravel()]

    def at(self, bits: int) -> Integers:
        """The integers at `bits` fractional bits, at least the array's own."""
        return self.numbers if bits == self.bits else self.numbers * (1 << (bits - self.bits))

    def _with(self, other: Dyadic, function: Callable[[Integers, Integers], Any]) -> Dyadic:
        bits = max(self.bits, other.bits)
        return Dyadic(_array(function(self.at(bits), other.at(bits))), bits)

    def __add__(self, other: Dyadic) -> Dyadic:
        return self._with(other, np.add)

    def __sub__(self, other: Dyadic) -> Dyadic:
        return self._with(other, np.subtract)

    def __neg__(self) -> Dyadic:
        return Dyadic(_array(-self.numbers), self.bits)

    def __mul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(_array(self.numbers * other.numbers), self.bits + other.bits)

    def __matmul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(_product(self, other), self.bits + other.bits)

    def __getitem__(self, index: Any) -> Dyadic:
        return Dyadic(_array(self.numbers[index]), self.bits)

    @property
    def T(self) -> Dyadic:  # noqa: N802 - numpy's name
        """The transpose."""
        return Dyadic(self.numbers.T, self.bits)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.numbers.shape

    @cached_property
    def length(self) -> int:
        """Bits of the largest number."""
        return int(np.max(np.abs(self.numbers), initial=0)).bit_length()

    @cached_property
    def _known_limbs(self) -> dict[int, list[npt.NDArray[np.int64]]]:
        return {}

    def limbs(self, width: int) -> list[npt.NDArray[np.int64]]:
        """The numbers as sums of `limbs[k] * 2**(k * width)`, none beyond `2**width`; kept, as many products need them."""
        if width not in self._known_limbs:
            rest, found = self.numbers, self._known_limbs.setdefault(width, [])
            for _ in range(self.length // width):
                found.append((rest & ((1 << width) - 1)).astype(np.int64))
                rest = rest >> width
            found.append(rest.astype(np.int64))
        return self._known_limbs[width]

    def cut(self) -> tuple[Dyadic, Dyadic | None]:
        """The numbers rounded down to `PRECISION` bits of the largest, and the unit each fell by less than; None if none fell."""
        drop = min(self.length - PRECISION, self.bits)
        if drop <= 0:
            return self, None
        return Dyadic(_array(self.numbers >> drop), self.bits - drop), Dyadic.power(drop - self.bits)

    def minimum(self, other: Dyadic) -> Dyadic:
        """The smaller of two, elementwise."""
        return self._with(other, np.minimum)

    def maximum(self, other: Dyadic) -> Dyadic:
        """The larger of two, elementwise."""
        return self._with(other, np.maximum)

    def magnitude(self) -> Dyadic:
        """Absolute values."""
        return Dyadic(_array(np.abs(self.numbers)), self.bits)

    def positive(self) -> Dyadic:
        """`max(x, 0)`, elementwise."""
        return Dyadic(_array(np.maximum(self.numbers, 0)), self.bits)

    def negative(self) -> Dyadic:
        """`min(x, 0)`, elementwise."""
        return Dyadic(_array(np.minimum(self.numbers, 0)), self.bits)

    def halved(self) -> Dyadic:
        """Half of each value."""
        return Dyadic(self.numbers, self.bits + 1)

    def less(self, other: Dyadic) -> npt.NDArray[np.bool_]:
        """Elementwise `<`."""
        bits = max(self.bits, other.bits)
        return np.asarray(self.at(bits) < other.at(bits), dtype=np.bool_)

    def where(self, condition: npt.NDArray[np.bool_], other: Dyadic) -> Dyadic:
        """This value where the condition holds, the other one elsewhere."""
        return self._with(other, lambda a, b: np.where(condition, a, b))

    def rounded(self, bits: int) -> Integers:
        """Codes with `bits` fractional bits, rounded half to even."""
        return self._dropped(bits, lambda half, low: half - 1 + low)

    def floor(self, bits: int) -> Dyadic:
        """The nearest multiples of `2**-bits` below."""
        return _from_grid(self._dropped(bits, lambda _half, _low: 0), bits)

    def ceil(self, bits: int) -> Dyadic:
        """The nearest multiples of `2**-bits` above."""
        return _from_grid(self._dropped(bits, lambda half, _low: 2 * half - 1), bits)

    def _dropped(self, bits: int, addend: Callable[[int, int], int]) -> Integers:
        """Floor to the grid after adding `addend(half a step, last bit kept)`, in units of this array's own step."""
        drop = self.bits - bits
        if drop <= 0:
            return self.at(bits)
        half = 1 << (drop - 1)
        codes = [(int(n) + addend(half, (int(n) >> drop) & 1)) >> drop for n in self.numbers.ravel()]
        return _integers(codes).reshape(self.shape)


def _product(a: Dyadic, b: Dyadic) -> Integers:
    """The matrix product of the numbers; what zeros are multiplied by is left out."""
    inner = a.shape[-1]
    width = (WORD - inner.bit_length()) // 2
    sums = min(a.length, b.length) // width + 1
    if min(len(a.shape), len(b.shape)) == 1 or inner < FEWEST_TERMS or sums > MOST_SUMS:
        return _array(a.numbers @ b.numbers)
    used = np.flatnonzero((a.numbers != 0).any(axis=0))
    if not used.size:
        return Dyadic.zeros(a.shape[0], b.shape[1]).numbers
    left = [limb[:, used] for limb in a.limbs(width)]
    right = [limb[used] for limb in b.limbs(width)]
    total = Dyadic.zeros().numbers
    for level in reversed(range(len(left) + len(right) - 1)):
        terms = (left[k] @ right[level - k] for k in range(len(left)) if 0 <= level - k < len(right))
        total = (total << width) + sum(terms).astype(object)  # type: ignore[union-attr]
    return _array(total)


def _from_grid(codes: Integers, bits: int) -> Dyadic:
    return Dyadic(codes, bits) if bits >= 0 else Dyadic(codes * (1 << -bits), 0)


def _integers(numbers: list[int]) -> Integers:
    array = np.empty(len(numbers), dtype=object)
    array[:] = numbers
    return array


def _array(result: Any) -> Integers:
    """Numpy gives a bare Python integer where an object array has no axes left."""
    return np.asarray(result, dtype=object)


@dataclass(frozen=True, eq=False)
class Range:
    """Closed intervals with exact ends."""

    lower: Dyadic
    upper: Dyadic

    @classmethod
    def point(cls, x: Dyadic) -> Range:
        """`[x, x]`."""
        return cls(x, x)

    @classmethod
    def symmetric(cls, radius: Dyadic) -> Range:
        """`[-radius, radius]`."""
        return cls(-radius, radius)

    def __add__(self, other: Range) -> Range:
        return Range(self.lower + other.lower, self.upper + other.upper)

    def __sub__(self, other: Range) -> Range:
        return Range(self.lower - other.upper, self.upper - other.lower)

    def __neg__(self) -> Range:
        return Range(-self.upper, -self.lower)

    def __mul__(self, other: Range) -> Range:
        ends = [a * b for a in (self.lower, self.upper) for b in (other.lower, other.upper)]
        lower, upper = ends[0], ends[0]
        for end in ends[1:]:
            lower, upper = lower.minimum(end), upper.maximum(end)
        return Range(lower, upper)

    def __getitem__(self, index: Any) -> Range:
        return Range(self.lower[index], self.upper[index])

    def outward(self) -> Range:
        """A range of numbers of fewer bits around this one."""
        return Range(self.lower.cut()[0], -(-self.upper).cut()[0])

    @property
    def width(self) -> Dyadic:
        """Upper minus lower end."""
        return self.upper - self.lower

    @property
    def middle(self) -> Dyadic:
        """The middle of both ends."""
        return (self.lower + self.upper).halved()

    def magnitude(self) -> Dyadic:
        """The largest absolute value of a member."""
        return self.lower.magnitude().maximum(self.upper.magnitude())

    def positive(self) -> Range:
        """The image under `max(x, 0)`."""
        return Range(self.lower.positive(), self.upper.positive())

    def under(self, rows: Dyadic) -> Range:
        """The image under the linear forms `rows`, elements independent of one another."""
        middle, reach = rows @ self.middle, rows.magnitude() @ self.width.halved()
        return Range(middle - reach, middle + reach)

    def intersect(self, other: Range) -> Range:
        """What two enclosures of one quantity have in common.

        Raises:
            VerificationError: nothing, so one of them is wrong.
        """
        lower, upper = self.lower.maximum(other.lower), self.upper.minimum(other.upper)
        if np.any(upper.less(lower)):
            raise VerificationError("two exact enclosures of one quantity do not meet: a bound is wrong")
        return Range(lower, upper)

    def where(self, condition: npt.NDArray[np.bool_], other: Range) -> Range:
        """This range where the condition holds, the other one elsewhere."""
        return Range(self.lower.where(condition, other.lower), self.upper.where(condition, other.upper))
