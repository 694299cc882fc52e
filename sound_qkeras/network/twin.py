"""Two networks of one shape, the second with other parameters and with quantizers: a QKeras model beside its float twin.

Unlike a `QuantizedNetwork`, its parameters are any real numbers, enclosed where float64 does not hold them, and values need
not be rounded anywhere: QKeras rounds only where the model says so. What can be proved about such a pair is proved by the
same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import from_codes, scaled
from sound_qkeras.interval import Interval, Reals, down, exact_difference, up
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.ops import Add, Affine, AffineComparison, Leaky, Op, Relu, Reshape, Table
from sound_qkeras.network.ops.function_pair import FunctionPair
from sound_qkeras.network.ops.rectifiers import SlopeComparison
from sound_qkeras.network.pickling import Rebuilt
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.network.roundings import Rounding, fractional_bits_of


@dataclass(frozen=True, eq=False)
class Twin(Rebuilt):
    """A network, and one that stands for it.

    Args:
        network: the reference.
        fixed: the other network; node by node the same graph with other parameters.
        roundings: what the other network does to results, by node name.
        input_bits: fractional bits that inputs have, or None; what is proved then holds for such inputs only.

    Raises:
        ModelError: the graphs differ, or a name is no node.
    """

    network: Network
    fixed: Network
    roundings: Mapping[str, Rounding]
    input_bits: int | None = None

    def __post_init__(self) -> None:
        """Freeze, and check that the networks belong together."""
        object.__setattr__(self, "roundings", MappingProxyType(dict(self.roundings)))
        graphs = ([(node.name, node.inputs) for node in network.nodes] for network in (self.network, self.fixed))
        unknown = sorted(set(self.roundings) - set(self.network.by_name))
        first, second = graphs
        if first != second or self.network.shapes != self.fixed.shapes or unknown:
            raise ModelError(f"the two networks are not node by node the same graph, or {unknown} are no nodes")
        for node, other in zip(self.network.nodes, self.fixed.nodes, strict=True):
            if type(node.op) is not type(other.op) or not _alike(node.op, other.op):
                raise ModelError(f"node '{node.name}' is {node.op.kind} in one network, {other.op.kind} in the other")

    @cached_property
    def pairs(self) -> dict[str, Any]:
        """What the other network has in place of each operation's parameters."""
        ops = zip(self.network.nodes, self.fixed.nodes, strict=True)
        made = ((node.name, compare(node.op, other.op)) for node, other in ops)
        return {name: pair for name, pair in made if pair is not None}

    def rounded(self, name: str, exact: Interval) -> tuple[Interval, Reals] | None:
        """What the other network's result in `exact` becomes by its rounding, and bounds on what that changes; or None."""
        rounding = self.roundings.get(name)
        if rounding is None:
            return None
        grid = self.exact_grids[name]
        if grid is not None:
            exact = _on_grid(exact, grid)
        return rounding.image(exact), rounding.error(exact, grid)

    @cached_property
    def exact_grids(self) -> dict[str, int | None]:
        """Fractional bits that every value of a node has before its own rounding; None where it has no such grid."""
        exact: dict[str, int | None] = {}
        for node in self.fixed.nodes:
            before = [self.grid_after(name, exact[name]) for name in node.inputs]
            known = [bits for bits in before if bits is not None]
            exact[node.name] = _grid(node.op, known) if known and len(known) == len(before) else None
            if not before:
                exact[node.name] = self.input_bits
        return exact

    def grid_after(self, name: str, exact: int | None) -> int | None:
        """Fractional bits of a node's values as its readers see them."""
        if name not in self.roundings:
            return exact
        grid = self.roundings[name].grid
        return grid if exact is None or grid is None else min(grid, exact)

    @cached_property
    def grids(self) -> dict[str, int | None]:
        """Fractional bits of every node's values as its readers see them; None where they have no grid."""
        return {name: self.grid_after(name, exact) for name, exact in self.exact_grids.items()}

    def evaluate_all(self, x: Any) -> dict[str, Reals]:
        """Every node's value in the other network, in float64, after its rounding: `(n, *shape)`.

        Exact where values have grids and sums stay within 2**53 of their steps.
        """
        values: dict[str, Reals] = {}
        for node in self.fixed.nodes:
            inputs = [values[name] for name in node.inputs] or [self.network.input_arrays(x)]
            found = node.op.evaluate(*inputs)
            rounding = self.roundings.get(node.name)
            values[node.name] = found if rounding is None else rounding.apply(found)
        return values

    def evaluate(self, x: Any) -> Reals:
        """The other network's output, `(n, *output_shape)`; see `evaluate_all`."""
        tiles = self.network.tiles(self.network.input_arrays(x))
        return np.concatenate([self.evaluate_all(tile)[self.network.output.name] for tile in tiles])

    def errors(self, samples: Reals) -> Reals:
        """The other network's output less the reference's, `(n, outputs)`, in float64: to search with, not to claim."""
        tiles = self.network.tiles(self.network.input_arrays(samples))
        name = self.network.output.name
        parts = [self.evaluate_all(tile)[name] - self.network.evaluate_all(tile)[name] for tile in tiles]
        return np.concatenate([part.reshape(len(part), -1) for part in parts])


