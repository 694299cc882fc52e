"""A second proof, in exact rational arithmetic, that shares no arithmetic with the first.

For networks small enough, the bound is derived again from the graph, the parameters, the integers and the formats
alone, in Python integers: no float64 operation, none of the operations' own interval or adjoint code. What both proofs
share is the mathematics: with `d = x_q - x` an affine layer obeys `y_q - y = W_q d + (W_q - W) x + (b_q - b)`, and a
ReLU is replaced by a line and what the line leaves over (see `_Lines`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu, Reshape
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.verify.dyadic import Dyadic, Integers, Range

# Slopes of the chords of undecided ReLUs are cut to this many bits; any slope in [0, 1] is sound.
SLOPE_BITS = 64


def exact_bound(
    quantized: QuantizedNetwork, lower: npt.ArrayLike, upper: npt.ArrayLike, *, max_parameters: int = 1000
) -> list[Fraction]:
    """Prove a bound on `|f_q(x)_k - f(x)_k|` for every real input `x` of a box, and that nothing overflows on it.

    Guarantee: against exact real arithmetic over the stored parameters (all that the radii of folded ones allow); every
    number in the proof is an exact rational.

    Args:
        quantized: the network and its fixed-point twin.
        lower: lower ends of the box, shape `input_shape`, taken as the exact values of the float64 numbers.
        upper: upper ends of the box.
        max_parameters: refuse larger networks, which would take long.

    Returns:
        A bound for each output, flattened.

    Raises:
        InputError: the box is not finite, is empty or has another shape; or the network is too large.
        VerificationError: a rounding point or an accumulator may overflow its format, or an operation is unknown here.
    """
    count = quantized.network.parameter_count
    if count > max_parameters:
        raise InputError(
            f"the exact proof is for networks of up to {max_parameters} parameters, this one has {count}; "
            "raise max_parameters and allow for the time, or rely on the float64 proof"
        )
    proof = _Proof(quantized, _box(quantized, lower, upper))
    return proof.facts[quantized.network.output.name].difference.magnitude().fractions()


def exact_error(quantized: QuantizedNetwork, x: npt.ArrayLike) -> list[Fraction]:
    """`f_q(x) - f(x)` for one sample, exactly.

    Where folded parameters are only enclosed, so is the error; then the result is the part of it that is certain, the
    member of the enclosure nearest to zero. A proved bound is never below its magnitude.

    Args:
        quantized: the network and its fixed-point twin.
        x: one sample of float64 numbers, shape `input_shape`.
    """
    return [min(max(low, Fraction(0)), high) for low, high in exact_error_range(quantized, x)]


def exact_error_range(quantized: QuantizedNetwork, x: npt.ArrayLike) -> list[tuple[Fraction, Fraction]]:
    """An enclosure of each output's `f_q(x) - f(x)` for one sample; both ends are equal unless parameters were folded.

    Args:
        quantized: the network and its fixed-point twin; values that overflow their format saturate.
        x: one sample of float64 numbers, shape `input_shape`.
    """
    sample = _box(quantized, x, x).lower
    real, fixed = _trained(quantized.trained, sample), _fixed(quantized, sample)
    error = Range.point(fixed) - real
    return list(zip(error.lower.fractions(), error.upper.fractions(), strict=True))


# Exact types below: a kind derived from a known one would not have its meaning.
def _trained(network: Network, sample: Dyadic) -> Range:
    values: dict[str, Range] = {}
    for node in network.nodes:
        value = values[node.inputs[0]] if node.inputs else Range.point(sample)
        if type(node.op) is Dense:
            value = _Trained(node.op)(value)
        elif type(node.op) is Relu:
            value = value.positive()
        elif type(node.op) not in (Input, Reshape):
            raise _unknown(node)
        values[node.name] = value
    return values[network.output.name]


def _fixed(quantized: QuantizedNetwork, sample: Dyadic) -> Dyadic:
    values: dict[str, Dyadic] = {}
    for node in quantized.network.nodes:
        value = values[node.inputs[0]] if node.inputs else sample
        if type(node.op) is Dense:
            layer = _Layer(node.op, quantized, node.name)
            value = layer.fixed_kernel @ value + layer.fixed_bias
        elif type(node.op) is Relu:
            value = value.positive()
        elif type(node.op) not in (Input, Reshape):
            raise _unknown(node)
        output = quantized.formats.get(node.name)
        values[node.name] = value if output is None else _saturated(value, output)
    return values[quantized.network.output.name]


def _saturated(x: Dyadic, output: Format) -> Dyadic:
    codes = x.rounded(output.fractional_bits)
    return _values(np.minimum(np.maximum(codes, output.min_code), output.max_code), output)


def _values(codes: Integers, output: Format) -> Dyadic:
    return Dyadic.codes(codes, output.fractional_bits)


def _box(quantized: QuantizedNetwork, lower: npt.ArrayLike, upper: npt.ArrayLike) -> Range:
    """The box as exact numbers, flattened."""
    ends = [np.asarray(end, dtype=np.float64) for end in (lower, upper)]
    shape = quantized.network.input_shape
    if any(end.shape != shape for end in ends):
        raise InputError(f"the box has shapes {[end.shape for end in ends]}, expected {shape} twice")
    if not all(np.all(np.isfinite(end)) for end in ends) or np.any(ends[0] > ends[1]):
        raise InputError("the box holds NaN or infinity, or a lower end above its upper end")
    return Range(*(Dyadic.of(end.reshape(-1)) for end in ends))


def _unknown(node: Node) -> VerificationError:
    return VerificationError(
        f"layer '{node.layer or node.name}': the exact proof does not know operations of kind '{node.op.kind}'; "
        "it knows input, dense, relu and reshape; rely on the float64 proof",
        layer_name=node.layer,
    )


class _Trained:
    """One trained Dense layer in exact numbers; the kernel is `(outputs, inputs)`."""

    def __init__(self, op: Dense) -> None:
        self.kernel, self.bias = Dyadic.of(op.kernel).T, Dyadic.of(op.bias)
        self.kernel_radius = None if op.kernel_radius is None else Dyadic.of(op.kernel_radius).T
        self.bias_radius = None if op.bias_radius is None else Dyadic.of(op.bias_radius)

    def __call__(self, x: Range) -> Range:
        """The layer's result."""
        result, slack = x.under(self.kernel) + Range.point(self.bias), self.slack(x)
        return result if slack is None else result + Range.symmetric(slack)

    def slack(self, x: Range) -> Dyadic | None:
        """How far the parameters' radii may move each output, or None where the parameters are exact."""
        if self.kernel_radius is None:
            return self.bias_radius
        moved = self.kernel_radius @ x.magnitude()
        return moved if self.bias_radius is None else moved + self.bias_radius


