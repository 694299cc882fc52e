"""Awkward networks with fixed-point twins, their exact evaluation in fractions, and the points where a bound may break.

Nothing here uses the library's own arithmetic beyond the data it stores: parameters, integers and formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np

from sound_qkeras.fixed_point import Format, to_grid
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Relu, Reshape
from sound_qkeras.verify.proof import bound_leaves
from sound_qkeras.verify.split_tree import SplitTree

Exact = Any  # object arrays of Fraction
fractions = np.vectorize(Fraction, otypes=[object])


@dataclass(frozen=True)
class Trace:
    """One node at one point, exactly, flattened: the float value, the fixed-point one before and after its rounding."""

    real: Exact
    before: Exact
    after: Exact


def trace(quantized: Pair, x: np.ndarray, signs: dict[str, tuple[Exact, Exact]] | None = None) -> dict[str, Trace]:
    """Every node of both networks at one float64 point; a code that leaves its format is an error, not saturated.

    Args:
        quantized: the pair of networks.
        x: the point, shape `input_shape`.
        signs: which member of the parameters' enclosures the float network has, as parts of the radii.
    """
    found: dict[str, Trace] = {}
    for node in quantized.network.nodes:
        op = node.op
        if isinstance(op, Input):
            real = fixed = fractions(x.reshape(-1))
        else:
            source = found[node.inputs[0]]
            real, fixed = source.real, source.after
        if isinstance(op, Dense):
            kernel, bias = parameters(op, (signs or {}).get(node.name))
            codes = quantized.parameters[node.name]
            real = real @ kernel + bias
            fixed = fixed @ values(codes.kernel, codes.kernel_format) + values(codes.bias, codes.bias_format)
        elif isinstance(op, Relu):
            real, fixed = np.maximum(real, 0), np.maximum(fixed, 0)
        after = fixed
        if node.name in quantized.formats:
            after = rounded(fixed, quantized.formats[node.name], node.name in quantized.saturating)
        if node.name in quantized.accumulators:
            assert (rounded(fixed, quantized.accumulators[node.name]) == fixed).all(), (
                "a sum is no code of its accumulator"
            )
        found[node.name] = Trace(real, fixed, after)
    return found


def parameters(op: Dense, signs: tuple[Exact, Exact] | None) -> tuple[Exact, Exact]:
    """An exact kernel and bias the operation may stand for."""
    kernel, bias = fractions(op.kernel), fractions(op.bias)
    if signs is not None and op.kernel_radius is not None:
        kernel = kernel + signs[0] * fractions(op.kernel_radius)
    if signs is not None and op.bias_radius is not None:
        bias = bias + signs[1] * fractions(op.bias_radius)
    return kernel, bias


def values(codes: np.ndarray, output: Format) -> Exact:
    """What integer codes stand for."""
    return fractions(codes) * Fraction(2) ** -output.fractional_bits


def rounded(x: Exact, output: Format, saturates: bool = False) -> Exact:
    """Half to even onto the grid of a format; refuses what leaves the format, unless that saturates."""
    step = Fraction(2) ** -output.fractional_bits
    codes = [round(value / step) for value in x]
    if saturates:
        codes = [min(max(code, output.min_code), output.max_code) for code in codes]
    assert all(output.min_code <= code <= output.max_code for code in codes), "a code does not fit its format"
    return np.array([code * step for code in codes], dtype=object)


def output_error(quantized: Pair, found: dict[str, Trace]) -> Exact:
    """`|f_q(x) - f(x)|` for every output."""
    output = found[quantized.network.output.name]
    return np.abs(output.after - output.real)


# Networks.

BITS = st.integers(-4, 16)
TABLE = st.sampled_from(["plain", "grid", "sparse", "huge", "tiny", "mixed", "neighbours", "cancelling"])


def weights(rng: np.random.Generator, kind: str, *shape: int) -> np.ndarray:
    """Float32 parameters of one kind."""
    x = rng.normal(size=shape) / math.sqrt(shape[0])
    if kind == "grid":
        x = np.round(4 * x) / 4
    elif kind == "sparse":
        x = x * (rng.random(shape) < 0.4)
    elif kind == "huge":
        x = x * 2.0 ** rng.integers(0, 20)
    elif kind == "tiny":
        x = x * 2.0 ** -rng.integers(0, 40)
    elif kind == "mixed":
        x = x * 2.0 ** rng.integers(-24, 6, shape)
    elif kind == "cancelling":
        x = np.where(rng.random(shape) < 0.5, 1.0, -1.0) * (1.0 + 2.0**-12 * np.round(x))
    x = x.astype(np.float32)
    if kind == "neighbours":
        x = np.nextafter(np.round(8 * x) / 8, np.float32(rng.choice([-np.inf, np.inf])), dtype=np.float32)
    return x.astype(np.float64)


@dataclass(frozen=True)
class Case:
    """A pair of networks whose formats are as narrow as the proof allows, and its box."""

    pair: Pair
    box: Interval
    tree: SplitTree
    rng: np.random.Generator


@st.composite
def networks(
    draw, largest_width: int = 8, most_layers: int = 5, folded: bool | None = None
) -> tuple[Network, np.random.Generator]:
    """Dense networks with ReLUs or linear layers, reshapes anywhere, parameters of any kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, largest_width), min_size=2, max_size=most_layers + 1))
    folded = draw(st.booleans()) and draw(st.booleans()) if folded is None else folded
    shape = draw(st.sampled_from([(sizes[0],), (1, sizes[0]), (sizes[0], 1)]))
    nodes = [Node("x", Input(shape), (), "x")]
    if draw(st.integers(0, 9)) == 0:
        nodes.append(Node("relu_x", Relu(), ("x",), "relu_x"))
    if len(shape) > 1:
        nodes.append(Node("flatten", Reshape(shape, (sizes[0],)), (nodes[-1].name,), "flatten"))
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        kernel, bias = weights(rng, draw(TABLE), inputs, outputs), 0.5 * weights(rng, draw(TABLE), outputs)
        bias = np.where(rng.random(outputs) < 0.2, rng.choice([0.0, -50.0, 50.0], outputs), bias)
        radii = [None, None]
        if folded:
            radii = [
                2.0 ** -rng.integers(8, 50) * rng.random(kernel.shape),
                2.0 ** -rng.integers(8, 50) * rng.random(outputs),
            ]
            radii[int(rng.integers(0, 2))] = (
                None if rng.random() < 0.3 else radii[0] if radii[0].shape == bias.shape else None
            )
            radii = [r if r is None or r.shape == p.shape else None for r, p in zip(radii, (kernel, bias), strict=True)]
        name = f"dense_{index}"
        nodes.append(Node(name, Dense(kernel, bias, *radii), (nodes[-1].name,), name))
        last = index == len(sizes) - 2
        if draw(st.integers(0, 9)) < (2 if last else 8):
            nodes.append(Node(f"{name}_relu", Relu(), (nodes[-1].name,), name))
        if draw(st.integers(0, 9)) == 0:
            nodes.append(Node(f"{name}_reshape", Reshape((outputs,), (1, outputs)), (nodes[-1].name,), name))
            nodes.append(Node(f"{name}_back", Reshape((1, outputs), (outputs,)), (nodes[-1].name,), name))
    return Network(tuple(nodes)), rng


