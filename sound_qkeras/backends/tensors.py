"""What is to be written: tensors with their names and types, layers in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from sound_qkeras.backends.options import Options
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair, Port, size_of
from sound_qkeras.network.grids import Grid
from sound_qkeras.types import Shape


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
        grid: what it is rounded to, where that is not `format`, which then has the codes of all values.
    """

    node: Node
    identifier: str
    shape: Shape
    exact: Format
    format: Format
    rounded: bool
    saturated: bool = False
    proved: tuple[float, float] | None = None
    grid: Grid | None = None

    @property
    def overflow(self) -> str:
        """The mode of its type beyond the ends: the proof decides where that may happen."""
        return f"AP_{self.format.saturation}" if self.saturated and self.grid is None else "AP_WRAP"

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
    pair: Pair

    @property
    def identifier(self) -> str:
        """The C name, shared with the output tensor."""
        return self.output.identifier

    @property
    def source(self) -> Tensor:
        """The only input, for operations with one."""
        return self.inputs[0]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes the operation reads; tensors may be stored under others."""
        return tuple(self.pair.network.shapes[name] for name in self.node.inputs)

    @property
    def arguments(self) -> dict[str, Tensor]:
        """The tensors that are read, each once, by the name of the C parameter: `x`, or `x0`, `x1`, ..."""
        distinct = {tensor.identifier: tensor for tensor in self.inputs}
        return {f"x{number}" if len(distinct) > 1 else "x": x for number, x in enumerate(distinct.values())}

    @property
    def operands(self) -> tuple[str, ...]:
        """The C parameter each input is, in order."""
        names = {tensor.identifier: name for name, tensor in self.arguments.items()}
        return tuple(names[tensor.identifier] for tensor in self.inputs)


@dataclass(frozen=True)
class Slice:
    """One of the model's inputs or outputs as a part of the flat array.

    Args:
        name: Keras' name of it.
        first: index of its first value.
        shape: its shape, row-major.
        head: what was set aside after an output, or None.
    """

    name: str
    first: int
    shape: Shape
    head: str | None = None

    @property
    def last(self) -> int:
        """Index of its last value."""
        return self.first + size_of(self.shape) - 1


@dataclass(frozen=True)
class Plan:
    """Everything the templates need: options, tensors by node name (an alias shares its source's), layers in order."""

    options: Options
    pair: Pair
    tensors: Mapping[str, Tensor]
    layers: tuple[Layer, ...]

    @property
    def input(self) -> Tensor:
        """The network's rounded input."""
        return self.tensors[self.pair.network.nodes[0].name]

    @property
    def output(self) -> Tensor:
        """The network's result."""
        return self.tensors[self.pair.network.output.name]

    @property
    def input_slices(self) -> tuple[Slice, ...]:
        """The model's inputs in the order in which they lie in the network's."""
        network = self.pair.network
        return self._slices(network.inputs or (Port(network.nodes[0].name, network.nodes[0].name),))

    @property
    def output_slices(self) -> tuple[Slice, ...]:
        """The model's outputs in the order in which they lie in the network's."""
        network = self.pair.network
        return self._slices(network.outputs or (Port(network.output.name, network.output.name, network.head),))

    def _slices(self, ports: Sequence[Port]) -> tuple[Slice, ...]:
        shapes = [self.pair.network.shapes[port.node] for port in ports]
        starts = accumulate(map(size_of, shapes[:-1]), initial=0)
        parts = zip(ports, starts, shapes, strict=True)
        return tuple(Slice(port.name, first, shape, port.head) for port, first, shape in parts)

    @property
    def written(self) -> tuple[Tensor, ...]:
        """Every tensor that is stored, once."""
        return (self.input, *(layer.output for layer in self.layers))
