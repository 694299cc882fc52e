"""Drawings with matplotlib: figures that need no window, show themselves in notebooks, and read in black and white."""

from __future__ import annotations

import importlib
import io
import os
from functools import cache
from pathlib import Path
from typing import Any

from sound_qkeras.errors import DependencyError, InputError

# Grey levels far apart, with colours that those who see no red or no green tell apart.
DARK, MIDDLE, LIGHT = "#1f3a5f", "#4c8fbd", "#c9dbe8"
MARKERS = "oDs^vP*X"
DPI = 120


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (7.0, 4.5), **layout: Any
) -> tuple[Any, Any]:
    """A figure and its axes, as `matplotlib.figure.Figure.subplots` returns them.

    Args:
        rows: of axes.
        columns: of axes.
        size: width and height in inches.
        layout: as for `subplots`: `gridspec_kw`, `sharex`, ...

    Raises:
        DependencyError: matplotlib is missing.
    """
    figure = _figure_class()(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, **layout)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.set_axisbelow(True)
    return figure, axes


def finished(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    """The figure, saved where a path is given.

    Raises:
        InputError: the file cannot be written, or matplotlib knows no such ending.
    """
    if path is not None:
        try:
            figure.savefig(Path(path))
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' cannot be drawn to: {error}; accepted: a .png, .svg or .pdf file") from error
    return figure


@cache
def _figure_class() -> Any:
    try:
        base = importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise DependencyError("drawings need matplotlib: pip install 'sound-qkeras[plot]'") from error

    class Drawing(base):
        """A figure that a notebook shows when it is the value of a cell, without pyplot's list of open figures."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    return Drawing
