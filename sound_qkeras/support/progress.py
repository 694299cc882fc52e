"""Progress of long work: told to a callable, or drawn as bars on a terminal or in a notebook."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from sound_qkeras.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Task

# Called with a stage's name and the fraction of it that is done. Of several tolerances a stage is "eps 0.1, 2 of 3: stage".
Progress = Callable[[str, float], None]

# A stage's name is this wide on a terminal, and a bar in a notebook so wide.
NAME_WIDTH, BAR_WIDTH = 24, "16em"


def silent(stage: str, fraction: float) -> None:
    """Say nothing."""


@contextmanager
def shown(progress: Progress | bool | None) -> Iterator[Progress]:
    """What to tell progress to, while the work lasts.

    Args:
        progress: a callable, which is told itself; True draws bars in a notebook, or on standard error where that is a terminal;
            False and None say nothing.

    Raises:
        InputError: it is something else.
    """
    check_progress("progress", progress)
    if callable(progress):
        yield progress
    elif progress:
        with notebook_bar() if _in_notebook() else terminal_bars() as bars:
            yield bars
    else:
        yield silent


def check_progress(name: str, progress: Any) -> None:
    """Refuse what progress cannot be told to.

    Raises:
        InputError: it is no callable, and neither True, False nor None.
    """
    if not callable(progress) and progress not in (True, False, None):
        raise InputError(f"{name} is {progress!r}; accepted: True for bars, False, or a callable")


@contextmanager
def terminal_bars() -> Iterator[Progress]:
    """One bar per stage on standard error, nothing where that is no terminal.

    Of several tolerances only the bars of the present one are seen.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    # A descriptor of its own: while TensorFlow is silenced, standard error leads nowhere.
    shows = sys.stderr is not None and sys.stderr.isatty()
    terminal: TextIO | None = os.fdopen(os.dup(2), "w") if shows else sys.stderr
    columns = (
        TextColumn(f"{{task.description:<{NAME_WIDTH}}}", markup=False),
        BarColumn(24),
        TimeElapsedColumn(),
        left_column(),
    )
    bars = Bars(*columns, console=Console(file=terminal), disable=not shows)
    tasks: dict[str, Any] = {}

    def tell(stage: str, fraction: float) -> None:
        if stage not in tasks:
            for earlier, task in tasks.items():
                bars.update(task, completed=1.0, visible=_of_one_tolerance(earlier, stage))
            if fraction == 1.0:
                return  # the last report, that everything is done
            tasks[stage] = bars.add_task(stage, total=1.0)
        bars.update(tasks[stage], completed=fraction)

    try:
        with bars:
            yield tell
            for task in tasks.values():
                bars.update(task, completed=1.0)
    finally:
        if shows and terminal is not None:
            terminal.close()


def left_column() -> Any:
    """A column of bars: the share that is done, rounded down, and how long the rest takes; nothing where the stage has ended."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = "" if task.finished or task.time_remaining is None else f", about {task.time_remaining:.0f} s left"
            return Text(f"{int(task.percentage):>3}%{left}")

    return Left()


def _of_one_tolerance(earlier: str, stage: str) -> bool:
    return ": " not in earlier or earlier.partition(": ")[0] == stage.partition(": ")[0]


@contextmanager
def notebook_bar() -> Iterator[Progress]:
    """One bar in a notebook's cell, of the present stage; it goes when the work is done."""
    from IPython import display

    handle = display.DisplayHandle()
    handle.display(display.HTML(""))

    def tell(stage: str, fraction: float) -> None:
        handle.update(
            display.HTML(
                f'<progress style="width: {BAR_WIDTH}" max="1" value="{fraction:.3f}"></progress> '
                f"{int(100 * fraction)}% {html.escape(stage)}"
            )
        )

    try:
        yield tell
    finally:
        handle.update(display.HTML(""))


def _in_notebook() -> bool:
    """Whether a kernel runs this, so that what is displayed is seen in a cell."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
