"""Saved Keras models, rebuilt from their configuration and their numbers alone.

A file can name any Python object and hold compiled functions. Nothing of that is used: the configuration is read as
plain json, every layer kind is checked against what is supported before Keras sees it, only names and numbers are kept,
and the weights are loaded as arrays.
"""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from sound_qkeras.errors import FileFormatError, ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.files.config_sizes import CONTAINERS, check_calls, check_length, check_text
from sound_qkeras.keras_io.files.rebuilding import INNER, is_layer, rebuild_2, rebuild_3
from sound_qkeras.keras_io.read.activations import OBJECTS
from sound_qkeras.keras_io.read.operations import FUNCTIONS, OPERATIONS, unsupported_operation
from sound_qkeras.keras_io.read.readers import KINDS
from sound_qkeras.keras_io.read.support import unsupported
from sound_qkeras.keras_io.read.tensor_sizes import Tally, limited
from sound_qkeras.keras_io.session.editions import FUNCTION_LAYERS
from sound_qkeras.keras_io.session.editions import OPERATIONS as OPERATION_MODULES
from sound_qkeras.keras_io.session.environment import import_keras, import_keras_3
from sound_qkeras.support.given_files import regular_size

ACCEPTED = (
    "a whole model of tf_keras or Keras 3 saved as .h5 or .keras, or of tf_keras as a SavedModel directory; or the .json of "
    "to_json() and the .h5 of save_weights()"
)
QKERAS_3 = (
    "is a qkeras-v3 model, made with Keras 3; accepted: models of QKeras 0.9.0, which are tf_keras models, and float models; "
    "build the same layers with QKeras 0.9.0 and set_weights() to its get_weights()"
)
# Tensors in a graph and what functions are called with, and where the shape of an input may be.
ARGUMENTS = ("__keras_tensor__", "__ellipsis__", "__numpy__", "__slice__", "__tensor__")
SHAPES = ("batch_shape", "batch_input_shape", "build_input_shape")
# Names that TensorFlow has written for a layer, and Keras' own.
ALIASES = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}
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
        found = {key: self.inner(name, kind, key, config[key]) for key in INNER if is_layer(config.get(key))}
        objects = [key for key, value in config.items() if isinstance(value, dict) and key not in found]
        if objects:
            raise UnsupportedLayerError(
                name,
                f"{kind} with {objects[0]} given as an object",
                "names and numbers",
                "replace it by one of Keras' own",
            )
        return config | found

    def inner(self, name: str, kind: str, key: str, given: dict[str, Any]) -> dict[str, Any]:
        """A setting that is a layer of its own: an activation, or what is applied to every time step, a model too."""
        called = str(given["class_name"])
        if key == "layer" and called in CONTAINERS:
            return {**given, **_plain_model(given, name, self)}
        if key == "activation" and called not in OBJECTS:
            raise UnsupportedLayerError(
                name,
                f"{kind} with {key} given as an object of class {called}",
                f"names of functions, and {', '.join(sorted(OBJECTS))}",
                "replace it by one of Keras' own",
            )
        return {**given, "config": self.check(name, called, given["config"])}

    def objects(self) -> dict[str, Any]:
        """Classes beyond Keras' own, by name."""
        return {}


def is_saved(model: Any) -> bool:
    """Whether it is a path, or two: of a model's configuration as json, and of its weights."""
    paths = model if isinstance(model, tuple) and len(model) == 2 else (model,)
    return all(isinstance(path, str | os.PathLike) for path in paths)


