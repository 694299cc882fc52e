"""TensorFlow as QKeras has to see it, in a process whose TensorFlow shows Keras 3.

TensorFlow decides once, when it is imported, which Keras `tensorflow.keras` is. QKeras writes `tf.keras` and
`from tensorflow.keras import ...` and means Keras 2. So while QKeras' modules are imported, `tensorflow` is a view: the
same TensorFlow with `tf_keras` as its `keras`. They keep the view; everybody else keeps TensorFlow as it was.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

# TensorFlow asks this variable which Keras to show, when it is imported and when `tensorflow.keras` is first used.
SWITCH = "TF_USE_LEGACY_KERAS"
LEGACY = ("1", "true", "True")
_LOCK = threading.RLock()


def shows_legacy_keras(tensorflow: ModuleType) -> bool:
    """Whether this TensorFlow has Keras 2 as its `keras`, for `import tensorflow.keras` and for attributes alike."""
    return bool(getattr(tensorflow, "_tf_uses_legacy_keras", False)) and os.environ.get(SWITCH) in LEGACY


class _View(ModuleType):
    """TensorFlow with another `keras`."""

    def __init__(self, tensorflow: ModuleType, keras: ModuleType) -> None:
        """Its submodules are TensorFlow's, those below `keras` are tf_keras'."""
        super().__init__(tensorflow.__name__, tensorflow.__doc__)
        api = Path(str(keras.__file__)).parent / "api" / "_v2"
        self.__dict__.update(
            __path__=[str(api), *tensorflow.__path__],
            __spec__=tensorflow.__spec__,
            __file__=tensorflow.__file__,
            keras=keras,
            _viewed=tensorflow,
        )

    def __getattr__(self, name: str) -> Any:
        """What is not here is TensorFlow's."""
        return getattr(self.__dict__["_viewed"], name)


_views: dict[int, _View] = {}


@contextmanager
def legacy_view(tensorflow: ModuleType, keras: ModuleType) -> Iterator[None]:
    """While it lasts, modules that are imported get TensorFlow with Keras 2; those imported before keep what they have.

    Args:
        tensorflow: the package.
        keras: the `tf_keras` package.
    """
    if shows_legacy_keras(tensorflow):
        yield
        return
    with _LOCK:
        view = _views.setdefault(id(tensorflow), _View(tensorflow, keras))
        switch = os.environ.get(SWITCH)
        shown = _take_out("tensorflow.keras")
        sys.modules["tensorflow"] = view
        os.environ[SWITCH] = "1"
        try:
            yield
        finally:
            _take_out("tensorflow.keras")
            sys.modules.update(shown, tensorflow=tensorflow)
            view.__dict__["keras"] = keras
            if switch is None:
                os.environ.pop(SWITCH, None)
            else:
                os.environ[SWITCH] = switch


def _take_out(package: str) -> dict[str, ModuleType]:
    """Remove a package and all in it from what is imported."""
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}
