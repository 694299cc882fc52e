"""Layer normalisation: `y = (x - mean x) / sqrt(var x + epsilon)` over the last axis; see `layer_norm_pair` for the integers.

With s the root and P = I - 11'/n, which subtracts the mean, the Jacobian is

    J = (P - y y'/n) / s,

for `s**2 = x'Px/n + epsilon` gives `ds = y'dx/n`, as y = Px/s, and so `dy = (P dx - y ds) / s`. It is symmetric, and what
stands in the brackets has eigenvalues from 0 to 1, because `|y|**2 <= n`. Between two rows x and x_q = x + d the mean value
theorem says `y_q - y = J d`, elementwise, for a mean of Jacobians on the segment between them, all of which lie in any
enclosure over a convex set that holds both.

The enclosures use `|y_i| <= |c_i| / sqrt(c_i**2 / (n - 1) + epsilon)` for a deviation c_i from the mean: the others add up to
-c_i, so their squares to at least `c_i**2 / (n - 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval, down, gamma, inflate, sum_up, up
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape
from sound_qkeras.network.ops.elementwise import absorb
from sound_qkeras.network.ops.layer_norm_pair import LayerNormPair
from sound_qkeras.network.ops.lookup import joint_format

# Below, no proof could tell epsilon from nothing; above, the result is next to zero.
LEAST_EPSILON, MOST_EPSILON = 2.0**-60, 2.0**20


@dataclass(frozen=True)
class Spread:
    """Enclosures for rows in intervals: deviations from the mean, the root, and the normalised values."""

    deviation: Interval
    root: Interval
    value: Interval

    @property
    def reciprocal(self) -> Interval:
        """Of the root."""
        return Interval(down(1.0 / self.root.upper), up(1.0 / self.root.lower))


@dataclass(frozen=True)
class Jacobian:
    """`J_c = factor (P - value value'/n)` at some point, in the rows of some results; in others zero stands for it.

    Attributes:
        used: 1 where a result has its row, else 0.
        rest: encloses what the result, or its difference, is beside it.
    """

    factor: Reals
    value: Reals
    used: Reals
    rest: Interval

    def pull(self, rows: Reals) -> Reals:
        """`J_c' rows`, rows of shape `(boxes, rows, *shape)`."""
        size, value = rows.shape[-1], self.value[:, None]
        kept = rows * self.used[:, None]
        along = (kept * value).sum(axis=-1, keepdims=True) / size
        return self.factor[:, None] * (kept - kept.mean(axis=-1, keepdims=True) - along * value)


@dataclass(frozen=True)
class LayerNorm(Op):
    """Rows along the last axis less their mean, over the root of their variance plus epsilon.

    Args:
        size: of a row.
        epsilon: the float64 number in the layer's configuration.
    """

    kind: ClassVar[str] = "layer_norm"
    multiplies: ClassVar[bool] = True
    rounds: ClassVar[bool] = True
    relaxes: ClassVar[bool] = True
    derives: ClassVar[bool] = True
    size: int
    epsilon: float

    def __post_init__(self) -> None:
        """Refuse an epsilon that leaves a division by zero, or is no number."""
        if not (type(self.size) is int and self.size >= 2 and LEAST_EPSILON <= self.epsilon <= MOST_EPSILON):
            raise ModelError(
                f"rows of {self.size} values are normalised with epsilon {self.epsilon:g}; accepted: two values or more, and "
                f"{LEAST_EPSILON:.3g} to {MOST_EPSILON:.3g}; retrain with other ones"
            )

    @property
    def longest_input(self) -> int:
        """So that squares of long rows, and results of about sixteen bits, fit 62 bits."""
        return max(2, 26 - (self.size - 1).bit_length())

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The input's shape."""
        if len(input_shapes) != 1 or input_shapes[0][-1:] != (self.size,):
            raise ModelError(f"rows of {self.size} values are normalised, received {list(input_shapes)}")
        return input_shapes[0]

    def pair(self, sources: Sequence[Format], output: Format | None) -> LayerNormPair:
        """The integers between the formats; what is read from several is read in one that holds them all."""
        if output is None:
            raise TypeError("a normalisation's result has a format")
        return LayerNormPair(self.size, self.epsilon, joint_format(sources), output)

    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value."""
        return self._at(inputs[0])[0]

    def _at(self, x: Reals) -> tuple[Reals, Reals]:
        """The value and the reciprocal of the root, in float64."""
        deviation = x - x.mean(axis=-1, keepdims=True)
        factor = 1.0 / np.sqrt((deviation**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return deviation * factor, factor

    def spread(self, x: Interval) -> Spread:
        """What is known of rows in intervals."""
        deviation, size = centered(x), self.size
        nearest = np.maximum(np.maximum(deviation.lower, -deviation.upper), 0.0)
        least = np.sum(nearest**2, axis=-1, keepdims=True) * (1.0 - gamma(size + 8)) / size
        # The mean square distance from any number is at least the variance.
        middle = x.center.mean(axis=-1, keepdims=True)
        farthest = up(np.maximum(np.abs(x.lower - middle), np.abs(x.upper - middle)))
        most = np.minimum(*(sum_up(part**2)[..., None] for part in (farthest, deviation.magnitude)))
        root = Interval(
            down(np.sqrt(down(np.maximum(down(least), 0.0) + self.epsilon))),
            up(np.sqrt(up(up(most / size) + self.epsilon))),
        )
        value = Interval(-self._highest(-deviation, root), self._highest(deviation, root))
        return Spread(deviation, root, value)

    def _highest(self, deviation: Interval, root: Interval) -> Reals:
        """Upper bounds of the normalised values: `c / s` rises with c where the least s that goes with it is taken."""
        end = deviation.upper
        own = down(np.sqrt(down(down(down(end**2) / (self.size - 1)) + self.epsilon)))
        return np.where(end > 0.0, up(end / np.maximum(own, root.lower)), up(end / root.upper))

    def interval(self, *inputs: Interval) -> Interval:
        """Deviations over roots."""
        return self.spread(inputs[0]).value

    def fixed_interval(self, parameters: LayerNormPair | None, *inputs: Interval) -> Interval:
        """The same, and what the integers are off by."""
        exact = self.interval(*inputs)
        return exact if parameters is None else exact.widened(parameters.error(exact))

    def difference(self, parameters: LayerNormPair | None, *inputs: Facts) -> Interval:
        """`J d`, which is no longer than `d / s`, and what the integers are off by."""
        z, zq, d = inputs[0].pair()
        return self._moved(self.spread(_hull(z, zq)), d).widened(self._error(parameters, zq))

    def _error(self, parameters: LayerNormPair | None, zq: Interval) -> Reals:
        return np.zeros(zq.shape) if parameters is None else parameters.error(self.interval(zq))

    def _moved(self, known: Spread, d: Interval) -> Interval:
        """An enclosure of `J d` over all the Jacobians."""
        along = _share(_total(known.value * d), self.size)
        found = known.reciprocal * (centered(d) - known.value * along)
        length = up(up(np.sqrt(sum_up(d.magnitude**2)))[..., None] / known.root.lower)
        return Interval(np.maximum(found.lower, -length), np.minimum(found.upper, length))

    def _jacobian(self, known: Spread, d: Interval, offset: Interval | None, whole: Interval) -> Jacobian:
        """The middle of the Jacobians, which leaves the others times d; nothing where that encloses more than `whole`.

        With `k = y / s`, `k_i (y . d) - k_ci (y_c . d) = (k_i - k_ci) (y . d) + k_ci ((y - y_c) . d)`.
        """
        factor, value = known.reciprocal.center, known.value.center
        scaled, held = known.reciprocal * known.value, Interval.point(factor) * Interval.point(value)
        along = (scaled - held) * _total(known.value * d) + held * _total((known.value - Interval.point(value)) * d)
        rest = (known.reciprocal - Interval.point(factor)) * centered(d) - _share(along, self.size)
        rest = rest if offset is None else rest + offset
        used = rest.upper - rest.lower < whole.upper - whole.lower
        chosen = Interval(np.where(used, rest.lower, whole.lower), np.where(used, rest.upper, whole.upper))
        return Jacobian(factor, value, used.astype(np.float64), chosen)

    def _charged(self, found: Jacobian, size: Reals) -> Interval:
        """The rest, and what rounding the pulled rows may add before values of at most that size."""
        terms = 2 * self.size + 16
        mean = size.mean(axis=-1, keepdims=True)
        along = np.abs(found.value) * (np.abs(found.value) * size).mean(axis=-1, keepdims=True)
        return found.rest.widened(inflate(gamma(terms) * found.factor * found.used * (size + mean + along), terms))

    def _difference_part(self, parameters: LayerNormPair | None, facts: Facts) -> Jacobian:
        z, zq, d = facts.pair()
        known = self.spread(_hull(z, zq))
        found = self._jacobian(known, d, None, self._moved(known, d))
        rest = self._charged(found, d.magnitude).widened(self._error(parameters, zq))
        return Jacobian(found.factor, found.value, found.used, rest)

    def _value_part(self, facts: Facts) -> Jacobian:
        """`y(x) = y(m) + J (x - m)`: the middle of the Jacobians leaves `y(m) - J_c m` and the others times `x - m`."""
        x, known = facts.value, self.spread(facts.value)
        middle = Interval.point(x.center)
        factor, value = known.reciprocal.center, known.value.center
        along = _share(_total(Interval.point(value) * middle), self.size)
        moved = Interval.point(factor) * (centered(middle) - Interval.point(value) * along)
        found = self._jacobian(known, x - middle, self.interval(middle) - moved, known.value)
        return Jacobian(found.factor, found.value, found.used, self._charged(found, x.magnitude))

    def adjoint(
        self, parameters: LayerNormPair | None, rows: Rows, remainder: Remainder, *inputs: Facts
    ) -> tuple[Rows, ...]:
        """The rows times the middle of the Jacobians, worked out once for one set of facts."""
        facts = inputs[0]
        remainder.widen_for_underflow(facts)
        value, difference = None, None
        if rows.difference is not None:
            found = facts.once((id(self), id(parameters)), lambda: self._difference_part(parameters, facts))
            difference = found.pull(rows.difference)
            absorb(remainder, rows.difference, found.rest)
        if rows.value is not None:
            found = facts.once((id(self), None), lambda: self._value_part(facts))
            value = found.pull(rows.value)
            absorb(remainder, rows.value, found.rest)
        return (Rows(value, difference),)

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Rows times the Jacobian, which is symmetric."""
        value, factor = self._at(inputs[0])
        return (Jacobian(factor, value, np.ones_like(value), Interval.point(value)).pull(rows),)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """The Jacobian times directions."""
        return self.gradient(rows[0], *inputs)[0]

    def integer(
        self, parameters: LayerNormPair, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """The exact results: float64 where that holds all of them, else int64."""
        read = np.asarray(codes[0]).astype(np.int64) << (parameters.source.fractional_bits - fractional_bits[0])
        found = parameters.results(read)
        return found.astype(np.float64) if parameters.result_length <= 53 else found

    def fractional_bits(self, parameters: LayerNormPair, *inputs: int) -> int:
        """Those of the products."""
        return parameters.result_bits

    def code_magnitude(self, parameters: LayerNormPair, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """The largest code there can be: the result is rounded at once."""
        return np.full_like(magnitudes[0], float(max(parameters.output.max_code, -parameters.output.min_code)))

    def carried_error(self, parameters: LayerNormPair | None, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """Twice what the integers are off by, and the errors over the root of epsilon, twice as what is read is rounded again.

        Without integers a library computes it, in whatever way: nothing is known of its error.
        """
        if parameters is None:
            return np.full_like(errors[0], np.inf)
        total = sum_up(errors[0])[..., None]
        moved = up(2.0 * total / down(np.sqrt(self.epsilon)))
        off = up(2.0 * parameters.relative_error * up(np.sqrt(float(self.size))))
        wrong = np.any(errors[0] > 0.0, axis=-1, keepdims=True)
        return np.broadcast_to(np.where(wrong, up(moved + off), 0.0), errors[0].shape)

    def input_products(self, *input_shapes: Shape) -> int:
        """Every value times its deviation from the mean, and that times what is looked up."""
        return 2 * math.prod(input_shapes[0])


def centered(x: Interval) -> Interval:
    """Deviations from the mean of rows, exactly but for rounding: `x_i` counts once in both."""
    size, magnitude = x.shape[-1], x.magnitude
    width = x.upper - x.lower
    lower = x.lower - (np.sum(x.upper, axis=-1, keepdims=True) - width) / size
    upper = x.upper - (np.sum(x.lower, axis=-1, keepdims=True) + width) / size
    terms = magnitude + (np.sum(magnitude, axis=-1, keepdims=True) + 4.0 * magnitude) / size
    return Interval(lower, upper).widened(inflate(gamma(size + 8) * terms, size + 8))


def _total(x: Interval) -> Interval:
    """The sum along rows, with an axis of one."""
    size = x.shape[-1]
    lower, upper, magnitude = (np.sum(part, axis=-1, keepdims=True) for part in (x.lower, x.upper, x.magnitude))
    return Interval(lower, upper).widened(inflate(gamma(size) * magnitude, size))


def _share(x: Interval, size: int) -> Interval:
    """Over the number of values of a row."""
    return Interval(down(x.lower / size), up(x.upper / size))


def _hull(a: Interval, b: Interval) -> Interval:
    return Interval(np.minimum(a.lower, b.lower), np.maximum(a.upper, b.upper))
