"""What a directory of ours holds: every file with its SHA-256, in a manifest beside them.

It proves by content which files are ours, so that only those are ever replaced, and it covers all of them, so that none is
altered unnoticed. It is not signed: whoever alters a file can alter the manifest too, and what is proved does not rest on it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sound_qkeras.errors import FileFormatError
from sound_qkeras.support.reading import digest_of, digest_of_json, read_json, same_json

MANIFEST = "manifest.json"
FORMAT, VERSION = "sound_qkeras manifest", 1
# The kind of a directory that is being written, or deleted: all of it is ours.
BEGUN = "directory that is being written"
# Of a single file.
MAX_FILE_BYTES = 1 << 33


@dataclass(frozen=True)
class Manifest:
    """The files of a directory.

    Args:
        kind: what they are together, such as "result".
        files: SHA-256 by path, with forward slashes, relative to the directory.
        derived: the same for files that may be made again from the others, and so may be missing.
    """

    kind: str
    files: Mapping[str, str]
    derived: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def all(self) -> dict[str, str]:
        """Every file that is ours."""
        return {**self.files, **self.derived}

    def altered(self, folder: Path) -> list[str]:
        """Files that are there and not as they were written; links and pipes among them."""
        return [
            name
            for name, digest in self.all.items()
            if os.path.lexists(folder / name) and not _is(folder, name, digest)
        ]

    def missing(self, folder: Path) -> list[str]:
        """Files that must be there and are not."""
        return [name for name in self.files if not os.path.lexists(folder / name)]

    def to_json(self) -> dict[str, Any]:
        """Plain json, with a digest of itself, by which accidents are found."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "files": dict(sorted(self.files.items())),
            "derived": dict(sorted(self.derived.items())),
        }
        return {**content, "sha256": digest_of_json(content)}


def write_manifest(folder: Path, kind: str) -> None:
    """Write the manifest of everything a directory holds now.

    Raises:
        OSError: it cannot be written.
    """
    _write(folder, Manifest(kind, {name: digest_of(folder / name, MAX_FILE_BYTES)[1] for name in _walk(folder)}))


def mark_begun(folder: Path) -> None:
    """Say that all of a directory is ours, whatever it holds, until its manifest is written.

    Raises:
        OSError: it cannot be written.
    """
    _write(folder, Manifest(BEGUN, {}))


def add_derived(folder: Path, name: str) -> None:
    """Enter a file that was made from the others.

    Raises:
        FileFormatError: the directory has no manifest.
        OSError: it cannot be written.
    """
    found = read_manifest(folder)
    digest = digest_of(folder / name, MAX_FILE_BYTES)[1]
    _write(folder, Manifest(found.kind, found.files, {**found.derived, name: digest}))


def kind_of(folder: Path) -> str | None:
    """What a directory is, by its manifest; None where it has none, or a damaged one."""
    try:
        return read_manifest(folder).kind
    except FileFormatError:
        return None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a directory; nothing is compared with the files yet.

    Raises:
        FileFormatError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    data = read_json(path)
    try:
        found = Manifest(str(data["kind"]), dict(data["files"]), dict(data["derived"]))
        sound = same_json(found.to_json(), data) and all(map(_is_inside, found.all))
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"'{path}' is no manifest ({type(error).__name__}: {error})") from error
    if not sound:
        raise FileFormatError(f"'{path}' is not as it was written, or of another version of this library")
    return found


def check_manifest(folder: Path, kind: str) -> Manifest:
    """Confirm that every file of a directory is there and as it was written. Files that are not ours are not looked at.

    Raises:
        FileFormatError: names the file that is not.
    """
    found = read_manifest(folder)
    if found.kind != kind:
        raise FileFormatError(f"'{folder}' holds a {found.kind}, expected a {kind}")
    missing, altered = found.missing(folder), found.altered(folder)
    if missing:
        raise FileFormatError(f"'{folder / missing[0]}' is missing")
    if altered:
        digest_of(folder / altered[0], MAX_FILE_BYTES)  # says so if it is no regular file
        raise FileFormatError(
            f"'{folder / altered[0]}' is not as it was saved: its SHA-256 is another than in {MANIFEST}"
        )
    return found


def _is(folder: Path, name: str, digest: str) -> bool:
    if any((folder / parent).is_symlink() for parent in PurePosixPath(name).parents if parent.name):
        return False
    try:
        return digest_of(folder / name, MAX_FILE_BYTES)[1] == digest
    except FileFormatError:
        return False


def _is_inside(name: str) -> bool:
    """Whether it names a file below the directory, the manifest apart."""
    parts = name.split("/")
    plain = all(part not in {"", ".", ".."} and not set(part) & set("\\:\0") for part in parts)  # Windows has drives
    return plain and name != MANIFEST and not PurePosixPath(name).is_absolute()


def _walk(folder: Path) -> Iterator[str]:
    for place, _, files in os.walk(folder):
        for file in files:
            name = (Path(place) / file).relative_to(folder).as_posix()
            if name != MANIFEST:
                yield name


def _write(folder: Path, manifest: Manifest) -> None:
    """In one step."""
    partial = folder / f".{MANIFEST}.{secrets.token_hex(4)}.partial"
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n"
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / MANIFEST)
    finally:
        partial.unlink(missing_ok=True)
