"""What can be proved about every tensor of a network, and of what stands for it, on a batch of boxes.

Forward, each node gets enclosures of its float value, its fixed-point value and their difference (interval arithmetic and
the vector recursion). Where that leaves a ReLU unstable, the pre-activation is bounded again by pulling linear forms
back to the input, where correlations between neurons cancel (the adjoint), and the enclosures are intersected.

The linear form has a row `p` on float values and a row `a` on differences, because the residual of a layer turns a
difference row into a value row: this is the dual of a zonotope in which values and differences share their noise symbols.
With all ReLUs stable it is exact up to the rounding terms; every unstable ReLU adds one remainder.

Reference: Singh et al., An abstract domain for certifying neural networks (POPL 2019), for the back-substitution of
values; Mohammadinejad et al., DiffRNN / Paulsen et al., NeuroDiff (ASE 2020), for bounding differences layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sound_qkeras.interval import Interval, Reals, gamma, inflate
from sound_qkeras.network import Network, Node, Pair, size_of
from sound_qkeras.network.ops import Elementwise, Facts, Input, Remainder, Rows
from sound_qkeras.network.ops.base import contract
from sound_qkeras.support.scratch import at_once

# Back-substituting a layer of n neurons costs n**2 per earlier layer and box; wider layers keep the forward enclosures.
WIDEST_SUBSTITUTION = 1024
# Coefficient rows of one batch of boxes stay below this many float64 numbers.
BATCH_NUMBERS = 1_000_000
MOST_BOXES = 256
# What is known about one value of a node on one box takes about so many numbers, intermediate results included.
FACT_NUMBERS = 16
# The facts of a batch, and the rows of all outputs, take at most one of so many parts of the scratch memory each.
PARTS = 4


@dataclass(frozen=True)
class Propagation:
    """Proved facts of one batch of boxes.

    Args:
        network: the float network.
        quantized: what stands for it, or None when only ranges are asked for.
        facts: enclosures of every node as its readers see it, shape `(boxes, *shape)`.
        exact: enclosures of the fixed-point value before rounding, at the nodes that are rounded.
        roundoff: largest error of rounding and saturating, at the nodes that are rounded.
    """

    network: Network
    pair: Pair | None
    facts: dict[str, Facts]
    exact: dict[str, Interval]
    roundoff: dict[str, Reals]

    def parameters(self, node: Node) -> Any:
        """The node's parameter pair, where it has one."""
        return None if self.pair is None else self.pair.pairs.get(node.name)

    def substitute(self, name: str, rows: Rows) -> Interval:
        """Enclose linear forms in the tensor `name`, of shape `(boxes, rows)`, by pulling them back to the input."""
        return self._pulled(name, rows, None)

    def pull(self, name: str, rows: Rows) -> tuple[Interval, dict[str, Rows]]:
        """As `substitute`, and the rows as they arrived at every node on the way."""
        arrived: dict[str, Rows] = {}
        return self._pulled(name, rows, arrived), arrived

    def _pulled(self, name: str, rows: Rows, arrived: dict[str, Rows] | None) -> Interval:
        some = rows.value if rows.value is not None else rows.difference
        if some is None:
            raise TypeError("substitution needs at least one kind of row")
        remainder = Remainder.zero(*some.shape[:2])
        pending = {name: rows}
        for node in reversed(self.network.nodes):
            if node.name not in pending:
                continue
            current = pending.pop(node.name)
            if arrived is not None:
                arrived[node.name] = current
            if node.name in self.roundoff and current.difference is not None and node.name != name:
                self._charge_roundoff(node, current.difference, remainder)
            if isinstance(node.op, Input):
                self._concretize(node, current, remainder)
                continue
            inputs = [self.facts[source] for source in node.inputs]
            pulled = node.op.adjoint(self.parameters(node), current, remainder, *inputs)
            for source, part in zip(node.inputs, pulled, strict=True):
                if source in pending:
                    part = pending[source].plus(part)
                    self._charge_sum(source, part, remainder)
                pending[source] = part
        return remainder.enclose()

    def _charge_roundoff(self, node: Node, difference: Reals, remainder: Remainder) -> None:
        roundoff = self.roundoff[node.name]
        remainder.widen(inflate(contract(np.abs(difference), roundoff), roundoff[0].size))

    def _charge_sum(self, source: str, rows: Rows, remainder: Remainder) -> None:
        """The rounding of adding the rows of two readers of one tensor."""
        facts = self.facts[source]
        for part, known in ((rows.value, facts.value), (rows.difference, facts.difference)):
            if part is not None and known is not None:
                size = 2.0**-52 * known.magnitude
                remainder.widen(inflate(contract(np.abs(part), size), size[0].size))

    def _concretize(self, node: Node, rows: Rows, remainder: Remainder) -> None:
        """Both networks see one input, whose rounding is charged already: only value rows are left."""
        if rows.value is None:
            return
        box = self.facts[node.name].value
        center, radius = box.center, box.radius
        rounding = gamma(center[0].size) * np.abs(center)
        remainder.add(
            contract(rows.value, center), inflate(contract(np.abs(rows.value), radius + rounding), center[0].size)
        )


