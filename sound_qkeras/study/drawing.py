"""Three drawings: the task's metric, proved bound and time, each against bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sound_qkeras.baselines import Row, pareto_front
from sound_qkeras.errors import DependencyError

Value = Callable[[Row], float | None]
# Families by the beginning of a row's name, the first that fits.
FAMILIES = ("ours", "AutoQKeras", "uniform", "smallest", "per-layer rule", "straight-through", "multipoint", "")
MARKERS = "oDs^vP*."
SIZE, DPI = (7.0, 4.5), 150


def draw(rows: Sequence[Row], float_metric: float, directory: Path, label: str = "accuracy") -> None:
    """Write `accuracy.png`, `bound.png` and `time.png`; the first is of the metric that `label` names.

    Raises:
        DependencyError: matplotlib is missing.
    """
    axes = _axes(label)
    front = pareto_front(rows)
    axes.step([row.total_bits for row in front], [row.metric for row in front], where="post", color="0.6", zorder=0)
    axes.axhline(float_metric, color="0.8", linestyle="--", zorder=0)
    _points(axes, rows, lambda row: row.metric, directory / "accuracy.png")
    proved = all(row.proved for row in rows if row.bound is not None)
    axes = _axes("proved bound" if proved else "proved bound, or largest error on the test samples (statistical)")
    axes.set_yscale("log")
    _points(axes, rows, lambda row: row.bound or None, directory / "bound.png")
    axes = _axes("seconds of search and training")
    axes.set_yscale("log")
    _points(axes, rows, lambda row: (row.search_seconds + row.training_seconds) or None, directory / "time.png")


def figure_class() -> Any:
    """Matplotlib's Figure.

    Raises:
        DependencyError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("the drawings need matplotlib: pip install 'sound-qkeras[study]'") from error
    return Figure


def _axes(label: str) -> Any:
    figure: Any = figure_class()(figsize=SIZE, dpi=DPI, layout="tight")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlabel("total bits")
    axes.set_ylabel(label)
    return axes


def _points(axes: Any, rows: Sequence[Row], value: Value, file: Path) -> None:
    """Draw one marker a row, by family, and save."""
    for family, marker in zip(FAMILIES, MARKERS, strict=True):
        of_family = [row for row in rows if next(f for f in FAMILIES if row.name.startswith(f)) == family]
        points = [(row.total_bits, found) for row in of_family if (found := value(row)) is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker, label=family or "rounding and pruning", alpha=0.8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    axes.figure.savefig(file)
