"""Named arrays in an uncompressed .npz file, read with every size checked before memory is taken."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from sound_qkeras.errors import FileFormatError
from sound_qkeras.support.reading import ARCHIVE_ERRORS, open_regular
from sound_qkeras.types import Array

MAX_BYTES = 1 << 32
# What numpy's header may take besides the numbers.
_HEADER = 1 << 12
_DTYPES = (np.dtype("<f8"), np.dtype("<i8"))


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write float64 and int64 arrays; the same arrays always give the same bytes."""
    ordered = {
        name: np.asarray(arrays[name], arrays[name].dtype.newbyteorder("<"), order="C") for name in sorted(arrays)
    }
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **ordered)


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Read exactly the arrays named, float64 or int64; never unpickles, and takes no more memory than the file's size.

    Raises:
        FileFormatError: the file is missing, too large, corrupt or compressed, or holds other arrays.
    """
    try:
        with open_regular(path, MAX_BYTES) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            members = {info.filename: info for info in archive.infolist()}
            _check_members(path, archive, members, {f"{name}.npy" for name in names}, size)
            return {name: _read_member(archive, members[f"{name}.npy"]) for name in names}
    except FileFormatError:
        raise
    except ARCHIVE_ERRORS as error:
        raise FileFormatError(
            f"'{path}' is not readable ({type(error).__name__}: {error}); it may be cut short"
        ) from error


def _check_members(
    path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], expected: set[str], size: int
) -> None:
    if len(archive.infolist()) != len(members) or set(members) != expected:
        odd = sorted(set(members) ^ expected)
        raise FileFormatError(f"'{path}' does not hold the arrays its network.json names; first odd one: {odd[:1]}")
    total = 0
    for info in members.values():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise FileFormatError(f"'{path}': '{info.filename}' is compressed; write it with numpy.savez")
        total += info.file_size
    if total > size:
        raise FileFormatError(f"'{path}' claims to hold {total} bytes of arrays and has {size}; it is corrupt")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as file:
        shape, dtype = _read_header(file, info)
        data = bytearray(file.read())
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise FileFormatError(f"'{info.filename}' has {len(data)} bytes of numbers, its header says {dtype}{shape}")
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(file: IO[bytes], info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if npy.read_magic(file) != (1, 0):
        raise FileFormatError(f"'{info.filename}' is of another .npy version than this library writes")
    shape, fortran, dtype = npy.read_array_header_1_0(file, max_header_size=_HEADER)
    if fortran or dtype not in _DTYPES or any(size < 1 for size in shape):
        raise FileFormatError(f"'{info.filename}' holds {dtype}{shape}; accepted: float64 or int64 in C order")
    return shape, dtype