def propagate(
    network: Network,
    boxes: Interval,
    pair: Pair | None = None,
    *,
    substitute: bool = True,
    values: Mapping[str, Interval] | None = None,
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
    """
    result = Propagation(network, pair, {}, {}, {})
    for node in network.nodes:
        inputs = [boxes] if isinstance(node.op, Input) else [result.facts[name].value for name in node.inputs]
        value = node.op.interval(*inputs)
        if pair is None:
            result.facts[node.name] = Facts(value)
            if values is not None:
                result.facts[node.name] = Facts(values[node.name])
            elif substitute:
                result.facts[node.name] = Facts(_tighter_value(result, node, value))
            continue
        sources = [Facts(boxes, boxes, boxes)] if isinstance(node.op, Input) else [result.facts[n] for n in node.inputs]
        parameters = pair.pairs.get(node.name)
        fixed = node.op.fixed_interval(parameters, *(facts.pair()[1] for facts in sources))
        difference = node.op.difference(parameters, *sources)
        result.facts[node.name] = Facts(value, fixed, difference)
        if values is not None:
            value = values[node.name]
        elif substitute:
            value = _tighter_value(result, node, value)
        if substitute:
            difference = _tighter_difference(result, node, difference)
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


def _identity_rows(result: Propagation, node: Node, chosen: np.ndarray) -> Reals:
    """Unit rows for the chosen neurons, shape `(boxes, chosen, *shape)`."""
    boxes = result.facts[node.name].value.shape[0]
    shape = result.network.shapes[node.name]
    rows = np.zeros((len(chosen), size_of(shape)))
    rows[np.arange(len(chosen)), chosen] = 1.0
    return np.broadcast_to(rows.reshape(len(chosen), *shape), (boxes, len(chosen), *shape))


def _substituted(result: Propagation, node: Node, chosen: np.ndarray, *, difference: bool) -> Interval:
    """The chosen values, or their differences, pulled back to the input, as many at a time as fit in memory."""
    network, boxes = result.network, result.facts[node.name].value.shape[0]
    count = max(1, BATCH_NUMBERS // (boxes * _widest(network)))
    found: list[Interval] = []
    for start in range(0, len(chosen), count):
        rows = _identity_rows(result, node, chosen[start : start + count])
        found.append(result.substitute(node.name, Rows(None, rows) if difference else Rows(rows, None)))
    return _joined(found)


def _joined(parts: list[Interval]) -> Interval:
    """Forms beside one another."""
    return Interval(*(np.concatenate([getattr(part, end) for part in parts], axis=1) for end in ("lower", "upper")))


def _widest(network: Network) -> int:
    return max(size_of(shape) for shape in network.shapes.values())


def _tighter_value(result: Propagation, node: Node, value: Interval) -> Interval:
    if not _needs_substitution(result.network, node):
        return value
    chosen = _chosen(result.network, node, value)
    if chosen.size == 0:
        return value
    found = _substituted(result, node, chosen, difference=False)
    return _intersect_at(value, chosen, found)


def _tighter_difference(result: Propagation, node: Node, difference: Interval) -> Interval:
    if not _needs_substitution(result.network, node):
        return difference
    value, fixed, _ = result.facts[node.name].pair()
    chosen = np.union1d(*(_chosen(result.network, node, range_) for range_ in (value, fixed)))
    if chosen.size == 0:
        return difference
    found = _substituted(result, node, chosen, difference=True)
    return _intersect_at(difference, chosen, found)


def _chosen(network: Network, node: Node, value: Interval) -> np.ndarray:
    """Flat indices of the values worth pulling back.

    Where functions of one variable read them, those at which one of them has several slopes in at least one box; all of
    them where something else is relaxed.
    """
    several = np.zeros(value.shape, dtype=bool)
    direct = {reader.op for reader in network.readers[node.name]}
    for op in network.relaxed_by[node.name]:
        if not isinstance(op, Elementwise) or not (op.uniform or op in direct):
            return np.arange(size_of(network.shapes[node.name]))
        slopes = op.slopes(value)
        several |= slopes.lower < slopes.upper
    return np.flatnonzero(several.reshape(value.shape[0], -1).any(axis=0))


def _intersect_at(whole: Interval, chosen: np.ndarray, part: Interval) -> Interval:
    flat = Interval(whole.lower.reshape(whole.shape[0], -1).copy(), whole.upper.reshape(whole.shape[0], -1).copy())
    met = flat[:, chosen].intersect(part)
    flat.lower[:, chosen], flat.upper[:, chosen] = met.lower, met.upper
    return flat.mapped(lambda x: x.reshape(whole.shape))


def output_difference(result: Propagation) -> Interval:
    """Enclosure of every output's difference, shape `(boxes, outputs)`, as many outputs at a time as fit in memory."""
    node, size = result.network.output, size_of(result.network.output_shape)
    boxes = result.facts[node.name].value.shape[0]
    count = at_once(FACT_NUMBERS * boxes * _widest(result.network), PARTS)
    parts = (np.arange(start, min(start + count, size)) for start in range(0, size, count))
    found = [result.substitute(node.name, Rows(None, _identity_rows(result, node, part))) for part in parts]
    return _with_forward(result, found[0] if len(found) == 1 else _joined(found))


def output_sensitivities(result: Propagation) -> tuple[Interval, dict[str, Rows]]:
    """As `output_difference`, and the rows on the way to the input, of all nodes and outputs together."""
    node = result.network.output
    rows = _identity_rows(result, node, np.arange(size_of(result.network.output_shape)))
    found, arrived = result.pull(node.name, Rows(None, rows))
    return _with_forward(result, found), arrived


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
