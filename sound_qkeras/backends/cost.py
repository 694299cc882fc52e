"""What a fixed-point network costs, estimated from its integers alone. No tool is run, so no number here is a tool's.

For a layer with kernel codes w of W bits (its channel's own where channels have formats, and in BRAM and DSP the widest
channel's), input codes of X bits, an accumulator of A bits, and P output positions (1 for Dense on one axis; a convolution
uses its kernel once per position, padding included; pooling adds up its window and multiplies once):

    products          P * (number of nonzero w)
    multiplier bits   products * W * X
    constant adders   sum over nonzero w of csd(w) - 1, csd(w) the nonzero digits of w in canonical signed digit form:
                      w * x is that many shifted copies of x, added or subtracted
    sum adders        per output channel (nonzero weights + [bias is not zero]) - 1, at least 0
    adder bits        constant adders * (X + bits of |w|) + sum adders * A + rounded results * their word length, the
                      last term being the increment of round half to even; where a result becomes one of few values,
                      a comparison of A bits for each but the first
    memory bits       weights * W + biases * (bias bits), zeros included, as arrays hold them, once where layers share them;
                      the entries of a table, once
    BRAM              18 Kbit blocks of one read port; an array of at most 1024 bits takes none
    DSP               products / reuse_factor multipliers, each of ceil((a-1)/24) * ceil((b-1)/17) slices that multiply
                      25 by 18 bits, in the cheaper order; none where an operand has at most 4 bits

Without weights, for a result of P values, with N inputs or window elements (padding left out):

    add               P * (N - 1) sum adders of A bits
    multiply          P products of X and Y bits, P * X * Y multiplier bits, DSP as above; as adders, min(X, Y) - 1 sum
                      adders of max(X, Y) bits each
    matmul            P * K products of X and Y bits, K the terms of a sum; P * (K - 1) sum adders of A bits
    max_pool          P * (N - 1) comparisons, counted as sum adders of X bits
    table             memory bits and BRAM of its entries
    layer_norm        the same, and for each row of n values of X bits, with deviations of U, a square of A and roots of T bits:
                      n products of X by U bits, n of U by T, one within a piece; 3n + 1 sum adders of A bits
    all others        nothing but the increments of their rounding: values move, or lose their sign

Adders are those of straight code with one multiplication per weight, nothing shared. BRAM and DSP are those of loops
over arrays: a design has one or the other, not both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.network import Node, Pair, size_of
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.network.ops import Affine, AveragePool, LayerNormPair, MaxPool
from sound_qkeras.network.staircases import Staircase

# (width, depth) of one 18 Kbit block.
BLOCK_SHAPES = ((1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024), (36, 512))
SMALL_ARRAY_BITS = 1024
SMALL_OPERAND_BITS = 4


@dataclass(frozen=True)
class LayerCost:
    """The estimate of one node; formulas in the module's docstring."""

    node: str
    kind: str
    weights: int
    nonzero_weights: int
    products: int
    multiplier_bits: int
    constant_adders: int
    sum_adders: int
    adder_bits: int
    memory_bits: int
    bram: int
    dsp: int


@dataclass(frozen=True)
class CostEstimate:
    """Estimates by layer, and their sums under the same names."""

    layers: tuple[LayerCost, ...]
    reuse_factor: int

    def total(self, quantity: str) -> int:
        """The sum of one quantity, for example `total("adder_bits")`."""
        return sum(int(getattr(layer, quantity)) for layer in self.layers)

    @property
    def adders(self) -> int:
        """Two-input adders of straight code."""
        return self.total("constant_adders") + self.total("sum_adders")

    def to_json(self) -> dict[str, Any]:
        """Layers and totals as plain values, with the label that belongs to them."""
        quantities = [name for name in LayerCost.__dataclass_fields__ if name not in ("node", "kind")]
        return {
            "method": "analytic estimate from the integers; no synthesis tool was run",
            "reuse_factor": self.reuse_factor,
            "total": {name: self.total(name) for name in quantities},
            "layers": [asdict(layer) for layer in self.layers],
        }


def estimate(pair: Pair, *, reuse_factor: int = 1) -> CostEstimate:
    """Estimate what a network costs in hardware.

    Args:
        pair: the network; layers without a proved accumulator count one of the width their format range needs.
        reuse_factor: how often a multiplier is used per sample (DSP only).

    Raises:
        InputError: the reuse factor is not a whole number of at least 1.
    """
    if reuse_factor != int(reuse_factor) or reuse_factor < 1:
        raise InputError(f"reuse_factor {reuse_factor!r} is not a whole number of at least 1")
    magnitudes = pair.accumulator_magnitudes
    lengths = word_lengths(pair)
    layers = [
        _affine(pair, node, reuse_factor, magnitudes[node.name])
        if isinstance(node.op, Affine)
        else _plain(pair, node, reuse_factor, lengths)
        for node in pair.network.nodes
    ]
    return CostEstimate(tuple(layers), reuse_factor)


