"""Which leaves to cut, and along which input: best-first bisection until the bound is reached.

Nothing here needs to be trusted: the tree that comes out covers the box by construction, and the proof is made again on
its leaves.

Reference: Bunel et al., Branch and bound for piecewise linear neural network verification (JMLR 2020).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.ops import Affine, Input, Relu
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.verify.propagation import Propagation, batches, output_difference, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Bisecting one of very many inputs changes next to nothing.
MOST_INPUTS_TO_SPLIT = 64


@dataclass
class Splitting:
    """A growing tree with the bound of every node, relative to the tolerance of each output (1 meets it)."""

    quantized: QuantizedNetwork
    eps: Reals
    lower: Reals
    upper: Reals
    axes: list[int] = field(default_factory=lambda: [-1])
    first_child: list[int] = field(default_factory=lambda: [-1])
    ratio: list[float] = field(default_factory=list)
    next_axis: list[int] = field(default_factory=list)

    @property
    def tree(self) -> SplitTree:
        """The tree so far."""
        return SplitTree.from_children(self.axes, self.first_child)

    def open_leaves(self, target: float) -> np.ndarray:
        """Leaves above the target, worst first."""
        axes, ratio = np.array(self.axes), np.array(self.ratio)
        found = np.flatnonzero((axes < 0) & (ratio > target))
        return found[np.argsort(-ratio[found])]

    @property
    def worst(self) -> float:
        """The largest relative bound of any leaf."""
        return float(max(r for r, axis in zip(self.ratio, self.axes, strict=True) if axis < 0))


def refine(
    quantized: QuantizedNetwork,
    box: Interval,
    eps: Reals,
    *,
    target: float = 1.0,
    max_leaves: int = 1024,
    deadline: float = float("inf"),
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
        hopeless: stop as soon as the leaves that are left will hardly reach the target. Bounds were seen to fall with
            about the square root of the number of leaves.
    """
    state = Splitting(quantized, eps, box.lower.reshape(1, -1), box.upper.reshape(1, -1))
    _measure(state, box.shape, np.array([0]))
    leaves = 1
    while box.lower.size <= MOST_INPUTS_TO_SPLIT and leaves < max_leaves and time.monotonic() < deadline:
        worst = state.open_leaves(target)
        if worst.size == 0 or (hopeless and state.worst > 1.05 * target * (max_leaves / leaves) ** 0.6):
            break
        chosen = worst[: max(1, min(256, max_leaves - leaves, (worst.size + 1) // 2))]
        new = _cut(state, chosen)
        _measure(state, box.shape, new)
        leaves += chosen.size
    return state


def _cut(state: Splitting, chosen: np.ndarray) -> np.ndarray:
    """Bisect the chosen leaves; returns the numbers of the new nodes."""
    axis = np.array(state.next_axis)[chosen]
    lower, upper = state.lower[chosen], state.upper[chosen]
    at = np.arange(chosen.size)
    middle = np.clip(0.5 * lower[at, axis] + 0.5 * upper[at, axis], lower[at, axis], upper[at, axis])
    left, right = upper.copy(), lower.copy()
    left[at, axis] = right[at, axis] = middle
    first = len(state.axes)
    new_lower = np.stack([lower, right], axis=1).reshape(-1, lower.shape[1])
    new_upper = np.stack([left, upper], axis=1).reshape(-1, lower.shape[1])
    state.lower, state.upper = np.concatenate([state.lower, new_lower]), np.concatenate([state.upper, new_upper])
    for count, (node, cut) in enumerate(zip(chosen, axis, strict=True)):
        state.axes[node], state.first_child[node] = int(cut), first + 2 * count
    state.axes += [-1] * (2 * chosen.size)
    state.first_child += [-1] * (2 * chosen.size)
    return np.arange(first, first + 2 * chosen.size)


def _measure(state: Splitting, shape: tuple[int, ...], nodes: np.ndarray) -> None:
    """Bound the given new nodes and choose the axis each would be cut along."""
    boxes = Interval(state.lower[nodes].reshape(-1, *shape), state.upper[nodes].reshape(-1, *shape))
    for part in batches(state.quantized.network, boxes):
        result = propagate(state.quantized.network, boxes[part], state.quantized)
        bound, rows = output_difference(result)
        relative = bound.magnitude / state.eps
        state.ratio += relative.max(axis=1).tolist()
        state.next_axis += _best_axis(result, rows, relative.argmax(axis=1)).tolist()


def _best_axis(result: Propagation, rows: dict, output: np.ndarray) -> np.ndarray:
    """The input with the largest effect on the worst output's bound.

    An input acts directly, through the value row that reaches it, and through every undecided ReLU, whose remainder
    shrinks with the width of its pre-activation; the local gradient at the box's centre says how much of it is whose.
    """
    network = result.network
    box = result.facts[network.nodes[0].name].value
    at = np.arange(box.shape[0])
    flat = box.shape[0], -1
    direct = rows[network.nodes[0].name].value
    score = np.zeros((box.shape[0], box.lower[0].size)) if direct is None else np.abs(direct[at, output].reshape(flat))
    gradient = np.broadcast_to(
        np.eye(score.shape[1]).reshape(1, score.shape[1], *box.shape[1:]),
        (box.shape[0], score.shape[1], *box.shape[1:]),
    )
    gradients = {network.nodes[0].name: gradient}
    for node in network.nodes[1:]:
        if isinstance(node.op, Input):
            continue
        before = gradients[node.inputs[0]]
        if isinstance(node.op, Affine):
            gradients[node.name] = node.op.apply(node.op.kernel, before)
            continue
        if not isinstance(node.op, Relu):
            gradients[node.name] = before.reshape(*before.shape[:2], *network.shapes[node.name])
            continue
        z = result.facts[node.inputs[0]]
        active = (z.value.center > 0)[:, None]
        gradients[node.name] = before * active
        difference = rows[node.name].difference if node.name in rows else None
        if difference is None:
            continue
        value, fixed, change = z.pair()
        undecided = ((value.lower < 0) & (value.upper > 0)) | ((fixed.lower < 0) & (fixed.upper > 0))
        weight = np.abs(difference[at, output]) * change.magnitude * undecided
        weight = weight / np.maximum(value.upper - value.lower, 1e-300)
        score += np.einsum("bin,bn->bi", np.abs(before).reshape(*before.shape[:2], -1), weight.reshape(flat))
    return (score * box.radius.reshape(flat)).argmax(axis=1)
