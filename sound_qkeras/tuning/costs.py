"""What a choice of formats costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from sound_qkeras.errors import InputError
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.pair import Pair
from sound_qkeras.tuning.groups import Group, sources_of

# Cost of one group at a word length.
GroupCost = Callable[[Group, int], float]

# What a number takes that has no format: a float32.
FLOAT_BITS = 32

COSTS = ("weight_bits", "total_bits", "bit_operations")


@dataclass(frozen=True)
class Cost:
    """Sizes of a fixed-point network.

    Args:
        weight_bits: sum over weights of their word length, which is the channel's own where channels have formats.
        bias_bits: the same over biases.
        activation_bits: sum over every rounded value, the input included, of its word length.
        bit_operations: sum over multiplications of the bits of both factors, weights and inputs or two inputs.
        table_bits: of the integers that are looked up in place of functions.
    """

    weight_bits: int
    bias_bits: int
    activation_bits: int
    bit_operations: int
    table_bits: int = 0

    @property
    def total_bits(self) -> int:
        """Weights, biases, activations and tables together."""
        return self.weight_bits + self.bias_bits + self.activation_bits + self.table_bits

    def to_json(self) -> dict[str, int]:
        """All six numbers."""
        return {**asdict(self), "total_bits": self.total_bits}


def cost_of(quantized: Pair) -> Cost:
    """Count the bits of a network; of models of others, numbers that are not fixed point count as float32."""
    network = quantized.network
    weight = bias = operations = 0
    for node, op in network.affine():
        codes = quantized.parameters.get(network.owner(node.name))
        kernel_bits = FLOAT_BITS * op.kernel.size if codes is None else codes.kernel_bits
        if node.shares is None:
            weight += kernel_bits
            bias += op.bias.size * (FLOAT_BITS if codes is None else codes.bias_format.word_length)
        products = size_of(network.shapes[node.name]) * op.multiplications
        operations += round(products * kernel_bits * _bits_read(quantized, node.name) / op.kernel.size)
    for node in network.nodes:
        products = node.op.input_products(*(network.shapes[name] for name in node.inputs))
        if products:
            first, last = (_bits_read(quantized, node.name, number) for number in (0, len(node.inputs) - 1))
            operations += round(products * first * last)
    activation = sum(_bits_stored(quantized, name) for name in quantized.roundings)
    return Cost(weight, bias, activation, operations, sum(table.bits for table in quantized.tables.values()))


def _bits_read(quantized: Pair, node: str, number: int = 0) -> float:
    """The mean word length of what a node that multiplies reads at one of its inputs."""
    sources = sources_of(quantized.network, node, number)
    return sum(share * _bits_of(quantized, name) for name, share in sources.items())


def _bits_of(quantized: Pair, name: str) -> float:
    """Mean bits of a value of a node: of its format or its grid, or of a float."""
    if name not in quantized.roundings:
        return FLOAT_BITS
    return _bits_stored(quantized, name) / size_of(quantized.network.shapes[name])


def _bits_stored(quantized: Pair, name: str) -> int:
    """Bits that a rounded result of a node takes."""
    shape = quantized.network.shapes[name]
    if name in quantized.formats:
        return size_of(shape) * quantized.formats[name].word_length
    return quantized.grids[name].bits(shape)


@dataclass(frozen=True)
class Objective:
    """A cost to minimise, with what breaks its ties.

    Args:
        groups: additive cost of a group at a word length.
        products: weight of the bilinear term, bits of a weight times bits of what it multiplies.
    """

    groups: GroupCost
    products: float


def objective(cost: str | GroupCost) -> Objective:
    """The objective of a named cost, or of a callable `(group, word_length) -> float`.

    Ties are broken by the bits the named cost does not count, at a thousandth of their number: among formats with equally
    few weight bits the narrower activations and the cheaper multiplications win.

    Raises:
        InputError: the name is unknown.
    """
    if callable(cost):
        return Objective(cost, 0.0)
    if cost == "weight_bits":
        return Objective(_share({"weight": 1.0, "activation": 1e-2, "bias": 1e-4}, reads=2e-3), 0.0)
    if cost == "total_bits":
        return Objective(_share({"weight": 1.0, "activation": 1.0, "bias": 1.0}), 0.0)
    if cost == "bit_operations":
        return Objective(_share({"weight": 1e-2, "activation": 1e-2, "bias": 1e-4}), 1.0)
    raise InputError(
        f"cost '{cost}' is unknown; accepted: {', '.join(COSTS)}, or a callable (group, word_length) -> float"
    )


def _share(weights: dict[str, float], reads: float = 0.0) -> GroupCost:
    def cost(group: Group, word_length: int) -> float:
        products = reads * group.products if group.kind == "activation" else 0.0
        return (weights[group.kind] * group.count + products) * word_length

    return cost
