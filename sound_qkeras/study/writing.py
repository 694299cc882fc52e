"""The study on disk: a table, the same as json, a page of text with everything there is to disclose, and drawings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sound_qkeras.baselines import Row, pareto_front, to_csv
from sound_qkeras.keras_io.autoqkeras.search import DEFECTS
from sound_qkeras.study.both_ways import both_ways
from sound_qkeras.study.drawing import draw
from sound_qkeras.support.decimals import at_most, tolerance
from sound_qkeras.support.resuming import write_json

CSV, JSON, TEXT = "study.csv", "study.json", "study.md"
COLUMNS = {
    "agreement": "agreement",
    "total_bits": "total bits",
    "autoqkeras_bits": "by AutoQKeras",
    "bit_operations": "bit operations",
    "nonzero_operations": "of nonzero weights",
    "ebops": "EBOPs",
    "energy": "energy (pJ)",
    "bound": "proved bound",
    "counted": "counted on samples",
    "observed_error": "worst error seen",
    "tier": "tier",
    "search_seconds": "search (s)",
    "training_seconds": "training (s)",
}
# Those of the columns that a notebook shows.
SHOWN = ("agreement", "total_bits", "bound", "counted", "observed_error", "search_seconds", "training_seconds")
BOUNDS = (
    "A proved bound holds for every input in the box; the worst error seen beside it is what a search found. In the tier "
    "statistical no bound is proved. There the largest error on the test samples is counted, and a limit of how probable an input "
    "drawn like them is to exceed it: at 99% confidence, for each row by itself, where the box was given (one that the test "
    "samples span depends on them, and no limit is counted). Json and csv call that error `bound` and the "
    "limit `probability`."
)
COUNTING = (
    "Bits are counted as AutoQKeras counts them: every weight, bias and value between layers times its word length; results "
    "of the last layer count nothing. AutoQKeras leaves the input a float and counts 8 bits for it; ours counts the word it "
    "is rounded to. QKeras has no formats with negative integer bits: where a network uses them, AutoQKeras counts more for its "
    "QKeras model, and that is a column of its own. Bit operations sum the product of both words over all multiplications. HGQ2 "
    "has a word for every weight, and none for a zero; the others have one for a layer or channel, zeros too, so those of weights "
    "that are not zero stand beside them. EBOPs, which HGQ2 minimises, are counted from the integers: of a weight the bits from "
    "the first to the last that is set."
)
TRAINING = (
    "Training keeps the weights of the best epoch by validation accuracy, or loss of a regression, those before it included. "
    "Of ours the seconds include the proof of what comes out. Seconds of a search that was killed and taken up "
    "again are those of its complete trials."
)
VALIDATION = (
    "Epochs and trials are chosen on some of the given samples. Where the float network was trained on those, it validates better "
    "than it is, and fine-tuning ends with the weights before it more often than it should: give validation samples of their own."
)
TEST = (
    "Accuracies are on a fifth of the given samples. Where the float network was trained on some of those, it and all that starts "
    "from its weights is flattered, and AutoQKeras, which trains anew, is not: give test samples of their own."
)


def write(
    rows: Sequence[Row], failures: Mapping[str, str], float_metric: float, settings: Mapping[str, Any], directory: Path
) -> None:
    """Write everything, each file in one step."""
    _replace(directory / CSV, to_csv(rows))
    front = [row.name for row in pareto_front(rows)]
    content = {"float_metric": float_metric, "settings": settings, "failures": failures, "pareto_front": front}
    content["both_ways"] = both_ways(rows)
    disclosed = {
        "counting": COUNTING,
        "bounds": BOUNDS,
        "training": TRAINING,
        "data": data_notes(settings),
        "autoqkeras_defects": DEFECTS,
    }
    write_json(directory / JSON, {**content, **disclosed, "rows": [row.to_json() for row in rows]})
    _replace(directory / TEXT, page(rows, failures, float_metric, settings))
    draw(rows, float_metric, directory, label_of(settings))


def page(rows: Sequence[Row], failures: Mapping[str, str], float_metric: float, settings: Mapping[str, Any]) -> str:
    """The study as Markdown."""
    label = label_of(settings)
    front = {row.name for row in pareto_front(rows)}
    lines = [
        "# Comparison",
        "",
        f"The float network's {label}: {float_metric:.4g}. {' '.join((COUNTING, BOUNDS, TRAINING, *data_notes(settings)))}",
        "",
    ]
    lines += [f"| candidate | {label} | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for row in sorted(rows, key=lambda row: row.total_bits):
        cells = [f"{row.name}{' *' if row.name in front else ''}", *cells_of(row, ("metric", *COLUMNS))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"\\* on the Pareto front of {label} and bits.", ""]
    lines += _section("Ours and AutoQKeras, both ways round", both_ways(rows))
    lines += _section("What AutoQKeras' users should know", DEFECTS)
    lines += _section("Methods without a row", [f"{name}: {reason}" for name, reason in failures.items()])
    lines += _section("Notes", [f"{row.name}: {' '.join(row.notes)}" for row in rows if row.notes])
    lines += _section("Settings", [f"{name}: {value}" for name, value in settings.items()])
    return "\n".join(lines)


def cells_of(row: Row, columns: Iterable[str]) -> list[str]:
    """The cells of a row: a proved bound is rounded up, and what is only counted is not in its column."""
    bound = "" if row.bound is None else tolerance(row.bound)
    limit = "" if row.probability is None else f", exceeded with probability at most {at_most(row.probability, 3)}"
    errors = {"bound": bound, "counted": ""} if row.proved else {"bound": "", "counted": bound and f"{bound}{limit}"}
    content = row.to_json() | errors
    return [_cell(content[name]) for name in columns]


def html_table(rows: Sequence[Row], float_metric: float, settings: Mapping[str, Any]) -> str:
    """The table for notebooks, fewest bits first; the Pareto front is bold."""
    columns = {"metric": label_of(settings), **{name: COLUMNS[name] for name in SHOWN}}
    front = {row.name for row in pareto_front(rows)}
    head = "".join(f"<th>{escape(text)}</th>" for text in ("candidate", *columns.values()))
    body = list[str]()
    for row in sorted(rows, key=lambda row: row.total_bits):
        cells = "".join(f"<td>{escape(text)}</td>" for text in (row.name, *cells_of(row, columns)))
        style = ' style="font-weight: bold"' if row.name in front else ""
        body.append(f"<tr{style}>{cells}</tr>")
    said = f"The float network's {label_of(settings)}: {float_metric:.4g}. Bold: on the Pareto front of it and bits."
    return (
        f"<table><caption>{escape(said)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def data_notes(settings: Mapping[str, Any]) -> list[str]:
    """What there is to say about samples that did not come separately."""
    return [
        text for name, text in (("separate_validation", VALIDATION), ("separate_test", TEST)) if not settings.get(name)
    ]


def label_of(settings: Mapping[str, Any]) -> str:
    """What the metric is called."""
    metric = str(settings.get("metric", "accuracy"))
    return metric if metric == "accuracy" else f"negative {metric}"


def _section(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {item}" for item in items or ("none",)), ""]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
