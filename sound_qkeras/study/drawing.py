"""Three drawings: the task's metric, the error, and time, each against bits. They are read in black and white."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sound_qkeras.baselines import Row, pareto_front
from sound_qkeras.support.figures import new_figure

Value = Callable[[Row], float | None]
# Families by the beginning of a row's name, the first that fits: what the legend calls them, marker, and fill.
FAMILIES = (
    ("ours", "ours", "o", "black"),
    ("AutoQKeras", "AutoQKeras", "D", "white"),
    ("uniform", "one word length", "s", "0.8"),
    ("smallest", "smallest uniform format that meets eps", "^", "0.8"),
    ("per-layer rule", "per-layer rule", "v", "0.8"),
    ("HGQ2", "HGQ2", "*", "white"),
    ("straight-through", "straight-through training", "P", "0.5"),
    ("", "rounding, multipoint, pruning", "X", "0.95"),
)
SIZE = (8.0, 5.0)
# An axis whose ends differ by less than this factor is linear, others are logarithmic.
LOGARITHMIC = 5.0
# Ticks of a decade, by how many decades an axis spans at most.
TICKS = {1.5: (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), 3.0: (1.0, 2.0, 5.0), math.inf: (1.0,)}


def draw(rows: Sequence[Row], float_metric: float, directory: Path, label: str = "accuracy") -> None:
    """Write `accuracy.png`, `bound.png` and `time.png`; the first is of the metric that `label` names.

    Raises:
        DependencyError: matplotlib is missing.
    """
    metric_figure(rows, float_metric, label).savefig(directory / "accuracy.png")
    figure, axes = _axes("Error against the float network", "largest error, in units of the outputs")
    proved, counted = [row for row in rows if row.proved], [row for row in rows if not row.proved]
    _points(axes, proved, lambda row: row.bound or None, "{}, proved" if any(row.bound for row in counted) else "{}")
    _points(axes, counted, lambda row: row.bound or None, "{}, counted on samples, not proved", alpha=0.4)
    _finish(figure, axes, rows, lambda row: row.bound or None).savefig(directory / "bound.png")
    figure, axes = _axes("Time until a network is there", "seconds of search and training")
    _points(axes, rows, _seconds)
    _finish(figure, axes, rows, _seconds).savefig(directory / "time.png")


def metric_figure(rows: Sequence[Row], float_metric: float, label: str) -> Any:
    """The task's metric against bits, with the float network's and the Pareto front; a matplotlib figure.

    Raises:
        DependencyError: matplotlib is missing.
    """
    figure, axes = _axes(f"{label.capitalize()} against bits", f"{label} on the test samples")
    front = pareto_front(rows)
    steps = {"where": "post", "color": "black", "linewidth": 1.0, "zorder": 1}
    axes.step([row.total_bits for row in front], [row.metric for row in front], label="Pareto front", **steps)
    axes.axhline(float_metric, color="black", linestyle="--", linewidth=1.0, zorder=0)
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": "small", "ha": "right"}
    axes.annotate(f"float network: {float_metric:.4g}", (0.99, float_metric), xytext=(0, 3), **place)
    _points(axes, rows, lambda row: row.metric)
    return _finish(figure, axes, rows, None)


def _seconds(row: Row) -> float | None:
    return (row.search_seconds + row.training_seconds) or None


def _axes(title: str, label: str) -> tuple[Any, Any]:
    figure, axes = new_figure(size=SIZE)
    axes.set_title(title)
    axes.set_xlabel("total bits of weights, biases and values between layers")
    axes.set_ylabel(label)
    axes.grid(color="0.9", zorder=-1)
    return figure, axes


def _points(axes: Any, rows: Sequence[Row], value: Value, called: str = "{}", alpha: float = 1.0) -> None:
    """Draw one marker a row, by family."""
    for begin, family, marker, fill in FAMILIES:
        of_family = [row for row in rows if next(f[0] for f in FAMILIES if row.name.startswith(f[0])) == begin]
        points = [(row.total_bits, found) for row in of_family if (found := value(row)) is not None]
        if points:
            x, y = zip(*points, strict=True)
            style = {"s": 42, "facecolors": fill, "edgecolors": "black", "linewidths": 0.8, "alpha": alpha}
            axes.scatter(x, y, marker=marker, label=called.format(family), zorder=2, **style)


def _finish(figure: Any, axes: Any, rows: Sequence[Row], value: Value | None) -> Any:
    """Scales, plain numbers at their ticks, and a legend below."""
    _scale(axes.xaxis, [float(row.total_bits) for row in rows])
    found = [] if value is None else [number for row in rows if (number := value(row)) is not None]
    _scale(axes.yaxis, found)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return figure


def _scale(axis: Any, values: Sequence[float]) -> None:
    """Logarithmic where the positive values span enough; labels are plain numbers in any case."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if values and min(values) > 0.0 and max(values) > LOGARITHMIC * min(values):
        axis._set_axes_scale("log")
        decades = math.log10(max(values) / min(values))
        axis.set_major_locator(LogLocator(subs=next(ticks for most, ticks in TICKS.items() if decades <= most)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda number, place: plain(number)))


def plain(number: float) -> str:
    """A number at a tick, without powers and offsets.

    >>> plain(20000.0), plain(0.975), plain(-2.5), plain(1e-5)
    ('20,000', '0.975', '-2.5', '1e-05')
    """
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.6g}"
