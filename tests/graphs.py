"""Random networks with several readers and several inputs per operation, and their exact evaluation in fractions."""

import math
from fractions import Fraction

import numpy as np

from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import (
    Add,
    Concatenate,
    Crop,
    Dense,
    Input,
    MaxPool,
    Multiply,
    Op,
    Pad,
    Permute,
    Relu,
    Reshape,
    Upsample,
)

from .networks import Box, box, float32, nearest, with_parameters

Shape = tuple[int, ...]
LARGEST = 12
IMAGES = {2: (1, 2, 1), 3: (3, 1, 1), 4: (2, 2, 1), 6: (3, 2, 1), 8: (2, 2, 2), 9: (3, 3, 1), 12: (2, 3, 2)}


class Builder:
    """A network in the making: every tensor so far with its shape."""

    def __init__(self, rng: np.random.Generator, shape: Shape) -> None:
        self.rng = rng
        self.nodes = [Node("x", Input(shape), (), "x")]
        self.shapes: dict[str, Shape] = {"x": shape}

    def add(self, op: Op, *inputs: str) -> str:
        """Append an operation; returns its name, which says what it is and where."""
        name = f"{op.kind}_{len(self.nodes)}"
        self.shapes[name] = op.output_shape(*(self.shapes[one] for one in inputs))
        self.nodes.append(Node(name, op, inputs, name))
        return name

    def flat(self, name: str) -> str:
        """The tensor on one axis."""
        shape = self.shapes[name]
        return name if len(shape) == 1 else self.add(Reshape(shape, (math.prod(shape),)), name)

    def dense(self, name: str, outputs: int) -> str:
        """A dense layer on the flattened tensor, with a ReLU more often than not."""
        name = self.flat(name)
        inputs = self.shapes[name][0]
        kernel = self.rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        name = self.add(Dense(float32(kernel), float32(0.3 * self.rng.normal(size=outputs))), name)
        return self.add(Relu(), name) if self.rng.random() < 0.7 else name

    def pick(self) -> str:
        """A tensor, a late one more often than not."""
        names = list(self.shapes)
        return names[-1] if self.rng.random() < 0.5 else names[int(self.rng.integers(0, len(names)))]

    def move(self, name: str) -> str:
        """One of the operations that move values, or a pooling."""
        shape, rng = self.shapes[name], self.rng
        if len(shape) == 1 and shape[0] in IMAGES and rng.random() < 0.7:
            return self.add(Reshape(shape, IMAGES[shape[0]]), name)
        choice = int(rng.integers(0, 5))
        if choice == 0:
            return self.add(Permute(tuple(int(i) for i in rng.permutation(len(shape)))), name)
        if choice == 1:
            before = tuple(int(rng.integers(0, min(2, size))) for size in shape)
            after = tuple(int(rng.integers(0, min(2, size - b))) for size, b in zip(shape, before, strict=True))
            return self.add(Crop(before, after), name)
        if choice == 2 and math.prod(shape) <= LARGEST // 2:
            sides = (tuple(int(one) for one in rng.integers(0, 2, len(shape))) for _ in range(2))
            return self.add(Pad(*sides), name)
        if choice == 3 and math.prod(shape) <= LARGEST // 2:
            repeats = [1] * len(shape)
            repeats[int(rng.integers(0, len(shape)))] = 2
            return self.add(Upsample(tuple(repeats)), name)
        if len(shape) > 1:
            pool = tuple(int(rng.integers(1, min(2, size) + 1)) for size in shape[:-1])
            strides = tuple(int(one) for one in rng.integers(1, 3, len(pool)))
            return self.add(MaxPool(pool, strides, str(rng.choice(["valid", "same"]))), name)
        return self.add(Relu(), name)

    def join(self, name: str) -> str:
        """A sum, difference, mean or product with another tensor of the same shape, or both one behind the other."""
        rng, shape = self.rng, self.shapes[name]
        others = [one for one, found in self.shapes.items() if found == shape]
        other = others[int(rng.integers(0, len(others)))]
        choice = int(rng.integers(0, 6))
        if choice < 2:
            minus = (bool(rng.random() < 0.3), bool(rng.random() < 0.3) and other != name)
            return self.add(Add(minus, -int(rng.integers(0, 2))), name, other)
        if choice < 4:
            if rng.random() < 0.5 and shape[-1] > 1:  # a gate that is broadcast
                gate = self.flat(self.dense(name, shape[-1]))
                target = (*(1,) * (len(shape) - 1), shape[-1])
                other = gate if target == (shape[-1],) else self.add(Reshape((shape[-1],), target), gate)
            return self.add(Multiply(), name, other)
        axis = int(rng.integers(0, len(shape)))
        if 2 * math.prod(shape) <= LARGEST:
            return self.add(Concatenate(axis), name, other)
        return self.add(Add((False, other != name)), name, other)


