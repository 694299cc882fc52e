"""A user's session with Keras 3, run in a process of its own on the backend in KERAS_BACKEND. Prints what was found as json."""

import importlib
import io
import json
import logging
import os
import sys

import models3  # before sound_qkeras: it imports Keras 3, and TensorFlow with it where that is the backend
import numpy as np
from models3 import LAYERS, keras

# isort: split
import sound_qkeras as sq
from sound_qkeras.callbacks import SoundQuant
from sound_qkeras.keras_io import read_model

BACKEND = keras.backend.backend()
SHOWN = importlib.import_module("tensorflow.keras.layers").Dense if BACKEND == "tensorflow" else None
X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = X.sum(axis=1, keepdims=True)
FOUND: dict = {}


def loaded():
    """Which frameworks are imported besides the backend."""
    return sorted({"tensorflow", "tf_keras", "qkeras"} & set(sys.modules) - {BACKEND})


def small(**options):
    model = keras.Sequential(
        [LAYERS.Input((3,)), LAYERS.Dense(4, "relu"), LAYERS.BatchNormalization(), LAYERS.Dense(1)]
    )
    model.compile("sgd", "mse", **options)
    return model


def differences():
    """Of every model from its network."""
    builders = {"nested": models3.nested} if BACKEND == "tensorflow" else models3.MODELS
    built = {name: build() for name, build in builders.items()}
    return {name: models3.difference(model, read_model(model)) for name, model in built.items()}


def fits(**options):
    """A fit with runs in between: what was logged, and whether result, box and model belong together."""
    model, sound = small(**options), SoundQuant(1e-1, every=2, effort="fast")
    history = model.fit(X, Y, epochs=4, batch_size=16, callbacks=[sound], validation_data=(2.0 * X, Y), verbose=0)
    box, trained = sound.result.certificate.box, sound.result.pair.reference
    return {
        "logged": history.history["sound_bound"],
        "keys": sorted(name for name in history.history if name.startswith("sound")),
        "bound": sound.result.certificate.bound,
        "source": sound.result.certificate.box_source,
        "box": bool(np.array_equal(box.lower, X.min(axis=0)) and np.array_equal(box.upper, X.max(axis=0))),
        "weights": trained.weight_hash == read_model(model).weight_hash,
        "released": type(model.train_function).__name__ != "_ObservedFunction",
    }


def anneals(**options):
    """A fit with formats in force from its first epoch, on wrong targets: the teacher alone is right."""
    model = keras.Sequential([LAYERS.Input((3,)), LAYERS.Dense(8, "relu"), LAYERS.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-2), "mse", **options)
    model.fit(X, Y, epochs=20, verbose=0)
    before = model.predict(X, verbose=0)
    sound = SoundQuant(2.0, mode="anneal", teacher=True, anneal_after=0.0, effort="fast", box=(-4, 4))
    logs = io.StringIO()
    logging.getLogger("sound_qkeras").addHandler(logging.StreamHandler(logs))
    model.fit(X, -Y, epochs=10, callbacks=[sound], verbose=0)
    codes = sound.result.pair.parameters
    kernels = {layer.name: keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers}
    return {
        "log": logs.getvalue(),
        "choices": sound.choices,
        "grid": all(np.array_equal(kernels[name], codes[name].kernel_value) for name in codes),
        "proved": sound.result.pair.reference.weight_hash == read_model(model).weight_hash,
        "moved": float(np.mean((model.predict(X, verbose=0) - before) ** 2) / np.mean(before**2)),
    }


