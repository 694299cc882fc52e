"""What a search for the worst error knows about a pair of networks: slopes, kinks, the box and the input's grid.

Only heuristics: nothing proved depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.fixed_point import from_codes, scaled, to_grid
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network, Pair

# The grid on which the search moves where inputs have none: this share of the box's width.
FINE = 2.0**-12


@dataclass(frozen=True)
class SearchSpace:
    """What the moves know about a pair of networks: inputs are flat here, shape `(samples, inputs)`.

    Args:
        network: the trained network.
        unrounded: the subject with its own parameters and no rounding, so that `unrounded - network` is the
            smooth part of the error.
        lower, upper: ends of the box.
        step: of the input's format.
        input_bits: fractional bits that inputs have; None where they may be any numbers.
    """

    network: Network
    unrounded: Network
    lower: Reals
    upper: Reals
    step: float
    input_bits: int | None = None

    @classmethod
    def of(cls, pair: Pair, box: Interval) -> SearchSpace:
        """The space of a pair on a box of shape `input_shape`."""
        step = _input_step(pair, box)
        ends = box.lower.ravel(), box.upper.ravel()
        return cls(pair.reference, pair.subject, *ends, step, pair.input_bits)

    @property
    def width(self) -> Reals:
        """Widths of the box."""
        return self.upper - self.lower

    @property
    def input_codes(self) -> tuple[Reals, Reals]:
        """The smallest and the largest code of every input in the box, where inputs have so many fractional bits."""
        bits = self.input_bits or 0
        return np.ceil(scaled(self.lower, bits)), np.floor(scaled(self.upper, bits))

    def clip(self, points: Reals) -> Reals:
        """The nearest points of the box, among those that are inputs."""
        points = np.clip(points, self.lower, self.upper)
        if self.input_bits is None:
            return points
        low, high = self.input_codes
        codes = np.minimum(np.maximum(to_grid(points, self.input_bits), low), high)
        return np.clip(from_codes(codes, self.input_bits), self.lower, self.upper)


def _input_step(pair: Pair, box: Interval) -> float:
    """The step of what the input is rounded to, where it is."""
    first = pair.network.nodes[0].name
    names = [first, *(reader.name for reader in pair.network.readers[first])]
    steps = [pair.code_formats[name].step for name in names if name in pair.code_formats]
    return min(steps) if steps else max(float(np.max(box.upper - box.lower)) * FINE, 2.0**-200)


def slopes(network: Network, points: Reals, rows: Reals) -> Reals:
    """Gradient of `rows . output` at each point, both flat: `(points, inputs)` and `(points, outputs)`."""
    values = network.evaluate_all(points.reshape(-1, *network.input_shape))
    pulled = {network.output.name: rows.reshape(-1, 1, *network.output_shape)}
    for node in reversed(network.nodes[1:]):
        if node.name in pulled:
            parts = node.op.gradient(pulled[node.name], *(values[name] for name in node.inputs))
            for source, part in zip(node.inputs, parts, strict=True):
                pulled[source] = pulled[source] + part if source in pulled else part
    return pulled[network.nodes[0].name].reshape(points.shape)


def breakpoints(network: Network, points: Reals, directions: Reals) -> Reals:
    """How far along its direction each point's linear piece says every operation's breakpoint is, shape `(points, elements)`.

    Points and directions are flat, shape `(points, inputs)`; elements without a breakpoint ahead have infinity.
    """
    first = network.nodes[0].name
    values = network.evaluate_all(points.reshape(-1, *network.input_shape))
    pushed = {first: directions.reshape(-1, 1, *network.input_shape)}
    found = [np.full((len(points), 1), np.inf)]
    for node in network.nodes[1:]:
        inputs, directed = [values[name] for name in node.inputs], [pushed[name] for name in node.inputs]
        pushed[node.name] = node.op.forward_gradient(directed, *inputs)
        found.append(node.op.ahead([part[:, 0] for part in directed], *inputs))
    return np.concatenate(found, axis=1)
