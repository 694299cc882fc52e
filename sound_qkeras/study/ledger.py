"""What is to be done and what is done, each in a file of its own, so that a killed comparison goes on where it was."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sound_qkeras.baselines import Row
from sound_qkeras.errors import DependencyError, FileFormatError, SoundQKerasError
from sound_qkeras.support.resuming import read_json, write_json

FOLDER = "rows"


@dataclass(frozen=True)
class Task:
    """A candidate to be made.

    Args:
        name: of the candidate; one a comparison.
        method: whose tasks take about as long as each other.
        make: its row, or its rows.
        epochs: of training in it; at least 1, so that tasks of methods not yet tried count for something.
    """

    name: str
    method: str
    make: Callable[[], Row | Iterable[Row]]
    epochs: int = 1


class Ledger:
    """What is known about every candidate: its row, or why it has none."""

    def __init__(self, directory: Path, progress: Callable[[str], None]) -> None:
        """Open the ledger of a study's directory.

        Args:
            directory: of the study.
            progress: called before work on a candidate begins: "3 of 40, about 6 minutes left: per-layer rule, eps 0.1".
        """
        self.rows: list[Row] = []
        self.failures: dict[str, str] = {}
        self._directory = directory / FOLDER
        self._progress = progress
        self._directory.mkdir(exist_ok=True)

    def add(self, tasks: Sequence[Task]) -> None:
        """Add the rows of candidates, from their files or made now. A method that refuses is recorded, and no error.

        Raises:
            DependencyError: something it needs is not installed.
            FileFormatError: a file is damaged.
        """
        files = [self._directory / _file_name(task.name) for task in tasks]
        took = {task: _seconds(file) for task, file in zip(tasks, files, strict=True) if file.exists()}
        for number, (task, file) in enumerate(zip(tasks, files, strict=True), start=1):
            if task not in took:
                left = in_words(seconds_left(took, [other for other in tasks if other not in took]))
                self._progress(f"{number} of {len(tasks)}{left}: {task.name}")
                started = time.monotonic()
                made = _made(task.make)
                write_json(file, {**made, "seconds": time.monotonic() - started})
                took[task] = _seconds(file)
            self._read(task, file)

    def _read(self, task: Task, file: Path) -> None:
        known = read_json(file)
        if "failure" in known:
            self.failures[task.name] = str(known["failure"])
        elif isinstance(known.get("rows"), list):
            self.rows += [Row.from_json(row) for row in known["rows"]]
        else:
            raise FileFormatError(f"'{file}' holds neither rows nor a failure; remove it")


def recorded(directory: Path, name: str) -> bool:
    """Whether a study's directory holds what came out for a candidate, made there or elsewhere."""
    return (directory / FOLDER / _file_name(name)).exists()


def _file_name(name: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)}.json"


def seconds_left(took: dict[Task, float], others: Iterable[Task]) -> float | None:
    """How long others will take: as long as those of their method did on average, or by epochs where none is done.

    Args:
        took: seconds of what is done.
        others: what is not.

    Returns:
        An estimate; None where nothing is done.
    """
    if not took:
        return None
    means = dict[str, float]()
    for method in {task.method for task in took}:
        known = [seconds for task, seconds in took.items() if task.method == method]
        means[method] = math.fsum(known) / len(known)
    trained = [task for task in took if task.epochs > 1] or list(took)
    epoch = math.fsum(took[task] for task in trained) / sum(task.epochs for task in trained)
    return math.fsum(means.get(task.method, epoch * task.epochs) for task in others)


def in_words(seconds: float | None) -> str:
    """What follows a count: ", about 6 minutes left"; nothing where nobody knows."""
    if seconds is None:
        return ""
    if seconds < 60:
        return ", less than a minute left"
    number, unit = (seconds / 60, "minute") if seconds < 5400 else (seconds / 3600, "hour")
    return f", about {number:.0f} {unit}{'' if round(number) == 1 else 's'} left"


def _seconds(file: Path) -> float:
    seconds = read_json(file).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _made(make: Callable[[], Row | Iterable[Row]]) -> dict[str, object]:
    try:
        made = make()
        rows = [made] if isinstance(made, Row) else list(made)
    except DependencyError:
        raise
    except SoundQKerasError as error:
        return {"failure": f"{type(error).__name__}: {error}"}
    return {"rows": [row.to_json() for row in rows]}
