"""How a box was cut into leaves: a tree of bisections whose leaves cover the box by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.interval import Interval, Reals


@dataclass(frozen=True)
class SplitTree:
    """Bisections in preorder: the flat input axis a node is cut along at its midpoint, or -1 for a leaf.

    >>> SplitTree((0, -1, -1)).leaves(Interval(np.array([0.0]), np.array([1.0]))).lower.tolist()
    [[0.0], [0.5]]
    """

    axes: tuple[int, ...] = (-1,)

    @property
    def leaf_count(self) -> int:
        """Number of leaves."""
        return sum(axis < 0 for axis in self.axes)

    def leaves(self, box: Interval) -> Interval:
        """The leaves of `box` (shape `(*input_shape,)`), stacked to `(leaves, *input_shape)`; together they cover it.

        Raises:
            VerificationError: the sequence is not a tree over this box's axes.
        """
        size = box.lower.size
        waiting = [(box.lower.reshape(-1), box.upper.reshape(-1))]
        lower: list[Reals] = []
        upper: list[Reals] = []
        for axis in self.axes:
            if not waiting or axis not in range(-1, size):
                raise VerificationError("the split tree is malformed: it does not cut this box into leaves")
            low, high = waiting.pop()
            if axis < 0:
                lower.append(low)
                upper.append(high)
                continue
            waiting.extend(reversed(bisect(low, high, axis)))
        if waiting:
            raise VerificationError("the split tree is malformed: it leaves a part of the box uncovered")
        return Interval(np.stack(lower).reshape(-1, *box.shape), np.stack(upper).reshape(-1, *box.shape))

    @classmethod
    def from_children(cls, axes: Sequence[int], first_child: Sequence[int]) -> SplitTree:
        """Build from parallel lists: node i is cut along `axes[i]` into nodes `first_child[i]` and the one after it."""
        return cls(tuple(int(axes[node]) for node in in_order(axes, first_child)))


def in_order(axes: Sequence[int], first_child: Sequence[int]) -> list[int]:
    """Numbers of the nodes of parallel lists in the order of the tree's sequence, and so of its leaves."""
    order: list[int] = []
    waiting = [0]
    while waiting:
        node = waiting.pop()
        order.append(node)
        if axes[node] >= 0:
            waiting.extend((first_child[node] + 1, first_child[node]))
    return order


def bisect(lower: Reals, upper: Reals, axis: int) -> tuple[tuple[Reals, Reals], ...]:
    """The two halves of a flat box, sharing the midpoint."""
    middle = 0.5 * lower[axis] + 0.5 * upper[axis]
    middle = min(max(middle, lower[axis]), upper[axis])
    left, right = upper.copy(), lower.copy()
    left[axis] = right[axis] = middle
    return (lower, left), (right, upper)
