"""Functions of one variable other than the ReLU: clipped and leaky units, and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Tensor
from sound_qkeras.backends.writers.base import Constant, OpWriter
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import Clip, LeakyPair, TablePair


class ClipWriter(OpWriter):
    """`min(max(x, 0), m)`, then the node's rounding where it has one."""

    kind: ClassVar[str] = "clip"

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """From zero to the bound, or to the largest value there is below it."""
        bits = quantized.exact_bits[node.name]
        largest = inputs[0].format.max_code << (bits - inputs[0].format.fractional_bits)
        return Format.for_codes(0, max(0, min(_bound(node, bits), largest)), bits)

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """The bound as a code of the result, and how far codes are shifted to become one."""
        bits = layer.output.exact.fractional_bits
        return {"bound": _bound(layer.node, bits), "shift": bits - layer.source.format.fractional_bits}

    def needed_bits(self, layer: Layer) -> int:
        """Bits in which codes of the input are shifted and compared with the bound."""
        source, bits = layer.source.format, layer.output.exact.fractional_bits
        shifted = source.word_length + (not source.signed) + bits - source.fractional_bits
        return max(super().needed_bits(layer), shifted, _bound(layer.node, bits).bit_length() + 1)


def _bound(node: Node, bits: int) -> int:
    op = node.op
    if not isinstance(op, Clip):
        raise TypeError(f"'{node.op.kind}' is not clipped")
    number, denominator = op.maximum.as_integer_ratio()
    return (number << bits) // denominator if bits >= 0 else number // (denominator << -bits)


class LeakyWriter(OpWriter):
    """`x` above zero, the slope times `x` below, then the node's rounding where it has one."""

    kind: ClassVar[str] = "leaky"
    verilog: ClassVar[bool] = False

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The accumulator's, whose range is proved."""
        return quantized.accumulators[node.name]

    def _slopes(self, layer: Layer) -> LeakyPair:
        return layer.pair.pairs[layer.node.name]

    def constants(self, layer: Layer, options: Options) -> tuple[Constant, ...]:
        """One slope for each element."""
        pair = self._slopes(layer)
        codes = np.ascontiguousarray(np.broadcast_to(pair.codes, layer.output.shape)).reshape(-1)
        held = Format.for_codes(int(codes.min()), int(codes.max()), pair.bits)
        return (Constant(f"{layer.identifier}_w", codes, held, f"slopes below zero of {layer.node.name}"),)

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Fractional bits of the slopes."""
        return {"shift": self._slopes(layer).bits, "sum_width": self.needed_bits(layer)}

    def needed_bits(self, layer: Layer) -> int:
        """Bits in which products of codes and slopes, and shifted codes, all fit."""
        pair, source = self._slopes(layer), layer.source.format
        slope = int(np.max(np.abs(pair.codes))).bit_length()
        return max(super().needed_bits(layer), source.word_length + 1 + max(slope, pair.bits))


class TableWriter(OpWriter):
    """A table: look-up, or a straight line between two entries and the node's rounding."""

    kind: ClassVar[str] = "table"
    verilog: ClassVar[bool] = False

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """What the entries are codes of, and a code within a piece."""
        pair: TablePair = quantized.pairs[node.name]
        if not pair.shift:
            return pair.output
        codes = pair.entries.codes
        return Format.for_codes(int(codes.min()) << pair.shift, int(codes.max()) << pair.shift, pair.result_bits)

    def _pair(self, layer: Layer) -> TablePair:
        return layer.pair.pairs[layer.node.name]

    def constants(self, layer: Layer, options: Options) -> tuple[Constant, ...]:
        """The entries."""
        pair = self._pair(layer)
        codes = pair.entries.codes
        held = Format.for_codes(int(codes.min()), int(codes.max()), pair.entry_bits) if pair.shift else pair.output
        return (Constant(f"{layer.identifier}_w", codes, held, f"table of {pair.function} in {layer.node.name}"),)

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Where codes start, and the bits of a code within a piece."""
        pair = self._pair(layer)
        return {
            "lowest": pair.source.min_code,
            "align": pair.source.fractional_bits - layer.source.format.fractional_bits,
            "shift": pair.shift,
            "function": pair.function,
            "width": self.needed_bits(layer),
        }

    def needed_bits(self, layer: Layer) -> int:
        """Bits of results before rounding, and of offsets of codes."""
        return max(super().needed_bits(layer) + 1, self._pair(layer).source.word_length + 2)
