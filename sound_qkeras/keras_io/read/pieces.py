"""What Keras layers become on the way to a network, with parameters as intervals that contain the exact ones.

The trained network is exact real arithmetic over stored parameters. What is folded together is rarely a float64 number,
so it is enclosed, and ends as the centres and radii of the network's operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Interval, Reals, down, gamma, inflate, up
from sound_qkeras.network.graph import Node
from sound_qkeras.network.grids import Grid
from sound_qkeras.network.ops import Affine, Dense, Op, Scale
from sound_qkeras.types import Shape


@dataclass(frozen=True)
class Diagonal:
    """`y = scale * x + offset`, elementwise, both of the tensor's whole shape.

    `offset_terms` bounds the sum of the absolute terms that Keras makes the offset of; None where it adds a constant.
    """

    scale: Interval
    offset: Interval
    offset_terms: Reals | None = None

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.scale.shape

    @property
    def is_finite(self) -> bool:
        """Whether no parameter exceeds the float64 range."""
        return _all_finite(self.scale) and _all_finite(self.offset)

    def reshaped(self, shape: Shape) -> Diagonal:
        """The same map on a tensor of another shape."""
        return Diagonal(self.scale.mapped(lambda x: x.reshape(shape)), self.offset.mapped(lambda x: x.reshape(shape)))

    def fed_by(self, first: Diagonal) -> Diagonal:
        """`first`, and then this."""
        first = first.reshaped(self.shape)
        return Diagonal(product(self.scale, first.scale), product(self.scale, first.offset) + self.offset)

    def channelwise(self, shape: Shape) -> Diagonal | None:
        """The same map as factors of channels `(channels,)`, if it is one on a tensor of this shape."""
        rows = self.reshaped((-1, shape[-1]))
        alike = [bool(np.all(end == end[:1])) for part in (rows.scale, rows.offset) for end in (part.lower, part.upper)]
        return Diagonal(rows.scale[0], rows.offset[0]) if all(alike) else None

    def to_op(self) -> Scale:
        """The network's operation, with factors of channels where that is all there is."""
        found = self.channelwise(self.shape) or self
        return Scale(found.scale.center, found.offset.center, _radius(found.scale), _radius(found.offset))


@dataclass(frozen=True)
class Linear:
    """A layer with a kernel `(..., inputs of a group, outputs)`, on the last axis of a tensor.

    Args:
        kernel, bias: enclosures of the parameters.
        input_shape, output_shape: of one sample.
        build: makes the network's operation from centres and radii.
        groups: into how many parts the channels are divided.
        padded: whether it also reads zeros beside its input.
    """

    kernel: Interval
    bias: Interval
    input_shape: Shape
    output_shape: Shape
    build: Callable[[Reals, Reals, Reals | None, Reals | None], Affine] = Dense
    groups: int = 1
    padded: bool = False

    @property
    def is_finite(self) -> bool:
        """Whether no parameter exceeds the float64 range."""
        return _all_finite(self.kernel) and _all_finite(self.bias)

    def then(self, last: Diagonal) -> Linear | None:
        """This, and then `last`; None where that is no layer of this kind."""
        found = last.channelwise(self.output_shape)
        if found is None:
            return None
        kernel = product(self.kernel, found.scale)
        return replace(self, kernel=kernel, bias=product(self.bias, found.scale) + found.offset)

    def fed_by(self, first: Diagonal) -> Linear | None:
        """`first`, and then this; None where that is no layer of this kind.

        An offset cannot pass padding: the zeros beside the input have none.
        """
        found = first.channelwise(self.input_shape)
        if found is None or (self.padded and np.any(found.offset.magnitude)):
            return None
        offset, bias = found.offset.mapped(self._of_inputs), self.bias
        if np.any(offset.magnitude):
            bias = bias + _weighted_sum(offset, self.kernel)
        return replace(self, kernel=product(self.kernel, found.scale.mapped(self._of_inputs)), bias=bias)

    def _of_inputs(self, channels: Reals) -> Reals:
        """Numbers of the input channels, as the kernel's last two axes see them."""
        groups, width = self.groups, self.kernel.shape[-1] // self.groups
        return np.repeat(channels.reshape(groups, -1), width, axis=0).T

    def to_op(self) -> Affine:
        """The network's operation: centres, and radii where the parameters are not float64 numbers."""
        return self.build(self.kernel.center, self.bias.center, _radius(self.kernel), _radius(self.bias))


