"""Rows of what is found by training: AutoQKeras' best trials, and weight-only training through a straight-through estimator."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sound_qkeras.baselines import Row, straight_through
from sound_qkeras.keras_io.autoqkeras.search import Found, Retrained, Settings, search
from sound_qkeras.keras_io.autoqkeras.sizes import bit_operations
from sound_qkeras.keras_io.autoqkeras.training import compile_for, copy_of
from sound_qkeras.study.ledger import Task
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import Subject
from sound_qkeras.study.verdict import energy_fields, model_verdict

FOLDER = "autoqkeras"


def straight_through_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """Weight-only training at every word length."""
    for bits in plan.bits:
        name = f"straight-through estimator, {bits} bits"
        yield Task(name, "straight_through", partial(_straight_through, subject, plan, name, bits), plan.epochs)


def _straight_through(subject: Subject, plan: Plan, name: str, bits: int) -> Row:
    train, validation = subject.targets(subject.train), subject.targets(subject.validation)
    found = straight_through(subject.model, subject.network, bits, train, validation, plan.training)
    fields = subject.measured(subject.scores(found.model))
    verdict = model_verdict(found.model, subject.network, subject, plan)
    notes = (*found.notes, *verdict.pop("notes", ()))
    cost = found.cost
    return Row(
        name,
        cost.weight_bits,
        cost.bias_bits,
        cost.activation_bits,
        bit_operations=cost.bit_operations,
        training_seconds=found.seconds,
        notes=notes,
        **fields,
        **verdict,
    )


def autoqkeras_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """Every search asked for, its best trials trained again."""
    epochs = plan.trials * plan.search_epochs + plan.retrained * plan.epochs
    for mode in plan.modes:
        for space in plan.spaces:
            place = directory / FOLDER / f"{mode}_{space}"
            make = partial(_searched, place, subject, plan, mode, space)
            yield Task(f"AutoQKeras, {mode}, {space} space", "autoqkeras", make, epochs)


def _searched(place: Path, subject: Subject, plan: Plan, mode: str, space: str) -> Iterator[Row]:
    training = plan.batch_size, plan.learning_rate, plan.seed, plan.metric
    settings = Settings(mode, space, plan.trials, plan.search_epochs, *training)
    train, validation = subject.targets(subject.train), subject.targets(subject.validation)
    model = copy_of(subject.model)
    compile_for(model, subject.network.head, plan.training)
    found = search(model, train, validation, place, settings)
    for rank in range(min(plan.retrained, len(found.trials))):
        again = found.retrain(train, validation, epochs=plan.epochs, rank=rank)
        yield _retrained_row(subject, plan, found, again, rank)


def _retrained_row(subject: Subject, plan: Plan, found: Found, again: Retrained, rank: int) -> Row:
    settings, bits, trial = found.settings, again.bits, again.trial
    fields: dict[str, Any] = subject.measured(subject.scores(again.model))
    verdict = model_verdict(again.model, None, subject, plan)
    note = f"Trial {trial.name}, {trial.size} bits in the search, {trial.metric:.4g} in validation."
    notes = (note, *verdict.pop("notes", ()))
    return Row(
        f"AutoQKeras, {settings.mode}, {settings.space} space, {rank + 1}. of {len(found.trials)} trials",
        bits.weight_bits,
        bits.bias_bits,
        bits.activation_bits,
        autoqkeras_bits=bits.total_bits,
        bit_operations=bit_operations(again.model),
        search_seconds=found.seconds,
        training_seconds=again.seconds,
        notes=notes,
        **fields,
        **energy_fields(again.model),
        **verdict,
    )
