"""The evaluator of the local tier: bounds proved on boxes around samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network, Pair
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.clipping import clipped, narrow_in_box
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.tuning.evaluator import TARGET, Alone, Evaluator, Rounding
from sound_qkeras.tuning.groups import Group
from sound_qkeras.tuning.rounding import CancellingRounding
from sound_qkeras.tuning.sample_errors import SampleErrors
from sound_qkeras.tuning.survey import Survey
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.evidence import around
from sound_qkeras.verify.proof import bound_boxes, ranges_over, with_margin
from sound_qkeras.verify.propagation import proof_work, propagate
from sound_qkeras.verify.split_tree import SplitTree

# How often every box is bounded after the search.
PROOFS = 3.0
# Boxes that are looked at first, to see whether the rest is worth it.
FIRST_BOXES = 16


class SurroundingEvaluator(Evaluator[SampleErrors]):
    """Bounds on boxes around samples; formats as wide as those boxes need, or as the whole box needs."""

    power: ClassVar[int] = 1
    first_tolerance: ClassVar[float] = 0.97

    def __init__(
        self,
        network: Network,
        box: Interval,
        eps: Reals,
        effort: Effort,
        samples: Reals,
        radius: float,
        *,
        coverage: float,
        saturate: bool,
    ) -> None:
        """For inputs within `radius` of the samples.

        Args:
            network: the network.
            box: all inputs, shape `input_shape`.
            eps: tolerance per output, shape `(outputs,)`.
            effort: budgets.
            samples: centres of the boxes, shape `(n, *input_shape)`.
            radius: half the boxes' width.
            coverage: share of the samples that is to meet the tolerance.
            saturate: let formats be as narrow as the samples' boxes allow, where the whole box asks for more.
        """
        self.network, self.box, self.eps, self.effort = network, box, eps, effort
        self.near, self.saturate, self.coverage = samples, saturate, coverage
        self.around = around(box, samples, radius)
        self.order = np.arange(len(samples))
        self.seconds = 0.0
        if saturate:
            parts = over_batches(_value_ranges, network, self.around)
            self.ranges = {name: _hull([part[name] for part in parts]) for name in parts[0]}
        else:
            found = propagate(network, box[None], substitute=False).facts
            self.ranges = {name: facts.value for name, facts in found.items()}
        first = network.nodes[0].name
        self.ranges[first] = Interval(np.array(box.lower.min()), np.array(box.upper.max()))
        self.centers = dict(Survey.of(network, samples).mean_inputs)

    def rounding(self, effort: Effort, deadline: Deadline) -> Rounding:
        """So that errors cancel at samples of the boxes."""
        samples = self._corners(effort.samples) if effort.samples else None
        return CancellingRounding(self.network, self.centers, samples, self.eps, deadline)

    def _corners(self, count: int) -> Reals:
        """Centres and corners of the boxes."""
        rng = np.random.default_rng(0)
        chosen = np.arange(count) % len(self.near)
        corners = rng.random((count, *self.box.shape)) < 0.5
        points = np.where(corners, self.around.lower[chosen], self.around.upper[chosen])
        points[: count // 2] = self.near[chosen[: count // 2]]
        return points

    def evaluate(self, pair: Pair, deadline: Deadline, start: SampleErrors | None = None) -> SampleErrors:
        """Bound the error on every box, unless those that were worst before are too many that fail."""
        relative = np.zeros(len(self.near))
        first, rest = self.order[:FIRST_BOXES], self.order[FIRST_BOXES:]
        relative[first] = self._relative(pair, first, deadline)
        found = SampleErrors(relative, self.coverage)
        if rest.size and np.sum(relative[first] > TARGET) <= found.spare:
            relative[rest] = self._relative(pair, rest, deadline)
            self.order = np.argsort(-relative, kind="stable")
        return found

    def _relative(self, pair: Pair, chosen: np.ndarray, deadline: Deadline) -> Reals:
        """Infinity for what a firm deadline leaves out."""
        relative, started = np.full(len(chosen), np.inf), deadline.now
        bounds = np.concatenate(over_batches(bound_boxes, pair, self.around[chosen], deadline.if_firm))
        self.seconds = (deadline.now - started) / len(bounds)
        relative[: len(bounds)] = (bounds / self.eps).max(axis=1)
        return relative

    def contributions(
        self, evidence: SampleErrors, alone: Alone, groups: Sequence[Group | None], deadline: Deadline
    ) -> dict[Group | None, Reals]:
        """The bound on each of the worst boxes that count."""
        order = np.argsort(-evidence.relative, kind="stable")[evidence.spare :]
        boxes = self.around[order[: self.effort.rows]]
        found: dict[Group | None, Reals] = {}
        for group in deadline.while_it_fits(groups):
            deadline.count(proof_work(self.network) * boxes.shape[0])
            found[group] = (bound_boxes(alone(group), boxes) / self.eps).reshape(-1)
        return found

    def seconds_to_prove(self, evidence: SampleErrors) -> float:
        """Of all boxes."""
        return PROOFS * self.seconds * len(self.near)

    def settle(self, evidence: SampleErrors) -> SampleErrors:
        """As it is."""
        return evidence

    def narrow(self, pair: Pair, evidence: SampleErrors) -> Pair:
        """In formats that clip nothing on the samples' boxes, and hold what is proved over the whole box or saturate."""
        if not self.saturate:
            return narrow_in_box(pair, self.box)
        near = ranges_over(pair, self.around)
        whole = (float(self.box.lower.min()), float(self.box.upper.max()))
        near[self.network.nodes[0].name] = whole
        return narrow_in_box(clipped(pair, {name: with_margin(*ends) for name, ends in near.items()}), self.box)

    def boxes(self, evidence: SampleErrors) -> Interval:
        """Those around the samples."""
        return self.around

    def tree(self, evidence: SampleErrors) -> SplitTree:
        """The box as it is."""
        return SplitTree()


def _value_ranges(network: Network, boxes: Interval) -> dict[str, Interval]:
    return {name: _hull([facts.value]) for name, facts in propagate(network, boxes).facts.items()}


def _hull(parts: list[Interval]) -> Interval:
    return Interval(np.array(min(p.lower.min() for p in parts)), np.array(max(p.upper.max() for p in parts)))
