"""What a quantizer does to a value: a staircase, a nondecreasing function of few values, in place of the identity.

All of them act on real numbers. `apply` is exact on float64 numbers; being nondecreasing, it maps the ends of an interval to
the ends of its image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import CutFormat, Format, from_codes, to_grid
from sound_qkeras.interval import Interval, Reals, read_only, up
from sound_qkeras.network.pickling import Rebuilt


class Rounding(Rebuilt, ABC):
    """A nondecreasing staircase.

    Attributes:
        kind: its name in files.
    """

    kind: ClassVar[str]

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What defines it besides arrays, as plain json."""

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """The arrays that define it, by name."""
        return {}

    @property
    @abstractmethod
    def minimum(self) -> float:
        """Its smallest value."""

    @property
    @abstractmethod
    def maximum(self) -> float:
        """Its largest value."""

    @property
    @abstractmethod
    def levels(self) -> int:
        """One less than the number of its values."""

    @abstractmethod
    def apply(self, x: Reals) -> Reals:
        """The value at float64 numbers, exactly."""

    @abstractmethod
    def error(self, x: Interval, grid: int | None) -> Reals:
        """Bound on `|apply(v) - v|` for every v in the intervals.

        Args:
            x: the intervals.
            grid: the fractional bits of v where it is known to have so few.
        """

    @property
    @abstractmethod
    def grid(self) -> int | None:
        """Fractional bits that all of its values have, if float64 knows them."""

    @property
    @abstractmethod
    def reach(self) -> tuple[float, float]:
        """Values beyond these ends are cut off, rather than rounded."""

    def image(self, x: Interval) -> Interval:
        """The image of intervals; exact."""
        return x.mapped(self.apply)


@dataclass(frozen=True)
class Uniform(Rounding):
    """The nearest of the numbers `code * 2**-fractional_bits`, half to even, with codes from `low` to `high`.

    >>> Uniform(2, -3, 3).apply(np.array([-9.0, 0.125, 0.375, 0.4])).tolist()
    [-0.75, 0.0, 0.5, 0.5]
    """

    kind: ClassVar[str] = "uniform"
    fractional_bits: int
    low: int
    high: int

    def __post_init__(self) -> None:
        """Refuse what float64 cannot hold exactly."""
        if not (-(2**53) <= self.low <= self.high <= 2**53 and abs(self.fractional_bits) <= 300):
            raise ModelError(
                f"a quantizer with codes {self.low} to {self.high} and {self.fractional_bits} fractional bits; accepted: "
                "at most 53 bits"
            )

    @classmethod
    def of(cls, output: Format) -> Uniform:
        """What rounding to a format does."""
        return cls(output.fractional_bits, output.min_code, output.max_code)

    @property
    def format(self) -> Format:
        """The format that it rounds to."""
        signed = self.low < 0
        length = signed + max(self.high.bit_length(), (-self.low - 1).bit_length() if signed else 0, 1)
        whole = Format(length, length - signed - self.fractional_bits, signed)
        if (whole.min_code, whole.max_code) == (self.low, self.high):
            return whole
        return CutFormat(whole.word_length, whole.integer_bits, signed, self.low, self.high)

    @property
    def levels(self) -> int:
        """One less than the number of codes."""
        return self.high - self.low

    def settings(self) -> Mapping[str, Any]:
        """All that it is."""
        return {"fractional_bits": self.fractional_bits, "low": self.low, "high": self.high}

    @property
    def step(self) -> float:
        """The distance of neighbours."""
        return float(from_codes(1, self.fractional_bits))

    @property
    def minimum(self) -> float:
        """Its smallest value."""
        return float(from_codes(self.low, self.fractional_bits))

    @property
    def maximum(self) -> float:
        """Its largest value."""
        return float(from_codes(self.high, self.fractional_bits))

    @property
    def grid(self) -> int | None:
        """Its fractional bits."""
        return self.fractional_bits

    @property
    def reach(self) -> tuple[float, float]:
        """Half a step beyond its ends."""
        half = 0.5 * self.step
        return self.minimum - half, self.maximum + half

    def apply(self, x: Reals) -> Reals:
        """The nearest code's value."""
        return from_codes(np.clip(to_grid(x, self.fractional_bits), self.low, self.high), self.fractional_bits)

    def error(self, x: Interval, grid: int | None) -> Reals:
        """Half a step, or what is cut off where that is more; nothing for what is on the grid already."""
        beyond = np.maximum(up(x.upper - self.maximum), up(self.minimum - x.lower))
        single = (x.lower == x.upper) & (self.apply(x.lower) == x.lower)
        fine = grid is not None and grid <= self.fractional_bits
        inside = np.where(single | fine, 0.0, 0.5 * self.step)
        within = (x.lower >= self.minimum) & (x.upper <= self.maximum)
        return np.where(within, inside, np.maximum(inside, np.maximum(beyond, 0.0)))


