"""The one door to TensorFlow: legacy Keras is selected, and the versions that came through are checked.

QKeras runs on Keras 2, which ships as `tf_keras`; TensorFlow decides once, when it is imported, which Keras it shows.
Nothing here imports TensorFlow until a function is called.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

from sound_qkeras.errors import DependencyError

SWITCH = "TF_USE_LEGACY_KERAS"
FIX = f"set {SWITCH}=1 in the environment, or import sound_qkeras before TensorFlow"


def select_legacy_keras() -> None:
    """Make a later `import tensorflow` show Keras 2; cheap, imports nothing.

    A choice already made is left alone: it is judged, with a clear error, when Keras is needed.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault(SWITCH, "1")


def import_keras() -> ModuleType:
    """The `tf_keras` package.

    Raises:
        DependencyError: TensorFlow or tf_keras is missing, or TensorFlow was imported with Keras 3.
    """
    select_legacy_keras()
    if os.environ.get(SWITCH) not in ("1", "true", "True"):
        came = f"{SWITCH}={os.environ[SWITCH]}" if SWITCH in os.environ else "TensorFlow imported with Keras 3"
        raise DependencyError(f"received {came}; QKeras needs Keras 2 (tf_keras); {FIX}")
    keras = _import("tf_keras")
    if not getattr(sys.modules["tensorflow"], "_tf_uses_legacy_keras", True):
        raise DependencyError(f"TensorFlow was imported with Keras 3; QKeras needs Keras 2 (tf_keras); {FIX}")
    return keras


def import_tensorflow() -> ModuleType:
    """The `tensorflow` package, with Keras 2 behind it.

    Raises:
        DependencyError: as `import_keras`.
    """
    import_keras()
    return _import("tensorflow")


def import_qkeras() -> ModuleType:
    """The `qkeras` package, built on the same Keras as `import_keras` gives.

    Raises:
        DependencyError: QKeras or one of its dependencies is missing, or it was bound to Keras 3.
    """
    keras = import_keras()
    qkeras = _import("qkeras")
    _import("qkeras.utils")
    if not issubclass(qkeras.QDense, keras.layers.Dense):
        raise DependencyError(f"QKeras was imported on top of Keras 3; it needs Keras 2 (tf_keras); {FIX}")
    return qkeras


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"'{name}' cannot be imported ({error}); Keras models need tensorflow, tf_keras of the same minor version, "
            "QKeras==0.9.0 and pyparsing<4; install sound-qkeras with its dependencies"
        ) from error


@contextmanager
def float_type(name: str) -> Iterator[None]:
    """Make `name` the session's Keras float type, and restore the previous one."""
    backend = import_keras().backend
    before = backend.floatx()
    backend.set_floatx(name)
    try:
        yield
    finally:
        backend.set_floatx(before)


def float64() -> AbstractContextManager[None]:
    """Run QKeras in float64, where fixed-point networks are exact, and restore the previous float type afterwards.

    Build, load, call and train a `to_qkeras(dtype="float64")` model inside it: QKeras' quantizers cast to the session's
    float type, and the model raises when that is another one.

    Raises:
        DependencyError: as `import_keras`.
    """
    return float_type("float64")
