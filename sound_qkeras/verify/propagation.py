"""What can be proved about every tensor of a network, and of what stands for it, on a batch of boxes.

Forward, each node gets enclosures of its float value, its fixed-point value and their difference (interval arithmetic and
the vector recursion). Where that leaves a ReLU unstable, the pre-activation is bounded again by pulling linear forms
back to the input, where correlations between neurons cancel (the adjoint), and the enclosures are intersected.

With all ReLUs stable that is exact up to the rounding terms; every unstable ReLU leaves something over. See `forms`.

Reference: Singh et al., An abstract domain for certifying neural networks (POPL 2019), for the back-substitution of
values; Mohammadinejad et al., DiffRNN / Paulsen et al., NeuroDiff (ASE 2020), for bounding differences layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import DOUBLE, Interval, Precision, Reals
from sound_qkeras.network import Network, Node, Pair, size_of
from sound_qkeras.network.ops import Affine, Elementwise, Facts, Input, Rows
from sound_qkeras.support.scratch import at_once
from sound_qkeras.types import Indices
from sound_qkeras.verify.forms import Forms

# Back-substituting a layer of n neurons costs n**2 per earlier layer and box; wider layers keep the forward enclosures.
WIDEST_SUBSTITUTION = 1024
# Coefficient rows of one batch of boxes stay below this many numbers; between two lines each has its negative beside it.
BATCH_NUMBERS = 400_000
MOST_BOXES = 512
# Boxes are pulled back together while each has at least this share of the elements that the first of them has, or they are few.
FULL, LEAST_GROUP = 0.8, 16
# Products of one box with every kernel in forward direction, and of one row with those on its way back.
FORWARD_PRODUCTS, ROW_PRODUCTS = 14.0, 9.0
# What is known about one value of a node on one box takes about so many numbers, intermediate results included.
FACT_NUMBERS = 16
# The facts of a batch, and the rows of all outputs, take at most one of so many parts of the scratch memory each.
PARTS = 4


@dataclass(frozen=True)
class Propagation:
    """Proved facts of one batch of boxes.

    Args:
        network: the float network.
        pair: what stands for it, or None when only ranges are asked for.
        facts: enclosures of every node as its readers see it, shape `(boxes, *shape)`.
        exact: enclosures of the fixed-point value before rounding, at the nodes that are rounded.
        roundoff: largest error of rounding and saturating, at the nodes that are rounded.
        precision: of the coefficients of forms.
    """

    network: Network
    pair: Pair | None
    facts: dict[str, Facts]
    exact: dict[str, Interval]
    roundoff: dict[str, Reals]
    precision: Precision = DOUBLE

    @cached_property
    def forms(self) -> Forms:
        """What elements are in terms of the input."""
        return Forms(self.network, self.pair, self.facts, self.roundoff, self.precision)


def propagate(
    network: Network,
    boxes: Interval,
    pair: Pair | None = None,
    *,
    substitute: bool = True,
    values: Mapping[str, Interval] | None = None,
    precision: Precision = DOUBLE,
) -> Propagation:
    """Facts of every node on boxes of shape `(boxes, *input_shape)`; without `substitute` from node to node only.

    Guarantee: for every real input in a box, the exact real value of each tensor, the exact fixed-point value (as long as
    no format overflows, which `check_overflow` decides), and their difference lie in the enclosures.

    Args:
        network: the float network.
        boxes: the inputs.
        pair: what stands for it, or None for values alone.
        substitute: pull the inputs of relaxed operations back to the input of the network.
        values: enclosures of the float values on the very same boxes, from an earlier call; they are not computed again.
        precision: of the coefficients; bounds in float32 are sound, found in half the time and looser by a few parts in 10,000.
    """
    result = Propagation(network, pair, {}, {}, {}, precision)
    for node in network.nodes:
        inputs = [boxes] if isinstance(node.op, Input) else [result.facts[name].value for name in node.inputs]
        value = node.op.interval(*inputs) if values is None else values[node.name]
        if values is None and substitute:
            value = _tighter_value(result, node, value)
        if pair is None:
            result.facts[node.name] = Facts(value)
            continue
        sources = [Facts(boxes, boxes, boxes)] if isinstance(node.op, Input) else [result.facts[n] for n in node.inputs]
        parameters = pair.pairs.get(node.name)
        fixed = node.op.fixed_interval(parameters, *(facts.pair()[1] for facts in sources))
        difference = node.op.difference(parameters, *sources)
        if substitute:
            difference = _tighter_difference(result, node, value, fixed, difference)
        difference = difference.intersect(fixed - value)
        fixed = fixed.intersect(value + difference)
        result.facts[node.name] = Facts(value, fixed, difference)
        _round(result, node)
    return result


def _round(result: Propagation, node: Node) -> None:
    """Replace the facts of a rounding point by those after rounding, and note what rounding may add."""
    value, fixed, difference = result.facts[node.name].pair()
    found = None if result.pair is None else result.pair.rounded(node.name, fixed)
    if found is None:
        return
    rounded, roundoff = found
    result.exact[node.name] = fixed
    result.roundoff[node.name] = roundoff
    result.facts[node.name] = Facts(value, rounded, difference.widened(roundoff).intersect(rounded - value))


def _needs_substitution(network: Network, node: Node) -> bool:
    """Whether an operation that is relaxed reads this sum, and correlations before it could help it."""
    if not node.op.accumulates or size_of(network.shapes[node.name]) > WIDEST_SUBSTITUTION:
        return False
    return bool(network.relaxed_by[node.name]) and network.mixed[node.name]


def _widest(network: Network) -> int:
    return max(size_of(shape) for shape in network.shapes.values())


def _tighter_value(result: Propagation, node: Node, value: Interval) -> Interval:
    """All of them: one that is stable by little here may be unstable in the other network."""
    if not _needs_substitution(result.network, node):
        return value
    everything = np.ones((len(value.lower), size_of(result.network.shapes[node.name])), dtype=bool)
    return _substituted(result, node, value, everything, difference=False)


def _tighter_difference(
    result: Propagation, node: Node, value: Interval, fixed: Interval, difference: Interval
) -> Interval:
    if not _needs_substitution(result.network, node):
        return difference
    worth = _worth_it(result.network, node, value) | _worth_it(result.network, node, fixed)
    return _substituted(result, node, difference, worth, difference=True)


def _worth_it(network: Network, node: Node, value: Interval) -> npt.NDArray[np.bool_]:
    """Which elements are worth pulling back, shape `(boxes, elements)`.

    Where functions of one variable read them, those at which one of them has several slopes; all of them where something
    else is relaxed.
    """
    several = np.zeros(value.shape, dtype=bool)
    direct = {reader.op for reader in network.readers[node.name]}
    for op in network.relaxed_by[node.name]:
        if not isinstance(op, Elementwise) or not (op.uniform or op in direct):
            several[...] = True
            break
        slopes = op.slopes(value)
        several |= slopes.lower < slopes.upper
    return several.reshape(len(several), -1)


def _substituted(
    result: Propagation, node: Node, whole: Interval, worth: npt.NDArray[np.bool_], *, difference: bool
) -> Interval:
    """An enclosure, met with what pulling back gives where that is worth it; a box's own elements alone, whatever its batch."""
    shape, boxes = whole.shape, len(worth)
    lower, upper = (end.reshape(boxes, -1).copy() for end in (whole.lower, whole.upper))
    most = BATCH_NUMBERS // _widest(result.network)
    for some, chosen in _groups(worth, most, result.forms.takes_some_boxes):
        found = result.forms.enclose(node, chosen, difference=difference, boxes=some)
        at = (slice(None), chosen) if some is None else (some[:, None], chosen)
        met = Interval(lower[at], upper[at]).intersect(found)
        lower[at], upper[at] = np.where(worth[at], met.lower, lower[at]), np.where(worth[at], met.upper, upper[at])
    return Interval(lower.reshape(shape), upper.reshape(shape))