@st.composite
def boxes(draw, shape: tuple[int, ...], rng: np.random.Generator, bits: int) -> Interval:
    """Points, boxes on the input's grid, on its ties, one-sided, tiny and wide ones."""
    kind = draw(st.sampled_from(["unit", "any", "point", "grid", "ties", "one-sided", "tiny", "wide", "flat"]))
    low, high = -rng.random(shape), rng.random(shape)
    if kind == "unit":
        low, high = -np.ones(shape), np.ones(shape)
    elif kind == "point":
        low = high = rng.normal(size=shape) * rng.choice([0.0, 1.0], shape)
    elif kind in {"grid", "ties"}:
        low, high = (np.ldexp(np.round(np.ldexp(end, bits)), -bits) for end in (low, high))
        if kind == "ties":
            low, high = low - 2.0 ** -(bits + 1), high + 2.0 ** -(bits + 1)
    elif kind == "one-sided":
        low, high = np.zeros(shape), high * rng.choice([0.0, 1.0], shape)
    elif kind == "tiny":
        low = rng.normal(size=shape)
        high = low + rng.choice([2.0**-40, 2.0**-10], shape)
    elif kind == "wide":
        low, high = 1000.0 * low, 30.0 * high
    elif kind == "flat":
        high = np.where(rng.random(shape) < 0.5, low, high)
    return Interval(low, high)