def load_keras_model(saved: Any, vocabulary: Vocabulary | None = None) -> Any:
    """The model a file holds, for inference.

    Args:
        saved: the path of a `.h5` or `.keras` file or a SavedModel directory, told apart by content; or a pair of paths, of
            the json that `to_json()` gives and of the HDF5 file that `save_weights()` writes.
        vocabulary: what may be in the file.

    Returns:
        A built model of the Keras that saved it, without optimizer, loss, regularizers and constraints.

    Raises:
        FileFormatError: the path is missing, empty, corrupt, holds no whole Keras model, or asks for far more memory than it
            takes on disk.
        UnsupportedLayerError: a layer is of a kind that is not supported.
        DependencyError: the Keras that saved it is missing.
    """
    path, weights = (Path(one) for one in (saved if isinstance(saved, tuple) else (saved, saved)))
    if isinstance(saved, tuple) and not is_json(path):
        raise FileFormatError(
            f"'{path}' is no json file; accepted: the json of to_json() beside a file of weights, or a whole model alone"
        )
    config, version = read_config(path)
    if is_json(path):
        _check_pair(path, weights)
    vocabulary, is_new = vocabulary or Vocabulary(), version.startswith("3.")
    if is_new and _is_qkeras_3(config):
        raise FileFormatError(f"'{path}' {QKERAS_3}")
    from sound_qkeras.keras_io.files.file_sizes import Allowance, check_arrays
    from sound_qkeras.keras_io.files.weight_names import with_names_of_today

    keras = import_keras_3() if is_new else import_keras()
    try:
        check_calls(path, config)
        plain, shape = _plain_model(config, path, vocabulary), _build_shape(config)
        allowance = Allowance(weights, check_arrays(weights), keras.initializers.Zeros())
        _limit(plain, path, allowance, keras.layers)
        with limited(keras), with_names_of_today(weights) as named:
            model = rebuild_3(plain, shape, named) if is_new else rebuild_2(plain, shape, named, vocabulary.objects())
        allowance.release(model, keras.initializers)
    except (FileFormatError, ModelError):
        raise
    except Exception as error:
        raise FileFormatError(
            f"'{path}': Keras cannot rebuild the model from its names and numbers: {_first_line(error)}; accepted: {ACCEPTED}; "
            "if Keras itself loads it, give the loaded model"
        ) from error
    return model


def _is_qkeras_3(config: dict[str, Any]) -> bool:
    """Whether layers of a model say that they are QKeras'."""
    inner = config.get("config")
    layers = inner.get("layers", []) if isinstance(inner, dict) else []
    return any(
        str(layer.get("module")).startswith("qkeras")
        or str(layer.get("class_name")).startswith("qkeras>")
        or _is_qkeras_3(layer)
        for layer in layers
        if isinstance(layer, dict)
    )


def is_json(path: Path) -> bool:
    """Whether a file holds a model's configuration alone."""
    with suppress(OSError):
        if path.is_file():  # a pipe would wait
            with path.open("rb") as file:
                return file.read(64).lstrip()[:1] == b"{"
    return False


def _check_pair(path: Path, weights: Path) -> None:
    """Refuse a configuration without weights."""
    import h5py

    if weights == path:
        pair = f"('{path}', 'weights.h5')"
        raise FileFormatError(
            f"'{path}' holds a configuration without weights; accepted: the file of save_weights() beside it: {pair} in "
            f"place of the path, or on the command line --weights"
        )
    if not weights.is_file() or not h5py.is_hdf5(weights):
        raise FileFormatError(
            f"'{weights}' is no HDF5 file of weights; accepted: the .weights.h5 or .h5 file of save_weights()"
        )


def read_config(path: Path) -> tuple[dict[str, Any], str]:
    """The configuration of a saved model, as plain json, and the version of the Keras that saved it.

    Raises:
        FileFormatError: the path is missing, empty, corrupt, or holds no whole Keras model.
    """
    if not path.exists():
        raise FileFormatError(f"'{path}' does not exist; accepted: {ACCEPTED}")
    sizes = [regular_size(file, ACCEPTED) for file in _files(path)]
    if not path.is_dir() and sizes == [0]:
        raise FileFormatError(f"'{path}' is empty; accepted: {ACCEPTED}")
    try:
        config, version = _read(path)
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(
            f"'{path}' is corrupt or truncated: {_first_line(error)}; accepted: {ACCEPTED}"
        ) from error
    if isinstance(config, dict) and "modelTopology" in config:
        raise FileFormatError(
            f"'{path}' is a model of TensorFlow.js; accepted: {ACCEPTED}; give the Keras model that it was made of, or make one "
            "with tensorflowjs_converter --input_format=tfjs_layers_model --output_format=keras"
        )
    if not isinstance(config, dict) or "config" not in config:
        raise FileFormatError(f"'{path}' holds no model configuration, perhaps only weights; accepted: {ACCEPTED}")
    return config, version if version.startswith("3.") or not _is_of_keras_3(config) else "3."


