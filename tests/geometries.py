"""Affine operations of every kind and geometry, and small networks around one of them."""

import numpy as np

from sound_qkeras.network import Network, Node, QuantizedNetwork
from sound_qkeras.network.ops import Affine, AffineCodes, AveragePool, Conv, Dense, Input, Relu, Reshape, Scale
from sound_qkeras.network.ops.window import causal_padding, same_padding

from .networks import Box, box, float32, nearest, with_parameters

KINDS = ("conv", "depthwise", "average_pool", "scale", "dense", "conv_1d")


def random_affine(rng: np.random.Generator, kind: str, largest: int = 5) -> tuple[Affine, tuple[int, ...]]:
    """An operation with float32 parameters, and the shape of its input."""
    axes = 1 if kind == "conv_1d" else int(rng.integers(1, 3)) if kind in ("conv", "average_pool") else 2
    sizes = tuple(int(n) for n in rng.integers(1, largest + 1, axes))
    if kind == "dense":
        shape = (*sizes[: rng.integers(0, 3)], int(rng.integers(1, 4)))
        return Dense(float32(rng.normal(size=(shape[-1], 3))), float32(rng.normal(size=3))), shape
    if kind == "scale":
        shape = (*sizes[: rng.integers(0, 3)], int(rng.integers(1, 4)))
        factors = shape if rng.random() < 0.5 else shape[-1:]
        return Scale(float32(rng.normal(size=factors)), float32(rng.normal(size=factors))), shape
    kernel = tuple(int(rng.integers(1, min(3, size) + 1)) for size in sizes)
    strides = tuple(int(s) for s in rng.integers(1, 3, axes))
    dilation = tuple(int(rng.integers(1, 3)) if 2 * (k - 1) < n else 1 for k, n in zip(kernel, sizes, strict=True))
    channels = int(rng.integers(1, 3))
    if kind == "average_pool":
        padding = same_padding(sizes, kernel, strides, (1,) * axes) if rng.random() < 0.7 else ((0, 0),) * axes
        return AveragePool.of((*sizes, channels), kernel, strides, padding), (*sizes, channels)
    paddings = [((0, 0),) * axes, same_padding(sizes, kernel, strides, dilation), causal_padding(kernel, dilation)]
    paddings.append(tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (axes, 2))))
    groups = int(rng.integers(2, 4)) if kind == "depthwise" else int(rng.integers(1, 3))
    inputs = 1 if kind == "depthwise" else channels
    outputs = groups * int(rng.integers(1, 3))
    shape = (*sizes, groups * inputs)
    op = Conv(
        float32(rng.normal(size=(*kernel, inputs, outputs))),
        float32(rng.normal(size=outputs)),
        input_shape=shape,
        strides=strides,
        dilation=dilation,
        padding=paddings[int(rng.integers(0, 4))],
        groups=groups,
    )
    return op, shape


def network_of(rng: np.random.Generator, number: int) -> Network:
    """An operation of the kind with this number, modulo their count, a rectifier, and a Dense layer on what is flattened."""
    op, shape = random_affine(rng, KINDS[number % len(KINDS)])
    output = op.output_shape(shape)
    size = int(np.prod(output))
    last = Dense(float32(rng.normal(size=(size, 2)) / np.sqrt(size)), float32(rng.normal(size=2)))
    return Network(
        (
            Node("x", Input(shape), (), "x"),
            Node("first", op, ("x",), "first"),
            Node("relu", Relu(), ("first",), "first"),
            Node("flat", Reshape(output, (size,)), ("relu",), "flat"),
            Node("last", last, ("flat",), "last"),
        )
    )


def random_twin(network: Network, seed: int) -> tuple[QuantizedNetwork, Box]:
    """The fixed-point twin with random fractional bits everywhere; some biases are far from the float ones."""
    rng, ranges = np.random.default_rng(seed), box(network, -2.0, 3.0)
    parameters = {}
    for node, op in network.affine():
        codes = nearest(op, int(rng.integers(2, 9)), int(rng.integers(2, 12)))
        bias = codes.bias if rng.random() < 0.5 else codes.bias_format.quantize(0.1 * rng.normal(size=op.bias.shape))
        parameters[node.name] = AffineCodes(codes.kernel, codes.kernel_format, bias, codes.bias_format)
    bits = {name: int(rng.integers(2, 9)) for name in network.rounding_points}
    return with_parameters(network, ranges, parameters, bits), ranges
