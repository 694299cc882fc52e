"""How far the MILP's answer may be from the optimum of its own model, without trusting the solver's arithmetic.

For any prices `p >= 0` on the rows `sum E <= t` of the model, every choice that meets them costs at least

    min over all choices of  cost + p . (sum E - t)

(Lagrangian relaxation), and that minimum falls apart into one small search for each rounded tensor and the weights that
multiply it, which is done by enumeration, rounded downward. Good prices come from the solver; bad ones only make the bound
lower, never wrong.

Reference: Geoffrion, Lagrangean relaxation for integer programming (Mathematical Programming Study 2, 1974).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sound_qkeras.interval import TINY, Reals, down, gamma, inflate, up
from sound_qkeras.tuning.groups import Group
from sound_qkeras.tuning.milp import ROW_TOLERANCE, Choices, Joint, Solution, row_prices
from sound_qkeras.tuning.optimality import Optimality

# Rows with a price, the fullest ones: the relaxation has a few that matter, the others only make it slow.
PRICED_ROWS = 64


@dataclass(frozen=True)
class Solved:
    """A model and the solver's answer to it; arguments as those of `milp.solve`."""

    choices: Mapping[Group, Choices]
    joints: Sequence[Joint]
    tolerance: float
    solution: Solution

    @property
    def cost(self) -> float:
        """Cost of the answer, by the tables."""
        at = {group: list(found.bits).index(self.solution.bits[group]) for group, found in self.choices.items()}
        products = (
            joint.cost
            * self.choices[joint.weight].word_lengths[at[joint.weight]]
            * self.choices[joint.activation].word_lengths[at[joint.activation]]
            for joint in self.joints
        )
        return math.fsum([*(float(found.costs[at[group]]) for group, found in self.choices.items()), *products])

    def optimality(self) -> Optimality:
        """Re-check how good the answer is; takes one linear program."""
        prices = row_prices(self.choices, self.joints, self.tolerance, self._fullest_rows())
        return Optimality(
            self.cost,
            lower_bound(self.choices, self.joints, self.tolerance, prices),
            self.solution.lower_bound,
        )

    def _fullest_rows(self) -> list[int]:
        filled = sum(found.errors[list(found.bits).index(self.solution.bits[g])] for g, found in self.choices.items())
        return [int(row) for row in np.argsort(-np.asarray(filled), kind="stable")[:PRICED_ROWS]]


def optimality(solved: Sequence[Solved], proved: Sequence[Mapping[Group, int]]) -> Optimality | None:
    """Of the cheapest answer that was proved, or of the last one if none was; None without any."""
    used = [model for model in solved if model.solution.bits in proved]
    chosen = min(used, key=lambda model: model.cost, default=solved[-1] if solved else None)
    return None if chosen is None else chosen.optimality()


def lower_bound(choices: Mapping[Group, Choices], joints: Sequence[Joint], tolerance: float, prices: Reals) -> float:
    """A cost that no choice which meets the rows goes below.

    Guarantee: for every choice of one candidate per group whose errors sum to at most `tolerance * (1 + ROW_TOLERANCE)` in
    each row and that keeps to the limits of the joints, the exact cost is at least the result, whatever the prices.

    Args:
        choices: candidates per group.
        joints: pairs of groups with a cost on the product of their word lengths, or a limit of their sum.
        tolerance: right-hand side of every row.
        prices: one number a row; negative, infinite or missing ones count as zero.
    """
    prices = np.where(np.isfinite(prices), np.maximum(prices, 0.0), 0.0)
    priced = {group: _priced(found, prices) for group, found in choices.items()}
    # A weight that multiplies several tensors may choose for each apart, with its share of the cost: that only lowers it.
    tensors = Counter(joint.weight for joint in joints)
    for weight, count in tensors.items():
        priced[weight] = _below(priced[weight] / count)
    joined = {group: [joint for joint in joints if joint.activation == group] for group in choices}
    total = np.zeros(())
    for group in choices:
        if group not in tensors:
            total = _below(total + _star(group, joined[group], choices, priced).min())
    spent = inflate(prices.sum(), prices.size)
    limit = up(up(tolerance * (1.0 + ROW_TOLERANCE)) * (1.0 + 2.0**-40))
    found = float(down(total - up(spent * limit)))
    return found if not math.isnan(found) else -math.inf


def _priced(found: Choices, prices: Reals) -> Reals:
    """Lower bounds of cost plus priced errors, one per candidate."""
    used = np.flatnonzero(prices)
    errors = found.errors[:, used] @ prices[used]
    return _below(found.costs + np.maximum(errors * (1.0 - gamma(used.size)) - TINY, 0.0))


def _star(
    center: Group, joints: Sequence[Joint], choices: Mapping[Group, Choices], priced: Mapping[Group, Reals]
) -> Reals:
    """For each candidate of a rounded tensor, the least that it and the weights that multiply it cost together."""
    total, length = priced[center], np.asarray(choices[center].word_lengths, np.float64)
    for joint in joints:
        other = np.asarray(choices[joint.weight].word_lengths, np.float64)
        together = _below(priced[joint.weight] + down(joint.cost * (length[:, None] * other)))
        together = np.where(length[:, None] + other <= joint.most_bits, together, np.inf)
        total = _below(total + together.min(axis=1))
    return total


def _below(total: Reals) -> Reals:
    """At most what was rounded to `total`; infinity stays, for what cannot be chosen."""
    return np.where(np.isinf(total), total, down(np.where(np.isinf(total), 0.0, total)))
