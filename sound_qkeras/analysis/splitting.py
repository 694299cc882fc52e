"""Which leaves to cut, and along which input: best-first bisection until the bound is reached.

Nothing here needs to be trusted: the tree that comes out covers the box by construction, and the proof is made again on
its leaves.

Reference: Bunel et al., Branch and bound for piecewise linear neural network verification (JMLR 2020).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.ops import Facts, Relu, Rows
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.verify.propagation import Propagation, batches, output_difference, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Bisecting one of very many inputs changes next to nothing.
MOST_INPUTS_TO_SPLIT = 64
# Leaves of an earlier tree that are measured before the rest, to see whether the rest is worth it.
FIRST_LEAVES = 32

Indices = npt.NDArray[np.int64]


@dataclass
class Splitting:
    """A growing tree of boxes, and the bound of every leaf relative to the tolerance of each output (1 meets it).

    Nodes are numbered in order of creation; `first_child` is -1 for leaves, and the second child follows the first.
    """

    quantized: QuantizedNetwork
    eps: Reals
    lower: Reals
    upper: Reals
    axes: Indices
    first_child: Indices
    ratio: Reals
    next_axis: Indices

    @classmethod
    def root(cls, quantized: QuantizedNetwork, eps: Reals, box: Interval) -> Splitting:
        """The whole box, not measured yet."""
        lower, upper = box.lower.reshape(1, -1), box.upper.reshape(1, -1)
        leaf = np.array([-1])
        return cls(quantized, eps, lower, upper, leaf, leaf.copy(), np.array([np.inf]), np.zeros(1, np.int64))

    def again(self, quantized: QuantizedNetwork) -> Splitting:
        """The same tree for another fixed-point network; ratios are the old ones until they are measured."""
        return Splitting(
            quantized,
            self.eps,
            self.lower.copy(),
            self.upper.copy(),
            self.axes.copy(),
            self.first_child.copy(),
            self.ratio.copy(),
            self.next_axis.copy(),
        )

    @property
    def tree(self) -> SplitTree:
        """The tree so far."""
        return SplitTree.from_children(self.axes.tolist(), self.first_child.tolist())

    @property
    def leaves(self) -> Indices:
        """Numbers of the leaves, worst first."""
        found = np.flatnonzero(self.axes < 0)
        return found[np.argsort(-self.ratio[found], kind="stable")]

    @property
    def worst(self) -> float:
        """The largest relative bound of any leaf."""
        return float(self.ratio[self.axes < 0].max())

    def measure(self, nodes: Indices, shape: tuple[int, ...]) -> None:
        """Bound the given leaves and choose the axis each would be cut along."""
        boxes = Interval(self.lower[nodes].reshape(-1, *shape), self.upper[nodes].reshape(-1, *shape))
        for part in batches(self.quantized.network, boxes):
            result = propagate(self.quantized.network, boxes[part], self.quantized)
            bound, rows = output_difference(result)
            relative = bound.magnitude / self.eps
            self.ratio[nodes[part]] = relative.max(axis=1)
            self.next_axis[nodes[part]] = _best_axis(result, rows, relative.argmax(axis=1))

    def cut(self, chosen: Indices) -> Indices:
        """Bisect leaves along their next axis; returns the numbers of the new leaves, not measured yet."""
        axis, at = self.next_axis[chosen], np.arange(chosen.size)
        lower, upper = self.lower[chosen], self.upper[chosen]
        middle = np.clip(0.5 * lower[at, axis] + 0.5 * upper[at, axis], lower[at, axis], upper[at, axis])
        left, right = upper.copy(), lower.copy()
        left[at, axis] = right[at, axis] = middle
        first, new = self.axes.size, 2 * chosen.size
        self.axes[chosen], self.first_child[chosen] = axis, first + 2 * at
        self.lower = np.concatenate([self.lower, np.stack([lower, right], axis=1).reshape(new, -1)])
        self.upper = np.concatenate([self.upper, np.stack([left, upper], axis=1).reshape(new, -1)])
        self.axes = np.concatenate([self.axes, np.full(new, -1)])
        self.first_child = np.concatenate([self.first_child, np.full(new, -1)])
        self.ratio = np.concatenate([self.ratio, np.full(new, np.inf)])
        self.next_axis = np.concatenate([self.next_axis, np.zeros(new, np.int64)])
        return np.arange(first, first + new)


def refine(
    quantized: QuantizedNetwork,
    box: Interval,
    eps: Reals,
    *,
    target: float = 1.0,
    max_leaves: int = 1024,
    deadline: float = float("inf"),
    start: Splitting | None = None,
    hopeless: bool = False,
) -> Splitting:
    """Cut the worst leaves until every relative bound is at most `target`, or a budget ends.

    Args:
        quantized: the pair of networks.
        box: the whole box, shape `input_shape`.
        eps: tolerance per output, shape `(outputs,)`.
        target: relative bound at which a leaf is left alone.
        max_leaves: most leaves the tree may have.
        deadline: `time.monotonic()` value after which nothing more is cut.
        start: tree of an earlier, similar network to begin with, its worst leaves first.
        hopeless: stop as soon as the leaves that are left will hardly reach the target. Bounds were seen to fall with
            about the square root of the number of leaves.
    """
    state = Splitting.root(quantized, eps, box) if start is None else start.again(quantized)
    leaves, shape = state.leaves, box.shape

    def gives_up(bound: float) -> bool:
        return hopeless and bound > 1.05 * target * (max_leaves / leaves.size) ** 0.6

    state.measure(leaves[:FIRST_LEAVES], shape)
    if gives_up(float(state.ratio[leaves[:FIRST_LEAVES]].max())):
        return state
    state.measure(leaves[FIRST_LEAVES:], shape)
    while box.lower.size <= MOST_INPUTS_TO_SPLIT and leaves.size < max_leaves and time.monotonic() < deadline:
        open_leaves = state.leaves[: int(np.sum(state.ratio[state.leaves] > target))]
        if open_leaves.size == 0 or gives_up(state.worst):
            break
        state.measure(state.cut(open_leaves[: _how_many(open_leaves.size, max_leaves - leaves.size)]), shape)
        leaves = state.leaves
    return state


def _how_many(open_leaves: int, left: int) -> int:
    """All open leaves while they are few, then the worse half, within what one batch and the budget allow."""
    return max(1, min(256, left, open_leaves if open_leaves <= 64 else open_leaves // 2))


def _best_axis(result: Propagation, rows: Mapping[str, Rows], output: Indices) -> Indices:
    """The input with the largest effect on the worst output's bound.

    An input acts directly, through the value row that reaches it, and through every undecided ReLU, whose remainder
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
    seed = np.eye(inputs).reshape(1, inputs, *box.shape[1:])
    gradients = {first: np.broadcast_to(seed, (boxes, *seed.shape[1:]))}
    for node in network.nodes[1:]:
        before, center = gradients[node.inputs[0]], result.facts[node.inputs[0]].value.center
        gradients[node.name] = node.op.forward_gradient(before, center)
        difference = rows[node.name].difference if node.name in rows else None
        if isinstance(node.op, Relu) and difference is not None:
            weight = _undecided_weight(result.facts[node.inputs[0]], difference[np.arange(boxes), output])
            flat = np.abs(before).reshape(boxes, inputs, -1)
            score = score + (flat @ weight.reshape(boxes, -1, 1))[..., 0]
    return (score * box.radius.reshape(boxes, inputs)).argmax(axis=1)


def _undecided_weight(facts: Facts, difference: Reals) -> Reals:
    """How much of the bound each undecided ReLU may cost per unit of its pre-activation's width."""
    value, fixed, change = facts.pair()
    undecided = ((value.lower < 0) & (value.upper > 0)) | ((fixed.lower < 0) & (fixed.upper > 0))
    return np.abs(difference) * change.magnitude * undecided / np.maximum(value.upper - value.lower, 1e-300)
