"""Saved Keras models, rebuilt from their configuration and their numbers alone.

A file can name any Python object and hold compiled functions. Nothing of that is used: the configuration is read as
plain json, every layer kind is checked against what is supported before Keras sees it, only names and numbers are kept,
and the weights are loaded as arrays.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from sound_qkeras.errors import FileFormatError, UnsupportedLayerError
from sound_qkeras.keras_io.environment import import_keras
from sound_qkeras.keras_io.readers import KINDS
from sound_qkeras.keras_io.support import unsupported

ACCEPTED = "a whole tf_keras model saved as .h5, .keras or a SavedModel directory"
CONTAINERS = ("Sequential", "Functional", "Model")
TRAINING_SUFFIXES = ("_initializer", "_regularizer", "_constraint")
# What only says where a class is imported from, or how the layer was built.
DROPPED = ("module", "registered_name", "build_config", "compile_config", "shared_object_id")


class Vocabulary:
    """What may be in a file: Keras' own layers that can be read, with settings that are names and numbers."""

    def check(self, name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
        """A layer's configuration as it may be given to Keras.

        Raises:
            UnsupportedLayerError: the layer or one of its settings is of a kind that is not supported.
        """
        if kind != "InputLayer" and kind not in KINDS:
            raise unsupported(name, kind)
        objects = [key for key, value in config.items() if isinstance(value, dict)]
        if objects:
            raise UnsupportedLayerError(
                name,
                f"{kind} with {objects[0]} given as an object",
                "names and numbers",
                "replace it by one of Keras' own",
            )
        return config

    def objects(self) -> dict[str, Any]:
        """Classes beyond Keras' own, by name."""
        return {}


def load_keras_model(path: Path, vocabulary: Vocabulary | None = None) -> Any:
    """The model a file holds, for inference.

    Args:
        path: a `.h5` or `.keras` file or a SavedModel directory; told apart by content.
        vocabulary: what may be in the file.

    Returns:
        A built tf_keras model without optimizer, loss, regularizers and constraints.

    Raises:
        FileFormatError: the path is missing, empty, corrupt, or holds no whole Keras 2 model.
        UnsupportedLayerError: a layer is of a kind that is not supported.
    """
    config = read_config(path)
    vocabulary = vocabulary or Vocabulary()
    plain = _plain_model(config, path, vocabulary)
    keras = import_keras()
    try:
        model = keras.layers.deserialize(plain, vocabulary.objects())
        if not model.built:
            model.build(_build_shape(config))
        _load_weights(model, path)
    except Exception as error:
        raise FileFormatError(
            f"'{path}': Keras cannot rebuild the model: {_first_line(error)}; accepted: {ACCEPTED}"
        ) from error
    return model


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a saved model, as plain json.

    Raises:
        FileFormatError: the path is missing, empty, corrupt, or holds no whole Keras 2 model.
    """
    if not path.exists():
        raise FileFormatError(f"'{path}' does not exist; accepted: {ACCEPTED}")
    if path.is_file() and path.stat().st_size == 0:
        raise FileFormatError(f"'{path}' is empty; accepted: {ACCEPTED}")
    try:
        text, version = _config_text(path)
        config = json.loads(text) if text is not None else None
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(
            f"'{path}' is corrupt or truncated: {_first_line(error)}; accepted: {ACCEPTED}"
        ) from error
    if version.startswith("3."):
        raise FileFormatError(
            f"'{path}' was saved by Keras {version}; accepted: {ACCEPTED}; rebuild and save it with tf_keras"
        )
    if not isinstance(config, dict) or "config" not in config:
        raise FileFormatError(f"'{path}' holds no model configuration, perhaps only weights; accepted: {ACCEPTED}")
    return config


def _config_text(path: Path) -> tuple[str | bytes | None, str]:
    """Configuration and Keras version, from wherever the kind of file keeps them."""
    if path.is_dir():
        return _saved_model_config(path), ""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
            return archive.read("config.json") if "config.json" in names else None, str(
                metadata.get("keras_version", "")
            )
    import h5py

    if not h5py.is_hdf5(path):
        raise FileFormatError(
            f"'{path}' is neither HDF5 nor a .keras archive, or it is truncated; accepted: {ACCEPTED}"
        )
    with h5py.File(path, "r") as file:
        return file.attrs.get("model_config"), str(file.attrs.get("keras_version", ""))


def _saved_model_config(path: Path) -> str | None:
    metadata = path / "keras_metadata.pb"
    if not metadata.is_file():
        raise FileFormatError(f"directory '{path}' has no keras_metadata.pb, so no Keras 2 model; accepted: {ACCEPTED}")
    import_keras()
    from tf_keras.protobuf import saved_metadata_pb2

    saved: Any = saved_metadata_pb2
    nodes = saved.SavedMetadata.FromString(metadata.read_bytes()).nodes
    return next((node.metadata for node in nodes if node.node_path == "root"), None)


def _load_weights(model: Any, path: Path) -> None:
    if path.is_dir():
        model.load_weights(str(path / "variables" / "variables")).assert_existing_objects_matched()
    elif zipfile.is_zipfile(path):
        from tf_keras.src.saving import saving_lib

        saving_lib.load_weights_only(model, str(path))
    else:
        import h5py
        from tf_keras.src.saving.legacy import hdf5_format

        with h5py.File(path, "r") as file:
            hdf5_format.load_weights_from_hdf5_group(file["model_weights"], model)
    for layer in model.submodules:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _build_shape(config: dict[str, Any]) -> Any:
    inner = config["config"]
    shape = (config.get("build_config") or {}).get("input_shape")
    return shape or (inner.get("build_input_shape") if isinstance(inner, dict) else None)


def _plain_model(config: dict[str, Any], path: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """A container with nothing but supported layers, names and numbers in it."""
    kind, inner = str(config.get("class_name")), _plain(config["config"])
    if kind not in CONTAINERS:
        raise FileFormatError(f"'{path}' holds a model of class {kind}; accepted: {', '.join(CONTAINERS)}")
    if isinstance(inner, list):
        inner = {"name": "sequential", "layers": inner}
    inner["layers"] = [_plain_layer(layer, path, vocabulary) for layer in inner["layers"]]
    return {"class_name": kind, "config": inner}


def _plain_layer(layer: dict[str, Any], path: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    kind, config = str(layer["class_name"]), layer["config"]
    name = str(layer.get("name") or (config.get("name") if isinstance(config, dict) else kind))
    if kind in CONTAINERS:
        return {**layer, **_plain_model(layer, path, vocabulary)}
    return {**layer, "config": vocabulary.check(name, kind, config)}


def _plain(value: Any) -> Any:
    """Json without imports, builders and training-only objects; tuples, arrays and float policies as plain values."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, inner = value.get("class_name"), value.get("config") or {}
    if kind == "__tuple__":
        return tuple(_plain(value["items"] if "items" in value else inner["value"]))
    if kind == "__numpy__":
        return inner["value"]
    if kind in ("Policy", "DTypePolicy"):
        return inner["name"]
    return {
        key: _plain(item) for key, item in value.items() if key not in DROPPED and not key.endswith(TRAINING_SUFFIXES)
    }


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
