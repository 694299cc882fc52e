"""The fewest bits that lose at most so much accuracy: a walk over tolerances, each answer a start for the next.

What decides is counted on samples that calibrated no format. Where the walk goes depends on them, so they choose from every
network that some answers of theirs would lead to, and each limit that is stated holds for all of these at once.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from sound_qkeras.errors import InfeasibleError, InputError, VerificationError
from sound_qkeras.interval import Reals
from sound_qkeras.jobs.check import check
from sound_qkeras.jobs.finetune import finetune, rows_of
from sound_qkeras.jobs.job import MOST_CALIBRATION, Job, cost_found
from sound_qkeras.jobs.walk import LOOKS, networks, tolerances
from sound_qkeras.network.classes import Classes, classes_of, labels_of, outputs_of, tolerance_for
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.simulate import simulate
from sound_qkeras.results.accuracy import Accuracy, Step
from sound_qkeras.results.result import Result
from sound_qkeras.support.deadline import INTERRUPT
from sound_qkeras.support.progress import Progress
from sound_qkeras.tuning.tune import Outcome

# How often the first tolerance may be too tight for the allowed words.
MOST_BEGINNINGS = 4


def fewest_bits(job: Job) -> Result:
    """The cheapest of the networks tried that loses no more accuracy on the held-out samples than was allowed.

    Args:
        job: the network, its samples and their labels; `max_drop` is among its options.

    Raises:
        InputError: there are too few samples, or training data are no arrays or hold held-out samples.
        InfeasibleError: every network that was tried loses more.
        KeyboardInterrupt: it was interrupted before there was an answer.
    """
    started = job.started or time.monotonic()
    walk = _Walk.of(job)
    eps, within = walk.begin(tolerance_for(job.trained, walk.calibration, 1.0 - walk.allowed))
    path = tolerances(eps)
    next(path)
    while not walk.ended:
        try:
            eps = path.send(within)
        except StopIteration:
            break
        try:
            within = walk.look(eps)
        except (InfeasibleError, VerificationError):
            within = None
    return replace(walk.answer(), seconds=time.monotonic() - started)


@dataclass
class _Walk:
    """What was tried so far.

    Attributes:
        best: the cheapest result that loses no more than allowed, with its counts, its cost first.
        before: the outcome at the largest tolerance so far that lost no more than allowed.
    """

    job: Job
    allowed: float
    calibration: Reals
    held_out: Reals
    labels: Classes
    trained: Classes
    report: Progress
    tried: list[Step] = field(default_factory=list[Step])
    best: tuple[tuple[float, float], Result, Accuracy] | None = None
    before: Outcome | None = None
    ended: bool = False

    @classmethod
    def of(cls, job: Job) -> _Walk:
        """Divide the samples as the job does."""
        options, outputs = job.options, size_of(job.trained.output_shape)
        allowed = options.max_drop or 0.0
        given = job.samples
        labels = labels_of(options.labels, len(given), outputs)
        calibration, held_out = job.division
        if len(held_out) * allowed < 1.0:
            needed = math.ceil(1.0 / allowed)
            raise InputError(
                f"max_drop {allowed:g} is less than one of {len(held_out)} held-out samples; accepted: at least "
                f"{needed + min(MOST_CALIBRATION, needed):,} samples, of which {needed:,} are held out, or a larger max_drop"
            )
        if options.train is not None:
            _check_training(job, given[held_out])
        trained = classes_of(outputs_of(job.trained, given[held_out]))
        return cls(job, allowed, given[calibration], given[held_out], labels[held_out], trained, job.report)

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
        paid = cost_found(replace(outcome, pair=result.pair), self.job.options.cost), found.lost
        if self.best is None or paid < self.best[0]:
            self.best = paid, result, found
        return True

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
            looks=networks(),
            tried=(),
        )

    def answer(self) -> Result:
        """The best, with all that was tried."""
        if self.best is None and self.ended:
            raise KeyboardInterrupt("no network that loses so little was found so far")
        if self.best is None:
            least = min(self.tried, key=lambda step: step.lost)
            raise InfeasibleError(
                f"no network lost at most {100.0 * self.allowed:g} points of accuracy on {len(self.held_out):,} held-out samples; "
                f"the best of {len(self.tried)} lost {100.0 * least.lost:.2f} at eps {least.eps:.3g}; use a larger max_drop, "
                "longer word_lengths, or train=(x, y)",
                best_bound=math.inf,  # no tolerance is what was missed
            )
        _, result, accuracy = self.best
        ended_by = INTERRUPT if self.ended else result.ended_by
        return replace(result, accuracy=replace(accuracy, tried=tuple(self.tried)), ended_by=ended_by)


def _check_training(job: Job, held_out: Reals) -> None:
    """A limit that is counted on what was trained on is none.

    Raises:
        InputError: training data are no arrays, or held-out samples are among them.
    """
    given = job.options.train
    x = given[0] if isinstance(given, tuple) and given else given
    try:
        rows = job.trained.input_arrays(x)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"train: {error}; accepted: arrays (x, y), or inputs x alone") from error
    shared = len(set(rows_of(rows)) & set(rows_of(held_out)))
    if shared:
        raise InputError(
            f"{shared} of the {len(held_out)} held-out samples are among the data that train; give other samples: a limit counted "
            "on what was trained on is none"
        )


def _trained(result: Result, job: Job) -> Result:
    """Trained on with its formats fixed, by labels where there are some, else with the float network as the teacher."""
    options = job.options
    found = finetune(
        result,
        options.train,
        options.epochs,
        teacher=not isinstance(options.train, tuple),
        effort=options.effort,
        seed=options.seed,
        n_jobs=options.n_jobs,
        progress=job.report,
    )
    if not options.exact:
        return found
    check(found.pair, found.certificate, exact=True, progress=job.report)
    return replace(found, certificate=replace(found.certificate, exact=True))
