"""The samples a claim rests on, and what quantisation does to a classifier."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sound_qkeras.report.claim import DIGITS
from sound_qkeras.report.tables import FRAME, Bar, Cell, Mark, Segment, Table, count, filled, percent, share, table
from sound_qkeras.results.result import Result
from sound_qkeras.support.decimals import percent_at_most
from sound_qkeras.verify.evidence import Local, Statistical

LEVELS = (("Half of the samples", 0.5), ("90% of the samples", 0.9), ("All samples", 1.0))


def evidence_table(result: Result) -> Table | None:
    """How the samples fare; None where the claim needs none."""
    evidence = result.certificate.evidence
    if isinstance(evidence, Local):
        return _bounds(result, evidence)
    if isinstance(evidence, Statistical):
        return _counts(evidence)
    return None


def _bounds(result: Result, evidence: Local) -> Table:
    """How the bounds around single samples are distributed."""
    eps = result.certificate.eps
    relative = (evidence.bounds / eps).max(axis=1)
    rows: list[tuple[Cell, ...]] = []
    for name, level in LEVELS:
        worst = float(np.quantile(relative, level, method="higher"))
        bar = Bar((Segment(0.0, share(worst, 1.0), "outer"), FRAME))
        rows.append((name, count(round(level * relative.size)), percent_at_most(worst, DIGITS), bar))
    columns = "Samples:name, Number:number, Of eps at most:number, Drawn to the tolerance:bar"
    return table(f"Bounds around {count(relative.size)} samples", columns, rows)


def _counts(evidence: Statistical) -> Table:
    held_out, limit = len(evidence.samples), evidence.probability
    bar = Bar(
        (Segment(0.0, limit, "outer"), Segment(0.0, evidence.failures / held_out, "core"), FRAME),
        (Mark(min(limit, 1.0), "line"),),
    )
    texts = (count(held_out), count(evidence.failures), percent(evidence.failures, held_out))
    row = ("beyond the tolerance", *texts, percent_at_most(limit, DIGITS), bar)
    columns = (
        "Inputs:name, Held-out samples:number, Of them:number, Observed share:number, "
        "Share claimed at most:number, Drawn to all inputs:bar"
    )
    return table(f"Exact binomial limit, confidence {float(evidence.confidence)!r}", columns, [row])


def classification_table(result: Result) -> Table | None:
    """Accuracies, agreement and proved classes; None for what is no classifier."""
    if result.classification is None:
        return None
    rows = [
        (name, f"{value:.2%}", count(round(value * result.classification.samples)), filled(value))
        for name, value in _shares(result)
    ]
    caption = f"Classes of {count(result.classification.samples)} samples"
    return table(caption, "What:name, Share:number, Samples:number, Drawn to all samples:bar", rows)


def accuracy_table(result: Result) -> Table | None:
    """What was tried for an accuracy; None where a tolerance was asked for."""
    if result.accuracy is None:
        return None
    rows = [
        (
            f"{step.eps:.4g}{' (taken)' if step.eps == float(result.certificate.eps.max()) else ''}",
            count(step.weight_bits),
            count(step.total_bits),
            f"{100.0 * step.lost:.2f}",
            filled(step.weight_bits, max(one.weight_bits for one in result.accuracy.tried)),
        )
        for step in sorted(result.accuracy.tried, key=lambda step: step.eps)
    ]
    columns = "eps:name, Weight bits:number, Total bits:number, Points lost:number, Weight bits drawn:bar"
    return table("Networks that were tried", columns, rows)


def _shares(result: Result) -> Iterator[tuple[str, float]]:
    found = result.classification
    if found is None:
        return
    if found.float_accuracy is not None and found.fixed_accuracy is not None:
        yield "as labelled, trained network", found.float_accuracy
        yield "as labelled, fixed-point network", found.fixed_accuracy
    yield "the same class from both networks", found.agreement
    if not isinstance(result.certificate.evidence, Statistical):
        yield "proved to be the same class from both", found.proved