@st.composite
def cases(
    draw, bits: st.SearchStrategy[int] = BITS, folded: bool | None = None, saturate: bool = False, **sizes: int
) -> Case:
    """A pair, formats of any fineness on every tensor, at times too narrow where that is asked for, a box and a tree."""
    network, rng = draw(networks(folded=folded, **sizes))
    uniform = draw(st.none() | bits)

    def choose(extra: int = 0) -> int:
        return (draw(bits) if uniform is None else uniform) + extra

    codes = {
        node.name: round_to_codes(op, choose(), choose(draw(st.integers(0, 12))), rng, draw(st.integers(0, 4)) == 0)
        for node, op in network.affine()
        if isinstance(op, Dense)
    }
    names = list(network.rounding_points)
    if draw(st.integers(0, 3)) == 0:
        names.append(network.output.name)
    chosen = {name: choose() for name in dict.fromkeys(names)}
    box = draw(boxes(network.input_shape, rng, chosen["x"]))
    tree = random_tree(rng, box.lower.size, draw(st.integers(1, 6)))
    quantized = twin(network, codes, chosen, box, tree)
    if saturate and draw(st.booleans()):
        quantized = twin(network, codes, chosen, box, tree, too_narrow(quantized, rng))
    return Case(quantized, box, tree, rng)


def too_narrow(quantized: Pair, rng: np.random.Generator) -> dict[str, Format]:
    """Formats for some rounding points that lack bits on the left."""
    lost = {
        n: int(rng.integers(1, min(4, f.word_length - 2))) for n, f in quantized.formats.items() if f.word_length > 3
    }
    return {
        name: replace(old, word_length=old.word_length - bits, integer_bits=old.integer_bits - bits)
        for name, bits in lost.items()
        for old in [quantized.formats[name]]
        if rng.random() < 0.5
    }


def round_to_codes(
    op: Dense, kernel_bits: int, bias_bits: int, rng: np.random.Generator, careless: bool
) -> AffineCodes:
    """Nearest codes, as fine as 53 bits allow; careless ones are several steps off."""
    made = []
    for x, bits in ((op.kernel, kernel_bits), (op.bias, bias_bits)):
        bits = min(bits, 50 - math.frexp(float(np.max(np.abs(x))))[1])
        codes = to_grid(x, bits).astype(np.int64)
        if careless:
            codes = codes + rng.integers(-3, 4, x.shape)
        made += [codes, Format.for_codes(int(codes.min()), int(codes.max()), bits)]
    return AffineCodes(*made)


def twin(
    network: Network,
    codes: dict[str, AffineCodes],
    bits: dict[str, int],
    box: Interval,
    tree: SplitTree | None = None,
    saturating: Mapping[str, Format] | None = None,
) -> Pair:
    """The fixed-point network in the narrowest formats of its proved ranges; coarser where 53 bits are too few.

    `saturating` names rounding points that clip to a given format instead.
    """
    given = dict(saturating or {})
    wide = {name: Format(53, 52 - value, True) for name, value in bits.items()} | given
    quantized = Pair(network, codes, wide, {}, saturating=frozenset(given))
    ranges = bound_leaves(quantized, box, tree).ranges

    def narrowest(name: str, fractional_bits: int) -> Format:
        low, high = ranges[name]
        return Format.for_range(low, high, fractional_bits)

    formats: dict[str, Format] = dict(given)
    too_wide: list[str] = []
    for name, value in bits.items():
        if name in given:
            continue
        try:
            formats[name] = narrowest(name, value)
        except OverflowError:
            too_wide.append(name)
        else:
            too_wide += [name] if formats[name].word_length > 53 else []
    if too_wide:
        return twin(network, codes, {n: v - 8 * (n in too_wide) for n, v in bits.items()}, box, tree, given)
    sums = {node.name: narrowest(node.name, quantized.exact_bits[node.name]) for node, _ in network.affine()}
    return replace(quantized, formats=formats, accumulators=sums)


