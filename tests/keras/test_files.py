"""Saved models are read from every format, and nothing in a file is run or believed."""

import importlib
import json
import re
import shutil
import threading
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from sound_qkeras.errors import FileFormatError, UnsupportedLayerError
from sound_qkeras.keras_io import float64, read_model
from sound_qkeras.keras_io.files.files import load_keras_model, read_config
from sound_qkeras.keras_io.read.tensor_sizes import limited

from . import models3
from .models import LAYERS, keras, randomise, sequential

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]

FORMATS = ("model.h5", "model.keras", "saved_model")


def rich():
    """Every supported layer that has something to save, with what only matters in training."""
    return sequential(
        LAYERS.Normalization(axis=-1),
        LAYERS.Rescaling([0.5, 2.0, 3.0], offset=0.1),
        LAYERS.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
        LAYERS.Dense(4, "relu", kernel_regularizer="l2", kernel_constraint="non_neg", activity_regularizer="l1"),
        LAYERS.BatchNormalization(),
        LAYERS.Dropout(0.3),
        LAYERS.ActivityRegularization(0.1),
        LAYERS.Reshape((2, 2)),
        LAYERS.Flatten(),
        LAYERS.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=0.1)),
        LAYERS.ReLU(),
        LAYERS.Dense(2, "softmax"),
        shape=(3,),
    )


def nested():
    source, core = keras.Input((3,)), keras.Input((3,))
    inner = keras.Model(core, LAYERS.Dense(3, "relu")(LAYERS.BatchNormalization()(core)))
    model = keras.Model(source, keras.Sequential([LAYERS.Dense(2)])(inner(source)))
    randomise(model)
    return model


def built_late():
    model = keras.Sequential([LAYERS.Dense(3, "relu"), LAYERS.Dense(2)])
    model.build((None, 4))
    return model


def own_loss(y, z):
    return keras.losses.mse(y, z)


def fitted():
    model = sequential(LAYERS.Dense(3, "relu"), LAYERS.Dense(1))
    model.compile("adam", loss=own_loss)
    model.fit(np.ones((4, 5)), np.ones((4, 1)), verbose=0)
    return model


def in_float64():
    with float64():
        return sequential(LAYERS.Dense(3, "relu"), LAYERS.Dense(1))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("build", [rich, nested, built_late, fitted, in_float64])
def test_a_file_is_read_as_the_model_it_was_saved_from(tmp_path, build, name, recwarn):
    model = build()
    path = tmp_path / name
    model.save(path)
    recwarn.clear()
    network = read_model(path)
    assert [warning for warning in recwarn if issubclass(warning.category, UserWarning)] == []
    assert network.weight_hash == read_model(model).weight_hash
    assert read_model(str(path)).notes == network.notes


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("build", [rich, nested])
def test_what_was_loaded_can_be_copied_and_trained_from_the_start(tmp_path, build, name):
    build().save(tmp_path / name)
    model = load_keras_model(tmp_path / name)
    copy = keras.models.clone_model(model)
    for layer in copy.submodules:
        if isinstance(layer, LAYERS.Dense):
            assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
            assert np.any(layer.get_weights()[0])
    copy.save(tmp_path / "copy.keras")


def broken(tmp_path, name):
    """A saved model with the middle of its bytes missing."""
    path = tmp_path / name
    rich().save(path)
    file = path / "keras_metadata.pb" if path.is_dir() else path
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 3])
    return path


def weights_only(tmp_path, name):
    path = tmp_path / name
    rich().save_weights(path)
    return path


def text(tmp_path, name):
    path = tmp_path / name
    path.write_text("not a model")
    return path


def empty(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    return path


def without_values(tmp_path, name):
    path = tmp_path / name
    rich().save(path)
    if path.is_dir():
        shutil.rmtree(path / "variables")
    else:
        with h5py.File(path, "r+") as file:
            del file["model_weights"]
    return path


def other_archive(tmp_path, name):
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return path


def other_directory(tmp_path, name):
    path = tmp_path / name
    path.mkdir()
    return path


def older_directory(tmp_path, name):
    path = tmp_path / name
    path.mkdir()
    (path / "saved_model.pb").touch()
    return path


def subclassed(tmp_path, name):
    path = tmp_path / name
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Own", "config": {"layers": []}})
    return path


def in_code_only(tmp_path, name):
    """As Keras writes a subclassed model."""
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "detector", "config": {"trainable": True}}))
        archive.writestr("model.weights.h5", weights_only(tmp_path, "of.weights.h5").read_bytes())
    return path


def for_browsers(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps({"format": "layers-model", "modelTopology": {}, "weightsManifest": []}))
    return path


