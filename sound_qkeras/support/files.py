"""Output directories and files replaced as a whole: an interrupted run leaves the old one or the new one, never a mixture.

A manifest says which files of a directory are ours. Only those are ever replaced; whatever else is in it stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.support.manifest import (
    BEGUN,
    MANIFEST,
    MAX_FILE_BYTES,
    Manifest,
    kind_of,
    mark_begun,
    read_manifest,
    write_manifest,
)
from sound_qkeras.support.reading import open_regular

if sys.platform != "win32":
    import fcntl

# What a directory of ours is, unless it is said otherwise.
RESULT = "result"

# Bytes at the beginning of a file in which its mark stands.
MARK_WITHIN = 4096

_LOG = logging.getLogger("sound_qkeras")

# What file systems without locks answer.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL}

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS


def check_writable(
    path: str | os.PathLike[str], *, kind: str = RESULT, overwrite: bool = False, names: Collection[str] = ()
) -> Path:
    """Find out, before any work is done, that `atomic_directory` will be able to write `path`.

    Args:
        path: the directory to be; parents that are missing will be made.
        kind: of what will be written; a directory that is not empty is accepted only if its manifest says that it is one.
        overwrite: replace files of ours even if they were altered since.
        names: of files that will be written, as far as they are known: somebody else's of these names are in the way.

    Returns:
        The absolute path, symbolic links resolved.

    Raises:
        InputError: as `check_place`, or the directory holds what is not ours to replace.
    """
    target = check_place(path)
    try:
        with _turn(target):  # not while another run puts its result there
            _check_ours(target, kind, names, overwrite=overwrite)
    except OSError as error:
        raise _cannot_write(target, error) from error
    return target


def check_place(path: str | os.PathLike[str]) -> Path:
    """Find out whether a directory can be made or replaced, whatever is in it.

    Tried rather than asked for: a file without a name is made where the new directory will be made. Also finishes what a
    run that was killed left undone.

    Returns:
        The absolute path, symbolic links resolved.

    Raises:
        InputError: the path is a file, the current directory or one above it, a mount point, or in a place that cannot be
            written.
    """
    target = Path(os.path.realpath(path))
    try:
        _check_kind(target)
        recover(target)
        place = _nearest(target.parent)
        with tempfile.TemporaryFile(dir=place):
            pass
        closed = target.is_dir() and not os.access(target, os.W_OK | os.X_OK)
    except OSError as error:
        raise _cannot_write(target, error) from error
    if closed:
        raise InputError(f"'{target}' is not writable by this user; choose another directory")
    return target


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], *, kind: str = RESULT, overwrite: bool = False) -> Iterator[Path]:
    """Write a directory in one step.

    Gives a new, empty directory beside `path`. When the block ends it gets its manifest and takes the place of `path`; files
    of an earlier run are deleted, and those that are not ours are moved over. When the block raises, nothing at `path` has
    changed. At no moment, even if the process is killed, does `path` hold part of what was written; files that are not
    ours may then wait in the hidden directory beside it, and the next run moves them back. Where the system cannot
    exchange two directories in one step there is a moment in which `path` is missing; `recover` brings the old one back.

    Args:
        path: the directory to make or to replace.
        kind: see `check_writable`.
        overwrite: see `check_writable`.

    Raises:
        InputError: as `check_writable`, or the directory could not be put in place.
    """
    target = check_writable(path, kind=kind, overwrite=overwrite)
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    with contextlib.ExitStack() as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _turn(target):  # nobody takes it for one that was left behind before it is held
                partial.mkdir()
                held.enter_context(_held(partial))
                mark_begun(partial)
        except OSError as error:
            raise _cannot_write(target, error) from error
        made = partial.stat().st_ino
        try:
            yield partial
            write_manifest(partial, kind)
            _flush(partial)
            with _turn(target):
                _check_kind(target)
                _check_ours(target, kind, read_manifest(partial).all, overwrite=overwrite)
                if target.is_dir():
                    partial.chmod(stat.S_IMODE(target.stat().st_mode))  # as private as it was
                old = _put_in_place(partial, target)
                _flush_names(target.parent)
                if old is not None:
                    _clear(old, target, overwrite=overwrite)
        except OSError as error:
            raise _cannot_write(target, error) from error
        finally:
            # What is there after an exchange is the old directory.
            if partial.is_dir() and partial.stat().st_ino == made:
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
            with open_regular(target, MAX_FILE_BYTES) as file:
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
    """Finish what killed runs left undone. Does nothing otherwise.

    Brings back a directory that had been moved aside and not yet replaced, moves files that are not ours from an old directory
    into the new one, and deletes what is left of ours. Directories that a living process writes are not touched, nor are
    those without a manifest: a name proves nothing.

    Raises:
        InputError: something is there and cannot be moved back.
    """
    target = Path(os.path.realpath(path))
    if not _left_behind(target):
        return
    with _turn(target):
        previous = _previous(target)
        if kind_of(previous) is not None and not target.exists():
            try:
                previous.rename(target)
            except OSError as error:
                raise _cannot_write(target, error) from error
        for left in _left_behind(target):
            with contextlib.suppress(OSError), _held(left):
                _clear(left, target, overwrite=False)


def _left_behind(target: Path) -> list[Path]:
    """Hidden directories beside the target that earlier runs made.

    On Windows nothing tells whether a run that writes one is alive, so only what was moved aside is among them.
    """
    begun = "" if sys.platform == "win32" else r"[0-9a-f]{8}\.partial|"
    pattern = re.compile(rf"\.{re.escape(target.name)}\.({begun}previous)")
    try:
        found = [place for place in target.parent.iterdir() if pattern.fullmatch(place.name)]
    except OSError:
        return []
    return [place for place in found if place.is_dir() and not place.is_symlink() and kind_of(place) is not None]


def _held(directory: Path) -> contextlib.AbstractContextManager[None]:
    """Keep a directory locked, wherever it is moved; the lock goes with the process."""
    return _locked(directory, wait=False)


def _turn(target: Path) -> contextlib.AbstractContextManager[None]:
    """Wait until nobody else looks after what is beside a directory: short work only."""
    return _locked(_nearest(target.parent), wait=True)


@contextlib.contextmanager
def _locked(directory: Path, *, wait: bool) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def _nearest(place: Path) -> Path:
    """The place, or the first directory above it that is there."""
    while not place.exists():
        place = place.parent
    return place


def moved_aside(path: str | os.PathLike[str]) -> Path | None:
    """Where a directory is that a killed run had moved aside and not yet replaced; None where there is none."""
    previous = _previous(Path(os.path.realpath(path)))
    return previous if kind_of(previous) is not None else None


def _previous(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


def _check_kind(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"'{target}' is a file; name a directory")
    here = Path.cwd()
    if target == here or target in here.parents:
        raise InputError(f"'{target}' is the current directory or holds it; name a new directory inside it")
    if os.path.ismount(target):
        raise InputError(f"'{target}' is a mount point and cannot be replaced; name a new directory inside it")


def _check_ours(target: Path, kind: str, names: Collection[str], *, overwrite: bool) -> None:
    """Refuse a directory without a manifest of this kind, files of ours that were altered, and others' that are in the way."""
    try:
        entries = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
    except OSError as error:
        raise _cannot_write(target, error) from error
    if not entries:
        return
    try:
        found = read_manifest(target)
    except FileFormatError as error:
        raise InputError(
            f"'{target}' is not empty and was not written by sound_qkeras (it holds {entries[:3]} and no {MANIFEST} that "
            "says what is whose); name an empty or new directory"
        ) from error
    if found.kind != kind:
        raise InputError(f"'{target}' holds a {found.kind} and no {kind}; name an empty or new directory")
    altered = [] if overwrite else found.altered(target)
    if altered:
        raise InputError(
            f"'{target / altered[0]}' was altered since it was written; name another directory, or replace it with "
            "overwrite=True"
        )
    foreign = [name for name in names if name not in found.all and _in_the_way(target, name)]
    if foreign:
        raise InputError(f"'{target / foreign[0]}' was not written by sound_qkeras and is in the way; move it first")


