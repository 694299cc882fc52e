"""When a result was made, and of which files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sound_qkeras.results.result import Result


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: whether it is the "model" or its "reference", its name, and the SHA-256 of its bytes."""

    role: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Origin:
    """When and of what a result was made. Nothing that is claimed depends on it, so no certificate holds it.

    Args:
        date: in UTC, as ISO 8601 writes it.
        files: of the model that was given; none where it was an object.
    """

    date: str
    files: tuple[SourceFile, ...] = ()

    @classmethod
    def now(cls, files: tuple[SourceFile, ...] = ()) -> Origin:
        """Made now, of these files."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), files)


def of_files(result: Result, files: tuple[SourceFile, ...]) -> Result:
    """A result of a network that was read from these files before."""
    return replace(result, origin=Origin.now(files))


def source_files(role: str, model: Any) -> tuple[SourceFile, ...]:
    """The files of a model that is given by its path, or by a pair of them; none where it is an object."""
    paths = model if isinstance(model, tuple) else (model,)
    if not all(isinstance(path, str | os.PathLike) and Path(path).exists() for path in paths):
        return ()
    return tuple(SourceFile(role, name, _digest(file)) for path in paths for name, file in _files(Path(path)))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """The file itself, or those in a SavedModel directory; whatever is no regular file is never opened."""
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    yield from ((str(file.relative_to(path.parent)), file) for file in inside if file.is_file())
