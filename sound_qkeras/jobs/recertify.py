"""Other integers for a network that has a certificate: formats as wide as their ranges need, and a proof of what now holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sound_qkeras.errors import InfeasibleError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.labels import Labels
from sound_qkeras.network.pair import Pair
from sound_qkeras.results.result import tool_versions
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.budget import alone_with, error_budget
from sound_qkeras.tuning.build import narrow
from sound_qkeras.tuning.clipping import narrow_in_box, widened
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.tuning.proving import ProvingEvaluator
from sound_qkeras.verify.certificate import Certificate, make_certificate
from sound_qkeras.verify.evidence import Evidence, Local, Statistical, around
from sound_qkeras.verify.proof import bound_leaves
from sound_qkeras.verify.split_tree import SplitTree

KEPT = "kept after fine-tuning"
ACCEPTED = "accepted after fine-tuning"


@dataclass(frozen=True, eq=False)
class Demand:
    """What is to be proved of other integers. Nothing is claimed: each part means what it does in a `Certificate`."""

    box: Interval
    box_source: str
    eps: Reals
    evidence: Evidence | None
    stability_tree: SplitTree
    labels: Labels

    @classmethod
    def of(cls, certificate: Certificate) -> Demand:
        """The claim of a certificate, to be proved anew."""
        return cls(**{name: getattr(certificate, name) for name in cls.__dataclass_fields__})


def recertify(pair: Pair, old: Demand, eps: Reals | None, effort: Effort) -> tuple[Pair, Certificate]:
    """Prove what is demanded of a network with other integers than the demand was made for.

    Guarantee: the certificate is about the network returned, whose integers are those given; `check` confirms it. Formats of
    results, and accumulators, are as wide as the proved ranges need; results that saturated may still.

    Args:
        pair: the new integers; formats of results may be too narrow.
        old: the box, the tolerance and the tier, with its samples.
        eps: the tolerance that is accepted; None keeps the old one and, where that is not met, takes the smallest larger one
            that is, which the certificate's `eps_source` then says. In the tier "local" it is met where as many samples
            are certified as before. "statistical" always keeps it, for a tolerance chosen by looking at the held-out
            samples would make the limit none.
        effort: how far the box is cut.

    Raises:
        InfeasibleError: the given tolerance is not met; carries the best bound.
        VerificationError: something may overflow, or cannot be proved at all.
    """
    if old.evidence is None:
        return _sound(pair, old, eps, effort)
    pair = _held_around(pair, old)
    evidence = _evidence(pair, old, old.eps if eps is None else eps)
    tolerance, source = old.eps if eps is None else eps, KEPT if eps is None else ACCEPTED
    if isinstance(evidence, Local) and isinstance(old.evidence, Local):
        needed = int(old.evidence.certified(old.eps).sum())
        reached = _reached(evidence.bounds, needed, tolerance)
        tolerance, source = _settled(reached, old, eps)
    return pair, _certified(pair, old, tolerance, source, SplitTree(), evidence)


def _sound(pair: Pair, old: Demand, eps: Reals | None, effort: Effort) -> tuple[Pair, Certificate]:
    """Cut the box until the tolerance is met or the budget ends; what is proved then, counts."""
    wanted = old.eps if eps is None else eps
    evaluator = ProvingEvaluator(pair.network, old.box, wanted, effort)
    evidence = evaluator.settle(evaluator.evaluate(pair, effort.deadline()))
    tree = evaluator.tree(evidence)
    # The width of what a table reads decides about its entries, so ranges behind it may change once more.
    for _ in range(1 + len(pair.tables)):
        pair = narrow(pair, bound_leaves(pair, old.box, tree).ranges)
    certificate = _certified(pair, old, wanted, KEPT, tree, None)
    tolerance, source = _settled(certificate.output_bounds, old, eps)
    budget = error_budget(evaluator, evidence, *alone_with(pair, evaluator), wanted, Deadline().with_grace)
    return pair, replace(certificate, eps=tolerance, eps_source=source, error_budget=budget)


def _settled(reached: Reals, old: Demand, eps: Reals | None) -> tuple[Reals, str]:
    """The tolerance to certify, and where it comes from, when `reached` is what can be."""
    wanted = old.eps if eps is None else eps
    if np.all(reached <= wanted):
        return wanted, KEPT if eps is None else ACCEPTED
    if eps is None:
        source = f"what is proved after fine-tuning; {old.eps.max():g} before"
        return np.maximum(reached, wanted), source
    raise InfeasibleError(
        f"the network is proved to stay within {reached.max():.6g}, not within eps {wanted.max():.6g}; accepted: a larger eps, or "
        "eps=None, which takes what is proved",
        best_bound=float(reached.max()),
    )


def _reached(bounds: Reals, needed: int, eps: Reals) -> Reals:
    """The bounds, per output, that so many samples meet: those nearest to the tolerance."""
    order = np.argsort((bounds / eps).max(axis=1), kind="stable")
    return bounds[order[:needed]].max(axis=0)


def _held_around(pair: Pair, old: Demand) -> Pair:
    """Formats for the box; those that saturate hold what inputs near the samples need, in tier "local"."""
    for _ in range(1 + len(pair.tables)):
        if isinstance(old.evidence, Local) and pair.saturating:
            pair = widened(pair, around(old.box, old.evidence.samples, old.evidence.radius))
        pair = narrow_in_box(pair, old.box)
    return pair


def _evidence(pair: Pair, old: Demand, eps: Reals) -> Evidence | None:
    """The same kind of evidence, from the same samples."""
    found = old.evidence
    if isinstance(found, Local):
        return Local.prove(pair, old.box, found.samples, found.radius)
    if isinstance(found, Statistical):
        return replace(found, failures=found.failures_of(pair, eps))
    return None


def _certified(
    pair: Pair,
    old: Demand,
    eps: Reals,
    source: str,
    tree: SplitTree,
    evidence: Evidence | None,
) -> Certificate:
    proved = make_certificate(
        pair,
        old.box,
        eps,
        tree,
        box_source=old.box_source,
        versions=tool_versions(),
        stability_tree=old.stability_tree,
        evidence=evidence,
    )
    return replace(proved, eps_source=source, labels=old.labels)
