"""The rows that are done, each in a file of its own, so that a killed comparison goes on where it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from sound_qkeras.baselines import Row
from sound_qkeras.errors import DependencyError, FileFormatError, SoundQKerasError
from sound_qkeras.support.resuming import read_json, write_json

FOLDER = "rows"


class Ledger:
    """What is known about every candidate: its row, or why it has none."""

    def __init__(self, directory: Path, progress: Callable[[str], None]) -> None:
        """Open the ledger of a study's directory.

        Args:
            directory: of the study.
            progress: called with the name of a candidate before work on it begins.
        """
        self.rows: list[Row] = []
        self.failures: dict[str, str] = {}
        self.directory = directory
        self._progress = progress
        (directory / FOLDER).mkdir(exist_ok=True)

    def add(self, name: str, make: Callable[[], Row | Iterable[Row]]) -> None:
        """Add the rows of a candidate, from its file or made now. A method that refuses is recorded, and no error.

        Raises:
            DependencyError: something it needs is not installed.
            FileFormatError: the file is damaged.
        """
        file = self.directory / FOLDER / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)}.json"
        if not file.exists():
            self._progress(name)
            write_json(file, _made(make))
        known = read_json(file)
        if "failure" in known:
            self.failures[name] = str(known["failure"])
        elif isinstance(known.get("rows"), list):
            self.rows += [Row.from_json(row) for row in known["rows"]]
        else:
            raise FileFormatError(f"'{file}' holds neither rows nor a failure; remove it")


def _made(make: Callable[[], Row | Iterable[Row]]) -> dict[str, object]:
    try:
        made = make()
        rows = [made] if isinstance(made, Row) else list(made)
    except DependencyError:
        raise
    except SoundQKerasError as error:
        return {"failure": f"{type(error).__name__}: {error}"}
    return {"rows": [row.to_json() for row in rows]}
