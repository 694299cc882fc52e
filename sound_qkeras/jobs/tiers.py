"""What a claim about a pair of networks rests on in each tier: parts of the box, boxes around samples, or samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.jobs.options import CertifyOptions
from sound_qkeras.network.pair import Pair
from sound_qkeras.search.falsify import Counterexample, falsify
from sound_qkeras.splitting.refine import refine
from sound_qkeras.verify.certificate import PROVED
from sound_qkeras.verify.evidence import REAL, Evidence, Local, Statistical, error_limits
from sound_qkeras.verify.proof import bound_leaves
from sound_qkeras.verify.split_tree import SplitTree

# Multiplications that the search for the worst error may take, and inputs it tries at least and at most.
SEARCH_PRODUCTS, FEWEST_TRIES, MOST_TRIES = 5e9, 200, 30_000
# Splitting stops when the bound is within this factor of the worst error found.
CLOSE = 1.02


@dataclass(frozen=True)
class Question:
    """What is asked about a pair.

    Args:
        options: what to prove, and how.
        box: the inputs.
        samples: inputs in the box, for other tiers than "sound".
        eps: the tolerance per output to compare with, if any.
    """

    options: CertifyOptions
    box: Interval
    samples: Reals | None
    eps: Reals | None


def tree_of(pair: Pair, question: Question, worst: Counterexample) -> SplitTree:
    """The box in parts, cut until bounds meet the tolerance or are close to the worst error found, or time is up.

    Raises:
        VerificationError: the error is not bounded.
    """
    budget = question.options.budget
    whole = bound_leaves(pair, question.box)
    if not np.all(np.isfinite(whole.output_bounds)):
        raise VerificationError("the error is not bounded: values exceed the float64 range; use a smaller box")
    if budget.proof_leaves == 1:
        return SplitTree()
    eps = np.full(whole.output_bounds.shape, max(whole.bound, 1e-300)) if question.eps is None else question.eps
    target = max(CLOSE * worst.error, 1e-300) / float(eps.max()) if question.eps is None else 1.0
    deadline = budget.deadline(budget.proof_seconds)
    state = refine(pair, question.box, eps, target=target, max_leaves=budget.proof_leaves, deadline=deadline)
    return state.tree if state.worst <= float(np.max(whole.output_bounds / eps)) else SplitTree()


def evidence_of(pair: Pair, question: Question) -> Evidence:
    """What a claim of the other tiers rests on."""
    options, samples = question.options, question.samples
    if samples is None:
        raise TypeError("the tier was given no samples")
    if options.radius is not None:
        return Local.prove(pair, question.box, samples, options.radius)
    limits = error_limits(pair, samples)
    # Of a number of samples the largest error is exceeded by no more of all inputs than one that was fixed before and that
    # none of them exceeds (Wilks, Determination of sample sizes for setting tolerance limits, 1941).
    eps = np.full(limits.shape[1], limits.max()) if question.eps is None else question.eps
    failures = int(np.sum(np.any(limits > eps, axis=1)))
    return Statistical(samples, failures, options.confidence, 0, REAL)


def claimed(question: Question, bounds: Reals) -> tuple[Reals, str, float | None]:
    """The tolerance that the certificate claims, where it comes from, and the share that meets the one that was asked for.

    Args:
        question: what was asked.
        bounds: the proved bounds per output, `(outputs,)`, or of every sample, `(n, outputs)`.
    """
    rows = np.atleast_2d(bounds)
    if question.eps is None:
        return rows.max(axis=0), PROVED, None
    met = np.all(rows <= question.eps, axis=1)
    if np.any(met):
        return question.eps, "given", float(met.mean())
    return rows.max(axis=0), f"{PROVED}; eps {question.eps.max():g} was asked for and is not met", 0.0


def worst_error(pair: Pair, question: Question) -> Counterexample:
    """The worst error that a search finds on the box."""
    return falsify(pair, question.box, evaluations=tries(pair), seed=question.options.seed)


def tries(pair: Pair) -> int:
    """How many inputs a search tries that suits the network's size."""
    return int(np.clip(SEARCH_PRODUCTS / max(1, pair.network.products), FEWEST_TRIES, MOST_TRIES))
