"""Where a sliding window reads: the geometry that convolutions and pooling share.

Per spatial axis, output `o` reads the padded positions `o * stride + k * dilation` for `k` in `range(kernel)`; padding adds
zeros before and after. Arrays are `(samples, *sizes, channels)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.types import Array, Shape

Padding = tuple[tuple[int, int], ...]

# Numbers of one tile of samples that is processed at once: what fits a processor's cache.
TILE_NUMBERS = 1 << 20
# More would not fit memory.
MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes of a tensor.

    Args:
        sizes: of the input, without channels.
        kernel: window sizes.
        strides, dilation: steps between outputs, and between elements of one window.
        padding: zeros `(before, after)` per axis.

    Raises:
        ModelError: numbers of axes differ, a number is too small, or no window fits.
    """

    sizes: Shape
    kernel: Shape
    strides: Shape
    dilation: Shape
    padding: Padding

    def __post_init__(self) -> None:
        """Check once what everything after relies on."""
        parts = (self.kernel, self.strides, self.dilation, self.padding)
        if not self.sizes or any(len(part) != len(self.sizes) for part in parts):
            raise ModelError(f"a window of sizes {self.kernel} does not slide over {len(self.sizes)} axes: {self}")
        positive = (*self.sizes, *self.kernel, *self.strides, *self.dilation)
        ends = [end for pair in self.padding for end in pair]
        if min(positive) < 1 or min(ends) < 0 or any(len(pair) != 2 for pair in self.padding):
            raise ModelError(f"a window needs positive sizes, strides and dilations, and no negative padding: {self}")
        if min(self.output_sizes) < 1:
            raise ModelError(f"a window of {self.extents} does not fit into inputs of {self.padded_sizes}")
        if math.prod(self.padded_sizes) > MOST_ELEMENTS:
            raise ModelError(f"padded inputs of {self.padded_sizes} exceed {MOST_ELEMENTS} elements a channel")

    @property
    def extents(self) -> Shape:
        """Window sizes with the gaps that dilation leaves."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def padded_sizes(self) -> Shape:
        """Sizes of the input with its padding."""
        return tuple(size + sum(ends) for size, ends in zip(self.sizes, self.padding, strict=True))

    @property
    def output_sizes(self) -> Shape:
        """How many windows there are per axis."""
        parts = zip(self.padded_sizes, self.extents, self.strides, strict=True)
        return tuple((size - extent) // stride + 1 for size, extent, stride in parts)

    def pad(self, x: Array) -> Array:
        """The input with its zeros."""
        if not any(map(sum, self.padding)):
            return x
        return np.pad(x, ((0, 0), *self.padding, (0, 0)))

    def positions(self) -> Iterator[tuple[Shape, tuple[slice, ...]]]:
        """Each index into the kernel, and the slices of the padded input that it is multiplied with."""
        for index in product(*map(range, self.kernel)):
            axes = zip(index, self.dilation, self.strides, self.output_sizes, strict=True)
            yield index, tuple(slice(k * d, k * d + (n - 1) * s + 1, s) for k, d, s, n in axes)

    def patches(self, x: Array) -> Array:
        """A view of what every window reads: `(samples, *output_sizes, *kernel, channels)`."""
        padded = self.pad(x)
        first, *steps, last = padded.strides
        outer = (step * stride for step, stride in zip(steps, self.strides, strict=True))
        inner = (step * dilation for step, dilation in zip(steps, self.dilation, strict=True))
        shape = (padded.shape[0], *self.output_sizes, *self.kernel, padded.shape[-1])
        strides = (first, *outer, *inner, last)
        return np.lib.stride_tricks.as_strided(padded, shape, strides, writeable=False)

    def scatter(self, count: int, channels: int, kind: Any, part: Callable[[Shape], Array]) -> Array:
        """The transpose of reading: the sum over the kernel's indices of `part(index)`, added where the index reads."""
        padded = np.zeros((count, *self.padded_sizes, channels), kind)
        for index, where in self.positions():
            padded[(slice(None), *where)] += part(index)
        ends = zip(self.padding, self.sizes, strict=True)
        return padded[(slice(None), *(slice(before, before + size) for (before, _), size in ends))]

    def valid_counts(self) -> npt.NDArray[np.int64]:
        """How many elements of each window are not padding, shape `output_sizes`."""
        counts = np.ones((), np.int64)
        for axis, size in enumerate(self.sizes):
            starts = np.arange(self.output_sizes[axis]) * self.strides[axis] - self.padding[axis][0]
            reads = starts[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis]
            counts = np.multiply.outer(counts, ((reads >= 0) & (reads < size)).sum(axis=1))
        return counts


def same_padding(sizes: Shape, kernel: Shape, strides: Shape, dilation: Shape) -> Padding:
    """TensorFlow's `same`: `ceil(size / stride)` outputs, the odd zero after.

    >>> same_padding((32,), (3,), (2,), (1,))
    ((0, 1),)
    """
    pairs: list[tuple[int, int]] = []
    for size, k, stride, d in zip(sizes, kernel, strides, dilation, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * d + 1 - size, 0)
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)


def causal_padding(kernel: Shape, dilation: Shape) -> Padding:
    """Zeros before only, so that no output reads a later input."""
    return tuple(((k - 1) * d, 0) for k, d in zip(kernel, dilation, strict=True))


def in_tiles(function: Callable[[Array], Array], x: Array, shape: Shape, numbers: int) -> Array:
    """`function` on `x` with all leading axes flattened to one, a tile at a time, and the leading axes restored.

    Args:
        function: maps `(samples, *shape)` to `(samples, ...)`, each sample by itself.
        x: the input, `(..., *shape)`.
        shape: of one sample.
        numbers: what one sample takes while it is processed.
    """
    leading = x.shape[: x.ndim - len(shape)]
    flat = x.reshape(-1, *shape)
    tile = max(1, TILE_NUMBERS // max(1, numbers))
    starts = range(0, max(1, len(flat)), tile)
    parts = [function(flat[start : start + tile]) for start in starts]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole.reshape(*leading, *whole.shape[1:])
