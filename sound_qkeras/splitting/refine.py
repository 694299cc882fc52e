"""Which leaves to cut, and along which input: best-first bisection until the bound is reached.

Nothing here needs to be trusted: the tree that comes out covers the box by construction, and the proof is made again on
its leaves, in float64, which gives bounds that are a little tighter.

Reference: Bunel et al., Branch and bound for piecewise linear neural network verification (JMLR 2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from sound_qkeras.interval import SINGLE, Interval, Precision, Reals
from sound_qkeras.network import Network, size_of
from sound_qkeras.network.ops import Elementwise, Facts, Rows
from sound_qkeras.network.pair import Pair
from sound_qkeras.splitting.bisection import Bisection, Indices, affordable, how_many
from sound_qkeras.splitting.gradients import input_gradients
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.propagation import Propagation, output_difference, output_sensitivities, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Bisecting one of very many inputs changes next to nothing.
MOST_INPUTS_TO_SPLIT = 64
# Leaves of an earlier tree that are measured before the rest, to see whether the rest is worth it.
FIRST_LEAVES = 32
# What a leaf costs after the search, in terms of a measurement: three proofs in float64, from nothing, each 2.5 times as long.
PROOFS = 7.5
# Most numbers of the trained network's enclosures that are kept for the next candidate.
KEPT_NUMBERS = 1 << 25


@dataclass
class Splitting:
    """A growing tree of boxes, scored by the bound of every leaf relative to the tolerance of each output (1 meets it).

    `values` keeps the trained network's enclosures on nodes that were measured, as `flat` has them: they are the same whatever
    stands for the network. None where there is no place for them. `seconds` is what measuring one was seen to take, `ranges` what
    is proved on all of them, if it is.
    """

    pair: Pair
    eps: Reals
    boxes: Bisection
    values: dict[int, Reals] | None
    precision: Precision = SINGLE
    seconds: float = 0.0
    ranges: Mapping[str, tuple[float, float]] | None = None

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

    def measure(self, nodes: Indices, shape: tuple[int, ...], deadline: Deadline | None = None) -> int:
        """Bound the given leaves and choose the axis each would be cut along; those the deadline leaves out stay as they are.

        Returns how many were bounded.
        """
        count = 0
        kept = {} if self.values is None else self.values
        for known in (True, False):
            part = np.array([node for node in nodes.tolist() if (node in kept) == known], dtype=np.int64)
            if not part.size:
                continue
            values = np.stack([kept[node] for node in part.tolist()]) if known else None
            work = partial(
                _measure_batch, eps=self.eps, precision=self.precision, keep=self.values is not None and not known
            )
            found = over_batches(work, self.pair, self.boxes.boxes(part, shape), deadline, values)
            if not found:
                continue
            done = part[: sum(len(relative) for relative, _, _ in found)]
            count += done.size
            self.boxes.score[done] = np.concatenate([relative for relative, _, _ in found])
            self.boxes.next_axis[done] = np.concatenate([axis for _, axis, _ in found])
            kept.update(
                zip(done.tolist(), itertools.chain.from_iterable(values for _, _, values in found), strict=False)
            )
        return count


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
    precision: Precision = SINGLE,
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
        values: the trained network's enclosures on the whole box, `(1, *shape)` each, where they are known.
        precision: of coefficients: float32 to search with, float64 as the proof has it.
    """
    cuts = box.lower.size <= MOST_INPUTS_TO_SPLIT
    deadline = deadline or Deadline()
    boxes = Bisection.root(box) if start is None else start.boxes.copy()
    state = Splitting(pair, eps, boxes, _kept(pair.network, start, values, max_leaves if cuts else 1), precision)
    leaves, shape, measured, started = state.leaves, box.shape, 0, deadline.now
    boxes.score[leaves] = np.inf  # what an earlier network was measured at says nothing about this one

    def gives_up(bound: float) -> bool:
        return hopeless and bound > 1.05 * target * (max_leaves / leaves.size) ** 0.6

    def measure(nodes: Indices) -> None:
        nonlocal measured
        measured += state.measure(nodes, shape, deadline)
        state.seconds = (deadline.now - started) / max(1, measured)

    measure(leaves[:FIRST_LEAVES])
    if gives_up(float(state.boxes.score[leaves[:FIRST_LEAVES]].max())):
        return state
    if leaves.size > FIRST_LEAVES:
        measure(leaves[FIRST_LEAVES:])
    while cuts and leaves.size < max_leaves and not deadline.passed:
        open_leaves = state.leaves[: int(np.sum(state.boxes.score[state.leaves] > target))]
        count = min(
            how_many(open_leaves.size, max_leaves - leaves.size),
            affordable(deadline, state.seconds, leaves.size, PROOFS),
        )
        if open_leaves.size == 0 or count < 1 or gives_up(state.worst):
            break
        measure(state.boxes.cut(open_leaves[: int(count)]))
        leaves = state.leaves
    return state


def _kept(
    network: Network, start: Splitting | None, values: Mapping[str, Interval] | None, leaves: int
) -> dict[int, Reals] | None:
    """What is known of the trained network's enclosures, if those of so many leaves, and of what is cut, have a place."""
    if 4 * leaves * network.value_count > KEPT_NUMBERS:
        return None
    if start is not None:
        return dict(start.values) if start.values is not None and start.pair.network is network else {}
    return {} if values is None else {0: flat(values)[0]}


def flat(values: Mapping[str, Interval]) -> Reals:
    """Enclosures of every node on boxes as one array, shape `(boxes, 2, numbers)`."""
    ends = ([getattr(x, end).reshape(len(x.lower), -1) for x in values.values()] for end in ("lower", "upper"))
    return np.stack([np.concatenate(end, axis=1) for end in ends], axis=1)


def _as_they_were(network: Network, values: Reals) -> dict[str, Interval]:
    """The enclosures that `flat` had of all nodes."""
    found, start = dict[str, Interval](), 0
    for node in network.nodes:
        shape = network.shapes[node.name]
        part = values[..., start : start + size_of(shape)].reshape(len(values), 2, *shape)
        found[node.name] = Interval(part[:, 0], part[:, 1])
        start += size_of(shape)
    return found


def _measure_batch(
    pair: Pair,
    boxes: Interval,
    values: Reals | None = None,
    *,
    eps: Reals,
    precision: Precision = SINGLE,
    keep: bool = False,
) -> tuple[Reals, Indices, Reals]:
    """Each box's relative bound, and the axis to cut it along; any axis of a box that is not cut.

    Args:
        pair: the pair of networks.
        boxes: the leaves.
        values: enclosures of the trained network on them, where they are known.
        eps: tolerance per output.
        precision: of coefficients.
        keep: whether these enclosures are asked for; else the third result is empty.
    """
    known = None if values is None else _as_they_were(pair.network, values)
    result = propagate(pair.network, boxes, pair, values=known, precision=precision)
    kept = flat({name: facts.value for name, facts in result.facts.items()}) if keep else np.zeros((0, 2, 0))
    if boxes.lower[0].size > MOST_INPUTS_TO_SPLIT:
        worst = (output_difference(result).magnitude / eps).max(axis=1)
        return worst, np.zeros(len(worst), dtype=np.int64), kept
    bound, rows = output_sensitivities(result)
    relative = bound.magnitude / eps
    return relative.max(axis=1), _best_axis(result, rows, relative.argmax(axis=1)), kept


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
