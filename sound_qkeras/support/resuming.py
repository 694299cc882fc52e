"""Directories of long work: killed at any moment, the same call takes it up again, and no other call does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.support.reading import read_json as parse


def claim(directory: Path, file_name: str, settings: Mapping[str, Any]) -> None:
    """Make a directory ready for work, new or interrupted.

    Args:
        directory: new, empty, or of work with the same settings.
        file_name: where settings are kept in it.
        settings: everything the work depends on, as plain json.

    Raises:
        InputError: the directory holds something else, or work with other settings.
        FileFormatError: the file is damaged.
    """
    file = directory / file_name
    if not file.exists():
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise InputError(f"'{directory}' is not empty and holds no '{file_name}'; name a new directory")
        directory.mkdir(parents=True, exist_ok=True)
        write_json(file, settings)
    known, wanted = read_json(file), json.loads(json.dumps(settings))
    changed = sorted(name for name in {*known, *wanted} if known.get(name) != wanted.get(name))
    if changed:
        raise InputError(
            f"'{directory}' was begun with other settings ({', '.join(changed)}); name another directory, or remove it"
        )


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replace a file in one step."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(file)


def read_json(file: Path) -> dict[str, Any]:
    """An object from a file.

    Raises:
        FileFormatError: missing or damaged.
    """
    try:
        return parse(file)
    except FileFormatError as error:
        raise FileFormatError(f"{error}; it is no file of this work, or damaged: name another directory") from error
