"""Reshape and Flatten: the same numbers under another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape


@dataclass(frozen=True)
class Reshape(Op):
    """Row-major reshape of one sample, as Keras does it."""

    kind: ClassVar[str] = "reshape"
    moves: ClassVar[bool] = True
    input_shape: Shape
    shape: Shape

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The target shape, when the sizes agree."""
        if input_shapes != (self.input_shape,) or math.prod(self.input_shape) != math.prod(self.shape):
            raise ModelError(f"cannot reshape {input_shapes} to {self.shape}: expected one tensor {self.input_shape}")
        return self.shape

    def _to(self, x: Reals, old: Shape, new: Shape) -> Reals:
        return x.reshape(x.shape[: x.ndim - len(old)] + new)

    def evaluate(self, *inputs: Reals) -> Reals:
        """The reshaped batch."""
        return self._to(inputs[0], self.input_shape, self.shape)

    def interval(self, *inputs: Interval) -> Interval:
        """The reshaped enclosure."""
        return inputs[0].mapped(self.evaluate)

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The reshaped enclosure."""
        return self.interval(*inputs)

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """The reshaped difference."""
        return inputs[0].pair()[2].mapped(self.evaluate)

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """The rows, reshaped back."""

        def back(x: Reals | None) -> Reals | None:
            return None if x is None else self._to(x, self.shape, self.input_shape)

        return (Rows(back(rows.value), back(rows.difference)),)

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """The rows, reshaped back."""
        return (self._to(rows, self.shape, self.input_shape),)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """The directions, reshaped."""
        return self._to(rows[0], self.input_shape, self.shape)

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The reshaped codes."""
        return self.evaluate(codes[0])

    def settings(self) -> Mapping[str, Any]:
        """Both shapes."""
        return {"input_shape": list(self.input_shape), "shape": list(self.shape)}
