"""Convolutions over any number of spatial axes: strides, dilation, groups, any zero padding; depthwise ones as well."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.network.ops.affine import Affine
from sound_qkeras.network.ops.base import Reals, Shape
from sound_qkeras.network.ops.window import Padding, Window, in_tiles


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Affine):
    """A cross-correlation, as Keras calls convolution, kernel `(*window, inputs of a group, outputs)`.

    Output channel `o` reads the input channels of group `o // (outputs / groups)`. A depthwise convolution has as many
    groups as input channels, its kernel `(*window, channels, multiplier)` reshaped to `(*window, 1, outputs)`.

    Args:
        input_shape: of one sample, channels last.
        strides, dilation: per spatial axis.
        padding: zeros `(before, after)` per spatial axis.
        groups: into how many parts the channels are divided.
    """

    kind: ClassVar[str] = "conv"
    input_shape: Shape
    strides: Shape
    dilation: Shape
    padding: Padding
    groups: int = 1

    def __post_init__(self) -> None:
        """Check that kernel, groups and input belong together."""
        super().__post_init__()
        axes, channels = len(self.input_shape) - 1, self.input_shape[-1]
        if self.kernel.ndim != axes + 2 or self.groups < 1:
            raise ModelError(f"a kernel {self.kernel.shape} in {self.groups} groups does not fit {self.input_shape}")
        inputs, outputs = self.kernel.shape[-2:]
        if inputs * self.groups != channels or outputs % self.groups:
            raise ModelError(
                f"a kernel {self.kernel.shape} in {self.groups} groups reads {inputs * self.groups} channels, "
                f"received {channels}; and its {outputs} outputs must be a multiple of the groups"
            )
        _ = self.window

    @cached_property
    def window(self) -> Window:
        """The geometry."""
        return Window(self.input_shape[:-1], self.kernel.shape[:-2], self.strides, self.dilation, self.padding)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """One number per window and output channel."""
        if input_shapes != (self.input_shape,):
            raise ModelError(f"this convolution expects inputs {self.input_shape}, got {input_shapes}")
        return (*self.window.output_sizes, self.kernel.shape[-1])

    @property
    def fan_in(self) -> int:
        """Elements of a window in one group."""
        return self.kernel[..., 0].size

    @property
    def fan_out(self) -> int:
        """Every position in the kernel, for every output of the group."""
        return self.kernel[..., 0, 0].size * self.kernel.shape[-1] // self.groups

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel reads one of several input channels."""
        return self.groups == self.input_shape[-1] > 1

    def apply(self, kernel: Reals, x: Reals) -> Reals:
        """One matrix product of the windows with the kernel, per group and tile of samples."""
        if self.is_depthwise:
            numbers = math.prod(self.window.padded_sizes) * kernel.shape[-1]
            return in_tiles(lambda part: self._depthwise(kernel, part), x, self.input_shape, numbers)
        numbers = math.prod(self.window.output_sizes) * self.fan_in
        return in_tiles(lambda part: self._grouped(kernel, part), x, self.input_shape, numbers)

    def _grouped(self, kernel: Reals, x: Reals) -> Reals:
        patches, (inputs, outputs) = self.window.patches(x), kernel.shape[-2:]
        shape = patches.shape[: 1 + len(self.strides)]
        width = outputs // self.groups
        results = [
            patches[..., g * inputs : (g + 1) * inputs].reshape(-1, self.fan_in)
            @ kernel[..., g * width : (g + 1) * width].reshape(self.fan_in, width)
            for g in range(self.groups)
        ]
        return (results[0] if self.groups == 1 else np.concatenate(results, axis=1)).reshape(*shape, outputs)

    def _depthwise(self, kernel: Reals, x: Reals) -> Reals:
        """Position by position: one matrix product a channel would be far too small."""
        repeated = np.repeat(self.window.pad(x), kernel.shape[-1] // self.groups, axis=-1)
        total = np.zeros((len(x), *self.window.output_sizes, kernel.shape[-1]), np.result_type(kernel, x))
        for index, where in self.window.positions():
            total += repeated[(slice(None), *where)] * kernel[index]
        return total

    def transpose(self, kernel: Reals, y: Reals) -> Reals:
        """Every output sent back to the window it read."""
        shape = (*self.window.output_sizes, kernel.shape[-1])
        numbers = math.prod(self.window.output_sizes) * kernel[..., 0].size * self.groups
        back = self._depthwise_back if self.is_depthwise else self._grouped_back
        return in_tiles(lambda part: back(kernel, part), y, shape, numbers)

    def _grouped_back(self, kernel: Reals, y: Reals) -> Reals:
        """One matrix product per position in the kernel, added where that position reads."""
        width = kernel.shape[-1] // self.groups
        parts = [slice(g * width, (g + 1) * width) for g in range(self.groups)]
        flat = y.reshape(-1, y.shape[-1])

        def part(index: Shape) -> Reals:
            columns = [flat[:, outputs] @ kernel[index][:, outputs].T for outputs in parts]
            whole = columns[0] if self.groups == 1 else np.concatenate(columns, axis=1)
            return whole.reshape(*y.shape[:-1], -1)

        return self.window.scatter(len(y), self.input_shape[-1], np.result_type(kernel, y), part)

    def _depthwise_back(self, kernel: Reals, y: Reals) -> Reals:
        channels, kind = self.groups, np.result_type(kernel, y)

        def part(index: Shape) -> Reals:
            return (y * kernel[index]).reshape(*y.shape[:-1], channels, -1).sum(axis=-1)

        return self.window.scatter(len(y), channels, kind, part)
