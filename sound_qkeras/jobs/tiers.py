"""What a claim about a pair of networks rests on in each tier: parts of the box, boxes around samples, or samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.pair import Pair
from sound_qkeras.search.falsify import Counterexample, falsify
from sound_qkeras.splitting.refine import refine
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.certificate import PROVED, TIERS
from sound_qkeras.verify.evidence import REAL, Evidence, Local, Statistical, error_limits
from sound_qkeras.verify.proof import bound_leaves
from sound_qkeras.verify.split_tree import SplitTree

# Most leaves and seconds of splitting.
EFFORTS = {"fast": (1, 5.0), "normal": (512, 20.0), "max": (8192, 300.0)}
# Multiplications that the search for the worst error may take, and inputs it tries at least and at most.
SEARCH_PRODUCTS, FEWEST_TRIES, MOST_TRIES = 5e9, 200, 30_000
# Splitting stops when the bound is within this factor of the worst error found.
CLOSE = 1.02


@dataclass(frozen=True)
class Question:
    """What is asked about a pair: the inputs, the tier and what that takes.

    Args:
        box: the inputs.
        tier: one of `TIERS`.
        samples: inputs in the box, for other tiers than "sound".
        radius: of the tier "local" only.
        confidence: of the tier "statistical".
        eps: the tolerance per output to be judged, if any.
        effort: one of `EFFORTS`, or seconds.
        seed: of the search for the worst error.

    Raises:
        InputError: a part is not usable, or missing.
    """

    box: Interval
    tier: str
    samples: Reals | None
    radius: float | None
    confidence: float
    eps: Reals | None
    effort: str | float
    seed: int

    def __post_init__(self) -> None:
        """Check that they belong together."""
        if self.tier not in TIERS:
            raise InputError(f"tier '{self.tier}' is unknown; accepted: {', '.join(TIERS)}")
        if self.tier != "sound" and self.samples is None:
            raise InputError(
                f"tier '{self.tier}' needs samples; accepted: an array (n, *input_shape) of inputs in the box"
            )
        positive = self.radius is None or 0.0 <= self.radius < np.inf
        if (self.radius is None) != (self.tier != "local") or not positive:
            raise InputError(
                f"radius is {self.radius} in tier '{self.tier}'; accepted: a number >= 0 for 'local', else None"
            )
        if not 0.0 < self.confidence < 1.0:
            raise InputError(f"confidence is {self.confidence}; accepted: a share above 0 and below 1")
        known = self.effort in EFFORTS if isinstance(self.effort, str) else 0.0 < self.effort < np.inf
        if not known:
            raise InputError(f"effort is {self.effort!r}; accepted: {', '.join(EFFORTS)}, or seconds")

    @property
    def given(self) -> tuple[Reals, float]:
        """Samples and radius, of tiers that have them."""
        if self.samples is None:
            raise TypeError("the tier was given no samples")
        return self.samples, self.radius or 0.0


def tree_of(pair: Pair, question: Question, worst: Counterexample) -> SplitTree:
    """The box in parts, cut until bounds meet the tolerance or are close to the worst error found, or time is up.

    Raises:
        VerificationError: the error is not bounded.
    """
    leaves, seconds = (
        EFFORTS[question.effort] if isinstance(question.effort, str) else (EFFORTS["max"][0], question.effort)
    )
    whole = bound_leaves(pair, question.box)
    if not np.all(np.isfinite(whole.output_bounds)):
        raise VerificationError("the error is not bounded: values exceed the float64 range; use a smaller box")
    if leaves == 1:
        return SplitTree()
    eps = np.full(whole.output_bounds.shape, max(whole.bound, 1e-300)) if question.eps is None else question.eps
    target = max(CLOSE * worst.error, 1e-300) / float(eps.max()) if question.eps is None else 1.0
    state = refine(pair, question.box, eps, target=target, max_leaves=leaves, deadline=Deadline.within(seconds))
    return state.tree if state.worst <= float(np.max(whole.output_bounds / eps)) else SplitTree()


def evidence_of(pair: Pair, question: Question) -> Evidence:
    """What a claim of the other tiers rests on."""
    samples, radius = question.given
    if question.tier == "local":
        return Local.prove(pair, question.box, samples, radius)
    limits = error_limits(pair, samples)
    # Of a number of samples the largest error is exceeded by no more of all inputs than one that was fixed before and that
    # none of them exceeds (Wilks, Determination of sample sizes for setting tolerance limits, 1941).
    eps = np.full(limits.shape[1], limits.max()) if question.eps is None else question.eps
    failures = int(np.sum(np.any(limits > eps, axis=1)))
    return Statistical(samples, failures, question.confidence, 0, REAL)


def judged(question: Question, bounds: Reals) -> tuple[Reals, str, float | None]:
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
    return falsify(pair, question.box, evaluations=tries(pair), seed=question.seed)


def tries(pair: Pair) -> int:
    """How many inputs a search tries that suits the network's size."""
    return int(np.clip(SEARCH_PRODUCTS / max(1, pair.network.products), FEWEST_TRIES, MOST_TRIES))
