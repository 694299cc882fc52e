"""Fractional bits of its own for every output channel of a layer, around those the layer as a whole was given.

Channels share a layer's part of the error unequally: with S_c the size of what a rounding error of channel c is multiplied
with, a step of 2**-b_c contributes about S_c 2**-b_c. For a fixed sum of contributions the bits are fewest where all
contributions are equal, b_c = b + log2(S_c / mean S), which saves log2(arithmetic mean / geometric mean of S) bits on
every weight. A level added to all of these is lowered by bisection as long as the proof holds: fewer bits come off
channel by channel, those closest to their next whole number first.

Reference: Cover and Thomas, Elements of Information Theory (2006), section 10.3.3, for the allocation (reverse water-filling).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np

from sound_qkeras.interval import SINGLE, Interval, Reals
from sound_qkeras.network.graph import Node
from sound_qkeras.network.ops import Conv, Dense, Relu, Rows
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.tuning.search import Attempt, Search
from sound_qkeras.tuning.trimming import MOST_REFUSALS
from sound_qkeras.tuning.words import span
from sound_qkeras.verify.propagation import Propagation, batches, output_sensitivities, proof_work, propagate

# Channels differ from their layer by at most so many bits downward and upward.
FEWER, MORE = 20, 6
# Levels between which the bisection starts, and how close it comes.
LOWEST, HIGHEST, RESOLUTION = -1.5, 1.5, 0.1
# Share of the search's time budget that this may use where the search left none; within that, at least so many seconds and
# at most twice what the search took.
SHARE_OF_TIME, LEAST_SECONDS = 0.25, 2.0
LEAST_SENSITIVITY = 1e-6
TINIEST = 1e-300


def spread_bits(search: Search[Any], base: Attempt[Any]) -> Attempt[Any]:
    """The network of a proved attempt with formats of their own for the channels, and as few weight bits as were proved.

    What comes out is accepted as `base` is, and has no more weight bits.
    """
    now = search.deadline.now
    latest = max(search.deadline.latest, now + SHARE_OF_TIME * search.effort.seconds)
    search.deadline = search.deadline.moved(min(latest, now + max(LEAST_SECONDS, 2.0 * (now - search.started))))
    spread = _Spread(search, base)
    spread.lower()
    spread.trim()
    return spread.best


def sensitivities(
    quantized: Pair,
    leaves: Interval,
    eps: Reals,
    centers: Mapping[str, Reals],
    deadline: Deadline | None = None,
) -> dict[str, Reals]:
    """Per kernel and output channel, the most that rounding errors of its weights are multiplied with on any leaf.

    That is the coefficient with which the proof carries the channel's error to an output, over that output's tolerance, times
    the norm of the inputs the weights multiply; without these inputs' centre, whose errors biases absorb. When the deadline passes,
    the first leaves have to do.
    """
    channels = sum(op.kernel.shape[-1] for _, op in quantized.network.owners())
    found: dict[str, Reals] = {}
    for part in batches(quantized.network, leaves):
        if found and deadline is not None and deadline.passed:
            break
        if deadline is not None:
            deadline.count(proof_work(quantized.network) * leaves[part].shape[0])
        result = propagate(quantized.network, leaves[part], quantized, precision=SINGLE)
        _, rows = output_sensitivities(result)
        for node, _ in quantized.network.affine():
            inputs = (result.facts[node.inputs[0]].value - Interval.point(centers[node.name][None])).magnitude
            size = np.linalg.norm(inputs.reshape(len(inputs), -1), axis=1)
            slope = _slopes(result, rows, node, eps, 1.0 / channels) * size.reshape(-1, *(1,) * (inputs.ndim - 1))
            worst = slope.reshape(-1, slope.shape[-1]).max(axis=0)
            owner = quantized.network.owner(node.name)
            found[owner] = np.maximum(worst, found.get(owner, 0.0))
    return found


def _slopes(result: Propagation, rows: Mapping[str, Rows], node: Node, eps: Reals, share: float) -> Reals:
    """Largest relative coefficient of each element's error, shape `(boxes, *shape)`.

    A unit that is dead by some margin does no harm until its error exceeds the margin. The coefficient of such a one is that
    of the line through the error at which it takes up the given share of the tolerance.
    """
    _, fixed, _ = result.facts[node.name].pair()
    reader = next((reader for reader in result.network.readers[node.name] if isinstance(reader.op, Relu)), node)
    arrived = rows[reader.name].difference if reader.name in rows else None
    if arrived is None:
        return np.zeros(fixed.shape)
    slope = np.abs(arrived / eps.reshape(1, -1, *(1,) * (arrived.ndim - 2))).max(axis=1)
    margin = np.maximum(-fixed.upper, 0.0) if reader is not node else 0.0
    return slope / (1.0 + slope * margin / share)


class _Spread:
    """The best attempt so far, and what is known about the layers with weights."""

    def __init__(self, search: Search[Any], base: Attempt[Any]) -> None:
        self.search, self.base, self.best, self.refused = search, base, base, 0
        nodes = search.network.by_name
        self.groups = {
            group.node: group
            for group in search.space.groups
            if group.kind == "weight" and isinstance(nodes[group.node].op, Dense | Conv)
        }
        # Few values have scales of channels, and no words of other lengths.
        self.few = {name for name in self.groups if base.pair.parameters[name].kernel_grid is not None}
        self.most = {name: self._most(name) for name in self.groups}
        self._prove({name: np.zeros_like(most) for name, most in self.most.items()})

    def lower(self) -> None:
        """Place all channels by their sensitivity, at the lowest level that is proved."""
        places = self._places()
        lowest, highest = LOWEST, HIGHEST
        while highest - lowest > RESOLUTION and self._goes_on():
            level = 0.5 * (lowest + highest)
            if self._prove({name: np.rint(place + level).astype(np.int64) for name, place in places.items()}):
                highest = level
            else:
                lowest = level

    def trim(self) -> None:
        """Take single bits off some channels of a layer, first all, then halves, where most is saved first."""
        number = count()
        pending: list[tuple[int, int, str, Indices]] = []

        def consider(name: str, channels: Indices) -> None:
            each = self.groups[name].count // self.most[name].size
            heapq.heappush(pending, (-each * channels.size, next(number), name, channels))

        for name, offsets in self.best.offsets.items():
            if name not in self.few:
                consider(name, np.argsort(offsets, kind="stable"))
        while pending and self._goes_on():
            _, _, name, channels = heapq.heappop(pending)
            channels = channels[self.best.offsets[name][channels] > -FEWER]
            offsets = self.best.offsets[name].copy()
            offsets[channels] -= 1
            before = self.weight_bits
            if not channels.size:
                continue
            if self._prove({**self.best.offsets, name: offsets}):
                if self.weight_bits < before:
                    consider(name, channels)
            elif channels.size > 1:
                consider(name, channels[: channels.size // 2])
                consider(name, channels[channels.size // 2 :])

    def _goes_on(self) -> bool:
        """Whether there is time, and samples that did not choose have not refused too often."""
        return not self.search.deadline.passed and self.refused < MOST_REFUSALS

    def _prove(self, offsets: Mapping[str, Indices]) -> bool:
        """Whether channels with these offsets are proved; the cheapest such choice is kept."""
        within = {name: np.clip(own, self._fewest(name), self.most[name]) for name, own in offsets.items()}
        self.search.offsets = within
        self.search.tell("channels")
        found = self.search.try_out(self.base.bits, self.best)
        self.refused += self.search.evaluator.refuses(found.evidence)
        if not self.search.accepts(found):
            return False
        if cost_of(found.pair).weight_bits <= self.weight_bits:
            self.best = found
        return True

    @property
    def weight_bits(self) -> int:
        """Of the best attempt."""
        return cost_of(self.best.pair).weight_bits

    def _fewest(self, name: str) -> int:
        return 0 if name in self.few else -FEWER

    def _most(self, name: str) -> Indices:
        """Largest offset of each channel within the longest word; a channel of zeros stays where its layer is."""
        kernel = self.search.network.by_name[name].op.arrays()["kernel"]
        bits = self.base.pair.parameters[name].kernel_format.fractional_bits
        columns = kernel.reshape(-1, kernel.shape[-1])
        whole, signed = span(columns.min(axis=0), columns.max(axis=0))
        most = np.clip(self.search.space.word_lengths[1] - signed - whole - bits, 0, MORE)
        return np.where(np.any(columns, axis=0) & (name not in self.few), most, 0)

    def _places(self) -> dict[str, Reals]:
        """Offsets that would make the contributions of a layer's channels equal."""
        search, evaluator = self.search, self.search.evaluator
        boxes = evaluator.boxes(self.base.evidence)
        found = sensitivities(self.base.pair, boxes, search.eps, evaluator.centers, search.deadline)
        return {
            name: np.log2(np.maximum(found[name] / max(float(found[name].mean()), TINIEST), LEAST_SENSITIVITY))
            for name in self.groups
        }
