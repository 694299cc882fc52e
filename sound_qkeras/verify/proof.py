"""The one place a bound is made: every leaf of a box is propagated, and nothing overflows on any of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.quantized import QuantizedNetwork, check_exactness
from sound_qkeras.verify.propagation import batches, fixed_ranges, output_difference, propagate
from sound_qkeras.verify.split_tree import SplitTree


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


def prove(quantized: QuantizedNetwork, box: Interval, tree: SplitTree | None = None) -> Proof:
    """Prove error bounds and the absence of overflow for every input in `box` (shape `input_shape`).

    Guarantee: uses only the graph, the float parameters, the integers, the formats and the box; nothing the tuner or the
    solver computed.

    Raises:
        VerificationError: a value may overflow its format, or a sum may need more than 53 bits; names the layer.
    """
    check_exactness(quantized)
    leaves = (tree or SplitTree()).leaves(box)
    bounds: list[Reals] = []
    ranges: dict[str, Interval] = {}
    for part in batches(quantized.network, leaves):
        result = propagate(quantized.network, leaves[part], quantized)
        bounds.append(output_difference(result)[0].magnitude)
        for name, found in fixed_ranges(result).items():
            ranges[name] = found if name not in ranges else _join(ranges[name], found)
    check_overflow(quantized, ranges)
    leaf_bounds = np.concatenate(bounds)
    named = {name: (float(found.lower), float(found.upper)) for name, found in ranges.items()}
    return Proof(leaf_bounds.max(axis=0), leaf_bounds, named)


def _join(a: Interval, b: Interval) -> Interval:
    return Interval(np.minimum(a.lower, b.lower), np.maximum(a.upper, b.upper))


def check_overflow(quantized: QuantizedNetwork, ranges: dict[str, Interval]) -> None:
    """Refuse formats that do not contain the proved range of what is rounded to them or summed in them.

    Raises:
        VerificationError: names the layer, the range and the format.
    """
    for kind, formats in (("output", quantized.formats), ("accumulator", quantized.accumulators)):
        for name, output in formats.items():
            found = ranges[name]
            if not output.contains(found.lower, found.upper):
                layer = quantized.network.by_name[name].layer
                raise VerificationError(
                    f"layer '{layer}' {kind}: values reach [{float(found.lower):.9g}, {float(found.upper):.9g}], "
                    f"its format holds [{output.minimum:.9g}, {output.maximum:.9g}]",
                    layer_name=layer,
                )
