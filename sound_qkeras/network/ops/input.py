"""The place where a sample enters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape


@dataclass(frozen=True)
class Input(Op):
    """The input tensor, without the batch axis. Its value comes from outside; its rounding is the node's format."""

    kind: ClassVar[str] = "input"
    shape: Shape

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The declared shape."""
        if input_shapes:
            raise ModelError(f"an input takes no tensors, received {len(input_shapes)}")
        return self.shape

    def evaluate(self, *inputs: Reals) -> Reals:
        """The value handed in."""
        return inputs[0]

    def interval(self, *inputs: Interval) -> Interval:
        """The box handed in."""
        return inputs[0]

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The box: both networks see the same real input."""
        return inputs[0]

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """Zero: both networks see the same real input."""
        return Interval(0.0 * inputs[0].value.lower, 0.0 * inputs[0].value.upper)

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Nothing lies before an input."""
        return ()

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Nothing lies before an input."""
        return ()

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """Nothing happens at an input."""
        return rows[0]

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The codes handed in."""
        return codes[0]
