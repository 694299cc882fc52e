"""What Keras layers mean that join several tensors: one function a layer kind, in the table `MERGES`.

A function gets the built layer and the shapes of all its inputs without the batch axis, and returns what the layer becomes,
in order, as `(suffix, operation, sources)`: a source is the number of an input, or the suffix of an earlier part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.interval import Interval
from sound_qkeras.keras_io.read.pieces import Diagonal, Piece, Shape, quotient
from sound_qkeras.network.ops import Add, Concatenate, MatMul, MaxPool, Multiply, Permute, Reshape

Source = int | str
Joined = list[tuple[str, Piece, tuple[Source, ...]]]
MergeReader = Callable[[Any, Sequence[Shape]], Joined]


def read_add(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """The sum."""
    parts, sources = _aligned(shapes)
    return [*parts, ("", Add((False,) * len(shapes)), sources)]


def read_subtract(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """The first less the second."""
    parts, sources = _aligned(shapes)
    return [*parts, ("", Add((False, True)), sources)]


def read_average(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """The sum over a power of two, exactly; over another number, times an enclosed constant."""
    (parts, sources), count = _aligned(shapes), len(shapes)
    if count & (count - 1) == 0:
        return [*parts, ("", Add((False,) * count, 1 - count.bit_length()), sources)]
    shape = tuple(int(size) for size in np.broadcast_shapes(*shapes))
    share = quotient(Interval.point(np.ones(shape)), Interval.point(np.full(shape, float(count))))
    mean = Diagonal(share, Interval.point(np.zeros(shape)))
    return [*parts, ("_sum", Add((False,) * count), sources), ("", mean, ("_sum",))]


def read_multiply(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """The product, two factors at a time."""
    parts, (first, *others) = _aligned(shapes)
    for number, other in enumerate(others, 2):
        suffix = "" if number == len(shapes) else f"_product{number}"
        parts.append((suffix, Multiply(), (first, other)))
        first = suffix
    return parts


def read_concatenate(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """One behind the other, along an axis that is not the batch."""
    rank = len(shapes[0])
    axis = layer.axis - 1 if layer.axis > 0 else rank + layer.axis
    if layer.axis == 0 or not 0 <= axis < rank:
        raise UnsupportedLayerError(
            layer.name,
            f"Concatenate along axis {layer.axis}",
            "an axis of one sample",
            "concatenate along another axis",
        )
    return [("", Concatenate(axis), tuple(range(len(shapes))))]


def read_maximum(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """The tensors as rows, and the largest value of each column."""
    return _largest(layer, shapes, tuple(range(len(shapes))))


def read_minimum(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """The largest of the negated tensors, negated."""
    parts: Joined = [(f"_negated{number}", Add((True,)), (number,)) for number in range(len(shapes))]
    *most, (_, last, sources) = _largest(layer, shapes, tuple(suffix for suffix, _, _ in parts))
    return [*parts, *most, ("_largest", last, sources), ("", Add((True,)), ("_largest",))]


def read_dot(layer: Any, shapes: Sequence[Shape]) -> Joined:
    """The sum over one axis of each: a matrix product of what is turned so that these are last and first."""
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else list(layer.axes)
    summed = [axis % (len(shape) + 1) - 1 for axis, shape in zip(axes, shapes, strict=True)]
    if layer.normalize or max(map(len, shapes)) > 2 or min(summed) < 0:
        raise UnsupportedLayerError(
            layer.name,
            f"Dot over axes {axes} of tensors {list(shapes)}" + (", normalised" if layer.normalize else ""),
            "vectors and matrices, axes of one sample, normalize=False",
            "use a function matmul() of tensors with the same leading axes",
        )
    parts: Joined = []
    sources: list[Source] = []
    for number, (shape, axis) in enumerate(zip(shapes, summed, strict=True)):
        flat = ((1, *shape), (*shape, 1))[number]
        piece = Reshape(shape, flat) if len(shape) == 1 else None if axis == 1 - number else Permute((1, 0))
        if piece is not None:
            parts.append((f"_turned{number}", piece, (number,)))
        sources.append(number if piece is None else f"_turned{number}")
    size = shapes[0][summed[0]]
    kept = [shape[1 - axis] if len(shape) == 2 else 1 for shape, axis in zip(shapes, summed, strict=True)]
    target = tuple(n for n, shape in zip(kept, shapes, strict=True) if len(shape) == 2) or (1,)
    if len(target) == 2:
        return [*parts, ("", MatMul(size), tuple(sources))]
    return [*parts, ("_product", MatMul(size), tuple(sources)), ("", Reshape(tuple(kept), target), ("_product",))]


def _largest(layer: Any, shapes: Sequence[Shape], sources: tuple[Source, ...]) -> Joined:
    if len(set(shapes)) != 1:
        raise UnsupportedLayerError(
            layer.name,
            f"{type(layer).__name__} of tensors {list(shapes)}",
            "tensors of one shape",
            "repeat the smaller",
        )
    shape, count = shapes[0], len(shapes)
    row = (1, math.prod(shape))
    rows: Joined = [(f"_row{number}", Reshape(shape, row), (source,)) for number, source in enumerate(sources)]
    stack = tuple(suffix for suffix, _, _ in rows)
    return [
        *rows,
        ("_stack", Concatenate(0), stack),
        ("_pool", MaxPool((count,), (count,)), ("_stack",)),
        ("", Reshape(row, shape), ("_pool",)),
    ]


def _aligned(shapes: Sequence[Shape]) -> tuple[Joined, tuple[Source, ...]]:
    """As Keras does: tensors with fewer axes get axes of size one in front."""
    rank = max(map(len, shapes))
    parts: Joined = []
    sources: list[Source] = []
    for number, shape in enumerate(shapes):
        missing = rank - len(shape)
        sources.append(f"_aligned{number}" if missing else number)
        if missing:
            parts.append((f"_aligned{number}", Reshape(shape, (*(1,) * missing, *shape)), (number,)))
    return parts, tuple(sources)


MERGES: dict[str, MergeReader] = {
    "Add": read_add,
    "Average": read_average,
    "Concatenate": read_concatenate,
    "Dot": read_dot,
    "Maximum": read_maximum,
    "Minimum": read_minimum,
    "Multiply": read_multiply,
    "Subtract": read_subtract,
}
