"""Affine operations of every kind and geometry, and small networks around one of them."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import Affine, AffineCodes, AveragePool, Conv, Dense, Input, Relu, Reshape, Scale
from sound_qkeras.network.ops.window import causal_padding, same_padding

from .networks import Box, box, float32, nearest, with_parameters

Shape = tuple[int, ...]

KINDS = ("conv", "depthwise", "average_pool", "scale", "dense", "conv_1d")


def random_affine(rng: np.random.Generator, kind: str, largest: int = 5) -> tuple[Affine, Shape]:
    """An operation with float32 parameters, and the shape of its input."""
    axes = {"conv_1d": 1, "depthwise": 2, "dense": rng.integers(0, 3), "scale": rng.integers(0, 3)}
    count = int(axes.get(kind, rng.integers(1, 3)))
    shape = (*(int(n) for n in rng.integers(1, largest + 1, count)), int(rng.integers(1, 5)))
    return affine_on(rng, kind, shape), shape


def affine_on(rng: np.random.Generator, kind: str, shape: Shape) -> Affine:
    """An operation of a kind on inputs of a shape; pooling and convolutions need spatial axes."""
    if kind == "dense":
        return Dense(float32(rng.normal(size=(shape[-1], 3)) / np.sqrt(shape[-1])), float32(rng.normal(size=3)))
    if kind == "scale":
        factors = shape if rng.random() < 0.5 else shape[-1:]
        return Scale(float32(rng.normal(size=factors)), float32(rng.normal(size=factors)))
    sizes, channels = shape[:-1], shape[-1]
    kernel = tuple(int(rng.integers(1, min(3, size) + 1)) for size in sizes)
    strides = tuple(int(s) for s in rng.integers(1, 3, len(sizes)))
    ones, nothing = (1,) * len(sizes), ((0, 0),) * len(sizes)
    if kind == "average_pool":
        padding = same_padding(sizes, kernel, strides, ones) if rng.random() < 0.7 else nothing
        return AveragePool.of(shape, kernel, strides, padding)
    dilation = tuple(int(rng.integers(1, 3)) if 2 * (k - 1) < n else 1 for k, n in zip(kernel, sizes, strict=True))
    paddings = [nothing, same_padding(sizes, kernel, strides, dilation), causal_padding(kernel, dilation)]
    paddings.append(tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (len(sizes), 2))))
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    groups = channels if kind == "depthwise" else int(rng.choice(divisors))
    outputs = groups * int(rng.integers(1, 3))
    size = (*kernel, channels // groups, outputs)
    return Conv(
        float32(rng.normal(size=size) / np.sqrt(np.prod(size[:-1]))),
        float32(rng.normal(size=outputs)),
        input_shape=shape,
        strides=strides,
        dilation=dilation,
        padding=paddings[int(rng.integers(0, 4))],
        groups=groups,
    )


def exact_apply(op: Affine, kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The operator by the book, one product at a time, on object arrays of one sample."""
    if isinstance(op, Dense):
        return np.array(
            [
                [sum(a * b for a, b in zip(row, column, strict=True)) for column in kernel.T]
                for row in x.reshape(-1, x.shape[-1])
            ],
            dtype=object,
        ).reshape(*x.shape[:-1], kernel.shape[1])
    if isinstance(op, Scale):
        return x * kernel
    assert isinstance(op, Conv | AveragePool)
    result = np.zeros(op.output_shape(op.input_shape), dtype=object)
    counts = sorted({len(reads(op, at)) for at in np.ndindex(result.shape[:-1])})
    for *at, channel in np.ndindex(result.shape):
        places = reads(op, at)
        for offset, place in places:
            if isinstance(op, AveragePool):
                result[(*at, channel)] += kernel[counts.index(len(places))] * x[(*place, channel)]
                continue
            each, width = kernel.shape[-2], kernel.shape[-1] // op.groups
            for i in range(each):
                result[(*at, channel)] += kernel[(*offset, i, channel)] * x[(*place, channel // width * each + i)]
    return result


def reads(op: Conv | AveragePool, at: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Index in the window and place in the input of all that one window reads, padding left out."""
    dilation = op.dilation if isinstance(op, Conv) else (1,) * len(at)
    found = []
    for offset in np.ndindex(op.window.kernel):
        moves = zip(at, offset, op.strides, dilation, op.padding, strict=True)
        place = tuple(o * s + k * d - before for o, k, s, d, (before, _) in moves)
        if all(0 <= p < n for p, n in zip(place, op.input_shape, strict=False)):
            found.append((offset, place))
    return found


def network_of(rng: np.random.Generator, number: int, count: int = 1, largest: int = 5) -> Network:
    """Operations, the first of the kind with this number modulo their count, most with a rectifier, then Dense on it all."""
    op, shape = random_affine(rng, KINDS[number % len(KINDS)], largest)
    nodes = [Node("x", Input(shape), (), "x")]
    for index in range(count):
        if index:
            kinds = ("dense", "scale") if len(shape) == 1 else [kind for kind in KINDS if kind != "conv_1d"]
            op = affine_on(rng, str(rng.choice(kinds)), shape)
        name, shape = f"{op.kind}_{index}", op.output_shape(shape)
        nodes.append(Node(name, op, (nodes[-1].name,), name))
        if rng.random() < 0.8:
            nodes.append(Node(f"relu_{index}", Relu(), (name,), name))
    size = int(np.prod(shape))
    last = Dense(float32(rng.normal(size=(size, 2)) / np.sqrt(size)), float32(rng.normal(size=2)))
    nodes.append(Node("flat", Reshape(shape, (size,)), (nodes[-1].name,), "flat"))
    return Network((*nodes, Node("last", last, ("flat",), "last")))


def exact_trace(quantized: Pair, x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every node's float and fixed-point value at one point, exactly; a code that leaves its format is an error."""
    fractions = np.vectorize(Fraction, otypes=[object])
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for node in quantized.network.nodes:
        real = fixed = fractions(x)
        if node.inputs:
            real, fixed = found[node.inputs[0]]
        op = node.op
        if isinstance(op, Affine):
            codes = quantized.parameters[node.name]
            values = [
                fractions(part) * Fraction(2) ** -output.fractional_bits
                for part, output in ((codes.kernel, codes.kernel_format), (codes.bias, codes.bias_format))
            ]
            kernel = op.kernel if not isinstance(op, AveragePool) else [1 / Fraction(round(1 / k)) for k in op.kernel]
            real = exact_apply(op, fractions(kernel), real) + fractions(op.bias)
            fixed = exact_apply(op, values[0], fixed) + values[1]
        elif isinstance(op, Relu):
            real, fixed = np.maximum(real, Fraction(0)), np.maximum(fixed, Fraction(0))
        elif isinstance(op, Reshape):
            real, fixed = real.reshape(op.shape), fixed.reshape(op.shape)
        output = quantized.formats.get(node.name)
        if output is not None:
            step = Fraction(2) ** -output.fractional_bits
            grid = [round(value / step) for value in fixed.ravel()]
            assert all(output.min_code <= code <= output.max_code for code in grid)
            fixed = np.array([code * step for code in grid], dtype=object).reshape(fixed.shape)
        found[node.name] = real, fixed
    return found


def random_twin(network: Network, seed: int, low: float = -2.0, high: float = 3.0) -> tuple[Pair, Box]:
    """The fixed-point network with random fractional bits everywhere; some biases are far from the float ones."""
    rng, ranges = np.random.default_rng(seed), box(network, low, high)
    parameters = {}
    for node, op in network.affine():
        codes = nearest(op, int(rng.integers(2, 9)), int(rng.integers(2, 12)))
        bias = codes.bias if rng.random() < 0.5 else codes.bias_format.quantize(0.1 * rng.normal(size=op.bias.shape))
        parameters[node.name] = AffineCodes(codes.kernel, codes.kernel_format, bias, codes.bias_format)
    bits = {name: int(rng.integers(2, 9)) for name in network.rounding_points}
    return with_parameters(network, ranges, parameters, bits), ranges
