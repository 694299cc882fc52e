"""Files that a user names: regular ones alone are opened, and sizes are known before anything is read."""

from __future__ import annotations

import math
import os
import sys
import zipfile
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.support.reading import ARCHIVE_ERRORS, COMPRESSIONS, open_regular

# Most bytes of an array of samples, as the float64 numbers it becomes.
MOST_BYTES = 1 << 34
# What an .npz file keeps compressed may become more than this only within so many times its compressed size.
SMALL, MOST_GROWTH = 1 << 30, 100
# Names in a message.
SHOWN = 10
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def regular_size(path: Path, accepted: str) -> int:
    """The size in bytes of a regular file.

    Raises:
        FileFormatError: it is missing, or no regular file: pipes and devices wait for ever, or never end.
    """
    with _open(path, accepted) as file:
        return os.fstat(file.fileno()).st_size


def load_array(path: Path) -> npt.NDArray[Any]:
    """An array of numbers from a .npy file, in which it stays.

    Raises:
        FileFormatError: missing, no regular file, empty, corrupt, too large, or no array of numbers.
    """
    with _open(path, "a .npy file") as file:
        try:
            shape, order, dtype = _header(str(path), file)
            return np.memmap(file, dtype, "r", file.tell(), shape, order)
        except InputError:
            raise
        except ARCHIVE_ERRORS as error:
            raise FileFormatError(f"'{path}' is not a .npy file of numbers, or it is cut short") from error


def load_member(path: Path, name: str) -> npt.NDArray[Any]:
    """An array of numbers by its name in an .npz file.

    Raises:
        InputError: the file holds no array of this name.
        FileFormatError: missing, no regular file, corrupt, far larger than the file, or no array of numbers.
    """
    try:
        with _open(path, "an .npz file") as opened, zipfile.ZipFile(opened) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            _check_member(path, members, name)
            with archive.open(members[name]) as file:
                return _read(f"{path}:{name}", file, members[name].file_size)
    except InputError:
        raise
    except ARCHIVE_ERRORS as error:
        raise FileFormatError(f"'{path}' is no .npz file of numbers ({error})") from error


def _open(path: Path, accepted: str) -> IO[bytes]:
    return open_regular(path, sys.maxsize, links=True, accepted=accepted)


def _check_member(path: Path, members: dict[str, zipfile.ZipInfo], name: str) -> None:
    if name not in members:
        held = f"{sorted(members)[:SHOWN]}{' and more' * (len(members) > SHOWN)}"
        raise InputError(f"'{path}' holds {held}; accepted: {path}:NAME with one of these names")
    info = members[name]
    if info.compress_type not in COMPRESSIONS:
        raise FileFormatError(
            f"'{path}': '{info.filename}' is compressed by method {info.compress_type}; accepted: arrays as numpy.savez and "
            "numpy.savez_compressed write them"
        )
    if info.file_size > max(SMALL, MOST_GROWTH * info.compress_size):
        raise FileFormatError(
            f"'{path}': '{info.filename}' unpacks from {_in_words(info.compress_size)} to {_in_words(info.file_size)}; "
            f"accepted: arrays of {_in_words(SMALL)}, larger ones up to {MOST_GROWTH} times what they take compressed; use "
            "numpy.save"
        )


def _read(what: str, file: IO[bytes], size: int) -> npt.NDArray[Any]:
    shape, order, dtype = _header(what, file)
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise FileFormatError(f"'{what}' has other numbers than its header says; it may be cut short")
    return np.frombuffer(bytearray(file.read()), dtype=dtype).reshape(shape, order=order)


def _header(what: str, file: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    """Shape, order and type of an array of numbers."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise FileFormatError(
            f"'{what}' is of .npy version {version}; accepted: arrays of numbers as numpy.save and numpy.savez write them"
        )
    shape, fortran, dtype = _HEADERS[version](file)
    _check_array(what, shape, dtype)
    return shape, "F" if fortran else "C", dtype


def _check_array(what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf" or not shape:
        raise FileFormatError(f"'{what}' holds no array of real numbers; accepted: what numpy.save writes of one")
    needed = 8 * math.prod(shape)
    if needed > MOST_BYTES:
        raise FileFormatError(
            f"'{what}' has the shape {shape}, {_in_words(needed)} in float64; accepted: {_in_words(MOST_BYTES)}; give fewer samples"
        )


def _in_words(count: int) -> str:
    """Bytes in the largest unit they fill.

    >>> _in_words(3 << 30), _in_words(1500)
    ('3.0 GiB', '1.5 KiB')
    """
    power = max(0, min(4, (count.bit_length() - 1) // 10))
    return f"{count / 1024**power:.1f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
