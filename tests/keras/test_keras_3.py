"""Keras 3 models and files, beside Keras 2 in one process: the same function, or a clear refusal; and no code of a file is run."""

import inspect
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import FileFormatError, ModelError, UnsupportedLayerError
from sound_qkeras.keras_io import read_model, to_keras
from sound_qkeras.keras_io.files.files import load_keras_model

from . import models
from .models3 import LAYERS, MODELS, difference, keras, randomised, sequential

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:.*legacy:UserWarning")]


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_network_is_the_model_and_its_file(build, tmp_path):
    model = build()
    network = read_model(model)
    assert difference(model, network) < 1e-6
    for name in ("model.keras", "model.h5", "model"):
        path = tmp_path / name
        if name == "model":
            (tmp_path / "model.keras").rename(path)  # told apart by content
        else:
            model.save(path)
        found = read_model(path)
        assert found.weight_hash == network.weight_hash
        assert found.notes == network.notes


def test_both_kinds_of_keras_read_alike():
    """The same layers with the same weights are one network, whichever Keras they are of."""
    networks = []
    for kind in (keras, models.keras):
        layers = kind.layers
        last = [layers.Dense(4, "gelu"), layers.LeakyReLU(0.1), layers.Dense(2, "softmax")]
        model = kind.Sequential(
            [layers.Input((6, 2)), layers.Conv1D(3, 2), layers.BatchNormalization(), layers.Flatten(), *last]
        )
        rng = np.random.default_rng(0)
        model.set_weights([np.abs(rng.normal(size=value.shape)) + 0.1 for value in model.get_weights()])
        networks.append(read_model(model))
    x = np.random.default_rng(1).normal(size=(9, 6, 2))
    assert np.array_equal(networks[0].evaluate(x), networks[1].evaluate(x))
    assert [node.op.kind for node in networks[0].nodes] == [node.op.kind for node in networks[1].nodes]