BAD_FILES = [
    (lambda tmp_path, name: tmp_path / name, "missing.h5", "does not exist"),
    (empty, "model.h5", "is empty"),
    (text, "model.h5", "neither HDF5 nor"),
    (text, "model.keras", "neither HDF5 nor"),
    (broken, "model.h5", "corrupt|truncated"),
    (broken, "model.keras", "corrupt|truncated"),
    (broken, "saved_model", "corrupt|truncated"),
    (weights_only, "model.weights.h5", "perhaps only weights"),
    (without_values, "model.h5", "cannot rebuild"),
    (without_values, "saved_model", "more parameters than the file holds"),
    (other_archive, "model.keras", "no model configuration"),
    (other_directory, "saved_model", "no keras_metadata.pb"),
    (older_directory, "saved_model", r"before 2\.5.*load_model\(\)"),
    (subclassed, "model.h5", "class Own"),
    (in_code_only, "model.keras", "of class detector: its layers are in code only.*Functional model"),
    (for_browsers, "model.json", "TensorFlow.js.*tensorflowjs_converter"),
]


@pytest.mark.parametrize(("make", "name", "match"), BAD_FILES, ids=[f"{row[0].__name__}-{row[1]}" for row in BAD_FILES])
def test_bad_files_are_refused(tmp_path, make, name, match):
    with pytest.raises(FileFormatError, match=match) as caught:
        read_model(make(tmp_path, name))
    assert "accepted" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_code_in_a_file_is_not_run(tmp_path, name):
    witness = tmp_path / "witness"
    model = sequential(LAYERS.Lambda(lambda x, path=str(witness): (Path(path).touch(), x)[1]), LAYERS.Dense(1))
    model.save(tmp_path / name)
    witness.unlink()
    with pytest.raises(UnsupportedLayerError, match=r"kind Lambda.*never run"):
        read_model(tmp_path / name)
    assert not witness.exists()


def edited(tmp_path, change):
    """A model file whose configuration was changed."""
    path = tmp_path / "model.h5"
    sequential(LAYERS.Dense(2, "relu", name="dense")).save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(str(file.attrs["model_config"]))
        change(config["config"]["layers"][1])
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_classes_are_not_imported_from_where_a_file_says(tmp_path):
    path = edited(tmp_path, lambda layer: layer.update(module="os", registered_name="os>system", class_name="system"))
    with pytest.raises(UnsupportedLayerError, match="kind system"):
        read_model(path)
    path = edited(tmp_path, lambda layer: layer.update(module="os", registered_name="os>Dense"))
    assert len(read_model(path).nodes) == 3


def of_2_13(place):
    """Where Keras 2.13 kept an array: layers with weights were counted twice."""

    def numbered(found):
        return f"_layer_checkpoint_dependencies/{found[1]}" + (f"_{2 * int(found[2])}" if found[2] else "")

    return re.sub(r"layers/([a-z_]*[a-z])(?:_(\d+))?(?=/)", numbered, place)


def of_windows(place):
    """Where Keras 2.15 kept an array on Windows."""
    group, vars_, number = place.partition("/vars/")
    return group.replace("/", "\\") + vars_ + number


@pytest.mark.parametrize("place_of", [of_2_13, of_windows, lambda place: of_windows(of_2_13(place))])
def test_weights_under_older_names_are_read(tmp_path, place_of):
    many = [LAYERS.Dense(5) for _ in range(11)]
    inner = keras.Sequential([LAYERS.Dense(5, "relu"), LAYERS.Dense(5)])
    model = sequential(*many, inner, LAYERS.BatchNormalization(), LAYERS.Dense(1))
    model.save_weights(tmp_path / "new.weights.h5")
    with h5py.File(tmp_path / "new.weights.h5", "r") as new, h5py.File(tmp_path / "old.weights.h5", "w") as old:
        places = []
        new.visit(places.append)
        for place in places:
            if isinstance(new[place], h5py.Dataset):
                old[place_of(place)] = new[place][()]
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as saved, zipfile.ZipFile(tmp_path / "old.keras", "w") as archive:
        archive.writestr("config.json", saved.read("config.json"))
        archive.write(tmp_path / "old.weights.h5", "model.weights.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    for saved in (tmp_path / "old.keras", (tmp_path / "model.json", tmp_path / "old.weights.h5")):
        assert read_model(saved).weight_hash == read_model(model).weight_hash


def test_whose_model_it_is_is_seen_in_the_configuration(tmp_path):
    """Files of Keras 3 that say they are of Keras 2: tools write such."""
    layers = models3.LAYERS
    model = models3.keras.Sequential([layers.Input((3,)), layers.Dense(4, "relu"), layers.Dense(2)])
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        file.attrs["keras_version"] = "2.13.0"
    assert read_model(tmp_path / "model.h5").weight_hash == read_model(model).weight_hash


def in_two_files(tmp_path, model, weights):
    """The paths of a model's configuration as json, and of its weights."""
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / weights)
    return tmp_path / "model.json", tmp_path / weights


