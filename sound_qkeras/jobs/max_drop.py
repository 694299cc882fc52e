"""The fewest bits that lose at most so much accuracy: a walk over tolerances, each answer a start for the next.

What decides is counted on samples that chose no format. They choose one of at most `LOOKS` networks, and every limit that is
stated holds for all of these at once.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from sound_qkeras.errors import InfeasibleError, InputError
from sound_qkeras.interval import Reals
from sound_qkeras.jobs.finetune import finetune
from sound_qkeras.jobs.quantize import MOST_CALIBRATION, Job
from sound_qkeras.network.classes import Classes, classes_of, labels_of, outputs_of, tolerance_for
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.simulate import simulate
from sound_qkeras.results.accuracy import Accuracy, Step
from sound_qkeras.results.result import Result
from sound_qkeras.support.deadline import INTERRUPT
from sound_qkeras.support.progress import Progress
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.tuning.tune import Outcome

# Networks that are tried at most. Tolerances grow, or shrink, by a factor until one loses too much, or little enough; then the
# factor that lies between is halved so often.
LOOKS, FACTOR, HALVINGS = 10, 4.0, 3
# So often a walk begins anew where words are too short.
MOST_BEGINNINGS = 4


def fewest_bits(job: Job) -> Result:
    """The cheapest of the networks tried that loses no more accuracy on the held-out samples than was allowed.

    Args:
        job: the network, its samples and their labels; `max_drop` is among its options.

    Raises:
        InputError: there are too few samples.
        InfeasibleError: every network that was tried loses more.
    """
    started = job.started or time.monotonic()
    walk = _Walk.of(job)
    eps, within = walk.begin(tolerance_for(job.trained, walk.calibration, 1.0 - walk.allowed))
    beyond = math.inf
    while not within and walk.goes_on and walk.best is None:
        beyond, eps = eps, eps / FACTOR
        try:
            within = walk.look(eps)
        except InfeasibleError:
            break  # no words reach so tight a tolerance
    while within and beyond == math.inf and walk.goes_on:
        within = walk.look(FACTOR * eps)
        beyond, eps = (beyond, FACTOR * eps) if within else (FACTOR * eps, eps)
    for _ in range(HALVINGS):
        if walk.best is None or not walk.goes_on or beyond == math.inf:
            break
        middle = math.sqrt(eps * beyond)
        eps, beyond = (middle, beyond) if walk.look(middle) else (eps, middle)
    return replace(walk.answer(), seconds=time.monotonic() - started)


@dataclass
class _Walk:
    """What was tried so far.

    Attributes:
        best: the cheapest result that loses no more than allowed, with its counts.
        before: what met the largest tolerance of those.
    """

    job: Job
    allowed: float
    calibration: Reals
    held_out: Reals
    labels: Classes
    trained: Classes
    report: Progress
    tried: list[Step] = field(default_factory=list[Step])
    best: tuple[Result, Accuracy] | None = None
    before: Outcome | None = None
    ended: bool = False

    @classmethod
    def of(cls, job: Job) -> _Walk:
        """Divide the samples as the job does."""
        options, outputs = job.options, size_of(job.trained.output_shape)
        allowed = options.max_drop or 0.0
        if job.given is None:
            raise InputError("max_drop needs samples and their labels; accepted: samples=x, labels=y")
        labels = labels_of(options.labels, len(job.given), outputs)
        calibration, held_out = job.division
        if len(held_out) * allowed < 1.0:
            needed = math.ceil(1.0 / allowed)
            raise InputError(
                f"max_drop {allowed:g} is less than one of {len(held_out)} held-out samples; accepted: at least "
                f"{needed + min(MOST_CALIBRATION, needed):,} samples, of which {needed:,} are held out, or a larger max_drop"
            )
        trained = classes_of(outputs_of(job.trained, job.given[held_out]))
        return cls(job, allowed, job.given[calibration], job.given[held_out], labels[held_out], trained, job.report)

    @property
    def goes_on(self) -> bool:
        """Whether more may be tried."""
        return len(self.tried) < LOOKS and not self.ended

    def begin(self, eps: float) -> tuple[float, bool]:
        """Try a tolerance, or the tightest above it that words are long enough for."""
        for _ in range(MOST_BEGINNINGS):
            try:
                return eps, self.look(eps)
            except InfeasibleError as error:
                if not math.isfinite(error.best_bound):
                    raise
                eps = max(1.25 * error.best_bound, 2.0 * eps)
        return eps, self.look(eps)

    def look(self, eps: float) -> bool:
        """Try a tolerance: whether what comes out loses no more than allowed."""
        prefix = f"eps {eps:.3g}, at most {LOOKS - len(self.tried)} more: "
        self.job.report = lambda stage, done: self.report(f"{prefix}{stage}", done)
        result, outcome = self.job.answer(eps, self.before)
        self.ended = outcome.ended_by == INTERRUPT
        if self.job.options.train is not None and not self.ended:
            result = _trained(result, self.job)
        found = self._count(result)
        cost = result.cost
        self.tried.append(Step(float(result.certificate.eps.max()), cost.weight_bits, cost.total_bits, found.lost))
        if found.lost > self.allowed:
            return False
        self.before = outcome
        if self.best is None or self._cost(result) <= self._cost(self.best[0]):
            self.best = result, found
        return True

    def _cost(self, result: Result) -> float:
        cost = self.job.options.cost
        return float(result.cost.weight_bits if callable(cost) else getattr(cost_of(result.pair), cost))

    def _count(self, result: Result) -> Accuracy:
        outputs = simulate(result.pair, self.held_out).reshape(len(self.held_out), -1)
        before, after = self.trained == self.labels, classes_of(outputs) == self.labels
        return Accuracy(
            self.allowed,
            len(self.held_out),
            trained=int(before.sum()),
            fixed=int(after.sum()),
            losses=int(np.sum(before & ~after)),
            gains=int(np.sum(after & ~before)),
            confidence=self.job.options.confidence,
            looks=LOOKS,
            tried=(),
        )

    def answer(self) -> Result:
        """The best, with all that was tried."""
        if self.best is None:
            least = min(self.tried, key=lambda step: step.lost)
            raise InfeasibleError(
                f"no network lost at most {100.0 * self.allowed:g} points of accuracy on {len(self.held_out):,} held-out samples; "
                f"the best of {len(self.tried)} lost {100.0 * least.lost:.2f} at eps {least.eps:.3g}; use a larger max_drop, "
                "longer word_lengths, or train=(x, y)",
                best_bound=math.inf,  # no tolerance is what was missed
            )
        result, accuracy = self.best
        return replace(result, accuracy=replace(accuracy, tried=tuple(self.tried)))


def _trained(result: Result, job: Job) -> Result:
    """Trained on with its formats fixed, by labels where there are some, else with the float network as the teacher."""
    options = job.options
    return finetune(
        result,
        options.train,
        options.epochs,
        teacher=not isinstance(options.train, tuple | list),
        effort=options.effort,
        seed=options.seed,
        n_jobs=options.n_jobs,
        progress=job.report,
    )
