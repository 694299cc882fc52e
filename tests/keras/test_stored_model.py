"""A saved model is compared with the certificate's integers, and nothing that was altered passes."""

import io
import json
import zipfile

import h5py
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import FileFormatError, SoundQKerasError, VerificationError
from sound_qkeras.keras_io import save_model, to_qkeras
from sound_qkeras.keras_io.files.stored_model import check_stored_model
from sound_qkeras.results.archive import MODEL_FILE, verify
from sound_qkeras.support.files import RESULT
from sound_qkeras.support.manifest import write_manifest

from .test_counting import of_channels, small

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    import tf_keras as keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = layers.Input((6, 6, 1))
    y = layers.Conv2D(2, 3, activation="relu", name="conv", bias_initializer="random_normal")(x)
    y = layers.AveragePooling2D(2, padding="same", strides=1)(y)
    y = layers.Dense(3, activation="tanh")(layers.Flatten()(y))
    y = layers.LeakyReLU(0.25, name="leaky")(layers.Dense(3)(y))
    y = layers.ReLU(name="last")(layers.Dense(2, name="end")(y))
    result = sq.quantize(keras.Model(x, y), 0.1, (0, 1), effort="fast")
    return result.pair, result.save(tmp_path_factory.mktemp("saved") / "out")


def test_the_model_that_was_saved_passes(saved):
    check_stored_model(saved[1] / MODEL_FILE, saved[0])
    verify(saved[1])


