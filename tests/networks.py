"""Random networks and their fixed-point twins, for any test that needs one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from sound_qkeras.fixed_point import Format, to_grid
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import Affine, AffineCodes, AffinePair, Dense, Input, Relu, Reshape

Box = tuple[np.ndarray, np.ndarray]


def random_network(
    rng: np.random.Generator, sizes: Sequence[int] = (3, 6, 2), *, linear: Sequence[int] = ()
) -> Network:
    """A Dense network with float32 parameters, a ReLU after every layer but the last and those numbered in `linear`.

    The input is a matrix with one row and is flattened first when `sizes[0]` is even, so that reshapes are exercised.
    """
    flat = sizes[0] % 2 == 1
    nodes = [Node("x", Input((sizes[0],) if flat else (1, sizes[0])), (), "x")]
    if not flat:
        nodes.append(Node("flatten", Reshape((1, sizes[0]), (sizes[0],)), ("x",), "flatten"))
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        kernel = rng.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in)
        op = Dense(float32(kernel), float32(0.3 * rng.normal(size=fan_out)))
        nodes.append(Node(f"dense_{index}", op, (nodes[-1].name,), f"dense_{index}"))
        if index not in linear and index < len(sizes) - 2:
            nodes.append(Node(f"dense_{index}_relu", Relu(), (nodes[-1].name,), f"dense_{index}"))
    return Network(tuple(nodes))


def float32(x: np.ndarray) -> np.ndarray:
    """`x` rounded to float32 numbers, as float64."""
    return x.astype(np.float32).astype(np.float64)


def box(network: Network, low: float = -1.0, high: float = 1.0) -> Box:
    """The same bounds for every input."""
    return np.full(network.input_shape, low), np.full(network.input_shape, high)


def nearest(op: Affine, kernel_bits: int, bias_bits: int) -> AffineCodes:
    """Every parameter rounded to the nearest multiple of its step, in the narrowest formats that hold them."""
    kernel, bias = (to_grid(x, bits).astype(np.int64) for x, bits in ((op.kernel, kernel_bits), (op.bias, bias_bits)))
    formats = (Format.for_codes(int(x.min()), int(x.max()), b) for x, b in ((kernel, kernel_bits), (bias, bias_bits)))
    kernel_format, bias_format = formats
    return AffineCodes(kernel, kernel_format, bias, bias_format)


def quantized(
    network: Network, ranges: Box, kernel_bits: int = 6, activation_bits: int = 6, bias_bits: int | None = None
) -> Pair:
    """The fixed-point network with the same fractional bits everywhere and formats as wide as interval ranges need."""
    bias_bits = kernel_bits + activation_bits if bias_bits is None else bias_bits
    parameters = {node.name: nearest(op, kernel_bits, bias_bits) for node, op in network.owners()}
    return with_parameters(network, ranges, parameters, dict.fromkeys(network.rounding_points, activation_bits))


def by_channel(codes: AffineCodes, rng: np.random.Generator) -> AffineCodes:
    """The kernel's columns cut to random coarser grids, each channel in the narrowest format that holds it."""
    shifts = rng.integers(0, 5, codes.kernel.shape[1])
    own = codes.kernel >> shifts
    bits = codes.kernel_format.fractional_bits - shifts
    ends = zip(own.min(axis=0).tolist(), own.max(axis=0).tolist(), bits.tolist(), strict=True)
    formats = tuple(Format.for_codes(low, high, fraction) for low, high, fraction in ends)
    return replace(codes, kernel=own << shifts, channel_formats=formats)


def with_parameters(
    network: Network, ranges: Box, parameters: Mapping[str, AffineCodes], fractional_bits: Mapping[str, int]
) -> Pair:
    """The fixed-point network with the given integers, each rounding point in the narrowest format of its proved range."""
    formats: dict[str, Format] = {}
    sums: dict[str, Interval] = {}
    facts: dict[str, Interval] = {}
    for node in network.nodes:
        sources = [facts[name] for name in node.inputs] or [Interval(ranges[0][None], ranges[1][None])]
        pair: Any = AffinePair(node.op, parameters[network.owner(node.name)]) if isinstance(node.op, Affine) else None
        exact = sums[node.name] = node.op.fixed_interval(pair, *sources)
        bits = fractional_bits.get(node.name)
        if bits is not None:
            formats[node.name] = Format.for_range(exact.lower, exact.upper, bits)
            exact = Interval(*(np.ldexp(to_grid(end, bits), -bits) for end in (exact.lower, exact.upper)))
        facts[node.name] = exact
    bits_of = Pair(network, parameters, formats, {}).exact_bits
    accumulators = {
        node.name: Format.for_range(sums[node.name].lower, sums[node.name].upper, bits_of[node.name])
        for node in network.nodes
        if node.op.accumulates
    }
    return Pair(network, parameters, formats, accumulators)


def random_quantized(
    rng: np.random.Generator, sizes: Sequence[int] | None = None, low: float = -1.0, high: float = 1.0
) -> tuple[Pair, Box]:
    """A small random network with random fractional bits on every tensor, and the box its formats are made for."""
    if sizes is None:
        sizes = [int(size) for size in rng.integers(1, 8, size=rng.integers(2, 5))]
    linear = [index for index in range(len(sizes) - 2) if rng.random() < 0.3]
    network = random_network(rng, sizes, linear=linear)
    parameters = {
        node.name: nearest(op, int(rng.integers(0, 12)), int(rng.integers(0, 20)))
        for node, op in network.affine()
        if isinstance(op, Dense)
    }
    bits = {name: int(rng.integers(0, 12)) for name in network.rounding_points}
    ranges = box(network, low, high)
    return with_parameters(network, ranges, parameters, bits), ranges


def samples(rng: np.random.Generator, ranges: Box, count: int, scale: float = 1.0) -> np.ndarray:
    """Points of the box, its corners first; `scale` above one goes beyond it."""
    low, high = ranges
    middle, half = (high + low) / 2, scale * (high - low) / 2
    unit = rng.uniform(-1.0, 1.0, (count, *low.shape))
    corners = np.where(unit[: count // 4] < 0, -1.0, 1.0)
    return middle + half * np.concatenate([corners, unit[count // 4 :]])
