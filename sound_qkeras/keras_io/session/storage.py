"""QKeras models on disk."""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.keras_io.files.files import read_config
from sound_qkeras.keras_io.session.environment import import_keras, import_qkeras

SUFFIXES = (".keras", ".h5")


def register() -> None:
    """Make Keras know the layers of this library, so that `qkeras.utils.load_qmodel` finds them in files.

    Raises:
        DependencyError: TensorFlow or tf_keras is missing or of the wrong kind.
    """
    for module in ("table_layer", "norm_layer"):
        importlib.import_module(f"sound_qkeras.keras_io.write.{module}")


def save_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Save a QKeras model for `qkeras.utils.load_qmodel`; an old file stays until the new one is complete.

    Args:
        model: a model from `to_qkeras`.
        path: ends in `.keras` or `.h5`.

    Raises:
        InputError: another ending, or a place that cannot be written.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise InputError(f"'{target}' ends in '{target.suffix}'; accepted: {' or '.join(SUFFIXES)}")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".saving") as folder:
            complete = Path(folder) / target.name
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # QKeras serialises quantizers as if they were constraints
                model.save(str(complete))
            complete.replace(target)
    except OSError as error:
        raise InputError(f"'{target}' cannot be written: {error.strerror or error}; choose another place") from error


def load_model(path: str | os.PathLike[str]) -> Any:
    """Load a QKeras model, uncompiled.

    Raises:
        FileFormatError: the path is missing, empty, corrupt or no such model.
        InputError: the model is in float64 and the session is not.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
    """
    register()
    source = Path(path)
    config, version = read_config(source)
    if version.startswith("3."):
        raise FileFormatError(
            f"'{source}' was saved by Keras {version}; accepted: QKeras models, which are tf_keras models"
        )
    floatx = import_keras().backend.floatx()
    types = {layer["config"].get("dtype") for layer in config["config"]["layers"]}
    if "float64" in types and floatx != "float64":
        raise InputError(
            f"'{source}' is a float64 model and the session is in {floatx}; load it inside sound_qkeras.float64()"
        )
    try:
        return import_qkeras().utils.load_qmodel(str(source), compile=False)
    except Exception as error:
        raise FileFormatError(f"'{source}' cannot be loaded as a QKeras model: {error}") from error
