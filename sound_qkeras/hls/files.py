"""Writing a folder of text so that a reader never finds half of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sound_qkeras.errors import InputError

REPORT = "report.json"


def write_tree(directory: Path, files: Mapping[str, str], *, overwrite: bool, generator: str) -> Path:
    """Write `files`, by relative path, into `directory`.

    Everything is first written to a hidden folder beside it and then renamed into place. `overwrite` replaces an
    earlier export, recognised by its report, and leaves files that are not ours where they are.

    Raises:
        InputError: the directory is a file, or not empty and not to be overwritten, or holds someone else's files under
            our names.
    """
    entries = sorted({Path(file).parts[0] for file in files})
    _check_target(directory, entries, overwrite=overwrite, generator=generator)
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        new, old = scratch / "new", scratch / "old"
        old.mkdir()
        for file, text in files.items():
            path = new / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        if directory.is_dir():
            _swap(directory, new, old, entries)
        else:
            new.replace(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return directory


def _check_target(directory: Path, entries: list[str], *, overwrite: bool, generator: str) -> None:
    if directory.exists() and not directory.is_dir():
        raise InputError(f"'{directory}' is a file; name a directory to export to")
    present = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if present and not overwrite:
        raise InputError(
            f"'{directory}' is not empty (it holds {present[:4]}); pass overwrite=True, or name another directory"
        )
    taken = [name for name in present if name in entries]
    if taken and not _is_ours(directory / REPORT, generator):
        raise InputError(
            f"'{directory}' holds {taken}, and no {REPORT} of an earlier export: these files are not ours to "
            "overwrite; name another directory"
        )


def _is_ours(report: Path, generator: str) -> bool:
    return report.is_file() and f'"generator": "{generator}"' in report.read_text(encoding="utf-8", errors="replace")


def _swap(directory: Path, new: Path, old: Path, entries: list[str]) -> None:
    for name in entries:
        target = directory / name
        if target.exists():
            target.replace(old / name)
        (new / name).replace(target)
