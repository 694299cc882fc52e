"""Where a bound over a box is made: every leaf of a box is propagated, and nothing overflows on any of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.pair import Pair
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.propagation import Propagation, fixed_ranges, output_difference, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Recorded bounds and ranges exceed the proved ones by this relative margin, so that another machine, whose matrix
# products round differently, proves them too. The comparison itself has no tolerance.
MARGIN = 2.0**-30


@dataclass(frozen=True)
class Proof:
    """What was proved over a box.

    Args:
        output_bounds: bound on `|f_q(x) - f(x)|` for every output, shape `(outputs,)`.
        leaf_bounds: the same per leaf, shape `(leaves, outputs)`.
        ranges: for each node, an interval that holds the fixed-point value before rounding, over the whole box.
    """

    output_bounds: Reals
    leaf_bounds: Reals
    ranges: dict[str, tuple[float, float]]

    @property
    def bound(self) -> float:
        """The largest output bound."""
        return float(self.output_bounds.max())


def prove(pair: Pair, box: Interval, tree: SplitTree | None = None) -> Proof:
    """Prove error bounds and the absence of overflow for every input in `box` (shape `input_shape`).

    Guarantee: uses only the graph, the float parameters, the integers, the formats and the box; nothing the tuner or the
    solver computed.

    Raises:
        VerificationError: a value may overflow its format; names the layer.
    """
    proof = bound_leaves(pair, box, tree)
    check_overflow(pair, proof.ranges)
    return proof


def prove_ranges(pair: Pair, box: Interval) -> dict[str, tuple[float, float]]:
    """The ranges of `prove` alone, from node to node, and that nothing overflows.

    Raises:
        VerificationError: a value may overflow its format; names the layer.
    """
    ranges = ranges_of(pair, box)
    check_overflow(pair, ranges)
    return ranges


def ranges_of(pair: Pair, box: Interval) -> dict[str, tuple[float, float]]:
    """For each node an interval that holds the fixed-point value before rounding, if nothing overflows."""
    return _scalars(propagate(pair.network, box[None], pair, substitute=False))


def ranges_over(pair: Pair, boxes: Interval) -> dict[str, tuple[float, float]]:
    """As `ranges_of`, over some boxes together."""
    return _hull([part for _, part in over_batches(_bound_batch, pair, boxes)])


def _hull(parts: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    return {
        name: (
            float(np.min([part[name][0] for part in parts])),
            float(np.max([part[name][1] for part in parts])),
        )
        for name in parts[0]
    }


def bound_boxes(pair: Pair, boxes: Interval) -> Reals:
    """Bounds on every output's error on each of some boxes, shape `(boxes, outputs)`, if nothing overflows."""
    return np.concatenate([bounds for bounds, _ in over_batches(_bound_batch, pair, boxes)])


def bound_leaves(pair: Pair, box: Interval, tree: SplitTree | None = None) -> Proof:
    """The bounds and ranges of `prove`, under the condition that nothing overflows, which is not checked."""
    found = over_batches(_bound_batch, pair, (tree or SplitTree()).leaves(box))
    ranges = _hull([part for _, part in found])
    leaf_bounds = np.concatenate([bounds for bounds, _ in found])
    return Proof(leaf_bounds.max(axis=0), leaf_bounds, ranges)


def _bound_batch(pair: Pair, boxes: Interval) -> tuple[Reals, dict[str, tuple[float, float]]]:
    """Bounds of every output on each box, shape `(boxes, outputs)`, and each node's range over all of them."""
    result = propagate(pair.network, boxes, pair)
    return output_difference(result).magnitude, _scalars(result)


def _scalars(result: Propagation) -> dict[str, tuple[float, float]]:
    return {name: (float(found.lower), float(found.upper)) for name, found in fixed_ranges(result).items()}


def check_overflow(pair: Pair, ranges: dict[str, tuple[float, float]]) -> None:
    """Refuse formats that do not contain the proved range of what is rounded to them or summed in them, and huge tables.

    Rounding points that saturate are exempt: their proof charges what is cut off.

    Raises:
        VerificationError: names the layer, the range and the format.
    """
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise VerificationError(f"node '{name}': its range [{low}, {high}] is not finite", layer_name=name)
    for name, table in pair.tables.items():
        if table.problem:
            layer = pair.network.by_name[name].layer
            raise VerificationError(
                f"layer '{layer}': {table.problem}; give what it reads or its result fewer bits", layer_name=layer
            )
    for kind, formats in (("output", pair.formats), ("accumulator", pair.accumulators)):
        for name, output in formats.items():
            low, high = ranges[name]
            exempt = kind == "output" and name in pair.saturating
            if not exempt and not output.contains(low, high):
                layer = pair.network.by_name[name].layer
                raise VerificationError(
                    f"layer '{layer}' {kind}: values reach [{low:.9g}, {high:.9g}], "
                    f"its format holds [{output.minimum:.9g}, {output.maximum:.9g}]",
                    layer_name=layer,
                )


def with_margin(low: float, high: float) -> tuple[float, float]:
    """A range as it is recorded: `MARGIN` wider on both sides; an end at zero is where a ReLU cut it, exactly."""
    margin = MARGIN * max(abs(low), abs(high))
    return low - margin if low else low, high + margin if high else high
