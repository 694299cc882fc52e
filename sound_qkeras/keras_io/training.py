"""Training of classifiers for a comparison: seeded, and the weights of the best epoch kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.environment import import_keras

Data = tuple[npt.ArrayLike, npt.ArrayLike]
# A sigmoid's boundary between two classes; of everything else it is zero.
BOUNDARY = {"sigmoid": 0.5}


@dataclass(frozen=True)
class Training:
    """How candidates are trained: all of them alike.

    Args:
        epochs: how many.
        batch_size: samples a step.
        learning_rate: of Adam.
        seed: of the order of the samples.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 1


def copy_of(model: Any) -> Any:
    """The same layers with the same weights, uncompiled."""
    copy = import_keras().models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def compile_classifier(model: Any, head: str | None, training: Training) -> None:
    """Compile a classifier for class numbers as labels.

    Args:
        model: a tf_keras model.
        head: what it ends with: "softmax", "sigmoid" of a single output, or None for numbers before one of these.
        training: its learning rate.
    """
    keras = import_keras()
    single = int(model.output_shape[-1]) == 1
    kind = keras.losses.BinaryCrossentropy if single else keras.losses.SparseCategoricalCrossentropy
    measure = keras.metrics.BinaryAccuracy if single else keras.metrics.SparseCategoricalAccuracy
    threshold = {"threshold": BOUNDARY.get(head or "", 0.0)} if single else {}
    model.compile(
        keras.optimizers.legacy.Adam(training.learning_rate),
        loss=kind(from_logits=head is None),
        metrics=[measure(name="accuracy", **threshold)],
    )


def train(model: Any, data: Data, validation: Data, head: str | None, training: Training) -> float:
    """Compile a classifier and train it; returns the seconds that took. The weights are those of its best epoch.

    Args:
        model: a tf_keras or QKeras model with trained weights, which count as an epoch.
        data: inputs and class numbers.
        validation: inputs and class numbers, by which the epoch is chosen.
        head: as for `compile_classifier`.
        training: how.
    """
    compile_classifier(model, head, training)
    import_keras().utils.set_random_seed(training.seed)
    return fit_best(model, data, validation, training.epochs, training.batch_size)[0]


def fit_best(model: Any, data: Data, validation: Data, epochs: int, batch_size: int) -> tuple[float, float]:
    """Train a compiled model and give it the weights with the best validation accuracy, those before training included.

    Returns:
        The seconds that took and the validation accuracy.
    """
    started = time.monotonic()
    before = model.evaluate(*validation, batch_size=batch_size, verbose=0, return_dict=True)
    accuracy, weights = float(before["accuracy"]), model.get_weights()

    def keep(epoch: int, logs: Mapping[str, float]) -> None:
        nonlocal accuracy, weights
        if logs["val_accuracy"] > accuracy:
            accuracy, weights = float(logs["val_accuracy"]), model.get_weights()

    callback = import_keras().callbacks.LambdaCallback(on_epoch_end=keep)
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "callbacks": [callback], "verbose": 0}
    model.fit(*data, validation_data=validation, **settings)
    model.set_weights(weights)
    return time.monotonic() - started, accuracy


def scores(model: Any, inputs: npt.ArrayLike, head: str | None) -> Reals:
    """Outputs of a classifier, shape `(n, outputs)`: the largest is the class, or the sign of a single one."""
    found = np.asarray(model.predict(np.asarray(inputs), verbose=0), dtype=np.float64)
    found = found.reshape(len(found), -1)
    return found - BOUNDARY.get(head or "", 0.0) if found.shape[1] == 1 else found