class _Layer(_Trained):
    """The same beside its integers."""

    def __init__(self, op: Dense, quantized: QuantizedNetwork, name: str) -> None:
        super().__init__(op)
        codes = quantized.parameters[name]
        self.fixed_kernel = Dyadic.codes(codes.kernel, codes.kernel_format.fractional_bits).T
        self.fixed_bias = Dyadic.codes(codes.bias, codes.bias_format.fractional_bits)
        self.residual, self.bias_residual = self.fixed_kernel - self.kernel, self.fixed_bias - self.bias
        self.kernel_bits, self.bias_bits = codes.kernel_format.fractional_bits, codes.bias_format.fractional_bits

    def fixed(self, x: Range) -> Range:
        """The fixed-point layer's sum."""
        return x.under(self.fixed_kernel) + Range.point(self.fixed_bias)


@dataclass(frozen=True)
class _Facts:
    """Proved of one tensor, flattened: the float value, the fixed-point value, and the second minus the first.

    All values of the fixed-point tensor are multiples of `2**-grid`; None for a real input.
    """

    value: Range
    fixed: Range
    difference: Range
    grid: int | None

    def consistent(self) -> _Facts:
        """Each range cut down to what the other two and the grid allow."""
        fixed = self.fixed.intersect(self.value + self.difference)
        if self.grid is not None:
            fixed = Range(fixed.lower.ceil(self.grid), fixed.upper.floor(self.grid))
        return _Facts(self.value, fixed, self.difference.intersect(fixed - self.value), self.grid)


