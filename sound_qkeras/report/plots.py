"""A result, or several at different tolerances, as figures."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from sound_qkeras.report.formats import NAIVE
from sound_qkeras.report.sweep import mean_bits
from sound_qkeras.results.result import FormatRow, Result
from sound_qkeras.results.verdict import asked
from sound_qkeras.search.falsify import errors
from sound_qkeras.support.figures import DARK, LIGHT, MARKERS, MIDDLE, finished, new_figure
from sound_qkeras.verify.certificate import BudgetRow
from sound_qkeras.verify.evidence import Statistical

# More bars than this are no drawing any more: of the formats those of weights are drawn, and of outputs the first ones.
MOST_BARS, MOST_OUTPUTS, MOST_BUDGET = 32, 16, 8
# In inches: the figure, a bar, what a panel has besides its bars, and the verdict above them.
WIDTH, BAR_HEIGHT, PANEL_HEIGHT, TITLE_HEIGHT = 8.0, 0.22, 0.9, 0.5
TITLE_COLUMNS = 100
# Names are shown as they are, dollars and all.
NAMES: dict[str, Any] = {"fontsize": "small", "parse_math": False}


def plot_result(result: Result, path: str | os.PathLike[str] | None = None) -> Any:
    """Draw formats, the error budget, and what is claimed beside what was found; see `Result.plot`."""
    rows, budget = _shown(result), _largest(result)
    bars = [len(rows), _outputs(result), *([len(budget)] if budget else [])]
    heights = [PANEL_HEIGHT + BAR_HEIGHT * count for count in bars]
    figure, panels = new_figure(len(bars), 1, size=(WIDTH, sum(heights) + TITLE_HEIGHT), height_ratios=heights)
    _formats(panels[0], rows, sum(row.kind != "accumulator" for row in result.formats))
    _errors(panels[1], result)
    if budget:
        _budget(panels[2], budget, counted=isinstance(result.certificate.evidence, Statistical))
    title = textwrap.fill(result.verdict, TITLE_COLUMNS)
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left", parse_math=False)
    return finished(figure, path)


def plot_curve(results: Sequence[Result], path: str | os.PathLike[str] | None = None) -> Any:
    """Draw bits a weight against the tolerance, and against the worst error found; see `Curve.plot`."""
    figure, axes = new_figure(size=(6.5, 4.0))
    ordered = sorted(results, key=lambda one: float(one.certificate.eps.max()))
    eps, bits = [float(one.certificate.eps.max()) for one in ordered], [mean_bits(one) for one in ordered]
    counted = isinstance(ordered[0].certificate.evidence, Statistical)
    said = "tolerance eps: counted" if counted else "tolerance eps: proved"
    axes.step(eps, bits, "-", where="post", color=DARK, alpha=0.4)
    axes.plot(eps, bits, MARKERS[0], color=DARK, label=said)
    axes.plot([one.observed_error for one in ordered], bits, MARKERS[1], color=MIDDLE, label="worst error found")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0.0)
    axes.grid(axis="y", color="0.9")
    axes.set(xlabel="output error", ylabel="bits a weight", title="What a tolerance costs")
    axes.legend(frameon=False)
    return finished(figure, path)


def _shown(result: Result) -> list[FormatRow]:
    """The formats that are drawn: all but those of accumulators, or the first ones of weights where these are too many."""
    rows = [row for row in result.formats if row.kind != "accumulator"]
    if len(rows) > MOST_BARS:
        rows = [row for row in rows if row.kind == "weight"] or rows
    return rows[:MOST_BARS]


def _formats(axes: Any, rows: Sequence[FormatRow], of: int) -> None:
    places = np.arange(len(rows))
    whole = np.array([row.whole_bits for row in rows])
    lengths = np.array([row.word_length for row in rows])
    axes.barh(places, whole, color=DARK, label="sign and integer bits")
    axes.barh(places, lengths - whole, left=whole, color=LIGHT, edgecolor=DARK, linewidth=0.5, label="fractional bits")
    for place, length in zip(places, lengths, strict=True):
        axes.text(length + 0.3, place, str(length), va="center", fontsize="small")
    axes.axvline(NAIVE, color="0.4", linestyle="--", linewidth=1.0, label="float32")
    axes.set_yticks(places, [f"{row.node}, {row.kind}" for row in rows], **NAMES)
    axes.invert_yaxis()
    title = f"Formats: {len(rows)} of {of}" if len(rows) < of else "Formats"
    axes.set(xlabel="bits", title=title, xlim=(0, max([NAIVE, *map(int, lengths)]) + 3))
    _legend(axes)


def _largest(result: Result) -> list[BudgetRow]:
    """What the roundings of one kind in one layer contribute alone, the largest first."""
    return sorted(result.certificate.error_budget, key=lambda row: -row.bound)[:MOST_BUDGET]


def _budget(axes: Any, rows: Sequence[BudgetRow], *, counted: bool) -> None:
    """Each is alone: bounds of several are not added up, and each may exceed what is proved of all of them together."""
    places = np.arange(len(rows))
    axes.barh(places, [row.bound for row in rows], color=MIDDLE)
    axes.set_yticks(places, [f"{row.layer}, {row.kind}" for row in rows], **NAMES)
    axes.invert_yaxis()
    what = "root mean square error, estimated," if counted else "bound"
    axes.set(xlabel=f"{what} if nothing else were rounded", title="Error budget, largest first")
    axes.locator_params(axis="x", nbins=6)


def _outputs(result: Result) -> int:
    """How many outputs are drawn: where errors are only counted, one stands for all that are alike."""
    eps = result.certificate.eps
    alike = isinstance(result.certificate.evidence, Statistical) and bool(np.all(eps == eps[0]))
    return 1 if alike else min(eps.size, MOST_OUTPUTS)


def _errors(axes: Any, result: Result) -> None:
    """For every output, the bound beside the tolerance; and the worst error found, or seen, of all outputs."""
    certificate = result.certificate
    counted = isinstance(certificate.evidence, Statistical)
    outputs = _outputs(result)
    places = np.arange(outputs)
    if asked(certificate):
        eps = certificate.eps[:outputs]
        axes.barh(places, eps, color="white", edgecolor="0.4", linestyle="--", label="tolerance eps")
    if not counted:
        bounds = certificate.output_bounds[:outputs]
        axes.barh(places, bounds, height=0.5, color=LIGHT, edgecolor=DARK, label="proved bound")
    if result.evaluations and certificate.claims_distance:
        seen = np.abs(errors(result.pair, result.observed_input[None])[0])
        seen = np.array([seen.max()]) if outputs < min(seen.size, MOST_OUTPUTS) else seen[:outputs]
        label = "at the worst held-out sample" if counted else "at the worst input found"
        axes.plot(seen, places, "D", color=DARK, label=label)
    names = (
        ["every output"]
        if outputs == 1 < certificate.eps.size
        else certificate.labels.output_names(result.pair.network)[:outputs]
    )
    axes.set_yticks(places, names, **NAMES)
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    title = "Error" if outputs in (1, certificate.eps.size) else f"Error: {outputs} of {certificate.eps.size} outputs"
    axes.set(xlabel="output error", title=title)
    _legend(axes)


def _legend(axes: Any) -> None:
    """Beside the panel, so that it hides nothing."""
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