@dataclass(frozen=True, eq=False)
class Staircase(Rounding):
    """`values[i]` between `edges[i - 1]` and `edges[i]`: signs, signs with a dead zone, powers of two.

    Args:
        edges: where it steps, ascending.
        upper: for each edge, whether the edge itself already belongs to the step above it.
        values: one more than edges, nondecreasing.
        logarithmic: floating point finds the step by a logarithm, so next to an edge it may find the other one.
    """

    kind: ClassVar[str] = "staircase"
    edges: Reals
    upper: tuple[bool, ...]
    values: Reals
    logarithmic: bool = False

    def __post_init__(self) -> None:
        """Keep copies that cannot change; refuse what is no staircase."""
        for name in ("edges", "values"):
            object.__setattr__(self, name, read_only(getattr(self, name)))
        parts = len(self.edges) == len(self.upper) == len(self.values) - 1
        finite = bool(np.all(np.isfinite(self.values)) and np.all(np.isfinite(self.edges)))
        if not (parts and finite and np.all(np.diff(self.edges) >= 0.0) and np.all(np.diff(self.values) >= 0.0)):
            raise ModelError(f"values {self.values.tolist()} with edges {self.edges.tolist()} are no staircase")

    @property
    def levels(self) -> int:
        """The number of edges."""
        return len(self.edges)

    def settings(self) -> Mapping[str, Any]:
        """Which ends belong to a step, and how it is found."""
        return {"upper": list(self.upper), "logarithmic": self.logarithmic}

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Edges and values."""
        return {"edges": self.edges, "values": self.values}

    @property
    def minimum(self) -> float:
        """Its smallest value."""
        return float(self.values[0])

    @property
    def maximum(self) -> float:
        """Its largest value."""
        return float(self.values[-1])

    @property
    def grid(self) -> int | None:
        """Fractional bits of the values."""
        return fractional_bits_of(self.values)

    @property
    def reach(self) -> tuple[float, float]:
        """Everything: it has no grid that could end."""
        return -np.inf, np.inf

    def apply(self, x: Reals) -> Reals:
        """The value of the step."""
        x = np.asarray(x, np.float64)
        found = np.full(x.shape, self.values[0])
        for edge, closed, value in zip(self.edges, self.upper, self.values[1:], strict=True):
            found = np.where(x >= edge if closed else x > edge, value, found)
        return found

    def error(self, x: Interval, grid: int | None) -> Reals:
        """On every step the distance is largest at its ends: the interval's ends, and the edges inside.

        An edge may stand for the irrational number next to it.
        """
        found = np.maximum(*(up(np.abs(self.apply(end) - end)) for end in (x.lower, x.upper)))
        for edge, below, above in zip(self.edges, self.values[:-1], self.values[1:], strict=True):
            inside = (x.lower <= edge) & (edge <= x.upper)
            near = np.nextafter(edge, (-np.inf, np.inf))
            farthest = float(np.max(np.abs(np.subtract.outer((below, above), near))))
            found = np.maximum(found, np.where(inside, up(farthest), 0.0))
        return found


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
    return bits if bits <= 300 else None