def random_tree(rng: np.random.Generator, size: int, leaves: int) -> SplitTree:
    """Some tree with some leaves, in preorder."""
    if leaves <= 1:
        return SplitTree((-1,))
    left = int(rng.integers(1, leaves))
    halves = (random_tree(rng, size, count).axes for count in (left, leaves - left))
    return SplitTree((int(rng.integers(0, size)), *(axis for half in halves for axis in half)))


# Points.


def points(case: Case, count: int = 12) -> np.ndarray:
    """Corners, ends, ties of the input's grid, zeros of pre-activations, random points and neighbours of them all."""
    rng, low, high = case.rng, case.box.lower, case.box.upper
    uniform = low + (high - low) * rng.random((count, *low.shape))
    corner = np.where(rng.random((count, *low.shape)) < 0.5, low, high)
    bits = case.pair.formats["x"].fractional_bits
    tie = np.ldexp(np.floor(np.ldexp(uniform, bits)) + rng.choice([0.5, 0.5, 0.0], uniform.shape), -bits)
    mixed = np.where(rng.random(uniform.shape) < 0.5, corner, tie)
    found = np.concatenate([corner, tie, mixed, uniform, zeros_of_neurons(case, count), climbed(case)])
    nudged = np.nextafter(found, rng.choice([-np.inf, np.inf], found.shape))
    return np.clip(np.concatenate([found, nudged]), low, high)


def zeros_of_neurons(case: Case, count: int) -> np.ndarray:
    """Points between two corners at which some pre-activation of the float network is about zero."""
    rng, network, shape = case.rng, case.pair.network, case.box.shape
    a, b = (np.where(rng.random((count, *shape)) < 0.5, case.box.lower, case.box.upper) for _ in range(2))
    units = [node.inputs[0] for node in network.nodes if isinstance(node.op, Relu)]
    if not units:
        return a
    unit, flat = units[int(rng.integers(0, len(units)))], (count, -1)
    neuron = int(rng.integers(0, math.prod(network.shapes[unit])))

    def value(x: np.ndarray) -> np.ndarray:
        return network.evaluate_all(x)[unit].reshape(flat)[:, neuron].reshape(count, *(1,) * len(shape))

    start = value(a)
    for _ in range(30):
        middle = 0.5 * a + 0.5 * b
        same = np.sign(value(middle)) == np.sign(start)
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    return np.concatenate([a, b])


def climbed(case: Case, rounds: int = 6, tries: int = 24) -> np.ndarray:
    """The ends of a few hill climbs on the float64 error."""
    rng, low, high = case.rng, case.box.lower, case.box.upper
    best = np.where(rng.random((4, *low.shape)) < 0.5, low, high)
    for length in np.logspace(0, -4, rounds):
        moves = length * (high - low) * rng.normal(size=(tries, *best.shape)) * (rng.random((tries, *best.shape)) < 0.6)
        tried = np.clip(np.concatenate([best[None], best + moves]), low, high)
        at = float_error(case.pair, tried.reshape(-1, *low.shape)).reshape(tries + 1, len(best)).argmax(axis=0)
        best = tried[at, np.arange(len(best))]
    return best


def float_error(quantized: Pair, x: np.ndarray) -> np.ndarray:
    """The largest output error in float64, to choose points by."""
    output = quantized.network.output.name
    codes = quantized.simulate_all(x)[output].astype(np.float64)
    value = np.ldexp(codes, -quantized.fractional_bits[output])
    return np.abs(value - quantized.network.evaluate(x)).reshape(len(x), -1).max(axis=1)


def worst_first(case: Case, found: np.ndarray, count: int) -> np.ndarray:
    """The points with the largest float64 errors, and a few others."""
    order = np.argsort(-float_error(case.pair, found))
    some = case.rng.choice(len(found), max(1, count // 3), replace=False)
    return found[np.concatenate([order[: count - len(some)], some])]


def leaves_of(case: Case, x: np.ndarray) -> np.ndarray:
    """Numbers of the leaves that hold a point."""
    leaves = case.tree.leaves(case.box)
    inside = (leaves.lower <= x) & (x <= leaves.upper)
    return np.flatnonzero(inside.reshape(len(inside), -1).all(axis=1))
