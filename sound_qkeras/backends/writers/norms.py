"""Layer normalisation: sums of a row, a root that is looked up, and one rounding for each result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Tensor
from sound_qkeras.backends.writers.base import Constant, OpWriter
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import LayerNormPair


class LayerNormWriter(OpWriter):
    """Rows along the last axis, one after the other."""

    kind: ClassVar[str] = "layer_norm"
    verilog: ClassVar[bool] = False

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """What results of any row of codes fit."""
        pair: LayerNormPair = quantized.pairs[node.name]
        return Format(pair.result_length, pair.result_length - 1 - pair.result_bits, True)

    def _pair(self, layer: Layer) -> LayerNormPair:
        return layer.pair.pairs[layer.node.name]

    def constants(self, layer: Layer, options: Options) -> tuple[Constant, ...]:
        """The entries."""
        pair = self._pair(layer)
        held = Format.for_codes(0, int(pair.codes.max()), pair.entry_bits)
        return (Constant(f"{layer.identifier}_w", pair.codes, held, f"reciprocal roots of {layer.node.name}"),)

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """The integers' layout, and the bits of sums and squares."""
        pair = self._pair(layer)
        return {
            "norm": pair,
            "rows": layer.output.size // pair.size,
            "align": pair.source.fractional_bits - layer.source.format.fractional_bits,
            "deviation_bits": pair.largest_deviation.bit_length() + 1,
            "square_bits": pair.largest_square.bit_length(),
        }

    def needed_bits(self, layer: Layer) -> int:
        """Bits of results before rounding, and of squares."""
        return max(super().needed_bits(layer), self._pair(layer).largest_square.bit_length() + 1)
