"""Outward-rounded arithmetic on arrays: every operation encloses the exact real result.

Two facts carry all of it (u = 2**-53, any summation order, with or without fused multiply-add):

* one float64 operation is off by less than one neighbour, and `x + |x| 2**-52` is at least the neighbour above `x`
  (Rump et al., BIT 2009; several times faster than `np.nextafter`);
* `|fl(x @ a) - x @ a| <= gamma(n) |x| @ |a|` plus underflow, `gamma(n) = n u / (1 - n u)`, for a sum of n products.

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), sections 2.2 and 3.1; Rump, Fast and parallel
interval arithmetic (BIT 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import VerificationError
from sound_qkeras.types import Reals

AnyNumber = TypeVar("AnyNumber", bound=np.generic)

UNIT_ROUNDOFF = 2.0**-53
# Covers the underflow of every product in a sum of up to 2**70 of them.
TINY = 2.0**-1000
# The smallest positive float64; it also covers the underflow of `|x| * 2**-52`.
SMALLEST = 2.0**-1074


def up(x: npt.ArrayLike) -> Reals:
    """At least the next float64 above: an upper bound of any one operation rounded to `x`."""
    x = np.asarray(x, dtype=np.float64)
    return x + (np.abs(x) * 2.0**-52 + SMALLEST)


def down(x: npt.ArrayLike) -> Reals:
    """At most the next float64 below: a lower bound of any one operation rounded to `x`."""
    x = np.asarray(x, dtype=np.float64)
    return x - (np.abs(x) * 2.0**-52 + SMALLEST)


def up_sum(x: npt.ArrayLike) -> Reals:
    """An upper bound of one addition or subtraction rounded to `x`; zero stays zero.

    A sum below 2**-1021 is a multiple of the smallest float64 and so exact, zero too; above 2**-1022 `|x| 2**-52` is at least
    the distance to the neighbour above, for it does not underflow.
    """
    x = np.asarray(x, dtype=np.float64)
    return x + np.abs(x) * 2.0**-52


def down_sum(x: npt.ArrayLike) -> Reals:
    """A lower bound of one addition or subtraction rounded to `x`; zero stays zero."""
    x = np.asarray(x, dtype=np.float64)
    return x - np.abs(x) * 2.0**-52


@dataclass(frozen=True)
class Precision:
    """Numbers that coefficients are kept in.

    Args:
        kind: of numpy arrays.
        unit: half the distance of neighbours, relative.
        tiny: covers what underflow takes from a sum of up to 2**20 products, be it flushed to zero or not.
    """

    kind: type[Any]
    unit: float
    tiny: float

    def above(self, x: Reals) -> npt.NDArray[Any]:
        """At least `x`, which is nonnegative, in this precision; zero stays zero, and what is too large becomes infinite."""
        if self.kind is np.float64:
            return x
        with np.errstate(over="ignore"):
            return np.where(x > 0.0, x * (1.0 + 4.0 * self.unit) + self.tiny, 0.0).astype(self.kind)


DOUBLE = Precision(np.float64, UNIT_ROUNDOFF, TINY)
SINGLE = Precision(np.float32, 2.0**-24, 2.0**-100)


def gamma(terms: int, precision: Precision = DOUBLE) -> float:
    """Relative error bound of a sum of `terms` products, doubled so that applying it needs no care.

    The factor two covers the rounding of the bound's own few operations, and of factors that were rounded to the precision.
    """
    return 2.0 * (terms + 4) * precision.unit


def inflate(x: npt.ArrayLike, terms: int, precision: Precision = DOUBLE) -> Reals:
    """Upper bound of a nonnegative sum of `terms` products whose value in this precision is `x`."""
    return np.asarray(x, dtype=np.float64) * (1.0 + gamma(terms, precision)) + precision.tiny


def sum_up(x: Reals, axis: int | tuple[int, ...] = -1) -> Reals:
    """Upper bound of the sum of nonnegative `x` along `axis`."""
    terms = x.size // max(1, np.sum(x, axis=axis).size)
    return inflate(np.sum(x, axis=axis), terms)


@dataclass(frozen=True)
class Interval:
    """Arrays of closed intervals `[lower, upper]`, elementwise.

    Every method returns intervals that contain the exact result for every choice of members.

    >>> third = Interval.point(1.0).scaled(1 / 3)
    >>> bool(third.lower < third.upper)
    True
    """

    lower: Reals
    upper: Reals

    @classmethod
    def point(cls, x: npt.ArrayLike) -> Interval:
        """The degenerate interval `[x, x]`."""
        x = np.asarray(x, dtype=np.float64)
        return cls(x, x)

    @classmethod
    def around(cls, center: npt.ArrayLike, radius: npt.ArrayLike) -> Interval:
        """`center` plus or minus `radius`, rounded outward."""
        center = np.asarray(center, dtype=np.float64)
        radius = np.asarray(radius, dtype=np.float64)
        return cls(down_sum(center - radius), up_sum(center + radius))

    @property
    def center(self) -> Reals:
        """A float64 point inside, near the middle."""
        middle = 0.5 * self.lower + 0.5 * self.upper
        return np.clip(middle, self.lower, self.upper)

    @property
    def radius(self) -> Reals:
        """Upper bound of the distance from `center` to either end."""
        center = self.center
        return np.where(self.lower == self.upper, 0.0, up(np.maximum(up(self.upper - center), up(center - self.lower))))

    @property
    def magnitude(self) -> Reals:
        """The largest absolute value of a member, exactly."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the arrays."""
        return self.lower.shape

    def __add__(self, other: Interval) -> Interval:
        return Interval(down_sum(self.lower + other.lower), up_sum(self.upper + other.upper))

    def __neg__(self) -> Interval:
        return Interval(-self.upper, -self.lower)

    def __sub__(self, other: Interval) -> Interval:
        return self + (-other)

    def __mul__(self, other: Interval) -> Interval:
        ends = [a * b for a in (self.lower, self.upper) for b in (other.lower, other.upper)]
        product = Interval(down(np.minimum.reduce(ends)), up(np.maximum.reduce(ends)))
        if np.all(self.upper) and np.all(other.upper):
            return product
        return product.zero_where((self.magnitude == 0.0) | (other.magnitude == 0.0))

    def __getitem__(self, index: object) -> Interval:
        return Interval(self.lower[index], self.upper[index])  # type: ignore[index]

    def zero_where(self, zero: npt.NDArray[np.bool_]) -> Interval:
        """Exactly zero where that is known of the exact result, whatever rounding and underflow were charged there."""
        return Interval(np.where(zero, 0.0, self.lower), np.where(zero, 0.0, self.upper))

    def scaled(self, factor: float) -> Interval:
        """The product with one exact float64 number."""
        return self * Interval.point(factor)

    def widened(self, radius: npt.ArrayLike) -> Interval:
        """Every member plus or minus `radius`."""
        radius = np.asarray(radius, dtype=np.float64)
        return Interval(down_sum(self.lower - radius), up_sum(self.upper + radius))

    def mapped(self, monotone: Callable[[Reals], Reals]) -> Interval:
        """The image under a nondecreasing function that is evaluated exactly (ReLU, a grid rounding, a reshape)."""
        return Interval(monotone(self.lower), monotone(self.upper))

    def intersect(self, other: Interval) -> Interval:
        """The common part of two enclosures of the same quantity.

        Raises:
            VerificationError: they do not meet, so one of them is wrong. Never repaired.
        """
        lower, upper = np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper)
        if np.any(lower > upper):
            raise VerificationError("two enclosures of the same quantity do not meet: a bound is wrong")
        return Interval(lower, upper)

    def hull(self, axis: int = 0) -> Interval:
        """The smallest intervals that contain all those along `axis`."""
        return Interval(self.lower.min(axis=axis), self.upper.max(axis=axis))

    def contains(self, other: Interval | Reals) -> npt.NDArray[np.bool_]:
        """Elementwise: whether `other` lies inside."""
        if isinstance(other, Interval):
            return (self.lower <= other.lower) & (other.upper <= self.upper)
        return (self.lower <= other) & (other <= self.upper)


