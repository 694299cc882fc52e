"""The evaluator of the sound and the local tier: bounds proved on boxes, which are cut where that helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from sound_qkeras.interval import DOUBLE, SINGLE, Interval, Reals
from sound_qkeras.network import Network, Pair
from sound_qkeras.splitting.refine import PROOFS, Splitting, refine
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.build import narrow
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.tuning.evaluator import TARGET, Alone, Evaluator, Rounding
from sound_qkeras.tuning.groups import Group
from sound_qkeras.tuning.rounding import CancellingRounding, sample_box
from sound_qkeras.verify.proof import bound_leaves
from sound_qkeras.verify.propagation import FORWARD_PRODUCTS, output_difference, proof_work, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Every attempt may take so long, even when the time is up, but where it is firm.
LEAST_SECONDS = 0.5


class ProvingEvaluator(Evaluator[Splitting]):
    """Bounds over a whole box."""

    power: ClassVar[int] = 1
    first_tolerance: ClassVar[float] = 0.97

    def __init__(self, network: Network, box: Interval, eps: Reals, effort: Effort) -> None:
        """For inputs in `box`, shape `input_shape`, and a tolerance per output, shape `(outputs,)`."""
        self.network, self.box, self.eps, self.effort = network, box, eps, effort
        facts = propagate(network, box[None]).facts
        self.ranges = {name: found.value for name, found in facts.items()}
        self.centers = {node.name: self.ranges[node.inputs[0]].center[0] for node, _ in network.affine()}

    def rounding(self, effort: Effort, deadline: Deadline) -> Rounding:
        """So that errors cancel at samples of the box."""
        samples = sample_box(self.box, effort.samples) if effort.samples else None
        return CancellingRounding(self.network, self.centers, samples, self.eps, deadline)

    def evaluate(self, pair: Pair, deadline: Deadline, start: Splitting | None = None) -> Splitting:
        """Cut the box until the tolerance is met, or leaves or time run out."""
        if not deadline.firm:
            deadline = deadline.moved(max(deadline.latest, deadline.now + LEAST_SECONDS))
        return refine(
            pair,
            self.box,
            self.eps,
            target=TARGET,
            max_leaves=self.effort.leaves if start is None else self.effort.most_leaves,
            deadline=deadline,
            start=start,
            hopeless=start is not None,
            values=self.ranges,
        )

    def contributions(
        self, evidence: Splitting, alone: Alone, groups: Sequence[Group | None], deadline: Deadline
    ) -> dict[Group | None, Reals]:
        """The bound on each of the worst leaves."""
        leaves = evidence.boxes.boxes(evidence.leaves[: self.effort.rows], self.box.shape)
        values = {name: facts.value for name, facts in propagate(self.network, leaves).facts.items()}

        deadline.count(proof_work(self.network) * leaves.shape[0])

        def bound(group: Group | None) -> Reals:
            deadline.count(FORWARD_PRODUCTS * self.network.products * leaves.shape[0])
            # Pulling differences back inside deep networks too takes thirty times as long and saves next to no bits.
            result = propagate(self.network, leaves, alone(group), values=values, substitute=False, precision=SINGLE)
            return (output_difference(result).magnitude / self.eps).reshape(-1)

        return {group: bound(group) for group in deadline.while_it_fits(groups)}

    def seconds_to_prove(self, evidence: Splitting) -> float:
        """Of all leaves."""
        return PROOFS * evidence.seconds * evidence.leaves.size

    def settle(self, evidence: Splitting) -> Splitting:
        """Proved as it will be in the end; leaves that meet the tolerance in float32 alone are cut.

        Leaves that do not meet it there stay as they are: the search's budget is spent.
        """
        if evidence.worst > TARGET:
            return evidence
        proof = bound_leaves(evidence.pair, self.box, evidence.tree)
        if float((proof.output_bounds / self.eps).max()) > TARGET:
            start, most = replace(evidence, values=None), 2 * self.effort.most_leaves
            return refine(
                evidence.pair, self.box, self.eps, target=TARGET, max_leaves=most, start=start, precision=DOUBLE
            )
        boxes = evidence.boxes.copy()
        boxes.score[boxes.leaves_in_order] = (proof.leaf_bounds / self.eps).max(axis=1)
        return replace(evidence, boxes=boxes, ranges=proof.ranges)

    def narrow(self, pair: Pair, evidence: Splitting) -> Pair:
        """In formats of the ranges that are proved on the leaves."""
        return narrow(pair, evidence.ranges or bound_leaves(pair, self.box, evidence.tree).ranges)

    def boxes(self, evidence: Splitting) -> Interval:
        """The leaves."""
        return evidence.boxes.boxes(evidence.leaves, self.box.shape)

    def tree(self, evidence: Splitting) -> SplitTree:
        """The leaves."""
        return evidence.tree