@dataclass(frozen=True)
class _Rows:
    """Linear forms `difference . d + value . x` in a tensor's difference and float value, each `(rows, size)`."""

    value: Dyadic
    difference: Dyadic

    def __add__(self, other: _Rows) -> _Rows:
        return _Rows(self.value + other.value, self.difference + other.difference)

    def at(self, facts: _Facts) -> Range:
        """The range of the forms over all members of the facts."""
        return facts.value.under(self.value) + facts.difference.under(self.difference)


class _Lines:
    """Lines that stand for a ReLU, and exact ranges of what they leave over.

    For the difference, `d+ - s d` with `s` 0, 1 or 1/2:

        s = 0:    d+     in [max(min(d_lo, 0), -relu(z_hi)), min(max(d_hi, 0), relu(zq_hi))]
        s = 1:    the same of the mirrored unit, as relu(v) = v + relu(-v)
        s = 1/2:  d+     between 0 and d

    For the value, `relu(z) - s z in [0, max(-s z_lo, (1 - s) z_hi)]` with the chord's slope where the sign is open.
    """

    def __init__(self, facts: _Facts) -> None:
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
        z = self.facts.value
        bits = max(z.lower.bits, z.upper.bits)
        ends = zip(z.lower.at(bits), z.upper.at(bits), strict=True)
        slope = Dyadic(np.array([_chord(int(low), int(high)) for low, high in ends], dtype=object), SLOPE_BITS)
        one = Dyadic.power(0)
        gap = (slope * -z.lower).maximum((one - slope) * z.upper)
        return slope, Range(gap - gap, gap)

    def image(self) -> Range:
        """The difference after the unit."""
        zero, one, _ = self._rests
        return zero.intersect(self.facts.difference + one)


def _chosen(
    number: int, rest: Range, condition: npt.NDArray[np.bool_], numbers: Integers, rests: Range
) -> tuple[Integers, Range]:
    """Slopes, in halves, and rests: these where the condition holds, those given before elsewhere."""
    return np.where(condition, number, numbers), rest.where(condition, rests)


def _chord(low: int, high: int) -> int:
    if low >= 0:
        return 1 << SLOPE_BITS
    return 0 if high <= 0 else (high << SLOPE_BITS) // (high - low)


