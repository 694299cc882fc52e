"""The directory of a search: killed at any moment, it is taken up where the last complete trial ended.

keras-tuner keeps one file of its own state and one for each trial, written in place. After every trial the state is copied
aside, the copy put in place in one step; when a search is taken up again the copy replaces the state, and what began after it
is removed. The next trial is then the one that was interrupted, with the same values.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sound_qkeras.support.resuming import claim, read_json, write_json

SETTINGS, COMPLETE, PROJECT = "search.json", "complete.json", "trials"
ORACLE, TUNER = "oracle.json", "tuner0.json"


def open_directory(directory: Path, settings: Mapping[str, Any]) -> float:
    """Make a directory ready for a search, new or interrupted.

    Args:
        directory: new, empty, or of a search with the same settings.
        settings: everything the search depends on, as plain json.

    Returns:
        Seconds the complete trials took.

    Raises:
        InputError: the directory holds something else, or a search with other settings.
        FileFormatError: its files are damaged.
    """
    claim(directory, SETTINGS, settings)
    return _restore(directory)


def record(directory: Path, seconds: float) -> None:
    """Copy the state after a trial aside."""
    write_json(directory / COMPLETE, {"seconds": seconds, "oracle": read_json(directory / PROJECT / ORACLE)})


def _restore(directory: Path) -> float:
    """Put the copied state in place and remove what began after it."""
    project = directory / PROJECT
    if not (directory / COMPLETE).exists():
        shutil.rmtree(project, ignore_errors=True)
        return 0.0
    complete = read_json(directory / COMPLETE)
    write_json(project / ORACLE, complete["oracle"])
    if not (project / TUNER).exists() or not _is_json(project / TUNER):
        write_json(project / TUNER, {})
    kept = {f"trial_{name}" for name in complete["oracle"]["end_order"]}
    for folder in project.glob("trial_*"):
        if folder.name not in kept:
            shutil.rmtree(folder)
    return float(complete["seconds"])


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
