"""Dataclasses as plain json and back. Floats keep every bit; json has no infinities, so they become texts that `float` reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from sound_qkeras.errors import InputError


def to_plain(value: Any) -> Any:
    """A dataclass, array, mapping, sequence, set or number as plain json."""
    if is_dataclass(value):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, frozenset):
        return sorted(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return str(float(value))
    return value


def from_plain(kind: Any, data: Any) -> Any:
    """What `to_plain` was given, by its type; what a dataclass has no field for is passed over.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a part is missing or of the wrong type.
    """
    origin, inside = get_origin(kind), get_args(kind)
    if NoneType in inside:
        return None if data is None else from_plain(inside[0], data)
    if isinstance(kind, type) and is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{one.name: from_plain(types[one.name], data[one.name]) for one in fields(kind)})
    if origin in (tuple, frozenset):
        return origin(from_plain(inside[0], item) for item in data)
    if origin is Mapping:
        return {str(key): from_plain(inside[1], item) for key, item in data.items()}
    return np.asarray(data, np.float64) if origin is np.ndarray else kind(data)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Plain json into a file.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"'{path}' cannot be written ({error.strerror or error}); choose another place") from error
