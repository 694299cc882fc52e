"""Rows of what others compute from the trained weights alone: uniform formats, the rule, the rounding families."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sound_qkeras import baselines
from sound_qkeras.baselines import Candidate, Row
from sound_qkeras.baselines.fixed import SHORTEST_WORD
from sound_qkeras.baselines.levels import LEVELS, RULES
from sound_qkeras.baselines.uniform import SCALES
from sound_qkeras.errors import InfeasibleError
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import size_of
from sound_qkeras.search.falsify import errors
from sound_qkeras.study.ledger import Task
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import Subject
from sound_qkeras.study.verdict import row_of

# Share of weights that pruning sets to zero, and samples that multipoint quantisation measures errors on.
SPARSITY, SAMPLES = 0.5, 256
# Longest uniform word tried on samples, and the share of them that has to meet the tolerance.
LONGEST_WORD, COVERED = 32, 0.99


def uniform_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """Flat words, and the smallest uniform format for each tolerance, of both kinds."""
    network, box = subject.network, subject.box
    for bits in plan.bits:
        for scale in SCALES:
            make = partial(baselines.uniform, network, box, bits, scale=scale)
            yield _task(subject, plan, "uniform", f"uniform {bits} bits, {scale}", make)
    for eps in plan.eps:
        tolerance = _per_output(subject, eps)
        smallest = partial(_smallest_word, subject, plan, tolerance)
        yield _task(subject, plan, "uniform", f"smallest uniform word, eps {eps:g}", smallest)
        if plan.tier != "sound":
            continue
        single = partial(baselines.single_format, network, box, tolerance)
        yield _task(subject, plan, "uniform", f"smallest single format, eps {eps:g}", single)


def _smallest_word(subject: Subject, plan: Plan, tolerance: Reals) -> Candidate:
    """The shortest word that is proved to meet a tolerance, or in the statistical tier does so on 99% of the training samples."""
    if plan.tier == "sound":
        return baselines.smallest_word(subject.network, subject.box, tolerance).candidate
    samples = np.asarray(subject.train[0], dtype=np.float64)
    best = np.inf
    for bits in range(SHORTEST_WORD, LONGEST_WORD + 1):
        candidate = baselines.uniform(subject.network, subject.box, bits)
        found = np.abs(errors(candidate.quantized_network, samples))
        if np.mean(np.all(found <= tolerance, axis=1)) >= COVERED:
            return candidate
        best = min(best, float(np.quantile(found.max(axis=1), COVERED)))
    raise InfeasibleError(f"uniform words of up to {LONGEST_WORD} bits do not meet the tolerance", best_bound=best)


def rule_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """The per-layer rule, every tolerance shared equally among the layers."""
    network = subject.network
    for eps in plan.eps:
        bounds = baselines.equal_bounds(network, eps)
        make = partial(baselines.per_layer_rule, network, subject.box, bounds)
        yield _task(subject, plan, "rule", f"per-layer rule, eps {eps:g}", make)


def rounding_tasks(subject: Subject, plan: Plan, directory: Path) -> Iterator[Task]:
    """The post-training families: rounding rules and levels, multipoint, pruning."""
    network, box, seed = subject.network, subject.box, plan.seed
    samples = np.asarray(subject.train[0], dtype=np.float64)[:SAMPLES]
    pruned = partial(baselines.pruned, network, SPARSITY)
    yield _task(subject, plan, "rounding", f"pruned {SPARSITY:.0%}", pruned)
    for bits in plan.bits:
        made: dict[str, Callable[[], Candidate]] = {}
        for rule in RULES:
            grid = partial(baselines.on_grid, network, box, bits, rule=rule, seed=seed)
            made[f"{rule} rounding, power-of-two step, {bits} bits"] = grid
            for kind in LEVELS:
                levels = partial(baselines.from_levels, network, bits, rule=rule, kind=kind, seed=seed)
                made[f"{rule} rounding, {kind} levels, {bits} bits"] = levels
        made[f"multipoint, {bits} bits"] = partial(baselines.multipoint, network, samples, bits)
        for order in ("before", "after"):
            prune = partial(baselines.pruned_uniform, network, box, SPARSITY, bits, order=order)
            made[f"uniform {bits} bits, pruned {order}"] = prune
        for name, make in made.items():
            yield _task(subject, plan, "rounding", name, make)


def _task(subject: Subject, plan: Plan, method: str, name: str, make: Callable[[], Candidate]) -> Task:
    return Task(name, method, partial(_timed, subject, plan, name, make))


def _timed(subject: Subject, plan: Plan, name: str, make: Callable[[], Candidate]) -> Row:
    started = time.monotonic()
    candidate = replace(make(), name=name)
    seconds = time.monotonic() - started
    return row_of(candidate, subject, plan, _per_output(subject, min(plan.eps)), search_seconds=seconds)


def _per_output(subject: Subject, eps: float) -> Reals:
    return np.full(size_of(subject.network.output_shape), eps)
