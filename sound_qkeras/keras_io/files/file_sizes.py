"""Sizes in saved Keras models, looked at before memory is taken: archives, arrays and configurations can ask for any amount."""

from __future__ import annotations

import inspect
import math
import zipfile
from pathlib import Path
from typing import Any

import h5py

from sound_qkeras.errors import FileFormatError
from sound_qkeras.keras_io.files.config_sizes import check_length
from sound_qkeras.keras_io.files.rebuilding import INNER

ACCEPTED = "accepted: files as Keras writes them; save the model again"
# What a file may become in memory, as a multiple of its own size: Keras stores its numbers uncompressed.
GROWTH = 10


class Allowance:
    """An initializer for every parameter of a model: zeros, as long as all of them together are no more than a file can hold.

    Args:
        path: the file.
        count: how many numbers it can hold.
        zeros: the Keras' own initializer.
    """

    def __init__(self, path: Path, count: int, zeros: Any) -> None:
        """Nothing is taken yet."""
        self.path, self.left, self.zeros = path, count, zeros

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
        """Zeros.

        Raises:
            FileFormatError: they are more than is left.
        """
        self.left -= math.prod(int(size) for size in shape)
        if self.left < 0:
            raise FileFormatError(
                f"'{self.path}' describes a model with more parameters than the file holds numbers; {ACCEPTED}"
            )
        return self.zeros(shape, dtype=dtype)

    def __deepcopy__(self, _: Any) -> Allowance:
        """Itself: Keras copies configurations."""
        return self

    def settings(self, layer_class: Any) -> dict[str, Allowance]:
        """Itself for every initializer that a layer has."""
        return dict.fromkeys(_initializers(layer_class), self)

    def release(self, model: Any, initializers: Any) -> None:
        """Give every layer of a model its Keras' default initializers back, which copies of it are trained from.

        Args:
            model: built.
            initializers: the Keras' module.
        """
        for layer in model.layers:
            if hasattr(layer, "layers"):
                self.release(layer, initializers)
            self._release_layer(layer, initializers)

    def _release_layer(self, layer: Any, initializers: Any) -> None:
        for inner in (getattr(layer, name, None) for name in INNER):
            if hasattr(inner, "get_config"):
                self._release_layer(inner, initializers)
        for name, default in _initializers(type(layer)).items():
            if getattr(layer, name, None) is self:
                setattr(layer, name, initializers.get(default))


def _initializers(layer_class: Any) -> dict[str, Any]:
    """A layer's arguments that are initializers, and their defaults."""
    parameters = inspect.signature(layer_class.__init__).parameters
    return {name: one.default for name, one in parameters.items() if name.endswith("_initializer")}


def check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that unpacks to far more than it is.

    Raises:
        FileFormatError: it does.
    """
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > GROWTH * path.stat().st_size:
        raise FileFormatError(f"'{path}' unpacks to {unpacked} bytes, more than {GROWTH} times its size; {ACCEPTED}")
    longest = max((entry.file_size for entry in archive.infolist() if entry.filename.endswith(".json")), default=0)
    check_length(path, longest)


def check_arrays(path: Path) -> int:
    """Look at the arrays of a saved model without reading them.

    Returns:
        How many numbers it can hold: its bytes.

    Raises:
        FileFormatError: arrays lie about their size, or are elsewhere.
    """
    if path.is_dir():
        return sum(file.stat().st_size for file in (path / "variables").glob("*"))
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            return _check_group(path, file, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        found = [entry for entry in archive.infolist() if entry.filename.endswith(".h5")]
        for entry in found:
            with archive.open(entry) as stream, h5py.File(stream, "r") as file:
                _check_group(path, file, entry.file_size)
        return sum(entry.file_size for entry in found)


def _check_group(path: Path, file: Any, size: int) -> int:
    """All arrays of an HDF5 file together; its size in bytes."""
    groups, total = [file], 0
    seen: set[Any] = set()
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise FileFormatError(
                    f"'{path}' refers to another place for '{name}', perhaps another file; {ACCEPTED}"
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                if item.id in seen:
                    raise FileFormatError(f"'{path}' has a group '{name}' inside itself, or twice; {ACCEPTED}")
                seen.add(item.id)
                groups.append(item)
            else:
                total += _bytes(path, item)
    if total > GROWTH * size:
        raise FileFormatError(
            f"'{path}' describes arrays of {total} bytes, more than {GROWTH} times its size; {ACCEPTED}"
        )
    return size


def _bytes(path: Path, array: Any) -> int:
    if array.external or array.is_virtual or array.dtype.hasobject:
        raise FileFormatError(
            f"'{path}' keeps '{array.name}' in another file, or it is no array of numbers; {ACCEPTED}"
        )
    return int(array.size or 0) * int(array.dtype.itemsize)