def _is_of_keras_3(config: dict[str, Any]) -> bool:
    """Whether an input has its shape where only Keras 3 writes it: some files carry the version of another Keras."""
    inner = config["config"]
    with suppress(AttributeError, KeyError, TypeError):  # what else may be there is refused later
        layers = inner.get("layers", []) if isinstance(inner, dict) else inner
        return any("batch_shape" in layer["config"] for layer in layers if layer.get("class_name") == "InputLayer")
    return False


def _files(path: Path) -> list[Path]:
    """The file, or what Keras reads in a SavedModel directory."""
    if not path.is_dir():
        return [path]
    return [file for file in (path / "keras_metadata.pb", *(path / "variables").glob("*")) if os.path.lexists(file)]


def _parsed(path: Path, text: str | bytes | None) -> Any:
    """Json that is neither long nor deep; None where there is none."""
    if text is None:
        return None
    check_text(path, text)
    return json.loads(text)


def _read(path: Path) -> tuple[Any, str]:
    """Configuration and Keras version, from wherever the kind of file keeps them."""
    if path.is_dir():
        return _parsed(path, _saved_model_config(path)), ""
    if is_json(path):
        check_length(path, path.stat().st_size)
        found = _parsed(path, path.read_bytes())  # Keras 3 does not say its version here, but where classes are from
        return found, str(found.get("keras_version", "3." if "registered_name" in found else ""))
    if zipfile.is_zipfile(path):
        from sound_qkeras.keras_io.files.file_sizes import check_archive

        with zipfile.ZipFile(path) as archive:
            check_archive(path, archive)
            names = archive.namelist()
            metadata, config = (
                _parsed(path, archive.read(name) if name in names else None)
                for name in ("metadata.json", "config.json")
            )
            return config, str((metadata or {}).get("keras_version", ""))
    import h5py

    if not h5py.is_hdf5(path):
        raise FileFormatError(
            f"'{path}' is neither HDF5 nor a .keras archive, or it is truncated; accepted: {ACCEPTED}"
        )
    with h5py.File(path, "r") as file:
        return _parsed(path, file.attrs.get("model_config")), str(file.attrs.get("keras_version", ""))


def _saved_model_config(path: Path) -> str | None:
    metadata = path / "keras_metadata.pb"
    if not metadata.is_file():
        kind = ": it is no Keras 2 model"
        if (path / "saved_model.pb").is_file():
            kind = (
                ": it is of TensorFlow before 2.5 or not of Keras; give the model that tf_keras.models.load_model() loads, "
                "or save that as .h5"
            )
        raise FileFormatError(f"directory '{path}' has no keras_metadata.pb{kind}; accepted: {ACCEPTED}")
    import_keras()
    from tf_keras.protobuf import saved_metadata_pb2

    saved: Any = saved_metadata_pb2
    nodes = saved.SavedMetadata.FromString(metadata.read_bytes()).nodes
    return next((node.metadata for node in nodes if node.node_path == "root"), None)


def _build_shape(config: dict[str, Any]) -> Any:
    inner = config["config"]
    shape = (config.get("build_config") or {}).get("input_shape")
    shape = shape or (inner.get("build_input_shape") if isinstance(inner, dict) else None)
    if isinstance(shape, list) and not any(isinstance(size, list | dict) for size in shape):
        Tally().add("input", "InputLayer", shape)
    return shape


def _plain_model(config: dict[str, Any], where: Path | str, vocabulary: Vocabulary) -> dict[str, Any]:
    """A container with nothing but supported layers, names and numbers in it."""
    kind, inner = str(config.get("class_name")), _plain(config["config"])
    if kind not in CONTAINERS:
        raise FileFormatError(f"'{where}' holds a model of class {kind}; accepted: {', '.join(CONTAINERS)}")
    if isinstance(inner, list):
        inner = {"name": "sequential", "layers": inner}
    inner["layers"] = [_plain_layer(layer, where, vocabulary) for layer in inner["layers"]]
    return {"class_name": kind, "config": inner}


