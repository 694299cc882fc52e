"""Matrix products of two tensors: a sum of products of codes for each result, one rounding after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Tensor
from sound_qkeras.backends.writers.base import OpWriter, accumulator_of
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair


class MatMulWriter(OpWriter):
    """Rows of the first tensor times columns of the second; the codes need no alignment."""

    kind: ClassVar[str] = "matmul"
    sums: ClassVar[bool] = True
    verilog: ClassVar[bool] = False

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The accumulator, as wide as its proved final range."""
        return accumulator_of(quantized, node)

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """How many matrices, and their sizes."""
        (*lead, rows, size), (*_, columns) = layer.shapes
        sizes = {"count": math.prod(lead), "rows": rows, "size": size, "columns": columns}
        return {
            **sizes,
            "both": tuple(zip(layer.operands, layer.inputs, strict=True)),
            "sum_bits": self.sum_bits(layer),
        }