def _groups(worth: npt.NDArray[np.bool_], most: int, some: bool) -> Iterator[tuple[Indices | None, Indices]]:
    """Boxes with about as many elements that are worth it, and these elements, the first others where a box has fewer.

    Args:
        worth: which are, shape `(boxes, elements)`.
        most: rows at a time.
        some: whether boxes may be taken apart; else all have the elements that are worth it in any.
    """
    counts = worth.sum(axis=1)
    if not some or counts.min() >= FULL * worth.shape[1]:
        chosen = np.flatnonzero(worth.any(axis=0))
        step = max(1, most // len(worth))
        yield from ((None, chosen[start : start + step]) for start in range(0, chosen.size, step))
        return
    order = np.argsort(-counts, kind="stable")
    order = order[: np.count_nonzero(counts)]
    while order.size:
        rows = int(counts[order[0]])
        near = np.count_nonzero(counts[order] >= FULL * rows)
        take = order[: min(max(near, LEAST_GROUP), max(1, most // rows))]
        chosen = np.argsort(~worth[take], axis=1, kind="stable")[:, :rows]
        step = max(1, most // take.size)
        yield from ((take, chosen[:, start : start + step]) for start in range(0, rows, step))
        order = order[take.size :]


def output_difference(result: Propagation) -> Interval:
    """Enclosure of every output's difference, shape `(boxes, outputs)`, as many outputs at a time as fit in memory."""
    node, size = result.network.output, size_of(result.network.output_shape)
    boxes = result.facts[node.name].value.shape[0]
    count = at_once(FACT_NUMBERS * boxes * _widest(result.network), PARTS)
    parts = (np.arange(start, min(start + count, size)) for start in range(0, size, count))
    found = [_output_forms(result, part) for part in parts]
    return _with_forward(result, found[0] if len(found) == 1 else _joined(found))


def output_sensitivities(result: Propagation) -> tuple[Interval, dict[str, Rows]]:
    """As `output_difference`, and the rows on the way to the input, of all nodes and outputs together."""
    arrived = dict[str, Rows]()
    outputs = np.arange(size_of(result.network.output_shape))
    return _with_forward(result, _output_forms(result, outputs, arrived)), arrived


def _output_forms(result: Propagation, outputs: Indices, arrived: dict[str, Rows] | None = None) -> Interval:
    """By one line for every function, whose rows say where a bound comes from, met with what two lines give."""
    forms, node = result.forms, result.network.output
    found = forms.enclose(node, outputs, difference=True, two_lines=False, arrived=arrived)
    return found.intersect(forms.enclose(node, outputs, difference=True)) if forms.takes_two_lines else found


def _joined(parts: list[Interval]) -> Interval:
    """Forms beside one another."""
    return Interval(*(np.concatenate([getattr(part, end) for part in parts], axis=1) for end in ("lower", "upper")))


def _with_forward(result: Propagation, found: Interval) -> Interval:
    """What was pulled back from the output, its rounding added, met with what came forward."""
    node = result.network.output
    if node.name in result.roundoff:
        found = found.widened(result.roundoff[node.name].reshape(found.shape))
    forward = result.facts[node.name].pair()[2].mapped(lambda x: x.reshape(found.shape))
    return found.intersect(forward)


def numbers_per_box(network: Network) -> int:
    """Most coefficients one box needs at a time."""
    widest = _widest(network)
    substituted = [size_of(network.shapes[node.name]) for node in network.nodes if _needs_substitution(network, node)]
    rows = max([size_of(network.output_shape), *substituted])
    return widest * rows


def proof_work(network: Network) -> float:
    """About how many operations a proof takes on one box: rows of what is pulled back through what is before it."""
    before, total = 0.0, FORWARD_PRODUCTS * network.products
    for node in network.nodes:
        rows = size_of(network.shapes[node.name])
        if node is network.output or _needs_substitution(network, node):
            total += ROW_PRODUCTS * rows * before
        before += size_of(network.shapes[node.name])
        if isinstance(node.op, Affine):
            before += node.op.multiplications * rows
    return total


def batches(network: Network, boxes: Interval) -> list[slice]:
    """Slices of the box axis whose coefficient rows fit in memory, and nearly in the processor's cache; facts fit, too."""
    fitting = at_once(FACT_NUMBERS * network.value_count, PARTS)
    count = max(1, min(MOST_BOXES, BATCH_NUMBERS // numbers_per_box(network), fitting))
    return [slice(start, start + count) for start in range(0, boxes.shape[0], count)]


def fixed_ranges(result: Propagation) -> Mapping[str, Interval]:
    """For each node, the hull over the boxes of the fixed-point value before rounding, one scalar interval a node."""
    ranges: dict[str, Interval] = {}
    for name, facts in result.facts.items():
        before = result.exact.get(name, facts.fixed if facts.fixed is not None else facts.value)
        ranges[name] = Interval(before.lower.min(), before.upper.max())
    return ranges
