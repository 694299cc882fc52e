"""The one intermediate representation: a frozen graph of operations with numpy parameters."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError, ModelError
from sound_qkeras.network.ops import Affine, Concatenate, Crop, Input, Op, Reshape
from sound_qkeras.network.pickling import Rebuilt
from sound_qkeras.network.ports import Port, join_samples, split_rows
from sound_qkeras.support.scratch import at_once
from sound_qkeras.types import Reals, Shape

# The values of all nodes at samples that are evaluated together take one of so many parts of the scratch memory.
TILE_PARTS = 8

# A tensor of one sample has at most so many values.
MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True)
class Node:
    """One operation in its place.

    Args:
        name: unique in the network.
        op: the operation.
        inputs: names of the nodes it reads, all of them earlier in the network.
        layer: the Keras layer it came from; several nodes may share one (a Dense layer with an inline activation).
        shares: name of the earlier node whose kernel and bias this one has too (a layer that is used twice), or None for its own.
    """

    name: str
    op: Op
    inputs: tuple[str, ...] = ()
    layer: str = ""
    shares: str | None = None


@dataclass(frozen=True, eq=False)
class Network(Rebuilt):
    """A trained network in exact real arithmetic over its stored parameters.

    Nodes are in topological order; the first is the input and the last the output.

    Args:
        nodes: the operations.
        head: what was set aside after the last node ("softmax", "sigmoid"), or None. Guarantees are about the output of
            the last node, before the head.
        notes: what the reader did that a user should know, one sentence each.
        inputs: the parts of the input that are inputs of the model, where it has several.
        outputs: the parts of the output that are outputs of the model, where it has several.

    Raises:
        ModelError: names repeat, an input is unknown, shapes do not fit, parameters that are shared differ, or ports are not
            what they say.
    """

    nodes: tuple[Node, ...]
    head: str | None = None
    notes: tuple[str, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def __post_init__(self) -> None:
        """Check names, order and shapes once, so that nothing after this has to."""
        if not self.nodes or not isinstance(self.nodes[0].op, Input):
            raise ModelError("a network starts with an input node")
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise ModelError(f"two nodes are called '{node.name}'; names must be unique")
            missing = [name for name in node.inputs if name not in seen]
            if missing:
                raise ModelError(f"node '{node.name}' reads {missing}, which no earlier node defines")
            if isinstance(node.op, Input) and node is not self.nodes[0]:
                raise ModelError(f"node '{node.name}' is a second input; one input is supported")
            seen.add(node.name)
        if not any(isinstance(node.op, Affine) for node in self.nodes):
            raise ModelError("the network has no layer with weights: there is nothing to quantise")
        _ = self.shapes
        self._check_shared()
        self._check_ports()

    def _check_shared(self) -> None:
        """What shares its parameters has those of a node that has its own."""
        seen: dict[str, Node] = {}
        for node in self.nodes:
            owner = None if node.shares is None else seen.get(node.shares)
            if node.shares is None:
                seen[node.name] = node
            elif owner is None or not isinstance(node.op, Affine) or not node.op.has_parameters_of(owner.op):
                raise ModelError(
                    f"node '{node.name}' does not have the kernel and bias of '{node.shares}', which it shares"
                )

    def _check_ports(self) -> None:
        """Inputs are the input's parts in order, and outputs are what is concatenated at the end."""
        unknown = [port.node for port in (*self.inputs, *self.outputs) if port.node not in self.by_name]
        if unknown:
            raise ModelError(f"inputs or outputs are {unknown}, which are no nodes")
        start, total = 0, self.input_shape[0]
        for port in self.inputs:
            size = size_of(self.shapes[port.node])
            part = self._behind_reshapes(port.node)
            crop = Crop((start,), (total - start - size,))
            if part.op != crop or part.inputs != (self.nodes[0].name,):
                raise ModelError(f"input '{port.name}' is not the part of the input that comes next")
            start += size
        others = len(self.readers[self.nodes[0].name]) - len(self.inputs)
        if self.inputs and (start != total or others):
            raise ModelError(f"the inputs are {start} of {total} values, and {others} nodes read something else")
        ends = [self._behind_reshapes(name).name for name in self.output.inputs]
        held = [self._behind_reshapes(port.node).name for port in self.outputs]
        if self.outputs and (self.output.op != Concatenate(0) or ends != held):
            raise ModelError(f"the outputs are {held}, but {ends} are concatenated at the end")

    def _behind_reshapes(self, name: str) -> Node:
        node = self.by_name[name]
        while isinstance(node.op, Reshape):
            node = self.by_name[node.inputs[0]]
        return node

    def input_arrays(self, x: Any) -> Reals:
        """Samples as the network takes them: an array `(n, *input_shape)`, or one per input as a list or by name.

        Raises:
            InputError: shapes do not fit, or a value is NaN or infinite.
        """
        if self.inputs and isinstance(x, list | tuple | Mapping):
            x = join_samples(x, [port.name for port in self.inputs], [self.shapes[p.node] for p in self.inputs])
        return as_samples(x, self.input_shape)

    def output_arrays(self, y: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Results `(n, *output_shape)` as one array per output of the model."""
        return split_rows(y, [self.shapes[port.node] for port in self.outputs]) if self.outputs else [y]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every node's result, without the batch axis."""
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            try:
                shapes[node.name] = node.op.output_shape(*(shapes[name] for name in node.inputs))
                _check_shape(shapes[node.name])
            except ModelError as error:
                raise ModelError(f"node '{node.name}' ({node.op.kind}): {error}") from error
        return shapes

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def readers(self) -> dict[str, tuple[Node, ...]]:
        """For each node, the nodes that read it."""
        return {node.name: tuple(reader for reader in self.nodes if node.name in reader.inputs) for node in self.nodes}

    @cached_property
    def mixed(self) -> dict[str, bool]:
        """For each node, whether what it reads may depend on one another, so that its own range loses correlations."""
        found: dict[str, bool] = {}
        for node in self.nodes:
            before = [self.by_name[name].op for name in node.inputs]
            mixes = len(before) > 1 or any(op.accumulates or op.relaxes for op in before)
            found[node.name] = mixes or any(found[name] for name in node.inputs)
        return found

    @cached_property
    def relaxed_by(self) -> dict[str, frozenset[Op]]:
        """For each node, the operations that read its values, moved or not, and whose adjoint is not exact."""
        found: dict[str, frozenset[Op]] = {}
        for node in reversed(self.nodes):
            direct = {reader.op for reader in self.readers[node.name] if reader.op.relaxes}
            moved = (found[reader.name] for reader in self.readers[node.name] if reader.op.moves)
            found[node.name] = frozenset(direct).union(*moved)
        return found

    @property
    def input_shape(self) -> Shape:
        """Shape of one sample."""
        return self.shapes[self.nodes[0].name]

    @property
    def output(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    @property
    def output_shape(self) -> Shape:
        """Shape of one result."""
        return self.shapes[self.output.name]

    def affine(self) -> Iterator[tuple[Node, Affine]]:
        """The nodes with weights, in order."""
        for node in self.nodes:
            if isinstance(node.op, Affine):
                yield node, node.op

    def owners(self) -> Iterator[tuple[Node, Affine]]:
        """The nodes with weights of their own, in order: one for every kernel with its bias."""
        return ((node, op) for node, op in self.affine() if node.shares is None)

    def owner(self, name: str) -> str:
        """The node that a node's kernel and bias are kept under: itself, unless it shares another's."""
        shares = self.by_name[name].shares
        return name if shares is None else shares

    def uses(self, owner: str) -> tuple[str, ...]:
        """The nodes with the kernel and bias of one, itself first."""
        return (owner, *(node.name for node in self.nodes if node.shares == owner))

    @cached_property
    def shared(self) -> frozenset[str]:
        """The nodes whose kernel and bias another node has too."""
        return frozenset(name for node in self.nodes if node.shares is not None for name in (node.name, node.shares))

    @cached_property
    def rounding_points(self) -> tuple[str, ...]:
        """Nodes whose result is rounded: the input, and whatever an operation that multiplies or looks up reads.

        Operations that only move values are looked through, so that every value is rounded once, where it is made. The
        last layer is not among them, unless its result is rounded by nature: it returns its exact accumulator.
        """
        points = {self.nodes[0].name}
        for node in self.nodes:
            if node.op.multiplies:
                points.update(source for name in node.inputs for source in self.sources(name))
            if node.op.rounds:
                points.add(node.name)
        return tuple(node.name for node in self.nodes if node.name in points)

    def sources(self, name: str) -> tuple[str, ...]:
        """The nodes that made the values of a node's result: itself, unless it only moves what others made."""
        return self._sources[name]

    @cached_property
    def _sources(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for node in self.nodes:
            found[node.name] = (node.name,)
            if node.op.moves:
                found[node.name] = tuple(dict.fromkeys(source for name in node.inputs for source in found[name]))
        return found

    @cached_property
    def products(self) -> int:
        """Multiplications by weights in one evaluation."""
        return sum(op.multiplications * size_of(self.shapes[node.name]) for node, op in self.affine())

    @cached_property
    def value_count(self) -> int:
        """Values of all nodes together at one sample."""
        return sum(map(size_of, self.shapes.values()))

    @property
    def tile_size(self) -> int:
        """Samples of which every node's values fit into memory at once."""
        return at_once(self.value_count, TILE_PARTS)

    def __repr__(self) -> str:
        """One line."""
        return f"<Network {self.input_shape} to {self.output_shape}, {len(self.nodes)} nodes, {self.parameter_count:,} parameters>"

    @property
    def parameter_count(self) -> int:
        """Weights and biases together, shared ones once."""
        return sum(op.kernel.size + op.bias.size for _, op in self.owners())

    def evaluate(self, x: Any) -> Reals:
        """The network in float64 on samples; see `input_arrays`."""
        tiles = self.tiles(self.input_arrays(x))
        return np.concatenate([self.evaluate_all(tile)[self.output.name] for tile in tiles])

    def tiles(self, samples: Reals) -> Iterator[Reals]:
        """The samples in parts small enough to keep every node's values of one part in memory; one at least."""
        count = self.tile_size
        return (samples[start : start + count] for start in range(0, max(1, len(samples)), count))

    def evaluate_all(self, x: Any) -> dict[str, Reals]:
        """Every node's value in float64."""
        values = {self.nodes[0].name: self.input_arrays(x)}
        for node in self.nodes[1:]:
            values[node.name] = node.op.evaluate(*(values[name] for name in node.inputs))
        return values

    @cached_property
    def weight_hash(self) -> str:
        """SHA-256 over the graph, every parameter, what inputs and outputs are called and what was set aside after them.

        Two networks with one hash compute the same function of the same inputs.
        """
        digest = hashlib.sha256(repr((self.head, self.inputs, self.outputs)).encode())
        for node in self.nodes:
            shares = (node.shares,) if node.shares is not None else ()
            digest.update(
                repr((node.name, node.op.kind, node.inputs, sorted(node.op.settings().items()), *shares)).encode()
            )
            for name, array in sorted(node.op.arrays().items()):
                digest.update(repr((name, array.dtype.str, array.shape)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _check_shape(shape: Shape) -> None:
    """Refuse shapes that no memory holds, before any is taken."""
    if not shape or not all(type(size) is int and size >= 1 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ModelError(f"its result has the shape {shape}; accepted: sizes >= 1, at most {MOST_ELEMENTS} values")


def as_samples(x: npt.ArrayLike, shape: Shape) -> Reals:
    """`x` as float64 samples `(n, *shape)`.

    Raises:
        InputError: the shape does not fit, or a value is NaN or infinite.
    """
    samples = np.asarray(x, dtype=np.float64)
    if samples.shape[1:] != shape or samples.ndim != len(shape) + 1:
        raise InputError(f"samples have shape {samples.shape}, expected (n, {', '.join(map(str, shape))})")
    if not np.all(np.isfinite(samples)):
        raise InputError(f"samples hold {int(np.sum(~np.isfinite(samples)))} values that are NaN or infinite")
    return samples


def size_of(shape: Shape) -> int:
    """Number of elements."""
    return math.prod(shape)
