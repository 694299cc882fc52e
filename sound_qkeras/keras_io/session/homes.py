"""Keras writes settings, and matplotlib a cache, into the home directory when they are first imported; here they do not."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

# The variable that names a place, and where that place is otherwise.
PLACES = {"KERAS_HOME": (".keras",), "MPLCONFIGDIR": (".config/matplotlib", ".cache/matplotlib")}


@contextmanager
def away_from_home() -> Iterator[None]:
    """While it lasts, what is imported finds a temporary directory instead of a place in the home directory that is not there.

    A place that is there, or that the environment names, is the user's, and is used.
    """
    missing = [name for name, places in PLACES.items() if name not in os.environ and not _exists(places)]
    for name in missing:
        os.environ[name] = _temporary()
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _exists(places: tuple[str, ...]) -> bool:
    try:
        return any((Path.home() / place).exists() for place in places)
    except (OSError, RuntimeError):
        return False


@cache
def _temporary() -> str:
    """One directory for this process, as long as it lives."""
    folder = tempfile.mkdtemp(prefix="sound_qkeras_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
