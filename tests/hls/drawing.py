"""Fixed-point networks with formats as odd as formats get, as Hypothesis strategies."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import assume
from hypothesis.strategies import DrawFn

from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Codes, Format, from_codes, to_grid
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, AffinePair, Dense, Input, Relu, Reshape
from tests.graphs import random_graph

Box = tuple[np.ndarray, np.ndarray]
Claimed = tuple[Pair, Box]

SIZES = st.sampled_from([1, 1, 2, 3, 4])
# Integer bits from far below zero to far above the word length come from these.
FRACTIONS = st.integers(-12, 24)
NAMES = ("dense", "int8", "dense_1/kernel:0", "3x", "net", "while", "y", "dense_out0", "*/ ??/")


def draw_codes(draw: DrawFn, shape: tuple[int, ...], longest: int = 32) -> tuple[Codes, Format]:
    """Random codes, some zero, at times a whole column or all of them; in a format at times wider than needed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.integers(1, longest))
    signed = draw(st.booleans()) and bits > 1
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    codes = rng.integers(low, high, shape)
    codes[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.3, 1.0]))] = 0
    if len(shape) == 2 and draw(st.booleans()):
        codes[:, rng.integers(shape[1])] = 0
    fraction = draw(FRACTIONS)
    narrow = Format.for_codes(int(codes.min()), int(codes.max()), fraction)
    spare = draw(st.sampled_from([0, 0, 3]))
    return codes, Format(narrow.word_length + spare, narrow.integer_bits + spare, narrow.signed)


def draw_channels(draw: DrawFn, codes: AffineCodes) -> AffineCodes:
    """The same with formats of its own for each output channel, at times wider than needed; or, mostly, as it was."""
    if draw(st.integers(0, 2)):
        return codes
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shifts = rng.integers(0, draw(st.sampled_from([1, 4, 12])), codes.kernel.shape[1])
    kernel = codes.kernel >> shifts << shifts
    formats: list[Format] = []
    for column, shift in zip(kernel.T >> shifts[:, None], shifts.tolist(), strict=True):
        narrow = Format.for_codes(int(column.min()), int(column.max()), codes.kernel_format.fractional_bits - shift)
        spare = int(rng.integers(0, 3))
        formats.append(Format(narrow.word_length + spare, narrow.integer_bits + spare, narrow.signed))
    before = codes.kernel_format  # negative codes were shifted downward, at times out of it
    held = Format.for_codes(min(int(kernel.min()), before.min_code), before.max_code, before.fractional_bits)
    return replace(codes, kernel=kernel, kernel_format=held, channel_formats=tuple(formats))


def draw_box(draw: DrawFn, shape: tuple[int, ...]) -> tuple[Format, Box]:
    """An input format, and a box inside it whose ends need not be on its grid."""
    bits = draw(st.integers(1, 32))
    signed = draw(st.booleans()) and bits > 1
    output = Format(bits, bits - signed - draw(FRACTIONS), signed)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ends = np.sort(rng.uniform(output.minimum, output.maximum, (2, *shape)), axis=0)
    ends[0][rng.random(shape) < 0.5] = output.minimum
    ends[1][rng.random(shape) < 0.5] = output.maximum
    return output, (ends[0], ends[1])


def draw_nodes(draw: DrawFn) -> list[Node]:
    """An input, one to three Dense layers with and without ReLU, and reshapes; parameters are filled in later."""
    sizes = draw(st.lists(SIZES, min_size=2, max_size=4))
    names = iter(draw(st.permutations(NAMES)))
    nodes = [Node("x y", Input((1, sizes[0])), (), "x")]

    def append(op: Dense | Relu | Reshape) -> None:
        name = next(names)
        nodes.append(Node(name, op, (nodes[-1].name,), name))

    append(Reshape((1, sizes[0]), (sizes[0],)))
    for index in range(1, len(sizes)):
        append(Dense(np.zeros((sizes[index - 1], sizes[index])), np.zeros(sizes[index])))
        if draw(st.integers(0, 3)):
            append(Relu())
    return nodes


@st.composite
def networks(draw: DrawFn, widest: int = 200, *, saturate: bool = True) -> Claimed:
    """A network and its box, with accumulators of at most `widest` bits; some of its formats may be too narrow."""
    return draw_twin(draw, Network(tuple(draw_nodes(draw))), widest, saturate=saturate)


@st.composite
def graphs(draw: DrawFn, widest: int = 200) -> Claimed:
    """The same for a network with sums, products, concatenations, pooling and moves."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return draw_twin(draw, random_graph(rng, draw(st.integers(2, 5))), widest)


def draw_twin(draw: DrawFn, network: Network, widest: int, *, saturate: bool = True) -> Claimed:
    """Integers and formats for a network, and the box they are made for."""
    formats, accumulators, parameters = {}, {}, {}
    saturating: set[str] = set()
    formats[network.nodes[0].name], ranges = draw_box(draw, network.input_shape)
    entry = formats[network.nodes[0].name]
    facts = {network.nodes[0].name: on_grid(Interval(ranges[0][None], ranges[1][None]), entry.fractional_bits)}
    no_pair: Any = None
    fractions = {network.nodes[0].name: entry.fractional_bits}
    for node in network.nodes[1:]:
        pair, read = no_pair, [fractions[name] for name in node.inputs]
        if isinstance(node.op, Dense):
            kernel, bias = draw_codes(draw, node.op.kernel.shape), draw_codes(draw, node.op.bias.shape)
            parameters[node.name] = draw_channels(draw, AffineCodes(*kernel, *bias))
            pair = AffinePair(node.op, parameters[node.name])
        exact = node.op.fixed_interval(pair, *(facts[name] for name in node.inputs))
        bits = node.op.fractional_bits(pair, *read)
        if node.op.accumulates:
            accumulators[node.name] = format_of(exact, bits)
            assume(accumulators[node.name].word_length <= widest)
        if node.name in network.rounding_points or draw(st.integers(0, 5)) == 0:
            output = format_of(exact, bits - draw(st.integers(-3, 40)))
            assume(output.word_length <= MAX_WORD_LENGTH)
            lost = draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
            if saturate and 0 < lost < output.word_length - 1:
                output = Format(output.word_length - lost, output.integer_bits - lost, output.signed)
                saturating.add(node.name)
            formats[node.name], bits = output, output.fractional_bits
            exact = on_grid(exact, bits).mapped(lambda x, f=output: np.clip(x, f.minimum, f.maximum))
        facts[node.name], fractions[node.name] = exact, bits
    quantized = Pair(network, parameters, formats, accumulators, saturating=frozenset(saturating))
    return quantized, ranges


def format_of(values: Interval, fractional_bits: int) -> Format:
    """The narrowest format of a range, where there is one."""
    low, high = (int(to_grid(end, fractional_bits)) for end in (values.lower.min(), values.upper.max()))
    assume(max(abs(low), abs(high)).bit_length() < 250)
    return Format.for_codes(low, high, fractional_bits)


def on_grid(values: Interval, fractional_bits: int) -> Interval:
    """The range after rounding."""
    return values.mapped(lambda end: from_codes(to_grid(end, fractional_bits), fractional_bits))
