"""A growing tree of boxes: leaves are bisected, and the tree that comes out covers the whole box by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.types import Indices
from sound_qkeras.verify.split_tree import SplitTree, in_order


@dataclass
class Bisection:
    """Nodes in order of creation, the root first.

    Args:
        lower, upper: the nodes' boxes, flat, shape `(nodes, inputs)`.
        axes: the input a node was cut along, -1 for leaves.
        first_child: the number of a node's first child, which the second follows; -1 for leaves.
        score: what is measured about a node, larger is worse; until it is, that of what it was cut from, infinite for the root.
        next_axis: the input along which a leaf would be cut.
    """

    lower: Reals
    upper: Reals
    axes: Indices
    first_child: Indices
    score: Reals
    next_axis: Indices

    @classmethod
    def root(cls, box: Interval) -> Self:
        """The whole box, not measured yet."""
        lower, upper = box.lower.reshape(1, -1), box.upper.reshape(1, -1)
        leaf = np.array([-1])
        return cls(lower, upper, leaf, leaf.copy(), np.array([np.inf]), np.zeros(1, np.int64))

    def copy(self) -> Self:
        """The same tree with the same scores, to grow on its own."""
        return type(self)(*(array.copy() for array in vars(self).values()))

    @property
    def tree(self) -> SplitTree:
        """The tree so far."""
        return SplitTree.from_children(self.axes.tolist(), self.first_child.tolist())

    @property
    def leaves(self) -> Indices:
        """Numbers of the leaves, worst first."""
        found = np.flatnonzero(self.axes < 0)
        return found[np.argsort(-self.score[found], kind="stable")]

    @property
    def leaves_in_order(self) -> Indices:
        """Numbers of the leaves in the order of the tree's sequence."""
        order = np.array(in_order(self.axes.tolist(), self.first_child.tolist()))
        return order[self.axes[order] < 0]

    @property
    def worst(self) -> float:
        """The largest score of any leaf."""
        return float(self.score[self.axes < 0].max())

    def boxes(self, nodes: Indices, shape: tuple[int, ...]) -> Interval:
        """The boxes of some nodes, `(nodes, *shape)`."""
        return Interval(self.lower[nodes].reshape(-1, *shape), self.upper[nodes].reshape(-1, *shape))

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
        self.score = np.concatenate([self.score, np.repeat(self.score[chosen], 2)])
        self.next_axis = np.concatenate([self.next_axis, np.repeat(axis, 2)])
        return np.arange(first, first + new)


def affordable(deadline: Deadline, each: float, leaves: int, later: float) -> float:
    """How many leaves can be cut in the time that is left.

    Args:
        deadline: a budget in seconds; any other sets no limit.
        each: seconds that a leaf was seen to take.
        leaves: how many there are.
        later: what proving a leaf takes in the end, in terms of `each`.
    """
    if not deadline.timed or each <= 0.0:
        return math.inf
    return max(0.0, ((deadline.latest - deadline.now) / each - later * leaves) // (2.0 + later))


def how_many(open_leaves: int, left: int) -> int:
    """All open leaves while they are few, then the worst eighth, within what one batch and the budget allow.

    Cutting more at a time spends leaves on boxes that are not the worst by then.
    """
    return max(1, min(256, left, open_leaves, max(32, open_leaves // 8)))
