"""What is chosen: fractional bits, one number per group of values that share a format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import InfeasibleError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.graph import Network, size_of
from sound_qkeras.network.ops import Conv, Dense, Op
from sound_qkeras.tuning.families import FIXED, lengths
from sound_qkeras.tuning.words import span

# Share of the tolerance that the output's rounding may have while the rest is chosen.
SHARE = 1.0 / 16.0
# A choice of formats: fractional bits of every group.
Bits = Mapping["Group", int]
# Extra fractional bits that make a group's own error vanish beside the others'.
FINE = 16
# Biases may be so many bits longer than weights: they are few, and hold what sums are made of.
LONGER_BIAS = 12
# Sums hold a few bits more than a bias.
LONGEST_BIAS = MAX_WORD_LENGTH - 6


@dataclass(frozen=True)
class Group:
    """Values that share one format.

    Args:
        node: the affine node whose weights or biases these are (others may share them), or the node whose rounded results.
        kind: "weight", "bias" or "activation".
        layer: the Keras layer, for messages and tables.
        count: how many values there are.
        products: multiplications a weight takes part in, or that read an activation, per inference.
        families: kinds of numbers that weights may be; see `families`.
    """

    node: str
    kind: str
    layer: str
    count: int
    products: int
    families: tuple[str, ...] = FIXED


def output_group(network: Network) -> Group:
    """The network's results, where they are rounded."""
    node = network.output
    return Group(node.name, "activation", node.layer, size_of(network.output_shape), 0)


def groups_of(network: Network, *, round_output: bool = False, families: tuple[str, ...] = FIXED) -> tuple[Group, ...]:
    """All groups of a network, in graph order, the results' one among them if they are to be rounded.

    Weights of Dense and convolutional layers may be of these families, others are of fixed point.
    """
    groups: list[Group] = []
    products = products_of(network)
    for name in network.rounding_points:
        readers = sum(count * sources_of(network, node).get(name, 0.0) for node, count in products.items())
        groups += [
            Group(name, "activation", network.by_name[name].layer, size_of(network.shapes[name]), round(readers))
        ]
    if round_output and network.output.name not in network.rounding_points:
        groups.append(output_group(network))
    for node, op in network.owners():
        together = sum(products[name] for name in network.uses(node.name))
        own = families if isinstance(op, Dense | Conv) else FIXED
        groups.append(Group(node.name, "weight", node.layer, op.kernel.size, together, own))
        groups.append(Group(node.name, "bias", node.layer, op.bias.size, 0))
    return tuple(groups)


def products_of(network: Network) -> dict[str, int]:
    """Multiplications by weights in each affine node, per inference."""
    return {node.name: size_of(network.shapes[node.name]) * op.multiplications for node, op in network.affine()}


def sources_of(network: Network, node: str, number: int = 0) -> dict[str, float]:
    """The rounding points that feed an input of a node that multiplies, with their share of what it reads there."""
    found = network.sources(network.by_name[node].inputs[number])
    sizes = [size_of(network.shapes[name]) for name in found]
    return {name: size / sum(sizes) for name, size in zip(found, sizes, strict=True)}


def _longest_word(network: Network, name: str) -> int:
    """Most bits that what reads a rounding point makes sense of."""
    reading = [op.longest_input for op, read in _reading(network) if name in read]
    return min(reading, default=MAX_WORD_LENGTH)


def _tabulable(network: Network, name: str, bits: int, ranges: Mapping[str, Interval]) -> bool:
    """Whether a node looks nothing up, or can have results of so many fractional bits.

    What it reads may turn out to need a bit more than its float range says.
    """
    node = network.by_name[name]
    if not node.op.rounds:
        return True
    read, made = ranges[node.inputs[0]], ranges[name]
    largest = 2.0 * float(np.max(read.magnitude))
    finest = Format(node.op.longest_input, math.frexp(max(largest, 1.0))[1], True)
    return not node.op.pair([finest], Format.for_range(made.lower, made.upper, bits)).problem