def _plain_layer(layer: dict[str, Any], where: Path | str, vocabulary: Vocabulary) -> dict[str, Any]:
    kind, config = str(layer["class_name"]), layer["config"]
    layer = {**layer, "class_name": ALIASES.get(kind, kind)}
    kind = str(layer["class_name"])
    name = str(layer.get("name") or (config.get("name") if isinstance(config, dict) else kind))
    _check_graph(name, layer.get("inbound_nodes"))
    if kind in CONTAINERS:
        return {**layer, **_plain_model(layer, where, vocabulary)}
    if kind in FUNCTION_LAYERS or layer.get("operation"):
        return {**layer, "config": _plain_function(name, layer)}
    return {**layer, "config": vocabulary.check(name, kind, config)}


def _plain_function(name: str, layer: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a function that is called on tensors; Keras is asked for no other than can be read."""
    config, called = layer["config"], str(layer["class_name"])
    if not layer.get("operation"):
        called = str(config.get("function"))
    if called not in (OPERATIONS if layer.get("operation") else FUNCTIONS):
        raise unsupported_operation(name, called)
    if any(isinstance(value, dict) for value in config.values()):
        raise UnsupportedLayerError(name, f"{called} with an object", "names and numbers", "leave it out")
    return config


def _check_graph(name: str, value: Any) -> None:
    """Refuse objects among the arguments a layer is called with."""
    if isinstance(value, dict) and "class_name" in value and value["class_name"] not in ARGUMENTS:
        raise UnsupportedLayerError(name, f"a call with {value['class_name']}", "calls with tensors", "leave it out")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _check_graph(name, item)


def _limit(plain: dict[str, Any], path: Path, allowance: Any, layers: Any) -> None:
    """Let no layer of a container take more memory than the file's size allows."""
    for inner in [plain["config"], *(layer["config"] for layer in plain["config"]["layers"])]:
        for key in SHAPES:
            Tally().add(str(inner.get("name")), "InputLayer", inner.get(key) or ())
    for layer in plain["config"]["layers"]:
        if layer["class_name"] in CONTAINERS:
            _limit(layer, path, allowance, layers)
        else:
            _limit_layer(layer, allowance, layers)


def _limit_layer(layer: dict[str, Any], allowance: Any, layers: Any) -> None:
    for key in INNER:
        if is_layer(layer["config"].get(key)):
            _limit_layer(layer["config"][key], allowance, layers)
    if layer["class_name"] in KINDS and not layer.get("operation"):
        layer["config"].update(allowance.settings(getattr(layers, layer["class_name"])))


def _plain(value: Any, *, call: bool = False) -> Any:
    """Json without imports, builders and training-only objects; tuples and float policies as plain values.

    Arrays are lists, but for those that a function is called with. What is an operation of Keras 3, says so.
    """
    if isinstance(value, list):
        return [_plain(item, call=call) for item in value]
    if not isinstance(value, dict):
        return value
    kind, inner = value.get("class_name"), value.get("config") or {}
    if kind == "__tuple__":
        return tuple(_plain(value["items"] if "items" in value else inner["value"]))
    if kind == "__numpy__" and not call:
        return inner["value"]
    if kind == "__ellipsis__" and "config" not in value:  # tf_keras, which calls with it as it is
        return ...
    if kind in ("Policy", "DTypePolicy"):
        return inner["name"]
    found = {
        key: _plain(item, call=call or key == "inbound_nodes")
        for key, item in value.items()
        if key not in DROPPED and not key.endswith(TRAINING_SUFFIXES)
    }
    return {**found, "operation": True} if _is_operation(value) else found


def _is_operation(value: dict[str, Any]) -> bool:
    """Whether an entry of a graph is a function of Keras 3: its module says so, or it has no settings that layers have (.h5)."""
    kind, config = value.get("class_name"), value.get("config")
    if "module" in value:
        return kind is not None and str(value["module"]).startswith(OPERATION_MODULES)
    return "inbound_nodes" in value and kind in OPERATIONS and isinstance(config, dict) and "trainable" not in config


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