class _Proof:
    """Facts of every node, in order; each affine layer is also bounded by pulling its rows back to the input."""

    def __init__(self, quantized: QuantizedNetwork, box: Range) -> None:
        self.quantized, self.box = quantized, box
        self.layers: dict[str, _Layer] = {}
        self.lines: dict[str, _Lines] = {}
        self.facts: dict[str, _Facts] = {}
        self.roundoff: dict[str, Range] = {}
        for node in quantized.network.nodes:
            self.facts[node.name] = self._rounded(node, self._before_rounding(node))

    def _before_rounding(self, node: Node) -> _Facts:
        if type(node.op) is Input:
            return _Facts(self.box, self.box, Range.point(self.box.lower - self.box.lower), None)
        source = self.facts[node.inputs[0]]
        if type(node.op) is Dense:
            return self._affine(node, node.op, source)
        if type(node.op) is Relu:
            lines = self.lines[node.name] = _Lines(source)
            facts = _Facts(source.value.positive(), source.fixed.positive(), lines.image(), source.grid)
            return facts.consistent()
        if type(node.op) is Reshape:
            return source
        raise _unknown(node)

    def _affine(self, node: Node, op: Dense, source: _Facts) -> _Facts:
        layer = self.layers[node.name] = _Layer(op, self.quantized, node.name)
        if source.grid is None:
            raise VerificationError(f"layer '{node.layer}' reads a value that is never rounded", layer_name=node.layer)
        size = layer.bias.shape[0]
        unit, none = Dyadic.identity(size), Dyadic.zeros(size, size)
        value = self._pulled_back(node, _Rows(unit, none), 0)
        difference = self._pulled_back(node, _Rows(none, unit), 0).intersect(
            self._pulled_back(node, _Rows(none, unit), 1)
        )
        grid = max(source.grid + layer.kernel_bits, layer.bias_bits)
        facts = _Facts(value, layer.fixed(source.fixed), difference, grid).consistent()
        if node.name in self.quantized.accumulators:
            _check(node, "accumulator", facts.fixed, self.quantized.accumulators[node.name])
        return facts

    def _rounded(self, node: Node, before: _Facts) -> _Facts:
        output = self.quantized.formats.get(node.name)
        if output is None:
            return before
        codes = _check(node, "output", before.fixed, output)
        bits = output.fractional_bits
        fixed = Range(*(_values(end, output) for end in codes))
        exact = before.grid is not None and before.grid <= bits
        largest = Dyadic.zeros(*fixed.lower.shape) + (Dyadic.zeros() if exact else Dyadic.power(-bits - 1))
        roundoff = self.roundoff[node.name] = Range.symmetric(largest).intersect(fixed - before.fixed)
        difference = before.difference + roundoff
        return _Facts(before.value, fixed, difference.intersect(fixed - before.value), bits)

    def _pulled_back(self, target: Node, rows: _Rows, policy: int) -> Range:
        """The range of linear forms in a node's result before rounding: the best of stopping at every earlier node."""
        rest = Range.point(Dyadic.zeros(rows.value.shape[0]))
        live, best = {target.name: rows}, None
        for node in reversed(self.quantized.network.nodes):
            rows_here = live.pop(node.name, None)
            if rows_here is None:
                continue
            if type(node.op) is Input:
                found = rest + rows_here.at(self.facts[node.name])
            else:
                if node.name in self.roundoff:  # not so yet for the target, whose rows are before its rounding
                    rest += self.roundoff[node.name].under(rows_here.difference)
                pulled, left = self._pull(node, rows_here, policy)
                source = node.inputs[0]
                live[source] = live[source] + pulled if source in live else pulled
                rest += left
                found = rest + _total([row.at(self.facts[name]) for name, row in live.items()])
            best = found if best is None else best.intersect(found)
        if best is None:
            raise VerificationError(f"node '{target.name}' is not in its network")
        return best

    def _pull(self, node: Node, rows: _Rows, policy: int) -> tuple[_Rows, Range]:
        """Rows in the input of a node that stand for rows in its result, up to a range."""
        if node.name in self.lines:
            lines = self.lines[node.name]
            (slope, rest), (difference_slope, difference_rest) = lines.value, lines.differences[policy]
            pulled = _Rows(rows.value * slope, rows.difference * difference_slope)
            return pulled, rest.under(rows.value) + difference_rest.under(rows.difference)
        if node.name not in self.layers:
            return rows, Range.point(Dyadic.zeros(rows.value.shape[0]))
        layer = self.layers[node.name]
        value = rows.difference @ layer.residual + rows.value @ layer.kernel
        rest = Range.point(rows.difference @ layer.bias_residual + rows.value @ layer.bias)
        slack = layer.slack(self.facts[node.inputs[0]].value)
        if slack is not None:
            rest += Range.symmetric((rows.value - rows.difference).magnitude() @ slack)
        return _Rows(value, rows.difference @ layer.fixed_kernel), rest


def _total(ranges: list[Range]) -> Range:
    total = ranges[0]
    for other in ranges[1:]:
        total = total + other
    return total


def _check(node: Node, kind: str, fixed: Range, output: Format) -> tuple[Integers, Integers]:
    """The codes of both ends, which must be codes of the format."""
    low, high = fixed.lower.rounded(output.fractional_bits), fixed.upper.rounded(output.fractional_bits)
    if min(low) < output.min_code or max(high) > output.max_code:
        raise VerificationError(
            f"layer '{node.layer or node.name}' ({node.op.kind}) {kind}: codes reach {min(low)} to {max(high)}, "
            f"{output} holds {output.min_code} to {output.max_code}; widen it or narrow the box",
            layer_name=node.layer,
        )
    return low, high
