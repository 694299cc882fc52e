"""A second proof, in exact rational arithmetic, that shares no arithmetic with the first.

For networks small enough, the bound is derived again from the graph, the parameters, the integers and the formats
alone, in Python integers: no float64 operation, none of the operations' own interval or adjoint code. What both proofs
share is the mathematics: with `d = x_q - x` an affine layer obeys `y_q - y = W_q d + (W_q - W) x + (b_q - b)`, and a
ReLU is replaced by a line and what the line leaves over (see `Lines`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.exact.activations import ExactClip, ExactLeaky, ExactTable
from sound_qkeras.exact.dyadic import Dyadic, Integers, Range
from sound_qkeras.exact.functions import exact_function
from sound_qkeras.exact.grids import image, largest_error
from sound_qkeras.exact.matrices import Indices, entries
from sound_qkeras.exact.merges import ExactAdd, ExactConcatenate, ExactMatMul, ExactMultiply
from sound_qkeras.exact.moves import ExactMaxPool, ExactMove
from sound_qkeras.exact.norms import ExactLayerNorm
from sound_qkeras.exact.ops import ABOVE, BELOW, ExactAffine, ExactRelu, Meaning, affine_at
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node, Pair, size_of
from sound_qkeras.network.ops import (
    Add,
    Affine,
    AffineCodes,
    AveragePool,
    Clip,
    Concatenate,
    Conv,
    Crop,
    Dense,
    Input,
    LayerNorm,
    Leaky,
    MatMul,
    MaxPool,
    Multiply,
    Op,
    Pad,
    Permute,
    Relu,
    Reshape,
    Scale,
    Table,
    Upsample,
)


def exact_bound(
    quantized: Pair, lower: npt.ArrayLike, upper: npt.ArrayLike, *, max_parameters: int = 1000
) -> list[Fraction]:
    """Prove a bound on `|f_q(x)_k - f(x)_k|` for every real input `x` of a box, and that nothing overflows on it.

    Guarantee: against exact real arithmetic over the stored parameters (all that the radii of folded ones allow); every
    number in the proof is an exact rational.

    Args:
        quantized: the pair of networks.
        lower: lower ends of the box, shape `input_shape`, taken as the exact values of the float64 numbers.
        upper: upper ends of the box.
        max_parameters: refuse larger networks, which would take long; a weight counts once per position it is used at.

    Returns:
        A bound for each output, flattened.

    Raises:
        InputError: the box is not finite, is empty or has another shape; or the network is too large.
        VerificationError: a rounding point or an accumulator may overflow its format, or an operation is unknown here.
    """
    count = _matrix_entries(quantized.network)
    if count > max_parameters:
        raise InputError(
            f"the exact proof is for networks of up to {max_parameters} parameters, this one has {count}; "
            "raise max_parameters and allow for the time, or rely on the float64 proof"
        )
    return Proof(quantized, box_of(quantized, lower, upper)).bounds


def _matrix_entries(network: Network) -> int:
    """Parameters, each as often as it is used."""
    return sum(size_of(network.shapes[node.name]) * op.fan_in + op.bias.size for node, op in network.affine())


def exact_error(quantized: Pair, x: npt.ArrayLike) -> list[Fraction]:
    """`f_q(x) - f(x)` for one sample, exactly.

    Where folded parameters are only enclosed, so is the error; then the result is the part of it that is certain, the
    member of the enclosure nearest to zero. A proved bound is never below its magnitude.

    Args:
        quantized: the pair of networks.
        x: one sample of float64 numbers, shape `input_shape`.
    """
    return [min(max(low, Fraction(0)), high) for low, high in exact_error_range(quantized, x)]


def exact_error_range(quantized: Pair, x: npt.ArrayLike) -> list[tuple[Fraction, Fraction]]:
    """An enclosure of each output's `f_q(x) - f(x)` for one sample; both ends are equal unless parameters were folded.

    Args:
        quantized: the pair of networks; values that overflow their format saturate.
        x: one sample of float64 numbers, shape `input_shape`.
    """
    check_known(quantized.network)
    check_known(quantized.reference)
    sample, read = box_of(quantized, x, x).lower, Entries()
    error = Range.point(_fixed_output(quantized, sample, read)) - _trained_output(quantized, sample, read)
    return list(zip(error.lower.fractions(), error.upper.fractions(), strict=True))


def _trained_output(quantized: Pair, sample: Dyadic, read: Entries) -> Range:
    """The trained network's, as it was before its rewrite."""
    trained = quantized.reference
    beside = with_any_integers(trained) if quantized.rewrite else quantized
    values: dict[str, Range] = {}
    for node in trained.nodes:
        inputs = [values[name] for name in node.inputs]
        if type(node.op) is Input:
            values[node.name] = Range.point(sample)
        elif isinstance(node.op, Affine):
            arrays = {name: Dyadic.of(array) for name, array in node.op.arrays().items()}
            values[node.name] = affine_at(size_of(trained.shapes[node.name]), read.of(node, trained), inputs[0], arrays)
        else:
            values[node.name] = meaning_of(node, beside).real(*inputs)
    return values[trained.output.name]


