"""Operations that move values without changing them: Reshape, Permute, Crop, Pad and Upsample."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, Precision, gamma, inflate
from sound_qkeras.network.ops.base import Facts, Reals, Rows, Shape
from sound_qkeras.network.ops.linear import About, Linear, LinearOp
from sound_qkeras.types import Array


@dataclass(frozen=True)
class Move(LinearOp):
    """Every result is a value of the input, or zero: the same map for values, enclosures, differences and codes."""

    moves: ClassVar[bool] = True

    @abstractmethod
    def moved(self, x: Array) -> Array:
        """The result for an array with any leading axes."""

    @abstractmethod
    def returned(self, rows: Reals) -> Reals:
        """The transposed map: coefficients of results become coefficients of the input's values."""

    @property
    def copies(self) -> int:
        """Results that one value of the input becomes, at most."""
        return 1

    def evaluate(self, *inputs: Reals) -> Reals:
        """The values in their new places."""
        return self.moved(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """The enclosures in their new places."""
        return inputs[0].mapped(self.moved)

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The enclosures in their new places."""
        return self.interval(*inputs)

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """The differences in their new places."""
        return inputs[0].pair()[2].mapped(self.moved)

    def linear_value(self, x: Interval, about: About, precision: Precision) -> Linear:
        """The same map; sums of several coefficients are charged for their rounding."""
        radius = inflate(gamma(self.copies, precision) * self.moved(about.size), 4) if self.copies > 1 else None
        return Linear(self.moved(about.point), radius)

    def linear_difference(
        self, parameters: Any, facts: Facts, value: About, difference: About, precision: Precision
    ) -> Linear:
        """The same map."""
        return self.linear_value(facts.pair()[2], difference, precision)

    def pull(self, parameters: Any, rows: Rows, value: Reals | None, difference: Reals | None) -> Rows:
        """The coefficients where their values came from."""
        parts = (None if part is None else self.returned(part) for part in (rows.value, rows.difference))
        return Rows(*parts)

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """The coefficients where their values came from."""
        return (self.returned(rows),)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """The directions in their new places."""
        return self.moved(rows[0])

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: Array) -> Array:
        """The codes in their new places."""
        return self.moved(codes[0])


@dataclass(frozen=True)
class Reshape(Move):
    """Row-major reshape of one sample, as Keras does it."""

    kind: ClassVar[str] = "reshape"
    input_shape: Shape
    shape: Shape

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The target shape, when the sizes agree."""
        if input_shapes != (self.input_shape,) or math.prod(self.input_shape) != math.prod(self.shape):
            raise ModelError(f"cannot reshape {input_shapes} to {self.shape}: expected one tensor {self.input_shape}")
        return self.shape

    def moved(self, x: Array) -> Array:
        """The reshaped batch."""
        return x.reshape(x.shape[: x.ndim - len(self.input_shape)] + self.shape)

    def returned(self, rows: Reals) -> Reals:
        """The rows, reshaped back."""
        return rows.reshape(rows.shape[: rows.ndim - len(self.shape)] + self.input_shape)


@dataclass(frozen=True)
class Permute(Move):
    """Axes in another order: axis `axes[i]` of the input, counted from zero without the batch, becomes axis i."""

    kind: ClassVar[str] = "permute"
    axes: tuple[int, ...]

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The permuted shape."""
        (shape,) = one_tensor(self.kind, input_shapes, len(self.axes))
        if sorted(self.axes) != list(range(len(shape))):
            raise ModelError(f"axes {self.axes} are no order of the axes of {shape}")
        return tuple(shape[axis] for axis in self.axes)

    def moved(self, x: Array) -> Array:
        """The transposed batch."""
        return _transposed(x, self.axes)

    def returned(self, rows: Reals) -> Reals:
        """Transposed back."""
        return _transposed(rows, tuple(int(axis) for axis in np.argsort(self.axes)))


def _transposed(x: Array, axes: Sequence[int]) -> Array:
    lead = x.ndim - len(axes)
    return np.ascontiguousarray(x.transpose(*range(lead), *(lead + axis for axis in axes)))


@dataclass(frozen=True)
class Crop(Move):
    """Without the first `before` and the last `after` values along each axis."""

    kind: ClassVar[str] = "crop"
    before: Shape
    after: Shape

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """What is left, at least one value along each axis."""
        (shape,) = one_tensor(self.kind, input_shapes, len(self.before), len(self.after))
        left = tuple(size - a - b for size, a, b in zip(shape, self.before, self.after, strict=True))
        if min(left) < 1:
            raise ModelError(f"cropping {shape} by {self.before} and {self.after} leaves nothing")
        return left

    def moved(self, x: Array) -> Array:
        """The inner part."""
        return _inner(x, self.before, self.after)

    def returned(self, rows: Reals) -> Reals:
        """Zeros for what was cut off."""
        return _padded(rows, self.before, self.after)


@dataclass(frozen=True)
class Pad(Move):
    """`before` zeros before and `after` zeros behind, along each axis."""

    kind: ClassVar[str] = "pad"
    before: Shape
    after: Shape

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The larger shape."""
        (shape,) = one_tensor(self.kind, input_shapes, len(self.before), len(self.after))
        return tuple(size + a + b for size, a, b in zip(shape, self.before, self.after, strict=True))

    def moved(self, x: Array) -> Array:
        """Surrounded by zeros, which are on every grid."""
        return _padded(x, self.before, self.after)

    def returned(self, rows: Reals) -> Reals:
        """Without the coefficients of zeros."""
        return _inner(rows, self.before, self.after)


def _inner(x: Array, before: Shape, after: Shape) -> Array:
    lead = x.ndim - len(before)
    ends = (x.shape[lead + axis] - last for axis, last in enumerate(after))
    return x[(..., *(slice(first, end) for first, end in zip(before, ends, strict=True)))]


def _padded(x: Array, before: Shape, after: Shape) -> Array:
    lead = x.ndim - len(before)
    return np.pad(x, [(0, 0)] * lead + list(zip(before, after, strict=True)))


@dataclass(frozen=True)
class Upsample(Move):
    """Every value `repeats` times in a row along each axis (nearest neighbour)."""

    kind: ClassVar[str] = "upsample"
    repeats: Shape

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The enlarged shape."""
        (shape,) = one_tensor(self.kind, input_shapes, len(self.repeats))
        return tuple(size * count for size, count in zip(shape, self.repeats, strict=True))

    @property
    def copies(self) -> int:
        """How often each value is there."""
        return math.prod(self.repeats)

    def moved(self, x: Array) -> Array:
        """Repeated."""
        for axis, count in enumerate(self.repeats):
            if count > 1:
                x = np.repeat(x, count, axis=x.ndim - len(self.repeats) + axis)
        return x

    def returned(self, rows: Reals) -> Reals:
        """The sum over the copies."""
        lead = rows.ndim - len(self.repeats)
        parts = (part for axis, n in enumerate(self.repeats) for part in (rows.shape[lead + axis] // n, n))
        copies = tuple(lead + 2 * axis + 1 for axis in range(len(self.repeats)))
        return rows.reshape(*rows.shape[:lead], *parts).sum(axis=copies)


def one_tensor(kind: str, shapes: Sequence[Shape], *ranks: int) -> tuple[Shape]:
    """The shape of the only input, which has as many axes as the settings speak of.

    Raises:
        ModelError: there are several, or it has other axes.
    """
    if len(shapes) != 1 or any(len(shapes[0]) != rank for rank in ranks) or not shapes[0]:
        raise ModelError(f"{kind} takes one tensor of {ranks[0]} axes, received {list(shapes)}")
    return (shapes[0],)
