"""The one door to TensorFlow and QKeras: Keras 2 comes through, whichever Keras the user's own models are made with.

QKeras runs on Keras 2, which ships as `tf_keras`; TensorFlow decides once, when it is imported, which Keras `tf.keras` is, by
what the environment says. That is the user's choice and is left alone: where it is Keras 3, QKeras is given a view of TensorFlow
that shows Keras 2. Nothing here imports TensorFlow until a function is called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

from sound_qkeras.errors import DependencyError
from sound_qkeras.keras_io.session.homes import away_from_home
from sound_qkeras.keras_io.session.legacy_view import SWITCH, legacy_view


def import_keras() -> ModuleType:
    """The `tf_keras` package, beside whatever Keras there is.

    Raises:
        DependencyError: TensorFlow or tf_keras is missing.
    """
    return _import("tf_keras")


def import_keras_3() -> ModuleType:
    """The `keras` package, which is Keras 3, on the backend the user has chosen.

    Raises:
        DependencyError: it is missing, or another package passes for it.
    """
    keras = _import("keras")
    if not str(getattr(keras, "__version__", "")).startswith("3."):
        raise DependencyError(f"'keras' is version {getattr(keras, '__version__', '?')}; accepted: Keras 3")
    return keras


def import_tensorflow() -> ModuleType:
    """The `tensorflow` package; what its `keras` is, nobody knows.

    Raises:
        DependencyError: as `import_keras`.
    """
    import_keras()
    return _import("tensorflow")


@contextmanager
def keras_2() -> Iterator[None]:
    """While it lasts, what is imported finds Keras 2 under every name: `keras`, `tf.keras`, `tensorflow.keras`.

    Raises:
        DependencyError: as `import_keras`.
    """
    keras, tensorflow, previous = import_keras(), import_tensorflow(), sys.modules.get("keras")
    with legacy_view(tensorflow, keras):
        sys.modules["keras"] = keras
        try:
            yield
        finally:
            sys.modules.pop("keras")
            if previous is not None:
                sys.modules["keras"] = previous


def import_qkeras() -> ModuleType:
    """The `qkeras` package, built on the same Keras as `import_keras` gives.

    Raises:
        DependencyError: QKeras or one of its dependencies is missing, or it was bound to Keras 3 before.
    """
    qkeras_module("utils")
    return sys.modules["qkeras"]


def qkeras_module(name: str) -> ModuleType:
    """The module `qkeras.<name>`.

    Raises:
        DependencyError: as `import_qkeras`.
    """
    keras, full_name = import_keras(), f"qkeras.{name}"
    if full_name in sys.modules:
        module = sys.modules[full_name]
    else:
        with keras_2():
            module = _import(full_name)
    qkeras = sys.modules["qkeras"]
    if not issubclass(qkeras.QDense, keras.layers.Dense):
        version = str(getattr(qkeras, "__version__", ""))
        if version and not version.startswith("0."):
            raise DependencyError(
                f"the installed 'qkeras' is version {version}, which is qkeras-v3, for Keras 3; accepted: QKeras 0.9.0; install "
                "QKeras==0.9.0 in its place, or in an environment of its own"
            )
        raise DependencyError(
            f"QKeras was imported on top of Keras 3; it needs Keras 2 (tf_keras); set {SWITCH}=1 in the environment before "
            "Python starts"
        )
    return module


def _import(name: str) -> ModuleType:
    try:
        with away_from_home():
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
        DependencyError: TensorFlow or tf_keras is missing.
    """
    return float_type("float64")
