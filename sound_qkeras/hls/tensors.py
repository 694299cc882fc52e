"""What is to be written: tensors with their names and types, layers in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sound_qkeras.fixed_point import Format
from sound_qkeras.hls.options import Options
from sound_qkeras.network import Node, QuantizedNetwork
from sound_qkeras.network.graph import size_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """One tensor and its one type.

    Args:
        node: the node that computes it.
        identifier: its C name; "input" for the network's input.
        shape: its shape, without the batch axis; stored row-major as one flat array.
        exact: a format that holds every exact result inside the box.
        format: what readers see: `exact`, or what it is rounded to.
        rounded: whether there is a rounding between the two.
        saturated: whether that rounding saturates (the input when guarded, and where the network does); all else wraps.
        proved: the proved range of `format`'s values, where the caller gave one.
    """

    node: Node
    identifier: str
    shape: Shape
    exact: Format
    format: Format
    rounded: bool
    saturated: bool = False
    proved: tuple[float, float] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return size_of(self.shape)

    @property
    def dropped_bits(self) -> int:
        """Fractional bits the rounding drops; negative where it adds some."""
        return self.exact.fractional_bits - self.format.fractional_bits


@dataclass(frozen=True)
class Layer:
    """One operation that needs code: its inputs' and output's tensors, and the integers it works with."""

    node: Node
    inputs: tuple[Tensor, ...]
    output: Tensor
    quantized: QuantizedNetwork

    @property
    def identifier(self) -> str:
        """The C name, shared with the output tensor."""
        return self.output.identifier

    @property
    def source(self) -> Tensor:
        """The only input, for operations with one."""
        return self.inputs[0]


@dataclass(frozen=True)
class Plan:
    """Everything the templates need: options, tensors by node name (an alias shares its source's), layers in order."""

    options: Options
    quantized: QuantizedNetwork
    tensors: Mapping[str, Tensor]
    layers: tuple[Layer, ...]

    @property
    def input(self) -> Tensor:
        """The network's rounded input."""
        return self.tensors[self.quantized.network.nodes[0].name]

    @property
    def output(self) -> Tensor:
        """The network's result."""
        return self.tensors[self.quantized.network.output.name]

    @property
    def written(self) -> tuple[Tensor, ...]:
        """Every tensor that is stored, once."""
        return (self.input, *(layer.output for layer in self.layers))
