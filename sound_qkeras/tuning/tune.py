"""From a search to integers in their final formats: what is tried after the mixed-integer program, in order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sound_qkeras.network.pair import Pair
from sound_qkeras.tuning.budget import error_budget
from sound_qkeras.tuning.channels import SHARE_OF_TIME, spread_bits
from sound_qkeras.tuning.evaluator import E
from sound_qkeras.tuning.gap import optimality
from sound_qkeras.tuning.optimality import Optimality
from sound_qkeras.tuning.output import coarsen_output
from sound_qkeras.tuning.search import Attempt, Search
from sound_qkeras.tuning.trimming import trim
from sound_qkeras.verify.certificate import BudgetRow
from sound_qkeras.verify.split_tree import SplitTree


@dataclass(frozen=True)
class Outcome:
    """The tuned network, the leaves to prove it on, where its error comes from, how good the MILP's answer was, what ended it.

    `attempt` is the choice of bits that it came from.
    """

    pair: Pair
    tree: SplitTree
    error_budget: tuple[BudgetRow, ...]
    optimality: Optimality | None
    ended_by: str
    attempt: Attempt[Any]


def tune(search: Search[E], *, per_channel: bool = False) -> Outcome:
    """The cheapest network that was accepted, in the narrowest formats its evidence allows.

    Args:
        search: what can be chosen, and what evaluates.
        per_channel: give every output channel's weights fractional bits of their own in the end.

    Raises:
        InfeasibleError: no choice of at most the allowed word length met the tolerance.
    """
    if per_channel and search.deadline.firm:
        search.deadline = search.deadline.moved(search.deadline.latest - SHARE_OF_TIME * search.effort.seconds)
    found = _settled(search, trim(search, search.run()))
    if per_channel and not search.deadline.interrupted:
        search.tell("channels")
        found = _settled(search, spread_bits(search, found), found)
    if search.space.output is not None:
        search.tell("output")
        search.offsets = found.offsets
        found = _settled(search, coarsen_output(search, found, search.space.output), found)
    search.offsets = found.offsets
    search.report("narrow formats", 0.0)
    return Outcome(
        pair=search.evaluator.narrow(found.pair, found.evidence),
        tree=search.evaluator.tree(found.evidence),
        error_budget=error_budget(
            search.evaluator,
            found.evidence,
            search.alone(found.bits, {}),
            search.space.groups,
            search.eps,
            search.deadline.with_grace,
        ),
        optimality=optimality(search.solved, search.accepted_bits),
        ended_by=search.deadline.ended_by,
        attempt=found,
    )


def _settled(search: Search[E], found: Attempt[E], fallback: Attempt[E] | None = None) -> Attempt[E]:
    """The attempt as it will be proved, or what it started from."""
    settled = replace(found, evidence=search.evaluator.settle(found.evidence))
    return settled if fallback is None or search.accepts(settled) else fallback
