"""One float network on one box: read, rewritten, tuned, proved and examined, for any number of tolerances."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.exact.check import check_possible
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.jobs.check import check
from sound_qkeras.jobs.cores import cores_for
from sound_qkeras.jobs.examine import examine, or_else
from sound_qkeras.jobs.options import QuantizeOptions
from sound_qkeras.network import Network, Pair, size_of
from sound_qkeras.network.boxes import describe_box, make_tolerance, network_box
from sound_qkeras.network.classes import labels_of, tolerance_for
from sound_qkeras.network.labels import Labels
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.network.rewrite.rewrite import Rewrite
from sound_qkeras.results.classification import Classification, classify
from sound_qkeras.results.origin import Origin, SourceFile, source_files
from sound_qkeras.results.result import Result, tool_versions
from sound_qkeras.search.observe import seconds_to_confirm
from sound_qkeras.support.deadline import INTERRUPT, Deadline, ended_by_interrupt
from sound_qkeras.support.progress import Progress
from sound_qkeras.tuning.costs import GroupCost, cost_of
from sound_qkeras.tuning.evaluator import Evaluator
from sound_qkeras.tuning.families import families_of
from sound_qkeras.tuning.proving import ProvingEvaluator
from sound_qkeras.tuning.reductions import reductions_of
from sound_qkeras.tuning.rounding import sample_box
from sound_qkeras.tuning.sampling import SamplingEvaluator
from sound_qkeras.tuning.scaling import scaling
from sound_qkeras.tuning.search import Search
from sound_qkeras.tuning.space import Space
from sound_qkeras.tuning.surrounding import SurroundingEvaluator
from sound_qkeras.tuning.tune import Outcome, tune
from sound_qkeras.verify.certificate import Certificate, make_certificate
from sound_qkeras.verify.evidence import REAL, Evidence, Local, Statistical, check_samples, reference_for
from sound_qkeras.verify.split_tree import SplitTree

# Half of the samples are calibration samples in the statistical tier, at most so many.
MOST_CALIBRATION = 640
# Inputs at which hidden units are given their scales.
SCALING_SAMPLES = 256
FEWEST_SAMPLES = 12
# Shares of a budget in seconds: the most that simplifying may take, and what is kept for what comes after the proof.
SIMPLIFY_SHARE, LATER_SHARE = 1.0 / 8, 1.0 / 16


@dataclass
class Job:
    """One network on one box, to be quantised with the same options for any number of tolerances.

    Attributes:
        started: when the first answer was asked for, until it is there.
        rewritten: the network's rewrite and the tree that proves it, once one answer was asked for.
    """

    trained: Network
    region: Interval
    given: Reals | None
    options: QuantizeOptions
    box_source: str
    labels: Labels
    files: tuple[SourceFile, ...]
    report: Progress
    started: float | None
    rewritten: tuple[Rewrite, SplitTree] | None = None

    @classmethod
    def of(
        cls, model: Any, box: Any, samples: Any, options: QuantizeOptions, box_source: str, report: Progress
    ) -> Self:
        """Read model, box and samples."""
        started = time.monotonic()
        report("read", 0.0)
        if box is None:
            raise InputError(
                "the box of inputs is missing; accepted: box=(lower, upper), or an array of samples that span it"
            )
        trained = read(model, box, options.margin)
        region = network_box(trained, box, options.margin)
        given = None if samples is None else check_samples(trained.input_arrays(samples), region)
        if given is not None and options.labels is not None:
            labels_of(options.labels, len(given), size_of(trained.output_shape))
        called = Labels.of(trained, options.input_names, options.output_names, options.units)
        source = describe_box(box_source, options.margin)
        return cls(trained, region, given, options, source, called, source_files("model", model), report, started)

    def answer(self, eps: Any, before: Outcome | None = None) -> tuple[Result, Outcome]:
        """Integers for a tolerance, proved.

        Args:
            eps: the tolerance.
            before: what was found for a tighter one: the answer costs no more. It is the answer, if its search was interrupted.
        """
        trained, region, options, report = self.trained, self.region, self.options, self.report
        started, self.started = self.started or time.monotonic(), None
        with cores_for(trained, options.n_jobs):
            calibration, held_out = self._divided()
            tolerance = _tolerance(eps, trained, calibration, options)
            if options.exact:
                check_possible(
                    trained,
                    REAL
                    if calibration is None or options.tier != "statistical"
                    else reference_for(trained, calibration, tolerance),
                )
            deadline = options.budget.deadline()
            if deadline.timed:
                deadline = deadline.moved(started + deadline.seconds)
            if before is not None and before.ended_by == INTERRUPT:
                outcome = before
            else:
                outcome = self._tune(tolerance, calibration, deadline, before)
            if before is not None and cost_found(outcome, options.cost) > cost_found(before, options.cost):
                outcome = replace(before, ended_by=outcome.ended_by)
            report("prove", 0.0)
            pair = outcome.pair
            certificate = make_certificate(
                pair,
                region,
                tolerance,
                outcome.tree,
                box_source=self.box_source,
                error_budget=outcome.error_budget,
                versions=tool_versions(),
                stability_tree=SplitTree() if self.rewritten is None else self.rewritten[1],
                evidence=_evidence(pair, region, tolerance, calibration, held_out, options),
            )
            certificate = replace(certificate, exact=options.exact, labels=self.labels)
            check(pair, certificate, exact=options.exact, progress=report)
            deadline.keep_back(seconds_to_confirm(trained))
            report("look for the worst error", 0.0)
            found = examine(pair, certificate, seed=options.seed, deadline=deadline.with_grace)
            report("done", 1.0)
            seconds = time.monotonic() - started
            return (
                replace(
                    found,
                    seconds=seconds,
                    optimality=outcome.optimality,
                    ended_by=outcome.ended_by,
                    origin=Origin.now(self.files),
                    classification=or_else(
                        lambda: _classification(pair, certificate, self.given, options),
                        None,
                        "the comparison of classes",
                    ),
                ),
                outcome,
            )

    @property
    def samples(self) -> Reals:
        """All samples that were given."""
        return np.zeros((0, *self.trained.input_shape)) if self.given is None else self.given

    @property
    def division(self) -> tuple[Indices, Indices]:
        """Which samples calibrate, and which are held out: no choice of formats may depend on these.

        Raises:
            InputError: there are too few.
        """
        count = len(self.samples)
        if count < FEWEST_SAMPLES:
            what = f"tier '{self.options.tier}'" if self.options.max_drop is None else "max_drop"
            raise InputError(f"{what} has {count} samples; accepted: at least {FEWEST_SAMPLES}")
        order = np.random.default_rng(self.options.seed).permutation(count)
        calibrating = min(MOST_CALIBRATION, count // 2)
        return order[:calibrating], order[calibrating:]

    def _divided(self) -> tuple[Reals | None, Reals | None]:
        """Calibration samples and held-out ones; where nothing is counted on samples, all of them and none."""
        options = self.options
        if self.given is None or (options.tier != "statistical" and options.max_drop is None):
            return self.given, None
        calibration, held_out = self.division
        return self.given[calibration], self.given[held_out]

    def _rewrite(self, tolerance: Reals, calibration: Reals | None, deadline: Deadline) -> Rewrite:
        """Where that saves bits, the same for all tolerances."""
        if self.rewritten is not None:
            return self.rewritten[0]
        options, region = self.options, self.region
        limit = deadline.if_firm.share(SIMPLIFY_SHARE)
        self.report("simplify", 0.0)
        reductions, stability_tree = {}, SplitTree()
        if not options.keep_architecture:
            reductions, stability_tree = reductions_of(
                self.trained, region, max_leaves=options.budget.stability_leaves, deadline=limit
            )
        rewrite = Rewrite(reductions)
        if options.rescale_units:
            samples = sample_box(region, SCALING_SAMPLES) if calibration is None else calibration[:SCALING_SAMPLES]
            exponents = scaling(rewrite.apply(self.trained), samples, tolerance, limit)
            rewrite = replace(rewrite, exponents=exponents)
        self.rewritten = rewrite, stability_tree
        return rewrite

    def _tune(self, tolerance: Reals, calibration: Reals | None, deadline: Deadline, before: Outcome | None) -> Outcome:
        """Rewrite the network, and choose integers."""
        options, region, budget = self.options, self.region, self.options.budget
        rewrite = self._rewrite(tolerance, calibration, deadline)
        network = rewrite.apply(self.trained)
        held_out = 0 if self.given is None or calibration is None else len(self.given) - len(calibration)
        evaluator = _evaluator(network, region, tolerance, calibration, options, held_out)
        space = Space(
            network,
            evaluator.ranges,
            options.goal,
            options.word_lengths,
            tolerance,
            range_of=evaluator.range_of,
            round_output=options.round_output,
            families=families_of(options.families),
        )
        later = LATER_SHARE * deadline.seconds + seconds_to_confirm(self.trained)
        search = Search(
            space,
            evaluator,
            tolerance,
            budget,
            options.solver,
            self.report,
            # A budget in seconds is for everything, one that comes with an effort's name for the search.
            deadline.moved(deadline.latest - later) if deadline.timed else None,
            None if before is None else before.attempt,
        )
        with ended_by_interrupt(search.deadline):
            outcome = tune(search, per_channel=options.per_channel)
        return replace(outcome, pair=replace(outcome.pair, reference=self.trained, rewrite=rewrite))


def _tolerance(eps: Any, trained: Network, samples: Reals | None, options: QuantizeOptions) -> Reals:
    """The tolerance per output; for "auto" what the samples' classes allow, of those that may guide a choice."""
    if isinstance(eps, str) and eps == "auto":
        if samples is None or options.task != "classifier":
            raise InputError("eps='auto' is for task='classifier' with samples; accepted otherwise: positive numbers")
        eps = tolerance_for(trained, samples, options.keep)
    return make_tolerance(eps, size_of(trained.output_shape))


