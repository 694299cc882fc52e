"""Several inputs or outputs of a Keras model, as parts of the one input and the one output a network has.

The network's input is all inputs, flattened, one behind the other: each is cropped out of it and reshaped. Its output is
all outputs, flattened and concatenated. A port remembers which node is which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.types import Reals, Shape


@dataclass(frozen=True)
class Port:
    """One of several inputs or outputs.

    Args:
        name: Keras' name of it.
        node: the node that holds it in its own shape.
        head: what was set aside after an output ("softmax", "sigmoid"), or None.
    """

    name: str
    node: str
    head: str | None = None


def per_port(given: Any, names: Sequence[str], what: str) -> list[Any]:
    """What was given for each of several inputs, in order: a list, or a mapping by name.

    Raises:
        InputError: another number, or other names.
    """
    if isinstance(given, Mapping):
        named = cast("Mapping[Any, Any]", given)
        if set(named) != set(names):
            raise InputError(f"{what} is given for {sorted(map(str, named))}; accepted: {list(names)}")
        return [named[name] for name in names]
    if len(given) != len(names):
        raise InputError(f"{what} is given for {len(given)} inputs; accepted: one for each of {list(names)}")
    return list(given)


def join_samples(given: Any, names: Sequence[str], shapes: Sequence[Shape]) -> Reals:
    """Samples of several inputs as rows of the network's one input, `(n, total)`.

    Args:
        given: an array `(n, *shape)` per input, as a list, a tuple or a mapping by name.
        names: of the inputs.
        shapes: of the inputs.

    Raises:
        InputError: an array is missing or has another shape, or their numbers of samples differ.
    """
    arrays = [np.asarray(x, dtype=np.float64) for x in per_port(given, names, "a batch of samples")]
    counts = {array.shape[0] if array.ndim else 0 for array in arrays}
    wrong = [n for n, array, shape in zip(names, arrays, shapes, strict=True) if array.shape[1:] != shape]
    if wrong or len(counts) != 1:
        raise InputError(
            f"samples of {list(names)} have shapes {[array.shape for array in arrays]}; accepted: "
            f"{[('n', *shape) for shape in shapes]}, n the same for all"
        )
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)


def split_rows(rows: npt.NDArray[Any], shapes: Sequence[Shape]) -> list[npt.NDArray[Any]]:
    """Rows `(n, total)` as one array `(n, *shape)` for each port."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = np.split(rows, ends, axis=1)
    return [part.reshape(len(rows), *shape) for part, shape in zip(parts, shapes, strict=True)]