def test_what_was_loaded_has_the_initializers_that_keras_gives(tmp_path):
    dense, rows = LAYERS.Dense(5, activation=LAYERS.PReLU()), LAYERS.TimeDistributed(LAYERS.Dense(3))
    inner = keras.Sequential([LAYERS.BatchNormalization(), LAYERS.Dense(2)])
    model = sequential(dense, LAYERS.Reshape((5, 1)), rows, inner)
    model.predict(np.zeros((1, 5)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = load_keras_model(tmp_path / "model.keras")
    assert keras.models.clone_model(loaded).get_config() == loaded.get_config()
    assert isinstance(loaded.layers[-1].layers[1].kernel_initializer, keras.initializers.GlorotUniform)
    assert isinstance(loaded.layers[-1].layers[0].gamma_initializer, keras.initializers.Ones)


@pytest.mark.solver
def test_it_is_quantised_emitted_and_certified(tmp_path):
    model = sequential(LAYERS.Dense(4, "hard_sigmoid"), LAYERS.Dense(3, "hard_silu"), LAYERS.Dense(2), shape=(3,))
    model.save(tmp_path / "model.keras")
    result = sq.quantize(tmp_path / "model.keras", 0.1, (-1.0, 1.0), effort="fast")
    x = np.random.default_rng(0).uniform(-1.0, 1.0, size=(40, 3))
    assert np.array_equal(result.to_qkeras().predict(x, verbose=0), result.simulate(x))
    with sq.float64():
        assert np.array_equal(result.to_qkeras(dtype="float64").predict(x, verbose=0), result.simulate(x))
    np.testing.assert_allclose(result.simulate(x), model.predict(x, verbose=0), atol=0.1)
    np.testing.assert_allclose(
        to_keras(read_model(model)).predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5
    )


@pytest.mark.solver
def test_a_qkeras_model_is_certified_against_its_keras_3_twin():
    model = sequential(LAYERS.Dense(4, "relu"), LAYERS.Dense(2), shape=(3,))
    result = sq.quantize(model, 0.1, (-1.0, 1.0), effort="fast", keep_architecture=True, rescale_units=False)
    found = sq.certify(result.to_qkeras(), model, box=(-1.0, 1.0))
    assert found.observed_error <= found.certificate.bound <= 0.11


def quantised_by_keras():
    model = sequential(LAYERS.Dense(4), shape=(3,))
    model.quantize("int8")
    return model


def with_variable():
    source = keras.Input((3,))
    return keras.Model(source, LAYERS.Dense(2)(source * keras.Variable([1.0, 2.0, 3.0])))


def at_least():
    source = keras.Input((3, 2))
    return keras.Model(source, LAYERS.Dense(2)(keras.ops.max(source, axis=1, initial=0.5)))


def softmax_over_all():
    source = keras.Input((3,))
    return keras.Model(source, keras.ops.softmax(LAYERS.Dense(2)(source), axis=None))


def of_the_batch():
    source = keras.Input((3,))
    return keras.Model(source, LAYERS.Dense(2)(source[1:, :]))


def with_operation():
    source = keras.Input((3,))
    return keras.Model(source, keras.ops.sin(LAYERS.Dense(2)(source)))


def of_two_ranks():
    one, two = keras.Input((3,)), keras.Input((2, 3))
    return keras.Model([one, two], LAYERS.Dense(1)(one + two))


def training():
    source = keras.Input((3,))
    return keras.Model(source, LAYERS.Dense(2)(LAYERS.Dropout(0.5)(source, training=True)))


class Own(keras.Model):
    def call(self, x):
        return x


class Overridden(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x)


class OwnDense(LAYERS.Dense):
    pass


REFUSED = {
    "quantised": (quantised_by_keras, UnsupportedLayerError, "Keras quantised .'int8'."),
    "variable": (with_variable, UnsupportedLayerError, "Multiply with Variable; accepted: tensors and numbers"),
    "initial": (at_least, UnsupportedLayerError, "Max with initial"),
    "all axes": (softmax_over_all, UnsupportedLayerError, "Softmax over axis None.*use axis=-1"),
    "batch": (of_the_batch, UnsupportedLayerError, "GetItem with .*the batch axis"),
    "operation": (with_operation, UnsupportedLayerError, "an operation of kind Sin.*with a layer"),
    "ranks": (of_two_ranks, UnsupportedLayerError, r"Add of tensors \[\(3,\), \(2, 3\)\]"),
    "training": (training, UnsupportedLayerError, "training=True"),
    "renorm": (lambda: sequential(LAYERS.BatchNormalization(renorm=True)), UnsupportedLayerError, "renorm"),
    "activation": (lambda: sequential(LAYERS.Dense(2, "mish")), UnsupportedLayerError, r"activation 'keras.*mish'"),
    "own function": (lambda: sequential(LAYERS.Dense(2, lambda x: x)), UnsupportedLayerError, "lambda"),
    "ops' gelu": (lambda: sequential(LAYERS.Dense(2, keras.ops.gelu)), UnsupportedLayerError, "gelu"),
    "own layer": (lambda: sequential(OwnDense(2)), UnsupportedLayerError, "kind OwnDense"),
    "kind": (lambda: sequential(LAYERS.GroupNormalization(1)), UnsupportedLayerError, "kind GroupNormalization"),
    "not built": (lambda: keras.Sequential([LAYERS.Dense(1)]), ModelError, "never built"),
    "subclassed": (Own, ModelError, "never built|subclassed"),
    "overridden": (lambda: Overridden([LAYERS.Input((2,)), LAYERS.Dense(1)]), ModelError, "subclassed"),
    "unknown size": (lambda: sequential(LAYERS.Flatten(), shape=(None, 2)), ModelError, r"shape \(None, 2\)"),
}


if "renorm" not in inspect.signature(LAYERS.BatchNormalization).parameters:
    del REFUSED["renorm"]  # older ones have it not


@pytest.mark.parametrize(("build", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_refusals(build, error, match):
    with pytest.raises(error, match=match):
        read_model(build())


def test_certify_says_what_it_takes():
    model = sequential(LAYERS.Dense(2), shape=(3,))
    with pytest.raises(ModelError, match="is a Keras 3 one; accepted: a QKeras or tf_keras model"):
        sq.certify(model, box=(-1.0, 1.0))


def saved(path, change=lambda config: None, **members):
    """A Keras 3 file whose configuration was changed, or some of its members."""
    original = path.with_name("original.keras")
    randomised(keras.Sequential([LAYERS.Input((5,)), LAYERS.Dense(2, "relu", name="dense")])).save(original)
    with zipfile.ZipFile(original) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    change(config["config"])
    content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w", members.pop("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in (content | members).items():
            archive.writestr(name, data)
    return path


def layer(config):
    return config["layers"][1]


OS_SYSTEM = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
CODE = {"class_name": "__lambda__", "config": {"value": ["4wAAAA==", None, None]}}
LARGE = r"layer '.*its result has the shape .* values; accepted: \d+ in one tensor"


def put(config, *kinds, **last):
    """Layers before the Dense one: their kinds, each with its settings behind it."""
    settings = [one for one in (*kinds, last) if isinstance(one, dict)]
    for number, (kind, given) in enumerate(zip([one for one in kinds if isinstance(one, str)], settings, strict=False)):
        found = {"name": f"put_{number}", **given}
        config["layers"].insert(1 + number, {"module": "keras.layers", "class_name": kind, "config": found})


def nest(config, times):
    for number in range(times):
        inner = {"name": f"model_{number}", "layers": config["layers"][1:]}
        config["layers"][1:] = [{"module": "keras", "class_name": "Sequential", "config": inner}]


def double(config, times):
    """Models of which each calls the one inside it twice."""
    for number in range(times):
        nest(config, 1)
        config["layers"][1]["config"]["name"] = f"twice_{number}"
        config["layers"][1]["inbound_nodes"] = [{"args": []}] * 2


TOUCHED: dict = {
    "class": (lambda c: layer(c).update(module="os", class_name="system"), UnsupportedLayerError, "kind system"),
    "activation": (
        lambda c: layer(c)["config"].update(activation=OS_SYSTEM),
        UnsupportedLayerError,
        "given as an object",
    ),
    "lambda": (lambda c: layer(c)["config"].update(activation=CODE), UnsupportedLayerError, "given as an object"),
    "call": (
        lambda c: layer(c).update(inbound_nodes=[{"args": [CODE]}]),
        UnsupportedLayerError,
        "a call with __lambda__",
    ),
    "units": (lambda c: layer(c)["config"].update(units=10**7), FileFormatError, "more parameters than"),
    "too many units": (lambda c: layer(c)["config"].update(units=10**12), ModelError, LARGE),
    "repeated": (lambda c: put(c, "RepeatVector", n=10**8), ModelError, LARGE),
    "upsampled": (lambda c: put(c, "Reshape", {"target_shape": [5, 1]}, "UpSampling1D", size=10**8), ModelError, LARGE),
    "padded": (
        lambda c: put(c, "Reshape", {"target_shape": [5, 1]}, "ZeroPadding1D", padding=10**9),
        ModelError,
        LARGE,
    ),
    "larger and larger": (lambda c: put(c, *["RepeatVector", {"n": 999}, "Flatten", {}] * 3), ModelError, LARGE),
    "models inside one another": (lambda c: nest(c, 99), FileFormatError, "at most 32"),
    "models deep inside one another": (lambda c: nest(c, 200), FileFormatError, "at most 32"),
    "models that are called twice": (lambda c: double(c, 16), FileFormatError, "calls layers"),
    "many layers": (lambda c: put(c, *["Dropout", {"rate": 0.5}] * 5000), FileFormatError, "calls layers 500"),
    "input": (
        lambda c: c["layers"][0]["config"].update(batch_shape=[None, 10**12]),
        ModelError,
        LARGE,
    ),
    "initializer": (
        lambda c: layer(c)["config"].update(units=10**7, kernel_initializer=None),
        FileFormatError,
        "more parameters than",
    ),
    "other units": (lambda c: layer(c)["config"].update(units=3), FileFormatError, "cannot rebuild"),
    "surplus": (lambda c: layer(c)["config"].update(surplus=3), FileFormatError, "cannot rebuild"),
}


@pytest.mark.parametrize(("change", "error", "match"), TOUCHED.values(), ids=TOUCHED)
def test_changed_configurations_are_refused(tmp_path, change, error, match):
    with pytest.raises(error, match=match):
        read_model(saved(tmp_path / "model.keras", change))


@pytest.mark.parametrize("kind", [keras, models.keras], ids=["keras", "tf_keras"])
def test_no_result_is_made_that_is_too_large(kind):
    """A normalisation has parameters for every value of what it reads."""
    layers = kind.layers
    made = [layers.Dense(8), layers.RepeatVector(10**8), layers.BatchNormalization(), layers.GlobalMaxPooling1D()]
    with pytest.raises(ModelError, match=LARGE):
        read_model(kind.Sequential([layers.Input((3,)), *made, layers.Dense(2)]))


def test_where_a_class_is_from_is_not_believed(tmp_path):
    def change(config):
        layer(config).update(module="antigravity", registered_name="antigravity>Dense")

    assert len(read_model(saved(tmp_path / "model.keras", change)).nodes) == 3


@pytest.mark.parametrize("origin", [{"module": "qkeras.qlayers"}, {"class_name": "qkeras>QDense"}], ids=["keras", "h5"])
def test_a_file_of_qkeras_3_is_named(tmp_path, origin):
    path = saved(tmp_path / "model.keras", lambda c: layer(c).update({"class_name": "QDense"} | origin))
    for read in (read_model, lambda path: sq.certify(path, box=(-1.0, 1.0))):
        with pytest.raises(FileFormatError, match=r"is a qkeras-v3 model.*accepted: models of QKeras 0.9.0"):
            read(path)


def test_code_in_a_file_is_not_run(tmp_path):
    witness = tmp_path / "witness"
    model = keras.Sequential(
        [LAYERS.Input((2,)), LAYERS.Lambda(lambda x, path=str(witness): (Path(path).touch(), x)[1])]
    )
    model.add(LAYERS.Dense(1))
    model.save(tmp_path / "model.keras")
    witness.unlink()
    with pytest.raises(UnsupportedLayerError, match=r"kind Lambda.*never run"):
        read_model(tmp_path / "model.keras")
    assert not witness.exists()


def weights(tmp_path, write):
    """An HDF5 file as bytes."""
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        write(file)
    return path.read_bytes()


def huge(file):
    file.create_dataset("layers/dense/vars/0", shape=(10**6, 10**6), dtype="f4", chunks=(1000, 1000))


def elsewhere(file):
    file.create_dataset("layers/dense/vars/0", shape=(5, 2), dtype="f4", external=[("/etc/hostname", 0, 40)])


def linked(file):
    file["layers"] = h5py.ExternalLink("/tmp/other.h5", "/layers")


def circular(file):
    group = file.create_group("layers/dense")
    group["again"] = file["layers"]


def objects(file):
    file.create_dataset("layers/dense/vars/0", shape=(5,), dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (huge, "more than 10 times its size"),
        (elsewhere, "in another file"),
        (linked, "refers to another place"),
        (circular, "inside itself"),
        (objects, "no array of numbers"),
    ],
)
def test_arrays_that_are_not_what_they_seem_are_refused(tmp_path, write, match):
    with pytest.raises(FileFormatError, match=match):
        read_model(saved(tmp_path / "model.keras", **{"model.weights.h5": weights(tmp_path, write)}))


def test_archives_that_grow_are_refused(tmp_path):
    path = saved(tmp_path / "model.keras", compression=zipfile.ZIP_DEFLATED, **{"assets/big": b"0" * 10**7})
    with pytest.raises(FileFormatError, match="unpacks to"):
        read_model(path)
    path = saved(tmp_path / "model.keras", **{"model.weights.h5": b"not a file"})
    with pytest.raises(FileFormatError, match="cannot rebuild"):
        read_model(path)


def test_keras_2_files_are_held_to_the_same_sizes(tmp_path):
    path = tmp_path / "model.h5"
    models.sequential(models.LAYERS.Dense(2, name="dense")).save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(str(file.attrs["model_config"]))
        config["config"]["layers"][1]["config"]["units"] = 10**7
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(FileFormatError, match="more parameters than the file holds"):
        read_model(path)
