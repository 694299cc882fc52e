"""The largest value of every window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Tensor
from sound_qkeras.backends.writers.affine import Plane
from sound_qkeras.backends.writers.base import OpWriter
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import MaxPool


class MaxPoolWriter(OpWriter):
    """Every window has a value inside the input, which the search starts from; what lies outside is skipped."""

    kind: ClassVar[str] = "max_pool"
    verilog: ClassVar[bool] = False

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The input's format."""
        return inputs[0].format

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Bounds of the loops."""
        (shape,) = layer.shapes
        window = cast(MaxPool, layer.node.op).window_on(shape[:-1])
        return {"plane": Plane.of_window(window, shape[-1], shape[-1])}
