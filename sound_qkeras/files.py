"""Output directories and files replaced as a whole: an interrupted run leaves the old one or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from sound_qkeras.errors import InputError

# A directory that holds one of these is ours to replace.
MARKERS = ("certificate.json", "network.json")

# Bytes at the beginning of a file in which its mark stands.
MARK_WITHIN = 4096

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS


def check_writable(path: str | os.PathLike[str], *, markers: Collection[str] = MARKERS) -> Path:
    """Find out, before any work is done, that `atomic_directory` will be able to write `path`.

    Tried rather than asked for: a folder is made where the new directory will be made, and removed again. Also finishes
    what a run that was killed in the middle of a replacement left undone.

    Args:
        path: the directory to be; parents that are missing will be made.
        markers: a directory that is not empty is replaced only if it holds one of these files.

    Returns:
        The absolute path, symbolic links resolved.

    Raises:
        InputError: the path is a file, the current directory or one above it, a mount point, a directory that is not
            ours, or in a place that cannot be written.
    """
    target = Path(os.path.realpath(path))
    _check_kind(target)
    recover(target)
    _check_ours(target, markers)
    place = target.parent
    while not place.exists():
        place = place.parent
    probe = place / f".{target.name}.{secrets.token_hex(4)}.probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _cannot_write(target, error) from error
    if target.is_dir() and not os.access(target, os.W_OK | os.X_OK):
        raise InputError(f"'{target}' is not writable by this user; choose another directory")
    return target


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], *, markers: Collection[str] = MARKERS) -> Iterator[Path]:
    """Write a directory in one step.

    Gives a new, empty directory beside `path`. When the block ends it takes the place of `path`, and whatever was there
    is deleted; when the block raises, nothing at `path` has changed. At no moment, even if the process is killed, does
    `path` hold part of what was written. Where the system cannot exchange two directories in one step there is a moment
    in which `path` is missing; `recover` then brings the old one back.

    Args:
        path: the directory to make or to replace.
        markers: see `check_writable`.

    Raises:
        InputError: as `check_writable`, or the directory could not be put in place.
    """
    target = check_writable(path, markers=markers)
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield partial
        _check_kind(target)
        _check_ours(target, markers)
        try:
            _flush(partial)
            _put_in_place(partial, target)
        except OSError as error:
            raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_writable_file(path: str | os.PathLike[str], mark: str) -> Path:
    """Find out, before any work is done, that `write_file` will be able to write `path`.

    Args:
        path: the file to be; parents that are missing will be made.
        mark: a file that exists is replaced only if this text is in its first 4096 bytes.

    Returns:
        The absolute path, symbolic links resolved.

    Raises:
        InputError: the path is a directory, a file that is not ours, or in a place that cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"'{target}' is a directory; name a file")
    place = target.parent
    while not place.exists():
        place = place.parent
    try:
        if target.exists():
            with target.open("rb") as file:
                ours = mark.encode() in file.read(MARK_WITHIN)
            if not ours:
                raise InputError(f"'{target}' was not written by sound_qkeras; name another file")
        probe = place / f".{target.name}.{secrets.token_hex(4)}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _cannot_write(target, error, "file") from error
    return target


def write_file(path: str | os.PathLike[str], text: str, mark: str) -> Path:
    """Write a text in one step: whoever looks at `path` sees what was there before, or all of the text.

    Args:
        path: the file to make or to replace.
        text: what to write, as UTF-8.
        mark: see `check_writable_file`; part of the text.

    Returns:
        The absolute path.

    Raises:
        InputError: as `check_writable_file`, or the file could not be put in place.
    """
    target = check_writable_file(path, mark)
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise _cannot_write(target, error, "file") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return target


def recover(path: str | os.PathLike[str]) -> None:
    """Bring back a directory that a killed run had moved aside and not yet replaced. Does nothing otherwise.

    Raises:
        InputError: it is there but cannot be moved back.
    """
    target = Path(os.path.realpath(path))
    previous = _previous(target)
    if not previous.is_dir():
        return
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        return
    try:
        previous.rename(target)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _previous(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


def _check_kind(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"'{target}' is a file; name a directory")
    here = Path.cwd()
    if target == here or target in here.parents:
        raise InputError(f"'{target}' is the current directory or holds it; name a new directory inside it")
    if target.is_mount():
        raise InputError(f"'{target}' is a mount point and cannot be replaced; name a new directory inside it")


def _check_ours(target: Path, markers: Collection[str]) -> None:
    try:
        entries = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
    except OSError as error:
        raise _cannot_write(target, error) from error
    if entries and not set(entries) & set(markers):
        raise InputError(
            f"'{target}' is not empty and was not written by sound_qkeras (it holds {entries[:3]} and none of "
            f"{list(markers)}); name an empty or new directory"
        )


def _cannot_write(target: Path, error: OSError, kind: str = "directory") -> InputError:
    return InputError(f"'{target}' cannot be written ({error.strerror or error}); choose another {kind}")


def _flush(directory: Path) -> None:
    """Ask for everything to be on the disk before it is put in place."""
    for folder, _, files in os.walk(directory):
        for name in files:
            with (Path(folder) / name).open("rb+") as file:
                os.fsync(file.fileno())


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename over nothing or an empty directory; otherwise exchange, so that `partial` names the old directory."""
    if target.is_dir() and any(target.iterdir()):
        if not _exchange(partial, target):
            _move_aside(partial, target)
        return
    if target.is_dir() and os.name == "nt":
        target.rmdir()
    partial.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step, where the system and the file system can."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = libc.renamex_np(os.fsencode(one), os.fsencode(other), _EXCHANGE)
        else:
            failed = libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE)
    except (AttributeError, TypeError, OSError):
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}:
        return False
    raise OSError(code, os.strerror(code))


def _move_aside(partial: Path, target: Path) -> None:
    """Two renames; a run killed between them is mended by `recover`."""
    previous = _previous(target)
    target.rename(previous)
    try:
        partial.rename(target)
    except OSError:
        previous.rename(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)
