"""Rows of ours: the sweep over costs and tolerances, each before and after the training that everyone gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from sound_qkeras.baselines import Candidate, Row
from sound_qkeras.baselines.candidate import from_quantized
from sound_qkeras.baselines.gradual_pruning import gradually_pruned, keeping_zeros
from sound_qkeras.jobs.finetune import Prover, finetune, renewed
from sound_qkeras.jobs.quantize import quantize
from sound_qkeras.jobs.recertify import Demand
from sound_qkeras.keras_io import read_model
from sound_qkeras.keras_io.autoqkeras.training import Data, Training, fine_tuning
from sound_qkeras.network import Network
from sound_qkeras.network.graph import size_of
from sound_qkeras.results.result import Result
from sound_qkeras.study.both_ways import ALL_FAMILIES
from sound_qkeras.study.ledger import Task
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import Subject
from sound_qkeras.study.verdict import model_verdict, row_of, to_qkeras_or_none
from sound_qkeras.tuning.effort import effort_of
from sound_qkeras.tuning.families import FAMILIES
from sound_qkeras.verify.evidence import Statistical

# Training samples that formats are chosen and tried on in the statistical tier. Half of them are held out, by fine-tuning too.
SAMPLES = 512


@dataclass(frozen=True)
class Choice:
    """What formats are chosen for: a tier, a cost, families of numbers, a tolerance, and a share of weights that are zero."""

    tier: str
    cost: str
    families: str
    eps: float
    sparsity: float = 0.0

    def name(self, plan: Plan) -> str:
        """Of the row; what is usual is not said."""
        tier = "" if self.tier == plan.tier else f"{self.tier}, "
        cost = "" if self.cost == "total_bits" else f"{self.cost}, "
        families = "" if self.families == "fixed" else f"{ALL_FAMILIES}, "
        pruned = f"pruned {self.sparsity:.0%}, " if self.sparsity else ""
        return f"ours, {pruned}{tier}{cost}{families}eps {self.eps:g}"


def our_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """The sweep over tiers, costs, families and tolerances; families besides fixed point where AutoQKeras may have them.

    Pruned networks have fixed point alone, where every format has a zero.
    """
    start = cache(partial(_start, subject, plan))
    families = ("fixed", ",".join(FAMILIES)) if "shipped" in plan.spaces else ("fixed",)
    for sparsity in (0.0, *plan.sparsities):
        wanted = product(plan.our_tiers or (plan.tier,), plan.costs, ("fixed",) if sparsity else families, plan.eps)
        for tier, cost, family, eps in wanted:
            choice = Choice(tier, cost, family, eps, sparsity)
            yield Task(choice.name(plan), "ours", partial(_ours, subject, plan, choice, start), plan.epochs)


@dataclass(frozen=True, eq=False)
class Start:
    """A float network that formats are chosen for, and how it is trained on with them.

    Args:
        network: as it was trained, or pruned.
        seconds: that pruning took.
        training: for what is left of the epochs.
        notes: for the reader.
    """

    network: Network
    seconds: float
    training: Training
    notes: tuple[str, ...] = ()


def _start(subject: Subject, plan: Plan, sparsity: float) -> Start:
    """The trained network; or a pruned one, for which half of the epochs are gone."""
    training = plan.training
    if not sparsity:
        return Start(subject.network, 0.0, training)
    half = training.epochs // 2
    data, head = subject.targets(subject.train), subject.network.head
    model, seconds = gradually_pruned(subject.model, sparsity, data, head, replace(training, epochs=half))
    # On held-out samples of the tier statistical, too: no row states the limit of its certificate.
    note = f"Pruned in {half} of the {training.epochs} epochs: the bound is against the float network after that."
    return Start(read_model(model), seconds, replace(training, epochs=training.epochs - half), (note,))


def _ours(subject: Subject, plan: Plan, choice: Choice, start: Callable[[float], Start]) -> Iterator[Row]:
    """The row of the formats that `quantize` finds, and of what `finetune` makes of them."""
    begin = start(choice.sparsity)
    box = (subject.box.lower, subject.box.upper)
    options: dict[str, Any] = {"cost": choice.cost, "tier": choice.tier, "families": choice.families}
    if choice.tier == "statistical":
        options["samples"] = np.asarray(subject.train[0])[:SAMPLES]
    result = quantize(begin.network, choice.eps, box, **options, effort=plan.effort, seed=plan.seed)
    if choice.sparsity:
        result = with_zeros(result, plan)
    name = choice.name(plan)
    pruning = {"training_seconds": begin.seconds}
    yield _noted(_row(result, name, subject, plan, search_seconds=result.seconds, **pruning), begin.notes)
    data = _without_held_out(subject.train, result)
    training = begin.training
    settings = fine_tuning(subject.model, training)
    if choice.sparsity:
        steps = training.epochs * ceil(len(np.asarray(data[0])) / training.batch_size)
        settings["optimizer"] = keeping_zeros(training.learning_rate, steps)
    tuned = finetune(
        result,
        subject.targets(data),
        training.epochs,
        validation=subject.targets(_without_held_out(subject.validation, result)),
        **settings,
        batch_size=plan.batch_size,
        effort=plan.effort,
        seed=plan.seed,
    )
    seconds = {"search_seconds": result.seconds, "training_seconds": begin.seconds + tuned.seconds}
    row = _row(tuned, f"{name}, fine-tuned", subject, plan, **seconds)
    left = len(np.asarray(subject.train[0])) - len(np.asarray(data[0]))
    note = f"Trained without the {left} held-out samples of its certificate."
    yield _noted(row, (note,) if left and not choice.sparsity else begin.notes)


def with_zeros(result: Result, plan: Plan) -> Result:
    """The result where weights that were pruned are zero, and certified again: rounding may have moved them to balance others."""
    made = dict(result.pair.parameters)
    for node, op in result.pair.network.owners():
        codes = made[node.name]
        made[node.name] = replace(codes, kernel=np.where(op.kernel == 0.0, 0, codes.kernel))
    pair = replace(result.pair, parameters=made, accumulators={})
    prover = Prover(Demand.of(result.certificate), None, effort_of(plan.effort))
    return replace(renewed(result, *prover.prove(pair), plan.seed), seconds=result.seconds)


def _noted(row: Row, notes: tuple[str, ...]) -> Row:
    return replace(row, notes=(*row.notes, *notes))


def _row(result: Result, name: str, subject: Subject, plan: Plan, **seconds: float) -> Row:
    candidate = replace(from_quantized(name, result.pair), cost=result.cost)
    return row_of(
        candidate, subject, plan, _eps(subject, result), **_verdict(result, candidate, subject, plan), **seconds
    )


def _verdict(result: Result, candidate: Candidate, subject: Subject, plan: Plan) -> dict[str, Any]:
    """Bound, observed error and tier, where they are not those that `row_of` finds for everyone.

    A proof has its own. What was chosen on samples may saturate, so it is proved in the tier "sound" as what others made.
    """
    if plan.tier != "sound":
        return {}
    if not isinstance(result.certificate.evidence, Statistical):
        return {"bound": result.certificate.bound, "observed_error": result.observed_error, "tier": "sound"}
    model = to_qkeras_or_none(candidate)
    if model is None:
        return {"bound": None, "notes": ("No bound: QKeras has no such formats.",)}
    return {"bound": None, **model_verdict(model, result.pair.network, subject, plan)}


def _eps(subject: Subject, result: Result) -> Any:
    return np.full(size_of(subject.network.output_shape), float(np.max(result.certificate.eps)))


def _without_held_out(data: Data, result: Result) -> Data:
    """Samples without those that a limit is counted on, and their doubles."""
    evidence = result.certificate.evidence
    if not isinstance(evidence, Statistical):
        return data
    inputs, labels = map(np.asarray, data)
    held_out = {_bytes(row) for row in evidence.samples}
    kept = np.array([_bytes(row) not in held_out for row in inputs])
    return inputs[kept], labels[kept]


def _bytes(row: Any) -> bytes:
    """A sample as training sees it: in float32, without negative zeros."""
    return (np.asarray(row, dtype=np.float32) + np.float32(0.0)).tobytes()
