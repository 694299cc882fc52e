"""Average pooling: an affine operation whose kernel is the reciprocal of the number of elements averaged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.network.ops.affine import Affine
from sound_qkeras.network.ops.base import Reals, Shape
from sound_qkeras.network.ops.window import Padding, Window


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Affine):
    """The sum over each window times a constant, `1 / n`; padding does not count among the n elements.

    The kernel has one entry per different n, in ascending order of n: one where nothing is padded. In the fixed-point
    network it is quantised like any other, so nothing is divided; where n is a power of two it is exact.

    Args:
        input_shape: of one sample, channels last.
        sizes: of the window.
        strides: per spatial axis.
        padding: elements `(before, after)` per spatial axis that windows reach beyond the input.
    """

    kind: ClassVar[str] = "average_pool"
    input_shape: Shape
    sizes: Shape
    strides: Shape
    padding: Padding

    @classmethod
    def of(cls, input_shape: Shape, sizes: Shape, strides: Shape, padding: Padding) -> AveragePool:
        """The pooling with exact reciprocals, enclosed where they are no float64 numbers."""
        window = Window(input_shape[:-1], sizes, strides, (1,) * len(sizes), padding)
        counts = np.unique(window.valid_counts())
        kernel = 1.0 / counts
        # The nearest float64 of 1/n is off by at most half a unit in its last place.
        radius = np.where((counts & (counts - 1)) == 0, 0.0, kernel * 2.0**-52)
        return cls(
            kernel,
            np.zeros(input_shape[-1]),
            radius if np.any(radius) else None,
            input_shape=input_shape,
            sizes=sizes,
            strides=strides,
            padding=padding,
        )

    def __post_init__(self) -> None:
        """Check that there is a constant for every number of elements."""
        super().__post_init__()
        expected = (np.unique(self._counts).size,)
        if self.kernel.shape != expected:
            raise ModelError(f"this pooling has a kernel {self.kernel.shape}, expected {expected}")

    @property
    def bias_shape(self) -> Shape:
        """One number per channel."""
        return self.input_shape[-1:]

    @cached_property
    def window(self) -> Window:
        """The geometry."""
        return Window(self.input_shape[:-1], self.sizes, self.strides, (1,) * len(self.sizes), self.padding)

    @cached_property
    def _counts(self) -> npt.NDArray[np.int64]:
        return self.window.valid_counts()

    @cached_property
    def which(self) -> npt.NDArray[np.int64]:
        """Which entry of the kernel each window is multiplied with, shape `output_sizes`."""
        return np.unique(self._counts, return_inverse=True)[1].reshape(self._counts.shape)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """One number per window and channel."""
        if input_shapes != (self.input_shape,):
            raise ModelError(f"this pooling expects inputs {self.input_shape}, got {input_shapes}")
        return (*self.window.output_sizes, self.input_shape[-1])

    @property
    def fan_in(self) -> int:
        """Elements of a window."""
        return math.prod(self.sizes)

    @property
    def fan_out(self) -> int:
        """As many windows as there are places in one."""
        return math.prod(self.sizes)

    @property
    def multiplications(self) -> int:
        """One per output: the sum comes first."""
        return 1

    def apply(self, kernel: Reals, x: Reals) -> Reals:
        """Sums of windows, times their constants."""
        leading = x.shape[: x.ndim - len(self.input_shape)]
        patches = self.window.patches(x.reshape(-1, *self.input_shape))
        axes = len(self.sizes)
        sums: Reals = patches.sum(axis=tuple(range(1 + axes, 1 + 2 * axes)))
        return (sums * kernel[self.which][..., None]).reshape(*leading, *sums.shape[1:])

    def transpose(self, kernel: Reals, y: Reals) -> Reals:
        """Every output, times its constant, sent back to the whole window it summed."""
        shape = (*self.window.output_sizes, self.input_shape[-1])
        leading = y.shape[: y.ndim - len(shape)]
        part = y.reshape(-1, *shape) * kernel[self.which][..., None]
        if self.sizes == self.input_shape[:-1] and not any(map(any, self.padding)):  # one window that reads everything
            return np.broadcast_to(part + 0.0, (len(part), *self.input_shape)).reshape(*leading, *self.input_shape)
        back = self.window.scatter(len(part), shape[-1], part.dtype, lambda _index: part)
        return back.reshape(*leading, *self.input_shape)
