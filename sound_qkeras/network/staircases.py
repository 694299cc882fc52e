"""Grids of few values: binary, ternary, powers of two, each with a scale that is a power of two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format
from sound_qkeras.interval import Interval, read_only, up
from sound_qkeras.network.grids import MOST_FRACTIONAL_BITS, FixedPoint, Grid, covering, fractional_bits_of
from sound_qkeras.types import Codes, Reals, Shape


@dataclass(frozen=True, eq=False)
class Staircase(Grid):
    """`values[i]` between `edges[i - 1]` and `edges[i]`, all times `2**exponent`: signs, signs with a dead zone, powers of two.

    Args:
        edges: where it steps, ascending.
        upper: for each edge, whether the edge itself already belongs to the step above it.
        values: one more than edges, nondecreasing.
        logarithmic: floating point finds the step by a logarithm, so next to an edge it may find the other one.
        exponent: of the scale, one number or an array that broadcasts against the tensor.

    Raises:
        ModelError: that is no staircase.
    """

    kind: ClassVar[str] = "staircase"
    edges: Reals
    upper: tuple[bool, ...]
    values: Reals
    logarithmic: bool = False
    exponent: Codes = field(default_factory=lambda: np.zeros((), np.int64))

    def __post_init__(self) -> None:
        """Keep copies that cannot change; refuse what is no staircase."""
        for name in ("edges", "values", "exponent"):
            object.__setattr__(self, name, read_only(np.asarray(getattr(self, name))))
        object.__setattr__(self, "upper", tuple(map(bool, self.upper)))
        parts = len(self.edges) == len(self.upper) == len(self.values) - 1
        scale = self.exponent.dtype == np.int64 and np.all(np.abs(self.exponent) <= MOST_FRACTIONAL_BITS)
        largest = np.ldexp(np.max(np.abs([*self.values, *self.edges])), np.max(self.exponent)) if scale else np.inf
        finite = bool(np.isfinite(largest))
        if not (
            parts and finite and scale and np.all(np.diff(self.edges) >= 0.0) and np.all(np.diff(self.values) >= 0.0)
        ):
            raise ModelError(f"values {self.values.tolist()} with edges {self.edges.tolist()} are no staircase")

    @property
    def shape(self) -> Shape:
        """That of its scale."""
        return self.exponent.shape

    def settings(self) -> Mapping[str, Any]:
        """Which ends belong to a step, and how it is found."""
        return {"upper": list(self.upper), "logarithmic": self.logarithmic}

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Edges and values, and the scale where there is one."""
        scale = {"exponent": self.exponent} if np.any(self.exponent) or self.exponent.shape else {}
        return {"edges": self.edges, "values": self.values, **scale}

    @property
    def levels(self) -> int:
        """The number of edges."""
        return len(self.edges)

    @property
    def word_lengths(self) -> Codes:
        """As many as number the values."""
        return np.full(self.shape, (len(np.unique(self.values)) - 1).bit_length())

    @cached_property
    def scale(self) -> Reals:
        """What edges and values are multiplied by."""
        return np.ldexp(1.0, self.exponent)

    @property
    def minimum(self) -> float:
        """The smallest value of all elements."""
        return float((self.values[0] * self.scale).min())

    @property
    def maximum(self) -> float:
        """The largest value of all elements."""
        return float((self.values[-1] * self.scale).max())

    @property
    def fractional_bits(self) -> int | None:
        """Fractional bits of the values."""
        bits = fractional_bits_of(self.values)
        return None if bits is None else bits - int(self.exponent.min())

    @property
    def codes(self) -> Format | None:
        """The format with both ends."""
        bits = self.fractional_bits
        if bits is None or abs(bits) > MOST_FRACTIONAL_BITS:
            return None
        low, high = (math.ldexp(end, bits) for end in (self.minimum, self.maximum))
        return covering(int(low), int(high), bits) if max(-low, high) < 2.0 ** (MAX_WORD_LENGTH - 1) else None

    @property
    def reach(self) -> tuple[Reals, Reals]:
        """Everything: it has no step that could end."""
        return np.array(-np.inf), np.array(np.inf)

    def apply(self, x: Reals) -> Reals:
        """The value of the step."""
        x = np.asarray(x, np.float64)
        found = np.broadcast_to(self.values[0] * self.scale, np.broadcast_shapes(x.shape, self.shape))
        for edge, closed, value in zip(self.edges, self.upper, self.values[1:], strict=True):
            bound = edge * self.scale
            found = np.where(x >= bound if closed else x > bound, value * self.scale, found)
        return found

    def neighbours(self, x: Reals) -> tuple[Reals, Reals]:
        """Its values around a number."""
        own, last = np.asarray(x, np.float64) / self.scale, len(self.values) - 1
        below = np.clip(np.searchsorted(self.values, own, side="right") - 1, 0, last)
        above = np.clip(np.searchsorted(self.values, own, side="left"), 0, last)
        return self.values[below] * self.scale, self.values[above] * self.scale

    def error(self, x: Interval, bits: int | None) -> Reals:
        """On every step the distance is largest at its ends: the interval's ends, and the edges inside.

        An edge may stand for the irrational number next to it.
        """
        found = np.maximum(*(up(np.abs(self.apply(end) - end)) for end in (x.lower, x.upper)))
        for edge, below, above in zip(self.edges, self.values[:-1], self.values[1:], strict=True):
            inside = (x.lower <= edge * self.scale) & (edge * self.scale <= x.upper)
            near = np.nextafter(edge, (-np.inf, np.inf))
            farthest = float(np.max(np.abs(np.subtract.outer((below, above), near))))
            found = np.maximum(found, np.where(inside, up(up(farthest) * self.scale), 0.0))
        return found

    def thresholds(self, bits: int) -> tuple[int, ...]:
        """For every edge the first code with so many fractional bits above it, or on it where it belongs to the step above.

        Raises:
            ModelError: channels have scales of their own.
        """
        if self.exponent.size != 1:
            raise ModelError(f"the {self} of a result have one scale, received {self.exponent.size}")
        scale = Fraction(2) ** (bits + int(self.exponent.reshape(-1)[0]))
        exact = [Fraction(edge) * scale for edge in self.edges.tolist()]
        return tuple(
            math.ceil(edge) if closed else math.floor(edge) + 1 for edge, closed in zip(exact, self.upper, strict=True)
        )

    @property
    def value_codes(self) -> Codes:
        """Its values as codes of the format `codes`.

        Raises:
            ModelError: there is no such format.
        """
        if self.codes is None:
            raise ModelError(
                f"the {self} from {self.minimum} to {self.maximum} have no format of {MAX_WORD_LENGTH} bits"
            )
        return np.ldexp(self.values * self.scale, self.codes.fractional_bits).astype(np.int64)

    def round_codes(self, codes: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
        """The value behind the last threshold that a code reaches."""
        values = self.value_codes.astype(np.float64)
        found = np.full(codes.shape, values[0])
        for threshold, value in zip(self.thresholds(bits), values[1:], strict=True):
            # Codes that are no Python integers are smaller than 2**62.
            bound = threshold if codes.dtype == object else max(-(1 << 62), min(threshold, 1 << 62))
            found = np.where(np.asarray(codes >= bound, np.bool_), value, found)
        return found

    def __str__(self) -> str:
        """The family that it belongs to."""
        powers = np.all(np.abs(np.frexp(self.values)[0]) % 0.5 == 0.0)
        return {2: "binary values", 3: "ternary values"}.get(len(self.values), "powers of two" if powers else "steps")


def few_values(kernel: Reals) -> Staircase | None:
    """Binary or ternary values, with a scale for every output channel (the last axis), or powers of two that hold a kernel.

    Weights are stored by their number among the values. None where the kernel is of another kind, or is one number.

    >>> str(few_values(np.array([[0.5, -2.0], [-0.5, 0.0]]))), str(few_values(np.array([1.0, -4.0, 2.0]))), few_values(np.ones(2))
    ('ternary values', 'powers of two', None)
    """
    sizes, others = np.abs(kernel), kernel[kernel != 0.0]
    if np.all(kernel == kernel.reshape(-1)[0]):
        return None
    largest = sizes.reshape(-1, kernel.shape[-1]).max(axis=0)
    mantissas, exponents = np.frexp(largest)
    scale = np.where(largest == 0.0, 0, exponents).astype(np.int64)
    used, scales = np.unique(mantissas[largest != 0.0]), np.unique(exponents[largest != 0.0])
    alone = kernel.size == largest.size and scales.size > 1  # a scale for every weight is no scale
    signed, zero = bool(np.any(others < 0.0)), others.size < kernel.size
    if used.size == 1 and not alone and np.all((sizes == 0.0) | (sizes == largest)):
        scale, positive = (scale if scales.size > 1 else scales.reshape(()).astype(np.int64)), used
    elif np.all(np.frexp(np.abs(others))[0] == 0.5):
        scale, powers = np.zeros((), np.int64), np.frexp(np.abs(others))[1]
        positive = np.ldexp(0.5, np.arange(int(np.min(powers)), int(np.max(powers)) + 1))
    else:
        return None
    negative = -positive[::-1] if signed or not (zero or positive.size > 1) else positive[:0]
    values = np.concatenate([negative, np.zeros(int(zero)), positive])
    middles = 0.5 * (values[:-1] + values[1:])
    return Staircase(middles, (True,) * middles.size, values, exponent=scale)


GRIDS: dict[str, type[Grid]] = {kind.kind: kind for kind in (FixedPoint, Staircase)}
