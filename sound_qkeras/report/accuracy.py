"""Where the error comes from, and how close the worst input comes to the bound."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sound_qkeras.exact.proof import exact_error
from sound_qkeras.interval import Reals, down
from sound_qkeras.report.claim import DIGITS, asked, output_bound
from sound_qkeras.report.coverage import MOST_ROWS
from sound_qkeras.report.naming import Naming
from sound_qkeras.report.tables import FRAME, Bar, Mark, Segment, Table, filled, percent, share, table
from sound_qkeras.results.result import Result
from sound_qkeras.search.falsify import errors
from sound_qkeras.search.observe import MOST_EXACT_PRODUCTS
from sound_qkeras.support.decimals import at_least, at_most, tolerance
from sound_qkeras.verify.certificate import BudgetRow
from sound_qkeras.verify.evidence import Statistical

MOST_OUTPUTS = 16
# Rows of a budget that are seen at a glance; of a longer one the largest are shown first.
SHORT, LARGEST = 24, 12


def budget_table(result: Result) -> Table:
    """What each layer's weights, biases and results would contribute alone, beside the tolerance."""
    return table("Error budget", *_budget(result, result.certificate.error_budget))


def largest_table(result: Result) -> Table | None:
    """The largest contributions; None where the whole budget is short enough to see them."""
    budget = result.certificate.error_budget
    if len(budget) <= SHORT:
        return None
    largest = sorted(budget, key=lambda row: -row.bound)[:LARGEST]
    return table(f"The {LARGEST} largest of {len(budget)} contributions", *_budget(result, largest))


def _budget(result: Result, budget: Iterable[BudgetRow]) -> tuple[str, list[tuple[str | Bar, ...]]]:
    eps = float(result.certificate.eps.max())
    scale = max([1.0, *(row.bound / eps for row in result.certificate.error_budget)])
    rows: list[tuple[str | Bar, ...]] = [
        (row.layer, row.kind, at_most(row.bound, DIGITS), percent(row.bound, eps), filled(row.bound / eps, scale))
        for row in budget
    ]
    own = "eps" if np.all(result.certificate.eps == eps) else "an output's own eps"
    return f"Layer:name, Rounded, Alone:number, Of {own}:number, Drawn to eps:bar", rows


def errors_table(result: Result, found: Reals, naming: Naming) -> Table:
    """Bound and error at the worst input, per output; of many outputs those whose errors are nearest their tolerance.

    Args:
        result: the result.
        found: the errors at the worst input, shape `(outputs,)`.
        naming: what outputs are called.
    """
    certificate = result.certificate
    eps, bounds = certificate.eps, certificate.output_bounds
    proved = not isinstance(certificate.evidence, Statistical)
    nearest = np.argsort(-(bounds if proved else found) / eps, kind="stable")[:MOST_OUTPUTS]
    scale = max(1.0, float(np.max(found / eps)))
    rows: list[tuple[str | Bar, ...]] = []
    for k in sorted(nearest.tolist()):
        limit, error = float(eps[k]), float(found[k])
        texts, bar = (at_least(error, DIGITS), percent(error, limit)), filled(error / limit, scale)
        if proved:
            bound = float(bounds[k])
            texts = (output_bound(certificate, k), at_least(error, DIGITS), percent(error, bound))
            bar = Bar((Segment(0.0, share(bound, limit), "outer"), Segment(0.0, share(error, limit), "core"), FRAME))
        rows.append((naming.output(k), *([tolerance(limit)] if asked(certificate) else []), *texts, bar))
    headings = ["Worst input:number", "Of the tolerance:number"]
    if proved:
        headings = ["Proved bound:number", "Worst input:number", "Of the bound:number"]
    all_of_them = len(rows) == eps.size
    caption = "Errors per output" if all_of_them else f"Errors of the {len(rows)} outputs nearest their tolerance"
    headings = (
        ["Tolerance:number", *headings, "Drawn to the tolerance:bar"]
        if asked(certificate)
        else [*headings, "Drawn:bar"]
    )
    columns = ", ".join(["Output:name", *headings])
    return table(caption, columns, rows)


def errors_at_worst(result: Result) -> tuple[Reals, bool]:
    """The errors at the worst input found, shape `(outputs,)`, and whether they are exact: large networks take float64."""
    pair, sample = result.pair, result.observed_input
    if pair.reference.products > MOST_EXACT_PRODUCTS or not pair.has_integers:
        return np.abs(errors(pair, sample[None])[0]), False
    found = down(np.array([float(abs(error)) for error in exact_error(pair, sample)]))
    return np.maximum(found, 0.0), True


def worst_input_table(result: Result, naming: Naming) -> Table | None:
    """The worst input found, exactly, and where it lies in the box; None where it is too long to write out."""
    box, sample = result.certificate.box, result.observed_input.reshape(-1)
    if sample.size > MOST_ROWS:
        return None
    lower, width = box.lower.reshape(-1), (box.upper - box.lower).reshape(-1)
    places = (Bar((FRAME,), (Mark(share(x - a, w), "line"),)) for x, a, w in zip(sample, lower, width, strict=True))
    rows = [(naming.input(k), repr(float(x)), place) for (k, x), place in zip(enumerate(sample), places, strict=True)]
    return table("The worst input found, exactly", "Input:name, Value:number range, Place in the box:bar", rows)
