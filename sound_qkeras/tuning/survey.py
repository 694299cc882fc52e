"""What a network's values are at samples: the ends of their ranges, and the mean inputs of layers with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network


@dataclass(frozen=True)
class Survey:
    """Of every node the smallest and largest value at any sample; of layers with weights the mean input `(*input_shape)`."""

    ends: Mapping[str, tuple[float, float]]
    mean_inputs: Mapping[str, Reals]

    @classmethod
    def of(cls, network: Network, samples: Reals) -> Survey:
        """At samples `(n, *input_shape)`, a tile at a time."""
        ends: dict[str, tuple[float, float]] = {}
        sums: dict[str, Reals] = {}
        for tile in network.tiles(samples):
            values = network.evaluate_all(tile)
            for name, value in values.items():
                low, high = ends.get(name, (np.inf, -np.inf))
                ends[name] = min(low, float(value.min())), max(high, float(value.max()))
            for node, _ in network.affine():
                sums[node.name] = sums.get(node.name, 0.0) + values[node.inputs[0]].sum(axis=0)
        return cls(ends, {name: total / len(samples) for name, total in sums.items()})

    def ranges_with(self, other: Survey) -> dict[str, Interval]:
        """What holds the values of both."""
        pairs = {name: (*self.ends[name], *other.ends[name]) for name in self.ends}
        return {name: Interval(np.array(min(four)), np.array(max(four))) for name, four in pairs.items()}