def _evaluator(
    network: Network,
    region: Interval,
    tolerance: Reals,
    calibration: Reals | None,
    options: QuantizeOptions,
    held_out: int,
) -> Evaluator[Any]:
    if calibration is None or options.tier == "sound":
        return ProvingEvaluator(network, region, tolerance, options.budget)
    share, saturate = options.share, options.saturate
    if options.radius is not None:
        radius, budget = options.radius, options.budget
        return SurroundingEvaluator(
            network, region, tolerance, budget, calibration, radius, coverage=share, saturate=saturate
        )
    return SamplingEvaluator(
        network, region, tolerance, calibration, coverage=share, saturate=saturate, held_out=held_out
    )


def _evidence(
    pair: Pair,
    region: Interval,
    tolerance: Reals,
    calibration: Reals | None,
    held_out: Reals | None,
    options: QuantizeOptions,
) -> Evidence | None:
    if calibration is None or options.tier == "sound":
        return None
    if options.tier == "statistical" and held_out is not None:
        reference = reference_for(pair.reference, calibration, tolerance)
        return Statistical.count(
            pair, held_out, tolerance, options.confidence, len(calibration), reference, options.looks
        )
    return Local.prove(pair, region, calibration, options.radius or 0.0)


def _classification(
    pair: Pair, certificate: Certificate, samples: Reals | None, options: QuantizeOptions
) -> Classification | None:
    if options.task != "classifier" or samples is None:
        return None
    bounds = certificate.output_bounds
    if isinstance(certificate.evidence, Local):
        bounds = certificate.evidence.bounds
    if isinstance(certificate.evidence, Statistical):
        bounds = np.full(bounds.shape, np.inf)
    return classify(pair, samples, options.labels, bounds)


def read(model: Any, box: Any = None, margin: float = 0.0) -> Network:
    """A `Network` from whatever the user has; see `sound_qkeras.keras_io.read_model`.

    Raises:
        ModelError: it cannot be read.
    """
    if isinstance(model, Network):
        return model
    from sound_qkeras.keras_io import read_model

    return read_model(model, box, margin)


def cost_found(outcome: Outcome, cost: str | GroupCost) -> float:
    """What was to be small, counted on the integers and formats that came out: the search plans with ranges without margin."""
    return outcome.attempt.cost if callable(cost) else getattr(cost_of(outcome.pair), cost)