def several_inputs():
    """A batch by names: the features' order is the network's."""
    a, b = keras.Input((2,), name="second"), keras.Input((1,), name="first")
    model = keras.Model({"second": a, "first": b}, LAYERS.Dense(1)(LAYERS.Concatenate()([a, b])))
    model.compile("sgd", "mse")
    sound = SoundQuant(1e-1, effort="fast")
    model.fit({"second": X[:, :2], "first": X[:, 2:]}, Y, callbacks=[sound], verbose=0)
    order = {"first": [2], "second": [0, 1]}
    names = [port.name for port in sound.result.pair.network.inputs]
    expected = X[:, [column for name in names for column in order[name]]].min(axis=0)
    return bool(np.array_equal(sound.result.certificate.box.lower, expected)), names


def restored():
    """EarlyStopping restores weights at the very end; those are quantised."""
    model, sound = small(), SoundQuant(1e-1, effort="fast")
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=100.0, restore_best_weights=True)
    model.fit(X, Y, epochs=5, callbacks=[sound, stop], verbose=0)
    return sound.result.pair.reference.weight_hash == read_model(model).weight_hash


def interrupted():
    """The next fit, which this callback is no part of, is trained as ever."""
    model, sound = small(), SoundQuant(1e-1, effort="fast")

    def interrupt(batch, logs):
        raise KeyboardInterrupt

    try:
        model.fit(X, Y, callbacks=[sound, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)], verbose=0)
    except KeyboardInterrupt:
        model.fit(X, Y, verbose=0)
    return type(model.train_function).__name__ != "_ObservedFunction"


def refused():
    """What cannot be quantised does not stop training, and neither do batches that cannot be used."""
    model = keras.Sequential([LAYERS.Input((3,)), LAYERS.Dense(1), LAYERS.GroupNormalization(1)])
    model.compile("sgd", "mse")
    sound, nan = SoundQuant(1e-1), SoundQuant(1e-1)
    model.fit(X, Y, callbacks=[sound], verbose=0)
    small().fit(np.where(X > 2.0, np.nan, X), Y, callbacks=[nan], verbose=0)
    return str(sound.error), str(nan.error)


def emitted(result):
    """QKeras models in this very process, equal to the integers; and Keras 3 is what it was."""
    with sq.float64():
        exact = bool(np.array_equal(result.to_qkeras(dtype="float64").predict(X, verbose=0), result.simulate(X)))
    found = {
        "float32": bool(np.array_equal(result.to_qkeras().predict(X, verbose=0), result.simulate(X))),
        "float64": exact,
    }
    better = sq.finetune(result, (X, Y), epochs=1)
    taught = sq.finetune(result, X, epochs=1, teacher=True)
    found["finetuned"] = bool(np.all(np.isfinite([better.certificate.eps, taught.certificate.eps])))
    with sq.float64():
        again = [one.to_qkeras(dtype="float64").predict(X, verbose=0) for one in (better, taught)]
    found["exports"] = all(np.array_equal(a, one.simulate(X)) for a, one in zip(again, (better, taught), strict=True))
    if BACKEND == "tensorflow":
        again = importlib.import_module("tensorflow.keras.layers").Dense, sys.modules["tensorflow"].keras.layers.Dense
        found["kept"] = all(dense is SHOWN is keras.layers.Dense for dense in again)
    return found


FOUND["imported"] = loaded()
FOUND["fits"] = [fits(), fits(run_eagerly=True)]
if BACKEND != "torch":
    FOUND["fits"].append(fits(steps_per_execution=3))
FOUND["by_name"], FOUND["names"] = several_inputs()
FOUND["restored"], FOUND["interrupted"] = restored(), interrupted()
FOUND["refused"] = refused()
FOUND["still_imported"] = loaded()
FOUND["anneals"] = [anneals(), anneals(run_eagerly=True)]
FOUND["differences"] = differences()  # asks Keras for configurations, for which Keras imports TensorFlow
FOUND["emitted"] = emitted(sq.quantize(small(), 1e-1, (X.min(axis=0), X.max(axis=0)), effort="fast"))
FOUND["switch"] = os.environ.get("TF_USE_LEGACY_KERAS")
sys.stdout.write("\n" + json.dumps(FOUND))
