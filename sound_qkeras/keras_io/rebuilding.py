"""Saved models rebuilt by the Keras that saved them, from a configuration in which nothing but names and numbers is left."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

from sound_qkeras.keras_io.environment import import_keras, import_keras_3
from sound_qkeras.keras_io.merges import OPERATORS

Config = dict[str, Any]


def rebuild_2(plain: Config, shape: Any, path: Path, objects: Config) -> Any:
    """The model of Keras 2, built, with its weights.

    Args:
        plain: the configuration.
        shape: of the input, where the configuration does not say.
        path: the file or SavedModel directory.
        objects: classes beyond Keras' own, by name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras misses a name for the initializer that every layer gets
        model = import_keras().layers.deserialize(plain, objects)
        if not model.built:
            model.build(shape)
        _load_weights_2(model, path)
    for layer in model.submodules:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def rebuild_3(plain: Config, shape: Any, path: Path) -> Any:
    """The model of Keras 3 on the session's backend, built, with its weights; arguments as for `rebuild_2`."""
    keras = import_keras_3()
    kind = keras.Sequential if plain["class_name"] == "Sequential" else keras.Model
    model = kind.from_config(_with_modules(plain)["config"])
    if not model.built:
        model.build(shape)
    suffix = ".keras" if zipfile.is_zipfile(path) else ".h5"
    if path.name.endswith(suffix) and not path.name.endswith(".weights.h5"):
        model.load_weights(str(path))
        return model
    with tempfile.TemporaryDirectory() as folder:  # Keras 3 goes by the name
        model.load_weights(shutil.copyfile(path, Path(folder) / f"model{suffix}"))
    return model


def _load_weights_2(model: Any, path: Path) -> None:
    if path.is_dir():
        model.load_weights(str(path / "variables" / "variables")).assert_existing_objects_matched()
    elif zipfile.is_zipfile(path):
        importlib.import_module("tf_keras.src.saving.saving_lib").load_weights_only(model, str(path))
    else:
        import h5py

        legacy = importlib.import_module("tf_keras.src.saving.legacy.hdf5_format")
        with h5py.File(path, "r") as file:
            legacy.load_weights_from_hdf5_group(file["model_weights"], model)


def _with_modules(plain: Config) -> Config:
    """A container whose layers say that they are Keras' own: Keras 3 looks nowhere else for them."""
    layers = [
        {**(_with_modules(layer) if "layers" in layer["config"] else layer), **_origin(layer)}
        for layer in plain["config"]["layers"]
    ]
    return {**plain, "config": {**plain["config"], "layers": layers}}


def _origin(layer: Config) -> Config:
    kind, found = layer["class_name"], {"registered_name": None}
    if "layers" in layer["config"]:
        return {**found, "module": "keras", "class_name": "Sequential" if kind == "Sequential" else "Model"}
    calls = layer.get("inbound_nodes") or []
    # The layers of these names are called with one list.
    is_operation = kind in OPERATORS and any(len(call["args"]) > 1 for call in calls)
    return {**found, "module": "keras.src.ops.numpy" if is_operation else "keras.layers"}
