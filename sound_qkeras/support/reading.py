"""Files that nobody vouches for: regular ones only, and of a size that is known before anything is read."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from sound_qkeras.errors import FileFormatError

MAX_JSON_BYTES = 1 << 26
# What archives are written with, and what zipfile, zlib and numpy raise for those that are damaged, and for headers.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ARCHIVE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    SyntaxError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
_BLOCK = 1 << 20


def open_regular(path: Path, limit: int, *, links: bool = False, accepted: str = "a regular file") -> IO[bytes]:
    """Open a file for reading. Never waits for anybody, and nothing that is read from it is longer than the limit.

    Args:
        path: the file.
        limit: its most bytes.
        links: whether the path may be a symbolic link.
        accepted: what messages say is accepted.

    Raises:
        FileFormatError: it is missing, a directory, a pipe, a device or a link, or larger than the limit.
    """
    if not links and path.is_symlink():
        raise FileFormatError(f"'{path}' is a symbolic link; accepted: a regular file, so put a copy in its place")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error, accepted) from error
    try:
        _check_regular(path, os.fstat(descriptor), limit, accepted)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(path: Path, found: os.stat_result, limit: int, accepted: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileFormatError(f"'{path}' is a {_kind(found.st_mode)}; accepted: {accepted}")
    if found.st_size > limit:
        raise FileFormatError(f"'{path}' has {found.st_size:,} bytes; the limit is {limit:,}")


def read_regular(path: Path, limit: int, *, links: bool = False) -> bytes:
    """All bytes of a file; see `open_regular`."""
    with open_regular(path, limit, links=links) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise FileFormatError(f"'{path}' grows while it is read; the limit is {limit:,} bytes")
    return content


def digest_of(path: Path, limit: int) -> tuple[int, str]:
    """The number of bytes of a file and their SHA-256; see `open_regular`."""
    digest, size = hashlib.sha256(), 0
    with open_regular(path, limit) as file:
        while block := file.read(_BLOCK):
            size += len(block)
            if size > limit:
                raise FileFormatError(f"'{path}' grows while it is read; the limit is {limit:,} bytes")
            digest.update(block)
    return size, digest.hexdigest()


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A json object from a file. Names that occur twice and numbers that json does not have are refused.

    Raises:
        FileFormatError: as `open_regular`, or it holds something else.
    """
    content = read_regular(path, limit)
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"'{path}' is not json ({error}); it may be cut short") from error
    if not isinstance(document, dict):
        raise FileFormatError(f"'{path}' holds a {type(document).__name__}, expected a json object")
    return cast("dict[str, Any]", document)


def check_header(path: Path, document: Mapping[str, Any], form: str, version: int, checksum: str) -> None:
    """Whether a file of json that this library wrote is of this format and version, and as it was written.

    Raises:
        FileFormatError: it is not.
    """
    if document.get("format") != form:
        raise FileFormatError(f"'{path}' is not of the format '{form}'")
    if document.get("version") != version:
        raise FileFormatError(
            f"'{path}' is of version {document.get('version')!r}, this library reads {version}; use the version of the "
            "library that wrote it"
        )
    if document.get("checksum") != checksum:
        raise FileFormatError(f"'{path}' is not as it was written: the checksum differs")


def digest_of_json(content: Any) -> str:
    """SHA-256 over the meaning of plain json, whatever its layout in the file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def same_json(one: Any, other: Any) -> bool:
    """Whether two pieces of plain json say the same; 1, 1.0 and true are different things to say."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it holds '{twice}' twice")
    return found


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return next((name for test, name in kinds if test(mode)), "device")


def _cannot_read(path: Path, error: OSError | ValueError, accepted: str) -> FileFormatError:
    reason = error.strerror if isinstance(error, OSError) else None
    return FileFormatError(f"'{path}' cannot be read ({reason or error}); accepted: {accepted}")
