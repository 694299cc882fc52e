"""The tiers of the claims about a pair of networks: what is proved, on which inputs, and the worst error found there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.pair import Pair
from sound_qkeras.search.breakpoints import Terrain
from sound_qkeras.search.falsify import Counterexample, errors, search
from sound_qkeras.splitting.refine import refine
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.binomial import upper_limit
from sound_qkeras.verify.evidence import around
from sound_qkeras.verify.proof import MARGIN, bound_boxes, bound_leaves
from sound_qkeras.verify.propagation import propagate
from sound_qkeras.verify.split_tree import SplitTree

TIERS = ("sound", "local", "statistical")
# Most leaves and seconds of splitting.
EFFORTS = {"fast": (1, 5.0), "normal": (512, 20.0), "max": (8192, 300.0)}
# Multiplications that the search for the worst error may take, and inputs it tries at least and at most.
SEARCH_PRODUCTS, FEWEST_TRIES, MOST_TRIES = 5e9, 200, 30_000
# Boxes around samples that are searched in the tier "local": those with the largest bounds.
BOXES_SEARCHED = 4
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


@dataclass(frozen=True)
class Answer:
    """What was proved of one tier."""

    claim: str
    bounds: Reals
    found: Counterexample
    tree: SplitTree = field(default_factory=SplitTree)
    sample_bounds: Reals | None = None
    met: float | None = None
    probability: float | None = None


def answer(pair: Pair, question: Question, *, compared: bool) -> Answer:
    """What is proved about a pair; where nothing is compared, that is left to ranges.

    Raises:
        VerificationError: an error is not bounded, or one beyond its bound was found.
    """
    if not compared:
        claim = "for every x in the box, every value stays within its range"
        found = Counterexample(0.0, question.box.center, 0)
        return Answer(claim, np.zeros(size_of(pair.network.output_shape)), found)
    if question.tier == "local":
        return _local(pair, question)
    return _statistical(pair, question) if question.tier == "statistical" else _sound(pair, question)


def _sound(pair: Pair, question: Question) -> Answer:
    """Bounds over the whole box, which is cut until they are close to the worst error found, or time is up."""
    leaves, seconds = _budget(question.effort)
    found = _search(pair, question.box, question.seed)
    whole = bound_leaves(pair, question.box)
    proof, tree = whole, SplitTree()
    if leaves > 1 and np.all(np.isfinite(whole.output_bounds)):
        eps = np.full(whole.output_bounds.shape, max(whole.bound, 1e-300)) if question.eps is None else question.eps
        target = max(CLOSE * found.error, 1e-300) / float(eps.max()) if question.eps is None else 1.0
        state = refine(pair, question.box, eps, target=target, max_leaves=leaves, deadline=Deadline.within(seconds))
        tree = state.tree
        proof = bound_leaves(pair, question.box, tree)
    bounds = np.minimum(proof.output_bounds, whole.output_bounds) * (1.0 + MARGIN)
    _check_finite(bounds)
    _confirm(pair, found, bounds)
    met = None if question.eps is None else float(np.all(bounds <= question.eps))
    claim = "for every x in the box, |q(x)_k - f(x)_k| <= output_bounds[k]"
    return Answer(claim, bounds, found, tree, met=met)


def _budget(effort: str | float) -> tuple[int, float]:
    return EFFORTS[effort] if isinstance(effort, str) else (EFFORTS["max"][0], float(effort))


def _local(pair: Pair, question: Question) -> Answer:
    """Bounds on a box around every sample."""
    samples, radius = question.given
    boxes = around(question.box, samples, radius)
    bounds = bound_boxes(pair, boxes) * (1.0 + MARGIN)
    _check_finite(bounds)
    order = np.argsort(-bounds.max(axis=1), kind="stable")[:BOXES_SEARCHED]
    tried: list[Counterexample] = []
    for n in order:
        found = _search(pair, Interval(boxes.lower[n], boxes.upper[n]), question.seed, share=1.0 / BOXES_SEARCHED)
        _confirm(pair, found, bounds[n])
        tried.append(found)
    worst = max(tried, key=lambda one: one.error)
    worst = Counterexample(worst.error, worst.sample, sum(one.evaluations for one in tried))
    met = None if question.eps is None else np.all(bounds <= question.eps, axis=1)
    certified = np.ones(len(samples), bool) if met is None or not np.any(met) else met
    claim = (
        f"for every x in the box within {radius:g} of {int(certified.sum())} of {len(samples)} samples, "
        "|q(x)_k - f(x)_k| <= output_bounds[k]"
    )
    share = None if met is None else float(met.mean())
    largest = bounds[certified].max(axis=0)
    return Answer(claim, largest, worst, sample_bounds=bounds, met=share)


def _statistical(pair: Pair, question: Question) -> Answer:
    """Errors of samples, and how often an input drawn like them exceeds the largest, or eps."""
    samples, _ = question.given
    limits = np.concatenate(over_batches(_point_errors, pair, Interval.point(samples)))
    _check_finite(limits)
    found_errors = np.abs(errors(pair, samples)).max(axis=1)
    worst = int(np.argmax(found_errors))
    bounds, eps = np.full(limits.shape[1], limits.max()), question.eps
    failures = 0 if eps is None else int(np.sum(np.any(limits > eps, axis=1)))
    limit = upper_limit(failures, len(samples), question.confidence)
    what = "the largest error of the samples" if eps is None else "eps"
    claim = (
        f"with confidence {question.confidence:g}, an input drawn like the {len(samples)} samples exceeds {what} in some "
        f"output with probability at most {limit:.6g}"
    )
    met = None if eps is None else 1.0 - failures / len(samples)
    found = Counterexample(float(found_errors[worst]), samples[worst], len(samples))
    return Answer(claim, bounds, found, sample_bounds=limits, met=met, probability=limit)


def _point_errors(pair: Pair, boxes: Interval) -> Reals:
    """Upper limits of the error on points, shape `(points, outputs)`."""
    difference = propagate(pair.network, boxes, pair, substitute=False).facts[pair.network.output.name].pair()[2]
    return difference.magnitude.reshape(boxes.shape[0], -1)


def _check_finite(bounds: Reals) -> None:
    if not np.all(np.isfinite(bounds)):
        raise VerificationError("the error is not bounded: values exceed the float64 range; use a smaller box")


def _confirm(pair: Pair, found: Counterexample, bounds: Reals) -> None:
    """An error that was found, enclosed, must not exceed its bound: the worst bug there can be, so it stops everything."""
    result = propagate(pair.network, Interval.point(found.sample[None]), pair, substitute=False)
    difference = result.facts[pair.network.output.name].pair()[2]
    least = np.maximum(np.maximum(difference.lower, -difference.upper), 0.0).reshape(-1)
    beyond = np.flatnonzero(least > bounds)
    if beyond.size:
        k = int(beyond[0])
        raise VerificationError(
            f"output {k}: an error of {least[k]:.9g} was observed, above the proved bound {bounds[k]:.9g}: please report this"
        )


def _search(pair: Pair, box: Interval, seed: int, *, share: float = 1.0) -> Counterexample:
    """The worst error that can be found with a number of evaluations that suits the network's size."""
    network = pair.network
    tries = int(np.clip(share * SEARCH_PRODUCTS / max(1, network.products), FEWEST_TRIES, MOST_TRIES))
    return search(lambda samples: errors(pair, samples), Terrain.of(pair, box), tries, seed)