def _reading(network: Network) -> list[tuple[Op, set[str]]]:
    """The operations that read rounded values, and where those were rounded."""
    return [
        (node.op, {source for name in node.inputs for source in network.sources(name)})
        for node in network.nodes
        if node.op.multiplies
    ]


def extent(network: Network, group: Group, ranges: Mapping[str, Interval]) -> tuple[float, float]:
    """The smallest and largest value a group takes: of its parameters, or of its proved float range."""
    if group.kind == "activation":
        found = ranges[group.node]
        return float(found.lower.min()), float(found.upper.max())
    op = network.by_name[group.node].op.arrays()
    values = op["kernel" if group.kind == "weight" else "bias"]
    return float(np.min(values)), float(np.max(values))


def much_finer(network: Network, bits: Bits, ranges: Mapping[str, Interval]) -> dict[Group, int]:
    """So many more fractional bits for every group that its error vanishes, as far as there are such formats."""
    return {group: min(value + FINE, _finest(network, group, ranges)) for group, value in bits.items()}


def _finest(network: Network, group: Group, ranges: Mapping[str, Interval]) -> int:
    """Most fractional bits that any format of a group's values can have."""
    low, high = extent(network, group, ranges)
    largest = max(abs(low), abs(high), 1e-30)
    return int(MAX_WORD_LENGTH - 4 - np.ceil(np.log2(largest)))


def candidate_bits(low: float, high: float, shortest: int, longest: int) -> list[int]:
    """Fractional bits whose format for `[low, high]` has between `shortest` and `longest` bits, fewest first.

    Where no format has so many, one bit more or less in the step being two in the word, the finest that is shorter.
    """
    largest = max(abs(low), abs(high))
    if largest == 0.0:
        return [0]
    leading = math.frexp(largest)[1]
    near = range(shortest - leading - 3, longest - leading + 1)
    lengths = {bits: Format.for_range(low, high, bits).word_length for bits in near}
    found = [bits for bits, length in lengths.items() if shortest <= length <= longest]
    return found or [bits for bits, length in lengths.items() if length <= longest][-1:]


def candidates(
    network: Network, group: Group, ranges: Mapping[str, Interval], word_lengths: tuple[int, int]
) -> list[int]:
    """Fractional bits a group may have, fewest first: its words have as many bits as allowed and as its readers take.

    A table's result has only bits for which there can be a table.
    """
    low, high = extent(network, group, ranges)
    shortest, longest = word_lengths
    if group.kind == "weight":
        allowed = sorted(lengths(group.families, shortest, longest))
        whole, signed = (int(part) for part in span(np.array(low), np.array(high)))
        return [length - signed - whole for length in allowed] if low or high else [0]
    if group.kind == "bias":
        longest = min(LONGEST_BIAS, longest + LONGER_BIAS)
        return candidate_bits(low, high, min(shortest, longest), longest)
    found = candidate_bits(low, high, 1, min(longest, _longest_word(network, group.node)))
    return [bits for bits in found if _tabulable(network, group.node, bits, ranges)] or found[:1]


def output_candidates(low: float, high: float, eps: float, longest: int) -> list[int]:
    """Fractional bits of an output in `[low, high]`, fewest first: from half a step below `eps` to one within `SHARE` of it.

    Raises:
        InfeasibleError: all of them need words longer than `longest`.
    """
    coarsest = math.floor(-math.log2(2.0 * eps)) + 1
    finest = max(coarsest, math.ceil(-math.log2(2.0 * SHARE * eps)))
    lengths = {bits: Format.for_range(low, high, bits).word_length for bits in range(coarsest, finest + 1)}
    found = [bits for bits, length in lengths.items() if length <= longest]
    if not found:
        raise InfeasibleError(
            f"an output between {low:.6g} and {high:.6g} that is rounded within eps = {eps:g} has at least "
            f"{lengths[coarsest]} bits, allowed are {longest}; allow more with word_lengths, raise eps, or use "
            "round_output=False",
            best_bound=math.inf,  # nothing was proved
            word_length=lengths[coarsest],
        )
    return found
