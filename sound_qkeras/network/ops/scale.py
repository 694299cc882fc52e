"""Elementwise `y = kernel * x + bias`: a normalisation with no layer beside it that could take it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sound_qkeras.errors import ModelError
from sound_qkeras.network.ops.affine import Affine
from sound_qkeras.network.ops.base import Reals, Shape


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """`y = kernel * x + bias`, both of the shape of the tensor's last axes: `(channels,)`, or the tensor's whole shape."""

    kind: ClassVar[str] = "scale"

    @property
    def bias_shape(self) -> Shape:
        """The kernel's shape."""
        return self.kernel.shape

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The input's shape."""
        size = self.kernel.ndim
        if len(input_shapes) != 1 or not size or input_shapes[0][-size:] != self.kernel.shape:
            raise ModelError(f"factors {self.kernel.shape} expect inputs with these last axes, got {input_shapes}")
        return input_shapes[0]

    @property
    def fan_in(self) -> int:
        """One product."""
        return 1

    @property
    def fan_out(self) -> int:
        """One output."""
        return 1

    def apply(self, kernel: Reals, x: Reals) -> Reals:
        """`x * kernel`."""
        return x * kernel

    def transpose(self, kernel: Reals, y: Reals) -> Reals:
        """`y * kernel`: it is diagonal."""
        return y * kernel
