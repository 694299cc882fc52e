"""Rows of HGQ2, which trains a width for every weight and value: measured, nothing is proved about them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sound_qkeras.baselines import Row
from sound_qkeras.baselines.hgq2 import BETAS, find_hgq2, hgq2
from sound_qkeras.study.ledger import Task, recorded
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import Subject

NAME = "HGQ2"


def hgq2_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """One task for all betas, where a Python has HGQ2, or where its rows were recorded before.

    Raises:
        DependencyError: the Python that was named has no HGQ2.
    """
    if plan.hgq_python is not None:
        find_hgq2(plan.hgq_python)
    if plan.hgq_python is not None or recorded(directory, NAME):
        yield Task(NAME, "hgq2", partial(_rows, subject, plan), len(BETAS) * plan.epochs)


def _rows(subject: Subject, plan: Plan) -> Iterator[Row]:
    train, validation = subject.targets(subject.train), subject.targets(subject.validation)
    answer = hgq2(subject.network, train, validation, subject.test[0], plan.training, plan.hgq_python or "")
    for one in answer.networks:
        measured: dict[str, Any] = subject.measured(one.outputs)
        notes = (
            "Measured, nothing is proved: values outside of what was seen in training wrap around.",
            f"HGQ2 {answer.version} itself counts {one.ebops:,} EBOPs; {one.nonzero:,} weights are not zero.",
        )
        yield Row(
            f"{NAME}, beta {one.beta:g}, epoch {one.epoch}",
            one.weight_bits,
            one.bias_bits,
            one.value_bits,
            bit_operations=one.bit_operations,
            nonzero_operations=one.bit_operations,
            ebops=one.enclosed,
            training_seconds=one.seconds,
            notes=notes,
            **measured,
        )
