"""What Keras layers become on the way to a network, with parameters as intervals that contain the exact ones.

The trained network is exact real arithmetic over stored parameters. What is folded together is rarely a float64 number,
so it is enclosed, and ends as the centres and radii of the network's operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Interval, Reals, down, gamma, inflate, up
from sound_qkeras.network.ops import Dense, Op

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Diagonal:
    """`y = scale * x + offset`, elementwise, both of the tensor's whole shape."""

    scale: Interval
    offset: Interval

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

    def to_linear(self) -> Linear:
        """The same map on a flat tensor as a matrix."""
        scale = self.reshaped((-1,)).scale
        return Linear(scale.mapped(np.diag), self.reshaped((-1,)).offset)


@dataclass(frozen=True)
class Linear:
    """`y = x @ kernel + bias`, kernel `(inputs, outputs)`."""

    kernel: Interval
    bias: Interval

    @property
    def is_finite(self) -> bool:
        """Whether no parameter exceeds the float64 range."""
        return _all_finite(self.kernel) and _all_finite(self.bias)

    def then(self, last: Diagonal) -> Linear:
        """This, and then `last`."""
        last = last.reshaped((-1,))
        return Linear(product(self.kernel, last.scale[None, :]), product(self.bias, last.scale) + last.offset)

    def fed_by(self, first: Diagonal) -> Linear:
        """`first`, and then this."""
        first = first.reshaped((-1,))
        shift = first.offset
        bias = self.bias + _dot(shift, self.kernel) if np.any(shift.magnitude) else self.bias
        return Linear(product(self.kernel, first.scale[:, None]), bias)

    def to_dense(self) -> Dense:
        """The network's operation: centres, and radii where the parameters are not float64 numbers."""
        return Dense(self.kernel.center, self.bias.center, _radius(self.kernel), _radius(self.bias))


@dataclass(frozen=True)
class Head:
    """A final softmax or sigmoid, which is set aside."""

    activation: str


@dataclass(frozen=True)
class Step:
    """A node in the making.

    Args:
        name: unique among the steps.
        op: an operation of the network, or a piece that is folded, converted or set aside first.
        inputs: names of the steps it reads, all of them earlier.
        layer: the Keras layer it came from.
        kind: that layer's class, for messages.
    """

    name: str
    op: Op | Linear | Diagonal | Head
    inputs: tuple[str, ...]
    layer: str
    kind: str


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


def _dot(x: Interval, kernel: Interval) -> Interval:
    """An enclosure of `x @ kernel` in centre and radius form."""
    center, radius, terms = kernel.center, kernel.radius, x.shape[0]
    magnitude = np.abs(x.center)
    slack = magnitude @ radius + x.radius @ (np.abs(center) + radius) + gamma(terms) * (magnitude @ np.abs(center))
    return Interval.around(x.center @ center, inflate(slack, 2 * terms + 8))


def _is_float32(x: Interval) -> npt.NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        narrow = x.lower.astype(np.float32).astype(np.float64)
    return (x.lower == x.upper) & (narrow == x.lower)


def _all_finite(x: Interval) -> bool:
    return bool(np.all(np.isfinite(x.magnitude)))


def _radius(x: Interval) -> Reals | None:
    radius = x.radius
    return radius if np.any(radius) else None