def _in_the_way(target: Path, name: str) -> bool:
    """Whether something is where a file is to be, or no directory where one of its parents is to be."""
    parents = [target / parent for parent in PurePosixPath(name).parents if parent.name]
    blocked = any(os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir()) for parent in parents)
    return blocked or os.path.lexists(target / name)


def _cannot_write(target: Path, error: OSError, kind: str = "directory") -> InputError:
    return InputError(f"'{target}' cannot be written ({error.strerror or error}); choose another {kind}")


def _flush(directory: Path) -> None:
    """Ask for everything to be on the disk before it is put in place."""
    for folder, _, files in os.walk(directory):
        for name in files:
            with (Path(folder) / name).open("rb+") as file:
                os.fsync(file.fileno())
        _flush_names(Path(folder))


def _flush_names(directory: Path) -> None:
    """The same of what a directory holds by name, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(partial: Path, target: Path) -> Path | None:
    """Rename over nothing or an empty directory; otherwise exchange. Returns where the old directory is now."""
    if target.is_dir() and any(target.iterdir()):
        return partial if _exchange(partial, target) else _move_aside(partial, target)
    if target.is_dir() and os.name == "nt":
        target.rmdir()
    partial.rename(target)
    return None


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


def _move_aside(partial: Path, target: Path) -> Path:
    """Two renames; a run killed between them is mended by `recover`."""
    previous = _previous(target)
    target.rename(previous)
    try:
        partial.rename(target)
    except OSError:
        previous.rename(target)
        raise
    return previous


def _clear(old: Path, target: Path, *, overwrite: bool) -> None:
    """Delete what is ours in an old directory, move the rest into the new one, and delete the directory.

    The manifest goes last. A directory that a killed run had begun to write says so, and goes as a whole.

    Args:
        old: the directory.
        target: the one that took its place.
        overwrite: whether files of ours that were altered are to go too.
    """
    try:
        manifest = read_manifest(old)
    except FileFormatError:
        return
    if manifest.kind == BEGUN:
        shutil.rmtree(old, ignore_errors=True)
        return
    _delete_ours(old, manifest, overwrite=overwrite)
    try:
        target.mkdir(exist_ok=True)
        _move_rest(old, target)
    except OSError as error:
        raise InputError(
            f"'{target}' is written, but '{old}' still holds files that are not ours and could not be moved back "
            f"({error.strerror or error})"
        ) from error
    if {entry.name for entry in old.iterdir()} <= {MANIFEST}:
        with contextlib.suppress(OSError):
            mark_begun(old)
        shutil.rmtree(old, ignore_errors=True)
    else:
        _LOG.warning("'%s' holds files that are not ours; others of their names are in '%s'", old, target)


def _delete_ours(old: Path, manifest: Manifest, *, overwrite: bool) -> None:
    """Delete the files of a manifest, and the directories that are empty then."""
    kept = () if overwrite else manifest.altered(old)
    for name in manifest.all:
        parents = [parent for parent in PurePosixPath(name).parents if parent.name]
        if name in kept or any((old / parent).is_symlink() for parent in parents):
            continue
        with contextlib.suppress(OSError):
            (old / name).unlink(missing_ok=True)
            for parent in parents:
                (old / parent).rmdir()


def _move_rest(old: Path, new: Path) -> None:
    """Move everything but the manifest, where nothing is in its place."""
    for entry in sorted(old.iterdir()):
        place = new / entry.name
        if entry.name == MANIFEST:
            continue
        if not os.path.lexists(place):
            entry.rename(place)
        elif all(path.is_dir() and not path.is_symlink() for path in (entry, place)):
            _move_rest(entry, place)
            with contextlib.suppress(OSError):
                entry.rmdir()