def _fixed_output(quantized: Pair, sample: Dyadic, read: Entries) -> Dyadic:
    values: dict[str, Dyadic] = {}
    for node in quantized.network.nodes:
        value = sample
        inputs = [Range.point(values[name]) for name in node.inputs]
        if isinstance(node.op, Affine):
            codes, outputs = quantized.codes(node.name), size_of(quantized.network.shapes[node.name])
            arrays = {
                "kernel": Dyadic.codes(codes.kernel, codes.kernel_format.fractional_bits),
                "bias": Dyadic.codes(codes.bias, codes.bias_format.fractional_bits),
            }
            value = affine_at(outputs, read.of(node, quantized.network), inputs[0], arrays).lower
        elif type(node.op) is not Input:
            value = meaning_of(node, quantized).fixed(*inputs).lower
        grid = quantized.roundings.get(node.name)
        values[node.name] = value if grid is None else image(grid, value, quantized.network.shapes[node.name])
    return values[quantized.network.output.name]


def with_any_integers(trained: Network) -> Pair:
    """A pair whose integers nobody looks at: what operations mean in exact numbers is defined for pairs."""
    word = Format(2, 1, True)

    def zero(shape: tuple[int, ...]) -> Integers:
        return np.zeros(shape, np.int64)

    codes = {n.name: AffineCodes(zero(op.kernel.shape), word, zero(op.bias.shape), word) for n, op in trained.owners()}
    return Pair(trained, codes, dict.fromkeys(trained.rounding_points, word), {})


@dataclass(frozen=True)
class Entries:
    """What layers multiply with what, the same for both networks where a layer is the same in both."""

    known: dict[str, tuple[Indices, Indices, Indices]] = field(default_factory=dict[str, Any])

    def of(self, node: Node, network: Network) -> tuple[Indices, Indices, Indices]:
        """Of one node; see `entries`."""
        inputs, outputs = network.shapes[node.inputs[0]], network.shapes[node.name]
        key = repr((type(node.op), node.op.settings(), node.op.arrays()["kernel"].shape, inputs, outputs))
        if key not in self.known:
            self.known[key] = entries(node, inputs, outputs)
        return self.known[key]


def box_of(quantized: Pair, lower: npt.ArrayLike, upper: npt.ArrayLike) -> Range:
    """The box as exact numbers, flattened."""
    ends = [np.asarray(end, dtype=np.float64) for end in (lower, upper)]
    shape = quantized.network.input_shape
    if any(end.shape != shape for end in ends):
        raise InputError(f"the box has shapes {[end.shape for end in ends]}, expected {shape} twice")
    if not all(np.all(np.isfinite(end)) for end in ends) or np.any(ends[0] > ends[1]):
        raise InputError("the box holds NaN or infinity, or a lower end above its upper end")
    return Range(*(Dyadic.of(end.reshape(-1)) for end in ends))


# Ways to choose the lines of a difference and of a value, see `Lines` and `between`: parallel lines, and one above and one below.
PARALLEL, TWO = (0, 1), (ABOVE, BELOW)
# How hard a proof tries.
FORWARD, QUICK, THOROUGH = 0, 1, 2
# Exact types: a kind derived from a known one would not have its meaning.
MEANINGS: dict[type[Op], type[Meaning]] = {
    **dict.fromkeys((AveragePool, Conv, Dense, Scale), ExactAffine),
    **dict.fromkeys((Reshape, Permute, Crop, Pad, Upsample), ExactMove),
    Add: ExactAdd,
    Clip: ExactClip,
    Concatenate: ExactConcatenate,
    LayerNorm: ExactLayerNorm,
    Leaky: ExactLeaky,
    MatMul: ExactMatMul,
    MaxPool: ExactMaxPool,
    Multiply: ExactMultiply,
    Relu: ExactRelu,
    Table: ExactTable,
}


