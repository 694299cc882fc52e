"""Rows of ours: the sweep over costs and tolerances, each before and after the training that everyone gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sound_qkeras.baselines import Candidate, Row
from sound_qkeras.baselines.candidate import from_quantized
from sound_qkeras.jobs.finetune import finetune
from sound_qkeras.jobs.quantize import quantize
from sound_qkeras.keras_io.autoqkeras.training import Data, fine_tuning
from sound_qkeras.network.graph import size_of
from sound_qkeras.results.result import Result
from sound_qkeras.study.both_ways import ALL_FAMILIES
from sound_qkeras.study.ledger import Task
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import Subject
from sound_qkeras.study.verdict import model_verdict, row_of, to_qkeras_or_none
from sound_qkeras.tuning.families import FAMILIES
from sound_qkeras.verify.evidence import Statistical

# Training samples that formats are chosen and tried on in the statistical tier. Half of them are held out, by fine-tuning too.
SAMPLES = 512


@dataclass(frozen=True)
class Choice:
    """What formats are chosen for: a tier, a cost, families of numbers, and a tolerance."""

    tier: str
    cost: str
    families: str
    eps: float

    def name(self, plan: Plan) -> str:
        """Of the row; what is usual is not said."""
        tier = "" if self.tier == plan.tier else f"{self.tier}, "
        cost = "" if self.cost == "total_bits" else f"{self.cost}, "
        families = "" if self.families == "fixed" else f"{ALL_FAMILIES}, "
        return f"ours, {tier}{cost}{families}eps {self.eps:g}"


def our_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """The sweep over tiers, costs, families and tolerances; families besides fixed point where AutoQKeras may have them."""
    all_families = (",".join(FAMILIES),) if "shipped" in plan.spaces else ()
    for tier in plan.our_tiers or (plan.tier,):
        for cost, families in product(plan.costs, ("fixed", *all_families)):
            for eps in plan.eps:
                choice = Choice(tier, cost, families, eps)
                yield Task(choice.name(plan), "ours", partial(_ours, subject, plan, choice), plan.epochs)


def _ours(subject: Subject, plan: Plan, choice: Choice) -> Iterator[Row]:
    """The row of the formats that `quantize` finds, and of what `finetune` makes of them."""
    box = (subject.box.lower, subject.box.upper)
    options: dict[str, Any] = {"cost": choice.cost, "tier": choice.tier, "families": choice.families}
    if choice.tier == "statistical":
        options["samples"] = np.asarray(subject.train[0])[:SAMPLES]
    result = quantize(subject.network, choice.eps, box, **options, effort=plan.effort, seed=plan.seed)
    name = choice.name(plan)
    yield _row(result, name, subject, plan, search_seconds=result.seconds)
    data = _without_held_out(subject.train, result)
    tuned = finetune(
        result,
        subject.targets(data),
        plan.epochs,
        validation=subject.targets(_without_held_out(subject.validation, result)),
        **fine_tuning(subject.model, plan.training),
        batch_size=plan.batch_size,
        effort=plan.effort,
        seed=plan.seed,
    )
    seconds = {"search_seconds": result.seconds, "training_seconds": tuned.seconds}
    row = _row(tuned, f"{name}, fine-tuned", subject, plan, **seconds)
    left = len(np.asarray(subject.train[0])) - len(np.asarray(data[0]))
    note = f"Trained without the {left} held-out samples of its certificate."
    yield replace(row, notes=(*row.notes, note)) if left else row


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