def compare(op: Op, other: Op) -> Any:
    """What `other` has in place of the parameters of `op`, an operation of the same kind; None where there are none."""
    if isinstance(op, Affine) and isinstance(other, Affine):
        return AffineComparison(op, (other.kernel, other.bias), (other.kernel_radius, other.bias_radius))
    if isinstance(op, Leaky) and isinstance(other, Leaky):
        residual, lost = exact_difference(other.slope, op.slope)
        return SlopeComparison(other.slope, Interval(down(residual - lost), up(residual + lost)))
    if isinstance(op, Table) and isinstance(other, Table):
        return FunctionPair(op.function, op.alpha, other.function, other.alpha)
    return None


def identity(node: str, source: str, shape: tuple[int, ...], layer: str) -> Node:
    """A node that changes nothing, to be rounded."""
    return Node(node, Reshape(shape, shape), (source,), layer)


def _on_grid(x: Interval, bits: int) -> Interval:
    """The hull of the numbers with so many fractional bits in intervals that hold one: sums that are ties stay ties."""
    lower, upper = np.ceil(scaled(x.lower, bits)), np.floor(scaled(x.upper, bits))
    return Interval(from_codes(np.minimum(lower, upper), bits), from_codes(np.maximum(lower, upper), bits))


def _alike(op: Op, other: Op) -> bool:
    """Whether all that is no parameter agrees."""
    return isinstance(op, Leaky | Table) or op.settings() == other.settings()


def _grid(op: Op, inputs: list[int]) -> int | None:
    """Fractional bits of an operation's result on inputs with grids."""
    if isinstance(op, Affine):
        exact = op.kernel_radius is None and op.bias_radius is None
        kernel, bias = fractional_bits_of(op.kernel), fractional_bits_of(op.bias)
        if not exact or kernel is None or bias is None:
            return None
        return max(inputs[0] + kernel, bias) if np.any(op.bias) else inputs[0] + kernel
    if isinstance(op, Table):
        hard = {"hard_tanh": 0, "half_sigmoid": 1}.get(op.function)
        return None if hard is None else max(inputs[0], 0) + hard
    if isinstance(op, Leaky):
        slope = fractional_bits_of(op.slope)
        return None if slope is None else inputs[0] + max(slope, 0)
    if isinstance(op, Add):
        return max(inputs) - op.exponent
    if op.kind == "multiply":
        return sum(inputs)
    if op.kind == "clip":
        return op.fractional_bits(None, *inputs)
    if op.moves or isinstance(op, Relu) or op.kind in ("concatenate", "max_pool"):
        return max(inputs)
    return None


# A trained network and another one of the same graph, whose distance is to be proved.
Pairing = QuantizedNetwork | Twin