def check_known(network: Network) -> None:
    """Refuse networks with operations that have no meaning here.

    Raises:
        VerificationError: names the layer.
    """
    for node in network.nodes:
        if type(node.op) not in MEANINGS and type(node.op) is not Input:
            raise VerificationError(
                f"layer '{node.layer or node.name}': the exact proof does not know operations of kind '{node.op.kind}'; "
                f"it knows {', '.join(sorted(op.kind for op in MEANINGS))}; rely on the float64 proof",
                layer_name=node.layer,
            )
        if isinstance(node.op, Table):
            exact_function(node.op.function, node.op.alpha)


def meaning_of(node: Node, quantized: Pair) -> Meaning:
    """What a node computes, in exact numbers."""
    return MEANINGS[type(node.op)](node, quantized)


def meanings_of(quantized: Pair) -> dict[str, Meaning]:
    """What every node but the inputs computes: all of a proof that does not depend on the box.

    Raises:
        VerificationError: an operation is unknown here.
    """
    check_known(quantized.network)
    return {node.name: meaning_of(node, quantized) for node in quantized.network.nodes if type(node.op) is not Input}


class Proof:
    """Facts of every node, in order; sums and the output are also bounded by pulling their rows back to the input.

    Args:
        quantized: the pair of networks.
        box: the inputs, flattened.
        meanings: those of the pair, where they are known.
        effort: `FORWARD`, from node to node alone; `QUICK`, with what an unstable unit reads, and the output, pulled back to the
            input, between two lines where they are known; or `THOROUGH`, with every sum pulled back by every policy, stopping
            at every node on the way.
        values: of the trained network alone: neither integers nor formats are looked at.

    Raises:
        VerificationError: something may overflow its format.
    """

    def __init__(
        self,
        quantized: Pair,
        box: Range,
        meanings: dict[str, Meaning] | None = None,
        *,
        effort: int = THOROUGH,
        values: bool = False,
    ) -> None:
        """Prove all of it."""
        self.pair, self.box = quantized, box
        self.effort, self.values = effort, values
        self.meanings = meanings_of(quantized) if meanings is None else meanings
        # As in the first proof: elsewhere it has no other lines, and pulling back once more would give the same again.
        nodes = quantized.network.nodes
        self.two_lines = all(len(node.inputs) < 2 for node in nodes) and any(type(node.op) is Relu for node in nodes)
        self.facts: dict[str, ExactFacts] = {}
        self.roundoff: dict[str, Range] = {}
        # Of the fixed-point network, before any rounding.
        self.ranges: dict[str, Range] = {}
        for node in quantized.network.nodes:
            before = self._before_rounding(node)
            self.ranges[node.name] = before.fixed
            self.facts[node.name] = before if values else self._rounded(node, before)

    @property
    def bounds(self) -> list[Fraction]:
        """A bound for each output, flattened."""
        return self.facts[self.pair.network.output.name].difference.magnitude().fractions()

    def _before_rounding(self, node: Node) -> ExactFacts:
        if type(node.op) is Input:
            return ExactFacts(self.box, self.box, Range.point(self.box.lower - self.box.lower), None)
        meaning, sources = self.meanings[node.name], [self.facts[name] for name in node.inputs]
        if self.values:
            value = meaning.real(*(source.value for source in sources)).outward()
            facts = ExactFacts(value, value, Range.point(value.lower - value.lower), None)
            return self._substituted(node, facts) if node.op.accumulates else facts
        facts = meaning.facts(*sources)
        if node.op.accumulates or node is self.pair.network.output:
            facts = self._substituted(node, facts)
        facts = facts.consistent()
        if node.name in self.pair.accumulators:
            _check(node, "accumulator", facts.fixed, self.pair.accumulators[node.name])
        return facts

    def _substituted(self, node: Node, facts: ExactFacts) -> ExactFacts:
        """The facts of a tensor, cut down by what pulling it back to every earlier node gives."""
        if self.effort == FORWARD:
            return facts
        size, thorough = facts.value.lower.shape[0], self.effort == THOROUGH
        is_output = node is self.pair.network.output
        chosen = np.arange(size) if thorough or is_output else self._unstable(node, facts)
        if not chosen.size:
            return facts
        unit, none = Dyadic.identity(size)[chosen], Dyadic.zeros(len(chosen), size)
        value, difference = facts.value, facts.difference
        two = TWO if self.two_lines else ()
        if thorough or not is_output:
            for policy in (PARALLEL[0], *two) if thorough else two or PARALLEL[:1]:
                value = _met(value, chosen, self._pulled_back(node, ExactRows(unit, none), policy))
        if self.values:
            return ExactFacts(value, value, difference, None)
        parallel = PARALLEL if thorough else PARALLEL[:1] if is_output or not two else ()
        for policy in (*parallel, *two):
            difference = _met(difference, chosen, self._pulled_back(node, ExactRows(none, unit), policy))
        return replace(facts, value=value, difference=difference)

    def _unstable(self, node: Node, facts: ExactFacts) -> npt.NDArray[np.int64]:
        """Elements on both sides of zero in one of the networks; all where something else than ReLUs reads them."""
        readers, zero = self.pair.network.readers[node.name], Dyadic.zeros()
        if any(type(reader.op) is not Relu for reader in readers):
            return np.arange(facts.value.lower.shape[0])
        open_in = [x.lower.less(zero) & zero.less(x.upper) for x in (facts.value, facts.fixed)]
        return np.flatnonzero(open_in[0] | open_in[1])

    def _rounded(self, node: Node, before: ExactFacts) -> ExactFacts:
        grid = self.pair.roundings.get(node.name)
        if grid is None:
            return before
        if node.name in self.pair.formats and node.name not in self.pair.saturating:
            _check(node, "output", before.fixed, self.pair.formats[node.name])
        shape, bits = self.pair.network.shapes[node.name], grid.fractional_bits
        fixed = Range(*(image(grid, end, shape) for end in (before.fixed.lower, before.fixed.upper)))
        largest = largest_error(grid, before.fixed, before.grid, shape)
        roundoff = self.roundoff[node.name] = Range.symmetric(largest).intersect(fixed - before.fixed)
        difference = before.difference + roundoff
        return ExactFacts(before.value, fixed, difference.intersect(fixed - before.value), bits)

    def _pulled_back(self, target: Node, rows: ExactRows, policy: int) -> Range:
        """The range of linear forms in a node's result before rounding: the best of stopping at every earlier node."""
        rest = Range.point(Dyadic.zeros(rows.value.shape[0]))
        live, best = {target.name: rows}, None
        for node in reversed(self.pair.network.nodes):
            rows_here = live.pop(node.name, None)
            if rows_here is None:
                continue
            if type(node.op) is Input:
                found = rest + rows_here.at(self.facts[node.name])
            else:
                if node.name in self.roundoff:  # not so yet for the target, whose rows are before its rounding
                    rest += self.roundoff[node.name].under(rows_here.difference)
                inputs = (self.facts[name] for name in node.inputs)
                pulled, left = self.meanings[node.name].pull(rows_here, policy, *inputs)
                for source, part in zip(node.inputs, pulled, strict=True):
                    joined, lost = (live[source] + part if source in live else part).cut(self.facts[source])
                    live[source] = joined
                    rest = rest if lost is None else rest + lost
                rest = (rest + left).outward()
                if self.effort != THOROUGH:
                    continue
                found = rest + _total([row.at(self.facts[name]) for name, row in live.items()])
            best = found if best is None else best.intersect(found)
        if best is None:
            raise VerificationError(f"node '{target.name}' is not in its network")
        return best