def csd_digits(codes: Codes) -> npt.NDArray[np.int64]:
    """Nonzero digits of each integer in canonical signed digit form, |code| below 2**61.

    Reference: Reitwiesner, Binary arithmetic (1960): the nonzero digits of the form are the ones of `n xor 3n`.

    >>> csd_digits(np.array([0, 1, 7, -7, 11, 85])).tolist()
    [0, 1, 2, 2, 3, 4]
    """
    magnitude = np.abs(codes).astype("<u8")
    changed = np.ascontiguousarray(magnitude ^ (3 * magnitude).astype("<u8"))
    bits = np.unpackbits(changed.reshape(-1, 1).view(np.uint8), axis=1)
    return bits.sum(axis=1, dtype=np.int64).reshape(codes.shape)


def bram_blocks(words: int, width: int) -> int:
    """18 Kbit blocks of an array with one read port.

    >>> bram_blocks(100, 8), bram_blocks(2048, 9), bram_blocks(2049, 9)
    (0, 1, 2)
    """
    if words * width <= SMALL_ARRAY_BITS:
        return 0
    return min(math.ceil(width / wide) * math.ceil(words / deep) for wide, deep in BLOCK_SHAPES)


def dsp_slices(weight: Format, source: Format) -> int:
    """25 by 18 bit signed multipliers in one product; an unsigned operand needs a bit more for its sign.

    >>> dsp_slices(Format(12, 3, True), Format(16, 3, True)), dsp_slices(Format(19, 3, True), Format(19, 3, True))
    (1, 2)
    """
    a, b = (output.word_length + (not output.signed) for output in (weight, source))
    if min(weight.word_length, source.word_length) <= SMALL_OPERAND_BITS:
        return 0

    def tiles(wide: int, narrow: int) -> int:
        return math.ceil((wide - 1) / 24) * math.ceil((narrow - 1) / 17)

    return min(tiles(a, b), tiles(b, a))


def _affine(pair: Pair, node: Node, reuse_factor: int, magnitude: float) -> LayerCost:
    codes = pair.codes(node.name)
    kernel = codes.channel_codes
    widest = max(codes.own_formats, key=lambda output: output.word_length)
    source = _format_read(pair, node)
    accumulator = pair.accumulators.get(node.name)
    sum_bits = _bits(magnitude) if accumulator is None else accumulator.word_length
    nonzero = int(np.count_nonzero(kernel))
    uses, sums = _uses(pair, node), _sum_adders(pair, node)
    chains = np.maximum(csd_digits(kernel) - 1, 0)
    widths = source.word_length + np.frexp(np.abs(kernel).astype(np.float64))[1]
    used = uses * (kernel != 0)
    products = int(used.sum())
    words = np.array([output.word_length for output in codes.own_formats])
    memory = kernel.size // words.size * int(words.sum()) + codes.bias.size * codes.bias_format.word_length
    blocks = bram_blocks(kernel.size, widest.word_length) + bram_blocks(codes.bias.size, codes.bias_format.word_length)
    return LayerCost(
        node=node.name,
        kind=node.op.kind,
        weights=kernel.size,
        nonzero_weights=nonzero,
        products=products,
        multiplier_bits=int((used * words).sum()) * source.word_length,
        constant_adders=int((uses * chains).sum()),
        sum_adders=sums,
        adder_bits=int((uses * chains * widths).sum()) + sums * sum_bits + _rounding_bits(pair, node, sum_bits),
        memory_bits=0 if node.shares is not None else memory,
        bram=0 if node.shares is not None else blocks,
        dsp=math.ceil(products / reuse_factor) * dsp_slices(widest, source),
    )


