"""What every baseline returns: a network somebody's method made, and an honest count of its bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.network import Network, Node, Pair, size_of
from sound_qkeras.network.ops import Affine
from sound_qkeras.network.simulate import simulate
from sound_qkeras.tuning.costs import Cost
from sound_qkeras.tuning.groups import groups_of, sources_of

# What a value costs that no method gave a format.
FLOAT_BITS = 32


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to store a trained network.

    Args:
        name: of the method and its settings; the first column of the comparison.
        network: what it computes, in real arithmetic: the trained network with the method's weights in place of its own.
        cost: bits of weights, biases and values, and bit operations. What has no format counts as 32-bit floats.
        pair: the fixed-point network, where every number is on a power-of-two grid: what the verifier can prove.
        notes: what a reader of the comparison has to know, one sentence each.
    """

    name: str
    network: Network
    cost: Cost
    pair: Pair | None = None
    notes: tuple[str, ...] = ()

    @property
    def total_bits(self) -> int:
        """Weights, biases and values together."""
        return self.cost.total_bits

    @property
    def weight_bits(self) -> int:
        """Weights alone, with the scales and code books the method needs."""
        return self.cost.weight_bits

    @property
    def quantized_network(self) -> Pair:
        """The fixed-point network.

        Raises:
            InputError: there is none.
        """
        if self.pair is None:
            raise InputError(f"'{self.name}' is no fixed-point network; accepted: fixed-point candidates")
        return self.pair

    def evaluate(self, x: npt.ArrayLike) -> Reals:
        """Outputs for samples `(n, *input_shape)`: bit-exact for fixed-point candidates, in float64 for the others."""
        return self.network.evaluate(x) if self.pair is None else simulate(self.pair, x)


def weight_nodes(network: Network) -> Iterator[tuple[Node, Affine]]:
    """The affine nodes with trained weight matrices: not poolings and normalisations, whose factors form a vector."""
    for node, op in network.owners():
        if op.kernel.ndim >= 2:
            yield node, op


def with_weights(network: Network, kernels: Mapping[str, Reals], biases: Mapping[str, Reals] | None = None) -> Network:
    """The network with other parameters, by the nodes that have them, exactly those given; nodes that are missing keep theirs."""
    nodes: list[Node] = []
    for node in network.nodes:
        op = node.op
        owner = network.owner(node.name)
        if isinstance(op, Affine) and owner in kernels:
            op = replace(op, kernel=np.asarray(kernels[owner], dtype=np.float64), kernel_radius=None)
        if isinstance(op, Affine) and biases is not None and owner in biases:
            op = replace(op, bias=np.asarray(biases[owner], dtype=np.float64), bias_radius=None)
        nodes.append(replace(node, op=op))
    return replace(network, nodes=tuple(nodes))


def from_quantized(
    name: str,
    pair: Pair,
    *,
    kernel_bits: Mapping[str, int] | None = None,
    notes: tuple[str, ...] = (),
) -> Candidate:
    """A fixed-point candidate.

    Args:
        name: of the candidate.
        pair: the network.
        kernel_bits: bits of a whole kernel, by node, where a method stores it in less than its format says.
        notes: for the reader.
    """
    codes = pair.parameters
    own = {node: c.kernel_format.word_length * c.kernel.size for node, c in codes.items()} | dict(kernel_bits or {})
    biases = {node: c.bias_format.word_length * c.bias.size for node, c in codes.items()}
    lengths = {node: output.word_length for node, output in pair.formats.items()}
    values = with_weights(
        pair.network,
        {node: c.kernel_value for node, c in codes.items()},
        {node: c.bias_value for node, c in codes.items()},
    )
    return Candidate(name, values, count_bits(pair.network, own, biases, lengths), pair, notes)


def from_weights(
    name: str,
    network: Network,
    kernels: Mapping[str, Reals],
    kernel_bits: Mapping[str, int],
    notes: tuple[str, ...] = (),
    factors: Mapping[str, int] | None = None,
) -> Candidate:
    """A weight-only candidate: the kernels are replaced, everything else stays in floating point and is counted so.

    Args:
        name: of the candidate.
        network: the trained network.
        kernels: new kernels, by node.
        kernel_bits: bits each of them is stored in, scales and code books included.
        notes: for the reader.
        factors: bits of each of them in multiplications, where values are multiplied by something else than what is stored.
    """
    kept = {node.name: FLOAT_BITS * op.kernel.size for node, op in network.owners()}
    biases = {node.name: FLOAT_BITS * op.bias.size for node, op in network.owners()}
    lengths = dict.fromkeys(network.rounding_points, FLOAT_BITS)
    cost = count_bits(network, kept | dict(kernel_bits), biases, lengths, kept | dict(factors or kernel_bits))
    note = f"Biases and values between layers stay in floating point, {FLOAT_BITS} bits each."
    return Candidate(name, with_weights(network, kernels), cost, None, (*notes, note))


def count_bits(
    network: Network,
    kernels: Mapping[str, int],
    biases: Mapping[str, int],
    lengths: Mapping[str, int],
    factors: Mapping[str, int] | None = None,
) -> Cost:
    """Sizes of a network.

    Args:
        network: the graph.
        kernels: bits of each affine node's whole kernel.
        biases: the same of its bias.
        lengths: word length at each rounding point.
        factors: bits of a kernel in multiplications, where those are not the bits it is stored in.
    """
    multiplied = kernels if factors is None else factors
    operations = 0.0
    for group in groups_of(network):
        if group.kind == "weight":
            read = sum(share * lengths[name] for name, share in sources_of(network, group.node).items())
            operations += group.products * read * multiplied[group.node] / group.count
    values = sum(size_of(network.shapes[name]) * length for name, length in lengths.items())
    return Cost(sum(kernels.values()), sum(biases.values()), values, round(operations))
