"""Which hidden units are dead, and which always active, for every input in a box.

Units that never change sign at samples are the candidates; those that one propagation does not settle are settled on the
leaves of a tree, the leaf with the most open candidates first. `verify.stability` proves what comes out once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.rewrite.reduce import reducible
from sound_qkeras.splitting.bisection import Bisection, Indices, affordable, how_many
from sound_qkeras.splitting.gradients import input_gradients
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.propagation import Propagation, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Bisecting one of very many inputs settles next to nothing.
MOST_INPUTS_TO_SPLIT = 64
# How often every leaf is propagated again: for replacement units, and in two proofs.
PROOFS = 4.0

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class StableUnits:
    """Units proved dead and proved active on every leaf of the tree, by Dense node; a node that is missing has neither."""

    dead: Mapping[str, Indices]
    active: Mapping[str, Indices]
    tree: SplitTree


def find_stable_units(
    network: Network, box: Interval, samples: Reals, *, max_leaves: int, deadline: Deadline | None = None
) -> StableUnits:
    """Settle which units are stable, of all that a ReLU and then one Dense node read.

    Args:
        network: the trained network.
        box: inputs, shape `input_shape`.
        samples: inputs in the box, `(n, *input_shape)`, at which candidates show another sign.
        max_leaves: most leaves of the tree.
        deadline: when it passes, nothing more is cut.
    """
    names = [name for name, path in reducible(network).items() if path.relu is not None]
    seen = [_signs(network.evaluate_all(tile), names) for tile in network.tiles(samples)]
    dead = {name: np.all([signs[name][0] for signs in seen], axis=0) for name in names}
    active = {name: np.all([signs[name][1] for signs in seen], axis=0) & ~dead[name] for name in names}
    search = _Search(network, box, dead, active)
    search.run(max_leaves, deadline or Deadline())
    return search.found()


def _signs(values: Mapping[str, Reals], names: Iterable[str]) -> dict[str, tuple[Flags, Flags]]:
    """By node, the units that are never above zero and those that are never below."""
    return {name: (np.all(values[name] <= 0.0, axis=0), np.all(values[name] >= 0.0, axis=0)) for name in names}


class _Search:
    def __init__(self, network: Network, box: Interval, dead: Mapping[str, Flags], active: Mapping[str, Flags]) -> None:
        self.network, self.shape = network, box.shape
        self.dead, self.active = dead, active
        self.boxes = Bisection.root(box)
        self.open: dict[int, dict[str, Flags]] = {}

    def run(self, max_leaves: int, deadline: Deadline) -> None:
        """Cut leaves with open candidates until there are none, or a budget ends."""
        started = deadline.now
        self.measure(np.zeros(1, np.int64), deadline)
        leaves = self.boxes.leaves
        while leaves.size < max_leaves and self.boxes.lower.shape[1] <= MOST_INPUTS_TO_SPLIT:
            worst = leaves[: int(np.sum(self.boxes.score[leaves] > 0.0))]
            each = (deadline.now - started) / self.boxes.axes.size
            count = min(how_many(worst.size, max_leaves - leaves.size), affordable(deadline, each, leaves.size, PROOFS))
            if worst.size == 0 or count < 1 or deadline.passed:
                break
            self.measure(self.boxes.cut(worst[: int(count)]), deadline)
            leaves = self.boxes.leaves

    def measure(self, nodes: Indices, deadline: Deadline) -> None:
        """Find the open candidates of leaves, and the axis each would be cut along."""
        boxes = self.boxes.boxes(nodes, self.shape)
        work = partial(_measure_batch, dead=self.dead, active=self.active)
        found = over_batches(work, self.network, boxes, deadline.moved(float("inf")))
        self.boxes.next_axis[nodes] = np.concatenate([axis for axis, _ in found])
        flags = {name: np.concatenate([flags[name] for _, flags in found]) for name in self.dead}
        self.boxes.score[nodes] = sum((flag.sum(axis=1) for flag in flags.values()), np.zeros(1))
        for number, node in enumerate(nodes):
            self.open[int(node)] = {name: flag[number] for name, flag in flags.items()}

    def found(self) -> StableUnits:
        """What no leaf leaves open; on the whole box at once, if cutting settled nothing more."""
        still = self._any(self.boxes.leaves)
        tree = self.boxes.tree
        if all(np.array_equal(still[name], flags) for name, flags in self.open[0].items()):
            tree = SplitTree()

        def settled(candidates: Mapping[str, Flags]) -> dict[str, Indices]:
            return {name: np.flatnonzero(flags & ~still[name]) for name, flags in candidates.items()}

        return StableUnits(settled(self.dead), settled(self.active), tree)

    def _any(self, leaves: Indices) -> dict[str, Flags]:
        return {name: np.any([self.open[int(leaf)][name] for leaf in leaves], axis=0) for name in self.dead}


def _measure_batch(
    network: Network, boxes: Interval, dead: Mapping[str, Flags], active: Mapping[str, Flags]
) -> tuple[Indices, dict[str, Flags]]:
    """The axis each box would be cut along, and which candidates are open on it, `(boxes, units)` by node."""
    result = propagate(network, boxes)
    flags: dict[str, Flags] = {}
    for name, candidates in dead.items():
        value = result.facts[name].value
        flags[name] = candidates & (value.upper > 0.0) | active[name] & (value.lower < 0.0)
    cuts = boxes.lower[0].size <= MOST_INPUTS_TO_SPLIT
    return _best_axis(result, flags) if cuts else np.zeros(boxes.shape[0], np.int64), flags


def _best_axis(result: Propagation, flags: Mapping[str, Flags]) -> Indices:
    """The input that moves the open candidates most."""
    box = result.facts[result.network.nodes[0].name].value
    radius = box.radius.reshape(box.shape[0], -1)
    gradients = input_gradients(result)
    score = np.zeros_like(radius)
    for name, flag in flags.items():
        width = np.maximum(result.facts[name].value.upper - result.facts[name].value.lower, 1e-300)
        score += (np.abs(gradients[name]) @ (flag / width)[..., None])[..., 0]
    return (score * radius).argmax(axis=1)