@dataclass(frozen=True)
class Head:
    """A final softmax or sigmoid, which is set aside."""

    activation: str


@dataclass(frozen=True)
class Rounded:
    """A quantizer of a QKeras model: the identity in the float network.

    Args:
        rounding: what it does to values.
        text: the quantizer as QKeras writes it.
    """

    rounding: Grid
    text: str

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        return shapes[0]


@dataclass(frozen=True)
class Gain:
    """A constant that a quantizer multiplies its result with: one in the float network."""

    factor: float

    def output_shape(self, *shapes: Shape) -> Shape:
        """The input's shape."""
        return shapes[0]


# What a layer's part may be on the way.
Piece = Op | Linear | Diagonal | Head | Rounded | Gain


@dataclass(frozen=True)
class Step:
    """A node in the making.

    Args:
        name: unique among the steps.
        op: an operation of the network, or a piece that is folded, converted or set aside first.
        inputs: names of the steps it reads, all of them earlier.
        layer: the Keras layer it came from.
        kind: that layer's class, for messages.
        place: where its parameters are; two steps with one place may share them. Empty for those without.
    """

    name: str
    op: Piece
    inputs: tuple[str, ...]
    layer: str
    kind: str
    place: str = ""


def sharing(places: Mapping[str, str], *networks: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Nodes that share the parameters of an earlier one with the same place, unless something else was folded into them.

    Args:
        places: by node name; see `Step`.
        networks: the same nodes, with different parameters.
    """
    made = [{node.name: node for node in nodes} for nodes in networks]
    owners: dict[str, list[str]] = {}

    def alike(name: str, owner: str) -> bool:
        ops = [(nodes[name].op, nodes[owner].op) for nodes in made]
        return all(isinstance(op, Affine) and op.has_parameters_of(other) for op, other in ops)

    for name in made[0]:
        known = owners.setdefault(places[name], []) if places.get(name) else []
        owner = next((owner for owner in known if alike(name, owner)), None)
        if owner is None:
            known.append(name)
        else:
            for nodes in made:
                nodes[name] = replace(nodes[name], shares=owner)
    return [tuple(nodes.values()) for nodes in made]


def product(a: Interval, b: Interval) -> Interval:
    """An enclosure of `a * b`; exact where both are float32 numbers, whose products float64 holds."""
    wide, plain = a * b, a.lower * b.lower
    exact = _is_float32(a) & _is_float32(b)
    return Interval(np.where(exact, plain, wide.lower), np.where(exact, plain, wide.upper))


def quotient(a: Interval, b: Interval) -> Interval:
    """An enclosure of `a / b` for positive `b`."""
    ends = [x / y for x in (a.lower, a.upper) for y in (b.lower, b.upper)]
    return Interval(down(np.minimum.reduce(ends)), up(np.maximum.reduce(ends)))


def square_root(x: Interval) -> Interval:
    """An enclosure of the square root of a nonnegative `x`, nonnegative itself."""
    return Interval(np.maximum(down(np.sqrt(x.lower)), 0.0), up(np.sqrt(x.upper)))


def _weighted_sum(x: Interval, kernel: Interval) -> Interval:
    """An enclosure of the sum of `x * kernel` over all axes but the last, in centre and radius form."""
    axes = tuple(range(len(kernel.shape) - 1))
    terms = int(np.prod(kernel.shape[:-1]))
    center, magnitude = kernel.center, np.abs(x.center)
    slack = magnitude * kernel.radius + x.radius * (np.abs(center) + kernel.radius)
    slack = np.sum(slack + gamma(terms) * (magnitude * np.abs(center)), axis=axes)
    return Interval.around(np.sum(x.center * center, axis=axes), inflate(slack, 2 * terms + 8))


def _is_float32(x: Interval) -> npt.NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        narrow = x.lower.astype(np.float32).astype(np.float64)
    return (x.lower == x.upper) & (narrow == x.lower)


def _all_finite(x: Interval) -> bool:
    return bool(np.all(np.isfinite(x.magnitude)))


def _radius(x: Interval) -> Reals | None:
    radius = x.radius
    return radius if np.any(radius) else None
