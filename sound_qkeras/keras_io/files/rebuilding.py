"""Saved models rebuilt by the Keras that saved them, from a configuration in which nothing but names and numbers is left."""

from __future__ import annotations

import importlib
import math
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

from sound_qkeras.errors import FileFormatError
from sound_qkeras.keras_io.read.operations import module_of
from sound_qkeras.keras_io.session.environment import import_keras, import_keras_3

Config = dict[str, Any]
# Settings of a layer that may be layers of their own.
INNER = ("activation", "layer")
# Where a file of weights keeps those of layers.
LAYER_GROUPS = ("layers", "_layer_checkpoint_dependencies")


def rebuild_2(plain: Config, shape: Any, path: Path, objects: Config) -> Any:
    """The model of Keras 2, built, with its weights.

    Args:
        plain: the configuration.
        shape: of the input, where the configuration does not say.
        path: the file with the weights, or the SavedModel directory.
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
    for layer in model._flatten_layers(include_self=False):  # Keras 3 builds an activation when it is called
        inner: Any = getattr(layer, "activation", None)
        if hasattr(inner, "build") and not inner.built and layer._inbound_nodes:
            inner.build(layer.output.shape)
    _check_same(model, path)
    suffix = ".keras" if zipfile.is_zipfile(path) else ".h5" if is_legacy(path) else ".weights.h5"
    if path.name.endswith(suffix) and (suffix == ".weights.h5" or not path.name.endswith(".weights.h5")):
        model.load_weights(str(path))
        return model
    with tempfile.TemporaryDirectory() as folder:  # Keras 3 goes by the name
        model.load_weights(shutil.copyfile(path, Path(folder) / f"model{suffix}"))
    return model


def is_layer(value: Any) -> bool:
    """Whether a setting is a layer of its own, as Keras writes it."""
    return isinstance(value, dict) and "class_name" in value and isinstance(value.get("config"), dict)


def _load_weights_2(model: Any, path: Path) -> None:
    if path.is_dir():
        model.load_weights(str(path / "variables" / "variables")).assert_existing_objects_matched()
    elif zipfile.is_zipfile(path):
        importlib.import_module("tf_keras.src.saving.saving_lib").load_weights_only(model, str(path))
    elif not is_legacy(path):
        _check_same(model, path)
        with tempfile.TemporaryDirectory() as folder:  # Keras goes by the name
            copy = shutil.copyfile(path, Path(folder) / "model.weights.h5")
            importlib.import_module("tf_keras.src.saving.saving_lib").load_weights_only(model, str(copy))
    else:
        import h5py

        legacy = importlib.import_module("tf_keras.src.saving.legacy.hdf5_format")
        with h5py.File(path, "r") as file:
            legacy.load_weights_from_hdf5_group(file.get("model_weights", file), model)


def is_legacy(path: Path) -> bool:
    """Whether an HDF5 file keeps weights by layers, as whole models and older files of weights do."""
    import h5py

    with h5py.File(path, "r") as file:
        return "model_weights" in file or "layer_names" in file.attrs


def _check_same(model: Any, path: Path) -> None:
    """Refuse a file of weights with more or other variables than a model has: Keras leaves what it does not need.

    What the optimizer, the metrics and generators of random numbers keep is not counted.
    """
    if zipfile.is_zipfile(path) or is_legacy(path):  # of a whole model, or compared by Keras
        return
    import h5py

    sizes = list[int]()

    def count(name: str, item: Any) -> None:
        first, *inner = name.split("/")
        if isinstance(item, h5py.Dataset) and first in LAYER_GROUPS and not any("generator" in one for one in inner):
            sizes.append(int(item.size or 0))

    with h5py.File(path, "r") as file:
        file.visititems(count)
    wanted = [math.prod(int(size) for size in variable.shape) for variable in model.weights]
    if sizes and sorted(sizes) != sorted(wanted):  # of none, Keras says so
        raise FileFormatError(
            f"'{path}' holds the weights of another model, {len(sizes)} variables of {sum(sizes)} numbers, and the configuration "
            f"has {len(wanted)} of {sum(wanted)}; accepted: the file of the same model's save_weights()"
        )


def _with_modules(plain: Config) -> Config:
    """A container whose layers say that they are Keras' own: Keras 3 looks nowhere else for them."""
    layers = [_with_module(layer) for layer in plain["config"]["layers"]]
    return {**plain, "config": {**plain["config"], "layers": layers}}


def _with_module(layer: Config) -> Config:
    kind, found = layer["class_name"], {**layer, "registered_name": None, "module": "keras.layers"}
    if "layers" in layer["config"]:
        name = "Sequential" if kind == "Sequential" else "Model"
        return {**found, **_with_modules(layer), "module": "keras", "class_name": name}
    if found.pop("operation", False):
        return {**found, "module": module_of(kind)}
    inner = {key: _with_module(value) for key, value in layer["config"].items() if key in INNER and is_layer(value)}
    return {**found, "config": {**layer["config"], **inner}}