def _met(whole: Range, chosen: npt.NDArray[np.int64], part: Range) -> Range:
    """A range whose chosen elements are cut down to what they have in common with others."""
    ends: list[Dyadic] = []
    for end, other in (
        (whole.lower, whole[chosen].lower.maximum(part.lower)),
        (whole.upper, whole[chosen].upper.minimum(part.upper)),
    ):
        bits = max(end.bits, other.bits)
        numbers = end.at(bits).copy()
        numbers[chosen] = other.at(bits)
        ends.append(Dyadic(numbers, bits))
    return Range(*ends).intersect(whole)


def _total(ranges: list[Range]) -> Range:
    total = ranges[0]
    for other in ranges[1:]:
        total = total + other
    return total


def _check(node: Node, kind: str, fixed: Range, output: Format) -> None:
    """The codes of both ends must be codes of the format."""
    low, high = fixed.lower.rounded(output.fractional_bits), fixed.upper.rounded(output.fractional_bits)
    if min(low) < output.min_code or max(high) > output.max_code:
        raise VerificationError(
            f"layer '{node.layer or node.name}' ({node.op.kind}) {kind}: codes reach {min(low)} to {max(high)}, "
            f"{output} holds {output.min_code} to {output.max_code}; widen it or narrow the box",
            layer_name=node.layer,
        )