def _uses(pair: Pair, node: Node) -> npt.NDArray[np.int64]:
    """How often each element of the kernel is a factor in one inference, products with padding included."""
    op, size = node.op, size_of(pair.network.shapes[node.name])
    if isinstance(op, AveragePool):
        return np.bincount(op.which.reshape(-1)) * op.bias.size
    kernel = pair.codes(node.name).kernel
    return np.full(kernel.shape, size * getattr(op, "multiplications", 0) // kernel.size)


def _sum_adders(pair: Pair, node: Node) -> int:
    codes, size = pair.codes(node.name), size_of(pair.network.shapes[node.name])
    biased = codes.bias.reshape(-1) != 0
    if isinstance(node.op, AveragePool):
        return size // biased.size * int((node.op.fan_in - 1 + biased).sum())
    terms = np.count_nonzero(codes.kernel.reshape(-1, biased.size), axis=0) + biased
    return size // biased.size * int(np.maximum(terms - 1, 0).sum())


def _plain(pair: Pair, node: Node, reuse_factor: int, lengths: Mapping[str, tuple[int, int]]) -> LayerCost:
    """A node without weights; a table has entries."""
    table = pair.tables.get(node.name)
    words, entry = (0, 0) if table is None else (table.codes.size, table.width)
    work = WORK[node.op.kind](pair, node, lengths) if node.op.kind in WORK else Work()
    return LayerCost(
        node=node.name,
        kind=node.op.kind,
        weights=0,
        nonzero_weights=0,
        products=sum(count for count, _, _ in work.products),
        multiplier_bits=sum(count * one.word_length * other.word_length for count, one, other in work.products),
        constant_adders=0,
        sum_adders=work.adders,
        adder_bits=work.adders * work.width + _rounding_bits(pair, node, lengths[node.name][0]),
        memory_bits=words * entry,
        bram=bram_blocks(words, entry),
        dsp=sum(math.ceil(count / reuse_factor) * dsp_slices(one, other) for count, one, other in work.products),
    )


@dataclass(frozen=True)
class Work:
    """What a node without weights computes.

    Args:
        products: how many, and the formats of both factors.
        adders: how many.
        width: bits of an adder.
    """

    products: tuple[tuple[int, Format, Format], ...] = ()
    adders: int = 0
    width: int = 0


Lengths = Mapping[str, tuple[int, int]]


def _add(pair: Pair, node: Node, lengths: Lengths) -> Work:
    size = size_of(pair.network.shapes[node.name])
    return Work((), size * (len(node.inputs) - 1), lengths[node.name][0])


def _multiply(pair: Pair, node: Node, lengths: Lengths) -> Work:
    size, read = size_of(pair.network.shapes[node.name]), [lengths[name][1] for name in node.inputs]
    first, second = (_format_read(pair, node, number) for number in range(2))
    return Work(((size, first, second),), size * (min(read) - 1), max(read))


def _matmul(pair: Pair, node: Node, lengths: Lengths) -> Work:
    size, terms = size_of(pair.network.shapes[node.name]), node.op.terms
    first, second = (_format_read(pair, node, number) for number in range(2))
    return Work(((size * terms, first, second),), size * (terms - 1), lengths[node.name][0])


def _max_pool(pair: Pair, node: Node, lengths: Lengths) -> Work:
    comparisons = cast(MaxPool, node.op).comparisons(pair.network.shapes[node.inputs[0]])
    return Work((), comparisons, lengths[node.inputs[0]][1])


def _layer_norm(pair: Pair, node: Node, lengths: Lengths) -> Work:
    norm: LayerNormPair = pair.pairs[node.name]
    size, most = size_of(pair.network.shapes[node.name]), norm.largest_deviation
    rows, deviation = size // norm.size, Format.for_codes(-most, most, 0)
    root = Format.for_codes(0, 1 << (norm.entry_bits + norm.shift), 0)
    within = Format.for_codes(0, (1 << norm.shift) - 1, 0)
    entry = Format.for_codes(0, int(norm.codes.max()), 0)
    products = ((size, norm.source, deviation), (rows, entry, within), (size, deviation, root))
    return Work(products, 3 * size + rows, norm.largest_square.bit_length())


# What operations without weights add and multiply; those that are not here do neither.
WORK: dict[str, Callable[[Pair, Node, Lengths], Work]] = {
    "add": _add,
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "multiply": _multiply,
}


def word_lengths(pair: Pair) -> dict[str, tuple[int, int]]:
    """Bits of every node's exact result, and of what its readers see of it."""
    found: dict[str, tuple[int, int]] = {}
    for node in pair.network.nodes:
        output, accumulator = pair.code_formats.get(node.name), pair.accumulators.get(node.name)
        if accumulator is not None:
            exact = accumulator.word_length
        elif node.op.accumulates:
            exact = _bits(pair.accumulator_magnitudes[node.name])
        else:
            exact = max((found[name][1] for name in node.inputs), default=0)
        found[node.name] = (exact, exact if output is None else output.word_length)
    return found


def _bits(magnitude: float) -> int:
    """Bits of a signed number up to a magnitude."""
    return math.ceil(math.log2(magnitude + 1.0)) + 1


def _rounding_bits(pair: Pair, node: Node, length: int) -> int:
    """Adder bits of the increment, where bits are dropped, or of comparisons. The input is rounded by whoever delivers it."""
    if not node.inputs or node.name not in pair.roundings:
        return 0
    size, grid = size_of(pair.network.shapes[node.name]), pair.grids.get(node.name)
    if isinstance(grid, Staircase):
        return size * grid.levels * length
    if isinstance(grid, FixedPoint):
        dropping = grid.fractional < pair.exact_bits[node.name]
        return int(np.broadcast_to(grid.word_lengths * dropping, pair.network.shapes[node.name]).sum())
    if pair.exact_bits[node.name] <= pair.fractional_bits[node.name]:
        return 0
    return size * pair.formats[node.name].word_length


def _format_read(pair: Pair, node: Node, number: int = 0) -> Format:
    """The widest format among what a node that multiplies reads as one of its inputs."""
    found = [pair.code_formats[name] for name in pair.network.sources(node.inputs[number])]
    return max(found, key=lambda output: output.word_length)
