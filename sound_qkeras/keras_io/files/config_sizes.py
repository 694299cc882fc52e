"""How long, how deep and how large a saved Keras configuration may be, looked at before it is parsed or given to Keras."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from sound_qkeras.errors import FileFormatError

CONTAINERS = ("Sequential", "Functional", "Model")
# Most bytes of a configuration, and most brackets inside one another in it.
LONGEST_CONFIGURATION, DEEPEST_CONFIGURATION = 1 << 26, 400
# Models inside one another, and calls of layers in all of them.
DEEPEST, MOST_CALLS = 32, 4096
NESTING = f"accepted: at most {DEEPEST}; build the model from layers"


def check_length(path: Path, length: int) -> None:
    """Refuse a configuration that nobody has.

    Raises:
        FileFormatError: it has more than `LONGEST_CONFIGURATION` bytes.
    """
    if length > LONGEST_CONFIGURATION:
        raise FileFormatError(f"'{path}' has a configuration of {length} bytes; accepted: {LONGEST_CONFIGURATION}")


def check_text(path: Path, text: str | bytes) -> None:
    """Refuse a configuration that is long or deep before it is parsed.

    Raises:
        FileFormatError: it is.
    """
    content = text.encode() if isinstance(text, str) else text
    check_length(path, len(content))
    brackets = np.frombuffer(re.sub(rb'"(?:[^"\\]|\\.)*"|[^][{}"]+', b"", content, flags=re.DOTALL), dtype=np.uint8)
    depth = np.cumsum(np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1), dtype=np.int64)
    if depth.max(initial=0) > DEEPEST_CONFIGURATION:
        raise FileFormatError(f"'{path}' has models inside one another, too deep; {NESTING}")


def check_calls(path: Path, model: Any, depth: int = 1) -> int:
    """Refuse models that are in code only, or deep, or call layers very often because those inside are called several times.

    Args:
        path: the file.
        model: a container's configuration.
        depth: of the container.

    Returns:
        How many calls of layers it makes.

    Raises:
        FileFormatError: too many, containers are too deep, or layers are not in the file.
    """
    if depth > DEEPEST:
        raise FileFormatError(f"'{path}' has models inside one another, more than {DEEPEST} deep; {NESTING}")
    inner = model["config"]
    if isinstance(inner, dict) and "layers" not in inner:
        raise FileFormatError(
            f"'{path}' holds a subclassed model, of class {model.get('class_name')}: its layers are in code only; accepted: "
            f"{', '.join(CONTAINERS)}; build it as a Functional model"
        )
    total = 0
    for layer in inner if isinstance(inner, list) else inner["layers"]:
        calls = max(1, len(layer.get("inbound_nodes") or ()))
        total += calls * (check_calls(path, layer, depth + 1) if layer["class_name"] in CONTAINERS else 1)
    if total > MOST_CALLS:
        raise FileFormatError(
            f"'{path}' describes a model that calls layers {total} times or more; accepted: {MOST_CALLS}, those in models inside "
            "counted for each call of these"
        )
    return total