@pytest.mark.parametrize("kind", ["tf_keras", "keras"])
@pytest.mark.parametrize("weights", ["model.weights.h5", "model.h5"])
def test_json_and_weights_are_the_model(tmp_path, kind, weights):
    keras_of = importlib.import_module(kind)
    layers = keras_of.layers
    model = keras_of.Sequential(
        [layers.Input((3,)), layers.Dense(4, "relu"), layers.BatchNormalization(), layers.Dense(2)]
    )
    if kind == "keras" and weights == "model.h5":
        with pytest.raises(ValueError, match=r"must end in"):
            model.save_weights(tmp_path / weights)
        return
    pair = in_two_files(tmp_path, model, weights)
    assert read_model(tuple(map(str, pair))).weight_hash == read_model(model).weight_hash
    pair[1].rename(tmp_path / "other")  # told apart by content
    assert read_model((pair[0], tmp_path / "other")).weight_hash == read_model(model).weight_hash


def test_json_and_weights_that_do_not_go_together_are_refused(tmp_path):
    description, weights = in_two_files(tmp_path, sequential(LAYERS.Dense(2)), "model.weights.h5")
    with pytest.raises(FileFormatError, match=r"without weights.*--weights"):
        read_model(description)
    with pytest.raises(FileFormatError, match=r"weights.h5' is no json file"):
        read_model((weights, weights))
    with pytest.raises(FileFormatError, match="is no HDF5 file of weights"):
        read_model((description, tmp_path / "none.h5"))
    wider = in_two_files(tmp_path, sequential(LAYERS.Dense(99)), "wide.weights.h5")
    description.write_text(description.read_text().replace('"units": 99', '"units": 9999999'))
    with pytest.raises(FileFormatError, match=r"wide.weights.h5' describes a model with more parameters"):
        read_model(wider)
    description.write_text(sequential(LAYERS.Lambda(abs), LAYERS.Dense(2)).to_json())
    with pytest.raises(UnsupportedLayerError, match="kind Lambda"):
        read_model((description, weights))


@pytest.mark.parametrize("kind", ["tf_keras", "keras"])
def test_weights_of_a_larger_model_are_refused(tmp_path, kind):
    keras_of = importlib.import_module(kind)
    layers = keras_of.layers

    def model(count):
        inner = keras_of.Sequential([layers.Input((3,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(3)])
        made = keras_of.Sequential([layers.Input((3,)), inner, *(layers.Dense(3) for _ in range(count))])
        made.compile("adam", "mse", metrics=["mae"])
        made.fit(np.ones((4, 3)), np.ones((4, 3)), verbose=0)
        return made

    description, weights = in_two_files(tmp_path, model(1), "model.weights.h5")
    read_model((description, weights))  # with what the optimizer and the metrics keep
    model(2).save_weights(weights)
    with pytest.raises(
        FileFormatError, match=r"weights.h5' holds the weights of another model, 8 variables of 48 numbers"
    ):
        read_model((description, weights))


@pytest.mark.parametrize("name", ["metadata.json", "config.json", "model.json"])
def test_json_that_is_deep_is_refused_before_it_is_parsed(tmp_path, monkeypatch, name):
    path, deep = tmp_path / "model.keras", '{"a":' + "[" * 500 + "]" * 500 + "}"
    sequential(LAYERS.Dense(2)).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()} | {name: deep.encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in parts.items():
            archive.writestr(one, content)
    if name == "model.json":
        path = tmp_path / name
        path.write_text(deep)
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: loads(text) if deep not in str(text) else None)
    with pytest.raises(FileFormatError, match="models inside one another, too deep"):
        read_config(path)


def test_a_limit_is_on_the_own_thread_and_leaves_nothing_behind():
    call, inside, done = LAYERS.Layer.__call__, threading.Event(), threading.Event()

    def other():
        LAYERS.RepeatVector(10**9)(keras.Input((1,)))
        with limited(keras):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    with limited(keras):
        thread.start()
        inside.wait(0.5)
    done.set()
    thread.join()
    assert inside.is_set()
    assert LAYERS.Layer.__call__ is call


@pytest.mark.parametrize("alias", ["BatchNormalizationV1", "BatchNormalizationV2"])
def test_names_that_tensorflow_has_written_are_read(tmp_path, alias):
    model = sequential(LAYERS.Dense(3), LAYERS.BatchNormalization())
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = str(file.attrs["model_config"])
        file.attrs["model_config"] = config.replace('"class_name": "BatchNormalization"', f'"class_name": "{alias}"')
    assert alias in h5py.File(tmp_path / "model.h5").attrs["model_config"]
    assert read_model(tmp_path / "model.h5").weight_hash == read_model(model).weight_hash


def test_an_activation_object_is_refused(tmp_path):
    own = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    path = edited(tmp_path, lambda layer: layer["config"].update(activation=own))
    with pytest.raises(UnsupportedLayerError, match=r"'dense'.*activation given as an object"):
        read_model(path)


def test_a_configuration_that_does_not_fit_is_refused(tmp_path):
    for change in ({"units": 3}, {"units": "many"}, {"activation": "no such"}, {"surplus": 1}):
        path = edited(tmp_path, lambda layer, change=change: layer["config"].update(change))
        with pytest.raises(FileFormatError, match="cannot rebuild"):
            read_model(path)