def matmul(a: Interval, b: Interval) -> Interval:
    """An enclosure of the matrix product, in centre and radius form."""
    (ac, ar), (bc, br) = (a.center, a.radius), (b.center, b.radius)
    magnitude, terms = np.abs(ac), ac.shape[-1]
    radius = gamma(terms) * (magnitude @ np.abs(bc)) + magnitude @ br + ar @ (np.abs(bc) + br)
    product = Interval.around(ac @ bc, inflate(radius, 3 * terms + 8))
    if np.all(radius):
        return product
    return product.zero_where(nonzero(a.magnitude) @ nonzero(b.magnitude) == 0.0)


def nonzero(x: Reals) -> Reals:
    """1 where `x` is not zero, else 0.

    A sum of products of these counts the products with two factors that are not zero, which no rounding or underflow turns
    into 0: where it is 0, the sum of the products of members is exactly 0, for each has a factor that is.
    """
    return (x != 0.0).astype(np.float64)


def exact_difference(a: Reals, b: Reals) -> tuple[Reals, Reals]:
    """`a - b` as its float64 value and the magnitude of what that rounding lost, exactly (Knuth's TwoSum)."""
    total = a - b
    shadow = total - a
    lost = (a - (total - shadow)) + (-b - shadow)
    return total, np.abs(lost)


def read_only(array: npt.NDArray[AnyNumber]) -> npt.NDArray[AnyNumber]:
    """A private copy that nobody can write to: what is proved and hashed about it stays true."""
    copy = np.array(array)
    copy.setflags(write=False)
    return copy
