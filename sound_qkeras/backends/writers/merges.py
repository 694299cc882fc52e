"""Operations that join tensors: each pass of a loop nest computes one exact sum or product of codes, then rounds it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, cast

from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Tensor
from sound_qkeras.backends.writers.base import OpWriter, accumulator_of
from sound_qkeras.backends.writers.walks import Index, Walk, broadcast, corner, row_major
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import Add, Concatenate


@dataclass(frozen=True)
class Term:
    """One operand of a pass.

    Args:
        argument: the C parameter it is read from.
        tensor: what that holds.
        index: where in it.
        shift: left, to the sum's fractional bits.
        minus: whether it is subtracted.
    """

    argument: str
    tensor: Tensor
    index: Index
    shift: int = 0
    minus: bool = False


@dataclass(frozen=True)
class Pass:
    """A loop nest whose every pass writes one result: the product of its terms, or their sum."""

    walk: Walk
    terms: tuple[Term, ...]
    product: bool = False


class MergeWriter(OpWriter):
    """Exact integers in an accumulator, one rounding after them."""

    sums: ClassVar[bool] = True
    verilog: ClassVar[bool] = False

    @abstractmethod
    def passes(self, layer: Layer) -> Sequence[Pass]:
        """The loop nests, which together write every result once."""

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The accumulator, as wide as its proved final range."""
        return accumulator_of(quantized, node)

    def template(self, layer: Layer, options: Options) -> str:
        """One for all."""
        return "merge"

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """The loop nests, and the parameters that none of them reads."""
        passes = self.passes(layer)
        read = {term.argument for one in passes for term in one.terms}
        unread = [name for name in layer.arguments if name not in read]
        return {"passes": passes, "unread": unread, "sum_bits": self.sum_bits(layer)}


def shifts_of(layer: Layer) -> list[int]:
    """How far each input's codes are shifted left, to the step of the finest."""
    bits = [tensor.format.fractional_bits for tensor in layer.inputs]
    return [max(bits) - one for one in bits]


def aligned(layer: Layer, terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms without those that are zero modulo the width of the sum, which is all that matters of it."""
    return tuple(term for term in terms if term.shift < layer.output.exact.word_length)


class AddWriter(MergeWriter):
    """Sums and differences; a mean of a power of two only moves the point."""

    kind: ClassVar[str] = "add"

    def passes(self, layer: Layer) -> Sequence[Pass]:
        """One through the output."""
        shape, minus = layer.output.shape, cast(Add, layer.node.op).minus
        walk = Walk.of(shape, Index(row_major(shape)), *(broadcast(one, shape) for one in layer.shapes))
        parts = zip(layer.operands, layer.inputs, walk.sources, shifts_of(layer), minus, strict=True)
        return (Pass(walk, aligned(layer, [Term(*part) for part in parts])),)


class MultiplyWriter(MergeWriter):
    """Products; the codes need no alignment."""

    kind: ClassVar[str] = "multiply"

    def passes(self, layer: Layer) -> Sequence[Pass]:
        """One through the output."""
        shape = layer.output.shape
        walk = Walk.of(shape, Index(row_major(shape)), *(broadcast(one, shape) for one in layer.shapes))
        parts = zip(layer.operands, layer.inputs, walk.sources, strict=True)
        return (Pass(walk, tuple(Term(*part) for part in parts), product=True),)


class ConcatenateWriter(MergeWriter):
    """Tensors one behind the other, all at the finest step."""

    kind: ClassVar[str] = "concatenate"

    def passes(self, layer: Layer) -> Sequence[Pass]:
        """One through each input."""
        axis, output = cast(Concatenate, layer.node.op).axis, layer.output.shape
        starts = accumulate((shape[axis] for shape in layer.shapes[:-1]), initial=0)
        found: list[Pass] = []
        parts = zip(layer.operands, layer.inputs, layer.shapes, shifts_of(layer), starts, strict=True)
        for argument, tensor, shape, shift, start in parts:
            before = [start if i == axis else 0 for i in range(len(shape))]
            walk = Walk.of(shape, corner(output, before), Index(row_major(shape)))
            found.append(Pass(walk, aligned(layer, [Term(argument, tensor, walk.sources[0], shift)])))
        return found
