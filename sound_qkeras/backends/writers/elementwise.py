"""Operations without weights."""

from __future__ import annotations

from typing import ClassVar

from sound_qkeras.backends.tensors import Tensor
from sound_qkeras.backends.writers.base import OpWriter
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair


class ReluWriter(OpWriter):
    """`max(x, 0)`, then the node's rounding where it has one."""

    kind: ClassVar[str] = "relu"

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The input's format without its sign."""
        source = inputs[0].format
        bits = max(1, source.word_length - source.signed)
        return Format(bits, bits - source.fractional_bits, False)


class ReshapeWriter(OpWriter):
    """The same numbers in the same row-major order: an alias, or a copy where the node rounds."""

    kind: ClassVar[str] = "reshape"
    alias: ClassVar[bool] = True

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The input's format."""
        return inputs[0].format