def rewritten(path, change_config=None, change_weights=None):
    """The bytes of a model with other settings or other numbers."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if change_config is not None:
        config = json.loads(parts["config.json"])
        change_config({layer["name"]: layer["config"] for layer in config["config"]["layers"]})
        parts["config.json"] = json.dumps(config).encode()
    if change_weights is not None:
        held = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(held, "r+") as file:
            change_weights(file["layers"])
        parts["model.weights.h5"] = held.getvalue()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return made.getvalue()


def add(array, amount):
    """Change one number."""
    values = array[...]
    values.flat[0] += amount
    array[...] = values


def quantizer(layers, name, **changes):
    layers[name]["kernel_quantizer"]["config"].update(changes)


ALTERED = {
    "one weight": {"change_weights": lambda layers: add(layers["q_dense/vars/0"], 2.0**-12)},
    "one bias": {"change_weights": lambda layers: add(layers["q_conv2d/vars/1"], 1.0)},
    "one average": {"change_weights": lambda layers: add(layers["q_depthwise_conv2d/vars/0"], 0.25)},
    "one entry of a table": {"change_weights": lambda layers: add(layers["table_activation/vars/0"], 1)},
    "bits of a kernel": {"change_config": lambda layers: quantizer(layers, "end", bits=2)},
    "a scale": {"change_config": lambda layers: quantizer(layers, "end", alpha="auto")},
    "symmetry": {"change_config": lambda layers: quantizer(layers, "end", symmetric=1)},
    "noise": {"change_config": lambda layers: quantizer(layers, "end", qnoise_factor=0.0)},
    "an activation": {"change_config": lambda layers: layers["end"].update(activation="tanh")},
    "a slope": {"change_config": lambda layers: layers["leaky"].update(alpha=0.5)},
    "a slope of a rectifier": {"change_config": lambda layers: layers["last"].update(negative_slope=0.5)},
    "a threshold": {"change_config": lambda layers: layers["last"].update(threshold=0.1)},
    "an end of a rectifier": {"change_config": lambda layers: layers["last"].update(max_value=0.01)},
    "no bias": {"change_config": lambda layers: layers["conv"].update(use_bias=False)},
    "half precision": {"change_config": lambda layers: [layer.update(dtype="float16") for layer in layers.values()]},
    "bits of an activation": {
        "change_config": lambda layers: layers["conv_relu"].update(activation="quantized_relu(3,1)")
    },
}


@pytest.mark.parametrize("fault", ALTERED)
def test_a_model_with_other_numbers_is_refused(saved, fault):
    quantized, folder = saved
    path, whole = folder / MODEL_FILE, (folder / MODEL_FILE).read_bytes()
    try:
        path.write_bytes(rewritten(path, **ALTERED[fault]))
        with pytest.raises(FileFormatError, match="not as it was saved"):
            verify(folder)
        with pytest.raises(VerificationError):
            check_stored_model(path, quantized)
        write_manifest(folder, RESULT)
        with pytest.raises(VerificationError):
            verify(folder)
    finally:
        path.write_bytes(whole)
        write_manifest(folder, RESULT)


def rescaled(layers, factor, offset=0.0):
    """Change what the first multiplication does."""
    first = next(layer for name, layer in layers.items() if name.endswith("_up"))
    first["scale"] *= factor
    first["offset"] = offset


SCALES = {
    "a scale of a kernel": lambda layers: quantizer(layers, "dense_0", alpha=0.75),
    "scales of channels": lambda layers: quantizer(layers, "dense_0", alpha=[1.0, 2.0, 0.5, 4.0, 0.25, 1.0]),
    "a scale too many": lambda layers: quantizer(layers, "dense_0", alpha=[0.5] * 7),
    "a scale that is no number": lambda layers: quantizer(layers, "dense_0", alpha=["a"]),
    "a multiplication": lambda layers: rescaled(layers, 2.0),
    "an addition": lambda layers: rescaled(layers, 1.0, 0.5),
}


@pytest.fixture(scope="module")
def scaled_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("scaled") / "model.keras"
    save_model(to_qkeras(small()), path)
    return path


@pytest.mark.parametrize("fault", SCALES)
def test_other_scales_are_refused(scaled_path, fault, tmp_path):
    altered = tmp_path / "altered.keras"
    altered.write_bytes(rewritten(scaled_path, SCALES[fault]))
    with pytest.raises(VerificationError):
        check_stored_model(altered, small())


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("make", [small, of_channels])
def test_scales_and_the_wider_formats_of_older_results_pass(make, scaled, tmp_path):
    save_model(to_qkeras(make(), scaled=scaled), tmp_path / "model.keras")
    check_stored_model(tmp_path / "model.keras", make())


@pytest.mark.parametrize("kind", ["missing", "empty", "cut short", "text", "a zip of something else", "damaged"])
def test_what_is_no_model_is_refused(saved, kind):
    _, folder = saved
    path, whole = folder / MODEL_FILE, (folder / MODEL_FILE).read_bytes()
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("config.json", "{}")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", whole)
    damaged = bytearray(packed.getvalue())
    damaged[100:200] = bytes(100)
    contents = {
        "damaged": bytes(damaged),
        "empty": b"",
        "cut short": whole[:-100],
        "text": b"model",
        "a zip of something else": other.getvalue(),
    }
    try:
        path.unlink()
        if kind != "missing":
            path.write_bytes(contents[kind])
        write_manifest(folder, RESULT)
        with pytest.raises(SoundQKerasError):
            verify(folder)
    finally:
        path.write_bytes(whole)
        write_manifest(folder, RESULT)


def test_what_unpacks_to_more_than_the_file_is_refused_unread(saved, tmp_path):
    quantized, folder = saved
    with zipfile.ZipFile(folder / MODEL_FILE) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    huge = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(huge, "r+") as file:
        del file["layers/q_dense/vars/0"]
        file["layers/q_dense/vars"].create_dataset("0", shape=(2**45,), chunks=(2**10,), dtype="f4")
    blanks = {**parts, "config.json": b" " * (1 << 24) + parts["config.json"]}
    for name, changed, kind in (
        ("huge.keras", {**parts, "model.weights.h5": huge.getvalue()}, zipfile.ZIP_STORED),
        ("blanks.keras", blanks, zipfile.ZIP_DEFLATED),
    ):
        with zipfile.ZipFile(tmp_path / name, "w", kind) as archive:
            for part, content in changed.items():
                archive.writestr(part, content)
        with pytest.raises(FileFormatError, match=r"larger than the file|compressed"):
            check_stored_model(tmp_path / name, quantized)
