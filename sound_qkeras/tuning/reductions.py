"""Which hidden layers shrink: dead units always go, active ones where their replacements need fewer weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sound_qkeras.interval import Interval, Reals, up
from sound_qkeras.network.graph import Network
from sound_qkeras.network.rewrite.reduce import Path, Reduction, kept_units, reduce_units, reducible
from sound_qkeras.splitting.stability import MOST_INPUTS_TO_SPLIT, StableUnits, find_stable_units
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.rounding import sample_box
from sound_qkeras.verify.split_tree import SplitTree
from sound_qkeras.verify.stability import value_ranges

# Samples that refute candidates. Where the box has too many inputs to be cut, so few will do that they take at most so many
# multiplications, for what they leave is settled by one propagation.
SAMPLES, FEWEST_SAMPLES, MOST_PRODUCTS = 4096, 64, 1_000_000_000
# Replacement units stay this share of their largest magnitude above zero.
SPARE = 2.0**-10
NONE = np.zeros(0, np.int64)


def reductions_of(
    network: Network, box: Interval, *, max_leaves: int, deadline: Deadline | None = None
) -> tuple[dict[str, Reduction], SplitTree]:
    """What the layers of a trained network shrink to on a box, and the tree that proves it.

    Args:
        network: the trained network.
        box: inputs, shape `input_shape`.
        max_leaves: most leaves of the tree.
        deadline: when it passes, nothing more is cut.
    """
    if not reducible(network):
        return {}, SplitTree()
    count = SAMPLES
    if box.lower.size > MOST_INPUTS_TO_SPLIT:
        count = min(SAMPLES, max(FEWEST_SAMPLES, MOST_PRODUCTS // max(1, network.products)))
    stable = find_stable_units(network, box, sample_box(box, count), max_leaves=max_leaves, deadline=deadline)
    chosen = choose(network, stable)
    if not chosen:
        return {}, SplitTree()
    return _shifted(network, chosen, stable.tree.leaves(box)), stable.tree


def choose(network: Network, stable: StableUnits) -> dict[str, Reduction]:
    """The form with the fewest weights for every layer, the last one first; replacement units are not shifted yet."""
    paths = reducible(network)
    units = {node.name: max(1, op.bias.size - stable.dead.get(node.name, NONE).size) for node, op in network.affine()}
    feeders = {path.last.name: name for name, path in paths.items()}
    found: dict[str, Reduction] = {}
    for name, path in reversed(paths.items()):
        kernel = path.first.op.arrays()["kernel"]
        inputs = units[feeders[name]] if name in feeders else kernel.shape[0]
        reduction = _cheapest(path, stable, kernel.shape[1], inputs, units[path.last.name])
        if reduction is not None:
            found[name] = reduction
            units[name] = _units_left(reduction, kernel.shape[1], units[path.last.name])
    return found


def _cheapest(path: Path, stable: StableUnits, total: int, inputs: int, outputs: int) -> Reduction | None:
    """The best reduction of a layer of `total` units that reads so many inputs and is read by so many units."""
    if path.relu is None:
        dead, active = NONE, np.arange(total)
    else:
        dead, active = (found.get(path.first.name, NONE) for found in (stable.dead, stable.active))
    if dead.size == total:  # a layer needs a unit
        dead = dead[1:]
    kept = total - dead.size - active.size
    replaced = {"kept": active.size, "outputs": outputs, "inputs": inputs}
    weights = {form: (kept + count) * (inputs + outputs) for form, count in replaced.items()}
    if kept == 0:
        weights["merged"] = inputs * outputs
    form = min(weights, key=lambda form: weights[form]) if active.size else "kept"
    if form == "kept":
        return Reduction(dead, NONE, form, np.zeros(0)) if dead.size else None
    return Reduction(dead, active, form, np.zeros(replaced.get(form, 0)))


def _units_left(reduction: Reduction, total: int, outputs: int) -> int:
    """Units between a layer's inputs and its reader; where it is merged, those of its reader."""
    return outputs if reduction.form == "merged" else kept_units(reduction, total) + reduction.shift.size


def _shifted(network: Network, chosen: Mapping[str, Reduction], leaves: Interval) -> dict[str, Reduction]:
    """Shift replacement units above zero, layer by layer, as the ranges of later ones follow from the earlier."""
    found = dict(chosen)
    for name, path in reducible(network).items():
        if name in found and found[name].form in {"outputs", "inputs"}:
            first = kept_units(found[name], len(path.first.op.arrays()["bias"]))
            values = value_ranges(reduce_units(network, found), leaves, [name])[name][first:]
            found[name] = replace(found[name], shift=_shift(values))
    return found


def _shift(values: Interval) -> Reals:
    """A little more than what is lacking, for another machine's rounding and bounds that shifting changes."""
    return np.where(values.lower < 0.0, up(SPARE * values.magnitude - values.lower), 0.0)
