"""Dense layers: one matrix product on the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Precision
from sound_qkeras.network.ops.affine import Affine, AffineComparison
from sound_qkeras.network.ops.base import Reals, Rows, Shape
from sound_qkeras.types import Indices


@dataclass(frozen=True, eq=False)
class Dense(Affine):
    """`y = x @ kernel + bias` on the last axis, kernel `(inputs, outputs)`; any other axes are positions."""

    kind: ClassVar[str] = "dense"

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The input's shape with its last axis replaced."""
        if len(input_shapes) != 1 or not input_shapes[0] or input_shapes[0][-1] != self.kernel.shape[0]:
            raise ModelError(
                f"a dense kernel {self.kernel.shape} expects inputs (..., {self.kernel.shape[0]}), got {input_shapes}"
            )
        return (*input_shapes[0][:-1], self.kernel.shape[1])

    @property
    def fan_in(self) -> int:
        """Inputs of the layer."""
        return self.kernel.shape[0]

    @property
    def fan_out(self) -> int:
        """Outputs of the layer."""
        return self.kernel.shape[1]

    def apply(self, kernel: Reals, x: Reals) -> Reals:
        """`x @ kernel`, as one matrix product over all leading axes."""
        return (x.reshape(-1, kernel.shape[0]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])

    def unit_rows(self, parameters: AffineComparison | None, chosen: Indices, precision: Precision) -> Rows | None:
        """Columns of the kernel, and of the other network's."""
        if parameters is None:
            return Rows(self.kernels.rows(precision)[0][chosen], None)
        kernel, residual = (kernel[chosen] for kernel in parameters.kernels.rows(precision))
        return Rows(residual, kernel)

    def transpose(self, kernel: Reals, y: Reals) -> Reals:
        """`y @ kernel.T`."""
        return self.apply(kernel.T, y)
