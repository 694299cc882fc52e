"""Which leaves to cut, and along which input: best-first bisection until the bound is reached.

Nothing here needs to be trusted: the tree that comes out covers the box by construction, and the proof is made again on
its leaves.

Reference: Bunel et al., Branch and bound for piecewise linear neural network verification (JMLR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.ops import Elementwise, Facts, Rows
from sound_qkeras.network.pair import Pair
from sound_qkeras.splitting.bisection import Bisection, Indices, how_many
from sound_qkeras.splitting.gradients import input_gradients
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.propagation import Propagation, output_difference, output_sensitivities, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Bisecting one of very many inputs changes next to nothing.
MOST_INPUTS_TO_SPLIT = 64
# Leaves of an earlier tree that are measured before the rest, to see whether the rest is worth it.
FIRST_LEAVES = 32


@dataclass
class Splitting:
    """A growing tree of boxes, scored by the bound of every leaf relative to the tolerance of each output (1 meets it).

    Where the whole box is never cut, `values` may hold the trained network's enclosures on it, `(1, *shape)` each.
    """

    pair: Pair
    eps: Reals
    boxes: Bisection
    values: Mapping[str, Interval] | None = None

    @property
    def tree(self) -> SplitTree:
        """The tree so far."""
        return self.boxes.tree

    @property
    def leaves(self) -> Indices:
        """Numbers of the leaves, worst first."""
        return self.boxes.leaves

    @property
    def worst(self) -> float:
        """The largest relative bound of any leaf."""
        return self.boxes.worst

    def measure(self, nodes: Indices, shape: tuple[int, ...], deadline: Deadline | None = None) -> None:
        """Bound the given leaves and choose the axis each would be cut along; those the deadline leaves out stay as they are."""
        boxes = self.boxes.boxes(nodes, shape)
        work = partial(_measure_batch, eps=self.eps, values=self.values)
        found = over_batches(work, self.pair, boxes, deadline)
        if found:
            relative = np.concatenate([relative for relative, _ in found])
            self.boxes.score[nodes[: relative.size]] = relative
            self.boxes.next_axis[nodes[: relative.size]] = np.concatenate([axis for _, axis in found])


def refine(
    pair: Pair,
    box: Interval,
    eps: Reals,
    *,
    target: float = 1.0,
    max_leaves: int = 1024,
    deadline: Deadline | None = None,
    start: Splitting | None = None,
    hopeless: bool = False,
    values: Mapping[str, Interval] | None = None,
) -> Splitting:
    """Cut the worst leaves until every relative bound is at most `target`, or a budget ends.

    Args:
        pair: the pair of networks.
        box: the whole box, shape `input_shape`.
        eps: tolerance per output, shape `(outputs,)`.
        target: relative bound at which a leaf is left alone.
        max_leaves: most leaves the tree may have.
        deadline: when it passes, nothing more is cut or measured; leaves of `start` that were not measured have no bound.
        start: tree of an earlier, similar network to begin with, its worst leaves first.
        hopeless: stop as soon as the leaves that are left will hardly reach the target. Bounds were seen to fall with
            about the square root of the number of leaves.
        values: the trained network's enclosures on the whole box, `(1, *shape)` each, where they are known; they save time
            where the box has too many inputs to be cut.
    """
    cuts = box.lower.size <= MOST_INPUTS_TO_SPLIT
    deadline = deadline or Deadline()
    boxes = Bisection.root(box) if start is None else start.boxes.copy()
    state = Splitting(pair, eps, boxes, None if cuts else values)
    leaves, shape = state.leaves, box.shape
    boxes.score[leaves] = np.inf  # what an earlier network was measured at says nothing about this one

    def gives_up(bound: float) -> bool:
        return hopeless and bound > 1.05 * target * (max_leaves / leaves.size) ** 0.6

    state.measure(leaves[:FIRST_LEAVES], shape, deadline)
    if gives_up(float(state.boxes.score[leaves[:FIRST_LEAVES]].max())):
        return state
    state.measure(leaves[FIRST_LEAVES:], shape, deadline)
    while cuts and leaves.size < max_leaves and not deadline.passed:
        open_leaves = state.leaves[: int(np.sum(state.boxes.score[state.leaves] > target))]
        if open_leaves.size == 0 or gives_up(state.worst):
            break
        new = state.boxes.cut(open_leaves[: how_many(open_leaves.size, max_leaves - leaves.size)])
        state.measure(new, shape, deadline)
        leaves = state.leaves
    return state


def settle(state: Splitting, shape: tuple[int, ...], *, target: float, max_leaves: int) -> Splitting:
    """Measure all leaves in the order in which the proof will, and cut those above the target while leaves are left.

    Bounds of a leaf depend a little on the others in its batch, which decide which neurons are looked at closely.
    """
    if state.leaves.size == 1:
        return state
    state = Splitting(state.pair, state.eps, state.boxes.copy())
    while True:
        leaves = state.boxes.leaves_in_order
        state.measure(leaves, shape)
        open_leaves = leaves[state.boxes.score[leaves] > target]
        if open_leaves.size == 0 or leaves.size + open_leaves.size > max_leaves:
            return state
        state.boxes.cut(open_leaves)


def _measure_batch(
    pair: Pair, boxes: Interval, eps: Reals, values: Mapping[str, Interval] | None
) -> tuple[Reals, Indices]:
    """Each box's relative bound, and the axis to cut it along; any axis of a box that is not cut."""
    result = propagate(pair.network, boxes, pair, values=values)
    if boxes.lower[0].size > MOST_INPUTS_TO_SPLIT:
        worst = (output_difference(result).magnitude / eps).max(axis=1)
        return worst, np.zeros(len(worst), dtype=np.int64)
    bound, rows = output_sensitivities(result)
    relative = bound.magnitude / eps
    return relative.max(axis=1), _best_axis(result, rows, relative.argmax(axis=1))


def _best_axis(result: Propagation, rows: Mapping[str, Rows], output: Indices) -> Indices:
    """The input with the largest effect on the worst output's bound.

    An input acts directly, through the value row that reaches it, and through every unstable unit, whose remainder
    shrinks with the width of its pre-activation; the local gradient at the box's centre says how much of it is whose.
    """
    network = result.network
    first = network.nodes[0].name
    box = result.facts[first].value
    boxes, inputs = box.shape[0], box.lower[0].size
    direct = rows[first].value
    score = np.zeros((boxes, inputs))
    if direct is not None:
        score = np.abs(direct[np.arange(boxes), output].reshape(boxes, inputs))
    gradients = input_gradients(result)
    for node in network.nodes[1:]:
        difference = rows[node.name].difference if node.name in rows else None
        if isinstance(node.op, Elementwise) and difference is not None:
            weight = _unstable_weight(node.op, result.facts[node.inputs[0]], difference[np.arange(boxes), output])
            flat = np.abs(gradients[node.inputs[0]]).reshape(boxes, inputs, -1)
            score = score + (flat @ weight.reshape(boxes, -1, 1))[..., 0]
    return (score * box.radius.reshape(boxes, inputs)).argmax(axis=1)


def _unstable_weight(op: Elementwise, facts: Facts, difference: Reals) -> Reals:
    """How much of the bound the spread of each unit's slopes may cost per unit of its pre-activation's width."""
    value, fixed, change = facts.pair()
    spread = np.maximum.reduce([found.upper - found.lower for found in (op.slopes(value), op.slopes(fixed))])
    return np.abs(difference) * change.magnitude * spread / np.maximum(value.upper - value.lower, 1e-300)