def random_graph(rng: np.random.Generator, steps: int = 7) -> Network:
    """A network in which every tensor reaches the output, most of them along several ways."""
    sizes = list(IMAGES)
    builder = Builder(rng, (int(rng.integers(2, 5)),))
    builder.dense("x", sizes[int(rng.integers(0, len(sizes)))])
    for _ in range(steps):
        name, choice = builder.pick(), rng.random()
        if choice < 0.25:
            builder.dense(name, sizes[int(rng.integers(0, 4))])
        elif choice < 0.6:
            builder.move(name)
        else:
            builder.join(name)
    read = {name for node in builder.nodes for name in node.inputs}
    ends = [builder.flat(name) for name in list(builder.shapes) if name not in read]
    last = ends[0] if len(ends) == 1 else builder.add(Concatenate(0), *ends)
    if rng.random() < 0.5:
        builder.dense(last, 2)
    return Network(tuple(builder.nodes))


def random_twin(rng: np.random.Generator, network: Network) -> tuple[Pair, Box]:
    """The fixed-point network with random fractional bits on every tensor, and the box its formats are made for."""
    parameters = {
        node.name: nearest(op, int(rng.integers(1, 10)), int(rng.integers(2, 16)))
        for node, op in network.affine()
        if isinstance(op, Dense)
    }
    bits = {name: int(rng.integers(1, 10)) for name in network.rounding_points}
    ranges = box(network)
    return with_parameters(network, ranges, parameters, bits), ranges


def trace(quantized: Pair, x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every node's exact float value and fixed-point value, rounded, at one point; codes saturate."""
    from .property.test_structural_ops import exact

    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    fractions = np.vectorize(Fraction, otypes=[object])
    for node in quantized.network.nodes:
        pairs = [found[name] for name in node.inputs] or [(fractions(x), fractions(x))]
        real, fixed = ([one[part] for one in pairs] for part in range(2))
        if isinstance(node.op, Dense):
            codes = quantized.parameters[node.name]
            scales = [Fraction(2) ** -one.fractional_bits for one in (codes.kernel_format, codes.bias_format)]
            value = real[0] @ fractions(node.op.kernel) + fractions(node.op.bias)
            twin = fixed[0] @ (fractions(codes.kernel) * scales[0]) + fractions(codes.bias) * scales[1]
        elif isinstance(node.op, Input):
            value, twin = real[0], fixed[0]
        elif isinstance(node.op, Relu):
            value, twin = np.maximum(real[0], 0), np.maximum(fixed[0], 0)
        elif isinstance(node.op, Reshape):
            value, twin = (one[0].reshape(node.op.shape) for one in (real, fixed))
        else:
            value, twin = (exact(node.op, [one[None] for one in tensors])[0] for tensors in (real, fixed))
        output = quantized.formats.get(node.name)
        if output is not None:
            step = Fraction(2) ** -output.fractional_bits
            codes_of = [min(max(round(one / step), output.min_code), output.max_code) for one in twin.ravel()]
            twin = np.array([code * step for code in codes_of], dtype=object).reshape(twin.shape)
        found[node.name] = value, twin
    return found
