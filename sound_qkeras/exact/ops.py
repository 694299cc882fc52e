"""Operations in exact rational arithmetic, on flattened tensors: nothing of the operations' own arithmetic is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.dyadic import Dyadic, Integers, Range
from sound_qkeras.exact.matrices import Indices, coefficients
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.network import Node, Pair

# Slopes of the chords of unstable ReLUs are cut to this many bits; any slope in [0, 1] is sound.
SLOPE_BITS = 64
# Ways to choose lines, beside those of `Lines.differences`: for a bound from above, or from below, see `between`.
ABOVE, BELOW = 2, 3


class Meaning(ABC):
    """One node of a pair of networks in exact numbers."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Prepare what does not depend on the inputs."""
        self.node = node

    @abstractmethod
    def real(self, *inputs: Range) -> Range:
        """The trained network's result."""

    @abstractmethod
    def fixed(self, *inputs: Range) -> Range:
        """The fixed-point network's result before its rounding."""

    @abstractmethod
    def difference(self, *inputs: ExactFacts) -> Range:
        """The second minus the first."""

    @abstractmethod
    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Rows in the inputs that stand for rows in the result, up to a range."""

    def grid(self, *grids: int) -> int:
        """Fractional bits that every value of the fixed-point result has."""
        return max(grids)

    def facts(self, *inputs: ExactFacts) -> ExactFacts:
        """What follows of the result, before its rounding, from what is known of the inputs."""
        grids = [source.grid for source in inputs]
        if None in grids:
            layer = self.node.layer
            raise VerificationError(f"layer '{layer}' reads a value that is never rounded", layer_name=layer)
        return ExactFacts(
            self.real(*(source.value for source in inputs)),
            self.fixed(*(source.fixed for source in inputs)),
            self.difference(*inputs),
            self.grid(*(grid for grid in grids if grid is not None)),
        )


def no_rest(rows: ExactRows) -> Range:
    """The range of rows that were pulled back exactly."""
    return Range.point(Dyadic.zeros(rows.value.shape[0]))


class ExactAffine(Meaning):
    """One affine layer as a matrix, `(outputs, inputs)`."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Parameters, integers, residuals and radii as exact numbers."""
        super().__init__(node, quantized)
        arrays, codes, shapes = node.op.arrays(), quantized.codes(node.name), quantized.network.shapes
        entries = coefficients(node, shapes[node.inputs[0]], shapes[node.name])

        def matrix(kernel: Dyadic) -> Dyadic:
            return Dyadic(np.append(kernel.numbers.reshape(-1), [0]), kernel.bits)[entries]  # `NONE` is the last

        def vector(bias: Dyadic) -> Dyadic:
            positions = entries.shape[0] // codes.bias.size
            return Dyadic(np.tile(bias.numbers.reshape(-1), positions), bias.bits)

        self.kernel, self.bias = matrix(Dyadic.of(arrays["kernel"])), vector(Dyadic.of(arrays["bias"]))
        self.kernel_bits, self.bias_bits = codes.kernel_format.fractional_bits, codes.bias_format.fractional_bits
        self.fixed_kernel = matrix(Dyadic.codes(codes.kernel, self.kernel_bits))
        self.fixed_bias = vector(Dyadic.codes(codes.bias, self.bias_bits))
        self.residual, self.bias_residual = self.fixed_kernel - self.kernel, self.fixed_bias - self.bias
        self.kernel_radius = matrix(Dyadic.of(arrays["kernel_radius"])) if "kernel_radius" in arrays else None
        self.bias_radius = vector(Dyadic.of(arrays["bias_radius"])) if "bias_radius" in arrays else None

    def slack(self, x: Range) -> Dyadic | None:
        """How far the parameters' radii may move each output, or None where the parameters are exact."""
        if self.kernel_radius is None:
            return self.bias_radius
        moved = self.kernel_radius @ x.magnitude()
        return moved if self.bias_radius is None else moved + self.bias_radius

    def real(self, *inputs: Range) -> Range:
        """The trained layer's result."""
        result, slack = inputs[0].under(self.kernel) + Range.point(self.bias), self.slack(inputs[0])
        return result if slack is None else result + Range.symmetric(slack)

    def fixed(self, *inputs: Range) -> Range:
        """The fixed-point layer's sum."""
        return inputs[0].under(self.fixed_kernel) + Range.point(self.fixed_bias)

    def difference(self, *inputs: ExactFacts) -> Range:
        """`W_q d + dW x + db`, and what the radii add."""
        x, d = inputs[0].value, inputs[0].difference
        result = d.under(self.fixed_kernel) + x.under(self.residual) + Range.point(self.bias_residual)
        slack = self.slack(x)
        return result if slack is None else result + Range.symmetric(slack)

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Through both kernels, and the residual, which turns difference rows into value rows."""
        value = rows.difference @ self.residual + rows.value @ self.kernel
        rest = Range.point(rows.difference @ self.bias_residual + rows.value @ self.bias)
        slack = self.slack(inputs[0].value)
        if slack is not None:
            rest += Range.symmetric((rows.value - rows.difference).magnitude() @ slack)
        return (ExactRows(value, rows.difference @ self.fixed_kernel),), rest

    def grid(self, *grids: int) -> int:
        """That of the products or of the bias, whichever is finer."""
        return max(grids[0] + self.kernel_bits, self.bias_bits)


def affine_at(
    outputs: int, read: tuple[Indices, Indices, Indices], x: Range, parameters: Mapping[str, Dyadic]
) -> Range:
    """An affine layer's result for one input, product by product: a matrix of a convolution would hardly have another entry than 0.

    Args:
        outputs: how many results it has.
        read: its `entries`.
        x: what it reads, flattened.
        parameters: exact "kernel" and "bias", and "kernel_radius" and "bias_radius" where those are only enclosed.
    """
    results, sources, elements = read

    def summed(products: Dyadic) -> Dyadic:
        total = Dyadic.zeros(outputs).numbers
        np.add.at(total, results, products.numbers)
        return Dyadic(total, products.bits)

    def vector(bias: Dyadic) -> Dyadic:
        return Dyadic(np.tile(bias.numbers.reshape(-1), outputs // bias.numbers.size), bias.bits)

    def each(kernel: Dyadic) -> Dyadic:
        return Dyadic(kernel.numbers.reshape(-1), kernel.bits)[elements]

    kernel = each(parameters["kernel"])
    rising, falling, low, high = kernel.positive(), kernel.negative(), x.lower[sources], x.upper[sources]
    found = Range(summed(rising * low + falling * high), summed(rising * high + falling * low))
    found = found + Range.point(vector(parameters["bias"]))
    if "kernel_radius" in parameters:
        found += Range.symmetric(summed(each(parameters["kernel_radius"]) * x.magnitude()[sources]))
    if "bias_radius" in parameters:
        found += Range.symmetric(vector(parameters["bias_radius"]))
    return found


class ExactRelu(Meaning):
    """`max(x, 0)`, replaced by lines."""

    lines: Lines | None = None

    def lines_of(self, facts: ExactFacts) -> Lines:
        """The lines for these facts; a proof asks for one tensor's again and again."""
        if self.lines is None or self.lines.facts is not facts:
            self.lines = Lines(facts)
        return self.lines

    def real(self, *inputs: Range) -> Range:
        """The image."""
        return inputs[0].positive()

    def fixed(self, *inputs: Range) -> Range:
        """The image."""
        return inputs[0].positive()

    def difference(self, *inputs: ExactFacts) -> Range:
        """What every line allows."""
        return self.lines_of(inputs[0]).image()

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Through the lines of the policy."""
        lines = self.lines_of(inputs[0])
        if policy in (ABOVE, BELOW):
            value, left = between(rows.value, lines.around_value, policy)
            difference, more = between(rows.difference, lines.around_difference, policy)
            return (ExactRows(value, difference),), left + more
        (slope, rest), (difference_slope, difference_rest) = lines.value, lines.differences[policy]
        pulled = ExactRows(rows.value * slope, rows.difference * difference_slope)
        return (pulled,), rest.under(rows.value) + difference_rest.under(rows.difference)


# By so much the identity must leave less than zero to be taken, as in the first proof: where both leave the same, as they do for
# networks without biases on boxes about zero, rounding errors of one proof would decide otherwise than the other proof.
CLEARLY = Dyadic.codes(np.array((1 << 20) + 1, dtype=object), 20)
# A slope and what it leaves over, for a bound from above and for one from below.
Around = tuple[tuple[Dyadic, Range], tuple[Dyadic, Range]]


class Lines:
    """Lines that stand for a ReLU, and exact ranges of what they leave over.

    For the difference, `d+ - s d` with `s` 0, 1 or 1/2:

        s = 0:    d+     in [max(min(d_lo, 0), -relu(z_hi)), min(max(d_hi, 0), relu(zq_hi))]
        s = 1:    the same of the mirrored unit, as relu(v) = v + relu(-v)
        s = 1/2:  d+     between 0 and d

    For the value, `relu(z) - s z in [0, max(-s z_lo, (1 - s) z_hi)]` with the chord's slope where the sign is open.
    """

    def __init__(self, facts: ExactFacts) -> None:
        """Lines for a unit of which so much is known."""
        self.facts = facts

    @staticmethod
    def _dead(z: Range, zq: Range, d: Range) -> Range:
        lower = d.lower.negative().maximum(-z.upper.positive())
        upper = d.upper.positive().minimum(zq.upper.positive())
        return Range(lower, upper)

    @cached_property
    def _rests(self) -> tuple[Range, Range, Range]:
        z, zq, d = self.facts.value, self.facts.fixed, self.facts.difference
        return self._dead(z, zq, d), self._dead(-z, -zq, -d), Range.symmetric(d.magnitude().halved())

    @cached_property
    def differences(self) -> tuple[tuple[Dyadic, Range], ...]:
        """Slopes and rests for the difference, by policy: whatever leaves least; 1/2 unless another leaves none.

        Neither is always better, as the slope also scales everything that lies before the unit.
        """
        zero, one, half = self._rests
        size = half.width.shape
        narrowest = (np.zeros(size, dtype=object), zero)
        for number, other in ((2, one), (1, half)):
            narrowest = _chosen(number, other, other.width.less(narrowest[1].width), *narrowest)
        decided = (np.ones(size, dtype=object), half)
        for number, other in ((0, zero), (2, one)):
            decided = _chosen(number, other, ~Dyadic.zeros().less(other.width), *decided)
        return tuple((Dyadic(numbers, 1), rest) for numbers, rest in (narrowest, decided))

    @cached_property
    def value(self) -> tuple[Dyadic, Range]:
        """Slopes and rests for the float value."""
        z, slope = self.facts.value, chord_of(self.facts.value)
        one = Dyadic.power(0)
        gap = (slope * -z.lower).maximum((one - slope) * z.upper)
        return slope, Range(gap - gap, gap)

    @cached_property
    def around_value(self) -> Around:
        """The chord above; below the identity or zero, whichever leaves less of the value, and zero if neither clearly does."""
        z = self.facts.value
        mirrored = (-z.lower).positive()
        steep = (mirrored * CLEARLY).less(z.upper.positive()) | ~Dyadic.zeros().less(mirrored)
        gap = mirrored.where(steep, z.upper.positive())
        return self.value, (Dyadic.codes(steep.astype(np.int64), 0), Range(gap - gap, gap))

    @cached_property
    def around_difference(self) -> Around:
        """`min(d, 0) <= d+ <= max(d, 0)`: the chords of both sides, unless parallel lines are closer to one another."""
        d, (parallel, rest) = self.facts.difference, self.differences[0]
        opens = (d.lower.magnitude() + d.upper.magnitude()).halved().less(rest.width)
        sides = (chord_of(d), chord_of(-d))
        above, below = ((slope.where(opens, parallel), _beside(slope, d).where(opens, rest)) for slope in sides)
        return above, below

    def image(self) -> Range:
        """The difference after the unit."""
        zero, one, _ = self._rests
        return zero.intersect(self.facts.difference + one)


def _chosen(
    number: int, rest: Range, condition: npt.NDArray[np.bool_], numbers: Integers, rests: Range
) -> tuple[Integers, Range]:
    """Slopes, in halves, and rests: these where the condition holds, those given before elsewhere."""
    return np.where(condition, number, numbers), rest.where(condition, rests)


def between(rows: Dyadic, lines: Around, policy: int) -> tuple[Dyadic, Range]:
    """Rows pulled back for a bound from above or from below, and the range of what is left over.

    From above, the first line stands where a coefficient is positive: there it leaves least above it. The second stands where
    one is negative; from below the other way round.
    """
    (first, rest), (second, rest_second) = lines if policy == ABOVE else (lines[1], lines[0])
    rising, falling = rows.positive(), rows.negative()
    return rising * first + falling * second, rest.under(rising) + rest_second.under(falling)


def chord_of(x: Range) -> Dyadic:
    """Slopes of the chords of `max(x, 0)`, in `[0, 1]`."""
    bits = max(x.lower.bits, x.upper.bits)
    ends = zip(x.lower.at(bits), x.upper.at(bits), strict=True)
    return Dyadic(np.array([_chord(int(low), int(high)) for low, high in ends], dtype=object), SLOPE_BITS)


def _beside(slope: Dyadic, d: Range) -> Range:
    """What `min(d, 0)` to `max(d, 0)` leaves over beside a line: the first is concave and the second convex, so the ends say it."""
    low, high = d.lower, d.upper
    lower = (low.negative() - slope * low).minimum(high.negative() - slope * high)
    upper = (low.positive() - slope * low).maximum(high.positive() - slope * high)
    return Range(lower, upper)


def _chord(low: int, high: int) -> int:
    if low >= 0:
        return 1 << SLOPE_BITS
    return 0 if high <= 0 else (high << SLOPE_BITS) // (high - low)
