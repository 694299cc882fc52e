"""Files of weights whose groups have other names than today's: of Keras 2.12 to 2.14, and written on Windows."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import h5py

from sound_qkeras.keras_io.files.rebuilding import is_legacy

# What Keras 2.12 to 2.14 called a model's layers.
OLD, TODAY = "_layer_checkpoint_dependencies", "layers"
WEIGHTS = "model.weights.h5"


@contextmanager
def with_names_of_today(path: Path) -> Iterator[Path]:
    """The file itself, or for its lifetime a copy of the weights in it, under the names that tf_keras looks for.

    Keras 2.12 and 2.13 count layers that have weights twice, so there are gaps between the numbers; their order is that of
    the layers.

    Args:
        path: a `.keras` file or one of weights, whose arrays were looked at.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield _copied(path, Path(folder) / WEIGHTS)


def _copied(path: Path, copy: Path) -> Path:
    """The copy, if one is needed, or the file itself."""
    archive = zipfile.is_zipfile(path)
    if path.is_dir() or (not archive and is_legacy(path)):
        return path
    with (
        zipfile.ZipFile(path) if archive else nullcontext() as opened,
        opened.open(WEIGHTS) if opened else path.open("rb") as stream,
        h5py.File(stream, "r") as file,
    ):
        found: list[str] = []
        file.visit(found.append)
        names = _names_of_today(found)
        if all(old == new for old, new in names.items()):
            return path
        with h5py.File(copy, "w") as target:
            target.create_group("vars")
            for old, new in names.items():
                item: Any = file[old]
                if isinstance(item, h5py.Group):
                    target.require_group(new)
                else:
                    file.copy(item, target, new)
    return copy


def _names_of_today(names: Iterable[str]) -> dict[str, str]:
    r"""What every group and array is called today.

    >>> list(_names_of_today(["layers\\dense/vars", f"{OLD}/conv2d", f"{OLD}/conv2d_2", f"{OLD}/conv2d_2/vars"]).values())
    ['layers/dense/vars', 'layers/conv2d', 'layers/conv2d_1', 'layers/conv2d_1/vars']
    """
    paths = {name: re.split(r"[/\\]", name) for name in names}
    used: dict[tuple[str, ...], set[int]] = {}
    for path in paths.values():
        for place in _counted(path):
            kind, number = _numbered(path[place])
            used.setdefault((*path[:place], kind), set()).add(number)
    found: dict[str, str] = {}
    for name, path in paths.items():
        new = [TODAY if part == OLD else part for part in path]
        for place in _counted(path):
            kind, number = _numbered(path[place])
            at = sorted(used[(*path[:place], kind)]).index(number)
            new[place] = f"{kind}_{at}" if at else kind
        found[name] = "/".join(new)
    return found


def _counted(path: list[str]) -> list[int]:
    """Where in a path are layers as Keras 2.12 to 2.14 numbered them."""
    return [place for place in range(1, len(path)) if path[place - 1] == OLD]


def _numbered(part: str) -> tuple[str, int]:
    kind, _, number = part.rpartition("_")
    return (kind, int(number)) if kind and number.isdecimal() else (part, 0)
