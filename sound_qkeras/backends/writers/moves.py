"""Operations that only put values elsewhere: one loop nest that copies, its indices computed here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Shape, Tensor
from sound_qkeras.backends.writers.base import OpWriter
from sound_qkeras.backends.writers.walks import Index, Walk, corner, row_major
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import Crop, Op, Pad, Permute, Upsample


class MoveWriter(OpWriter):
    """`y[...] = x[...]` for every value that moves, zeros elsewhere."""

    verilog: ClassVar[bool] = False
    # Some results are no value of the input.
    fills: ClassVar[bool] = False

    @abstractmethod
    def walk(self, op: Op, shape: Shape, output: Shape) -> Walk:
        """Where each value comes from and goes to, for an input and an output of these shapes."""

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The input's format, which has a zero."""
        return inputs[0].format

    def template(self, layer: Layer, options: Options) -> str:
        """One for all."""
        return "move"

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """The loop nest, and whether zeros come first."""
        return {"walk": self.walk(layer.node.op, layer.shapes[0], layer.output.shape), "fills": self.fills}


class PermuteWriter(MoveWriter):
    """Axes in another order."""

    kind: ClassVar[str] = "permute"

    def walk(self, op: Op, shape: Shape, output: Shape) -> Walk:
        """Through the output in order."""
        strides = row_major(shape)
        return Walk.of(output, Index(row_major(output)), Index(tuple(strides[i] for i in cast(Permute, op).axes)))


class CropWriter(MoveWriter):
    """The inner part."""

    kind: ClassVar[str] = "crop"

    def walk(self, op: Op, shape: Shape, output: Shape) -> Walk:
        """Through the output in order."""
        return Walk.of(output, Index(row_major(output)), corner(shape, cast(Crop, op).before))


class PadWriter(MoveWriter):
    """Zeros around the input."""

    kind: ClassVar[str] = "pad"
    fills: ClassVar[bool] = True

    def walk(self, op: Op, shape: Shape, output: Shape) -> Walk:
        """Through the input in order."""
        return Walk.of(shape, corner(output, cast(Pad, op).before), Index(row_major(shape)))


class UpsampleWriter(MoveWriter):
    """Every value several times: a loop over the values and one over the copies, for each axis."""

    kind: ClassVar[str] = "upsample"

    def walk(self, op: Op, shape: Shape, output: Shape) -> Walk:
        """Through the output in order."""
        repeats = cast(Upsample, op).repeats
        axes = zip(shape, repeats, row_major(output), row_major(shape), strict=True)
        loops = [loop for n, r, y, x in axes for loop in ((n, r * y, x), (r, y, 0))]
        sizes, target, source = zip(*loops, strict=True)
        return Walk.of(sizes, Index(target), Index(source))
