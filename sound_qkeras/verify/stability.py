"""Which units never act and which never clip on a box, and the proof that a rewritten network is the trained one there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.rewrite.reduce import Reduction, kept_units, reducible
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.propagation import propagate
from sound_qkeras.verify.split_tree import SplitTree


def value_ranges(network: Network, boxes: Interval, names: Iterable[str]) -> dict[str, Interval]:
    """For the named nodes, the hull of every element's float value over boxes `(boxes, *input_shape)`."""
    wanted = sorted(names)
    if not wanted:
        return {}
    hulls = zip(*over_batches(partial(_hulls, names=wanted), network, boxes), strict=True)
    return {
        name: Interval(np.min([h.lower for h in found], axis=0), np.max([h.upper for h in found], axis=0))
        for name, found in zip(wanted, hulls, strict=True)
    }


def _hulls(network: Network, boxes: Interval, names: Sequence[str]) -> list[Interval]:
    """The same for one batch, in the order of the names."""
    facts = propagate(network, boxes).facts
    return [facts[name].value.hull() for name in names]


def check_rewrite(pair: Pair, box: Interval, tree: SplitTree) -> None:
    """Prove that the rewritten network is the same function as the trained one for every input in the box.

    Guarantee: on every leaf of the tree, units that were dropped never exceed zero, units that were replaced never fall
    below, and neither do those that replace them. Rescaling by powers of two is exact and needs no proof.

    Args:
        pair: the trained network, its rewrite, and the outcome.
        box: inputs, shape `input_shape`.
        tree: the leaves to prove it on.

    Raises:
        VerificationError: names the layer and the unit.
    """
    reductions = pair.rewrite.reductions
    if not reductions:
        return
    leaves = tree.leaves(box)
    # Without a ReLU behind them units are only ever replaced by others of the same sum, whatever their sign.
    rectified = {name for name, path in reducible(pair.reference).items() if path.relu is not None}
    trained = value_ranges(pair.reference, leaves, set(reductions) & rectified)
    replaced = {name for name in trained if reductions[name].form in {"outputs", "inputs"}}
    rewritten = value_ranges(pair.network, leaves, replaced)
    for name, values in trained.items():
        _check_units(pair, name, reductions[name], values)
        if name in rewritten:
            first = kept_units(reductions[name], values.lower.size)
            _refuse(pair, name, "replacement", rewritten[name].lower[first:] >= 0.0)


def _check_units(pair: Pair, name: str, reduction: Reduction, values: Interval) -> None:
    _refuse(pair, name, "dropped", values.upper[reduction.dead] <= 0.0)
    _refuse(pair, name, "replaced", values.lower[reduction.active] >= 0.0)


def _refuse(pair: Pair, name: str, what: str, holds: np.ndarray) -> None:
    if not np.all(holds):
        layer = pair.reference.by_name[name].layer
        raise VerificationError(
            f"layer '{layer}': its {what} unit {int(np.argmin(holds))} is not proved to stay on one side of zero, so the "
            "rewritten network may differ from the trained one",
            layer_name=layer,
        )
