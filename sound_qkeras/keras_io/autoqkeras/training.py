"""Training for a comparison: seeded, and the weights of the best epoch kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.session.environment import import_keras

Data = tuple[npt.ArrayLike, npt.ArrayLike]
# A sigmoid's boundary between two classes; of everything else it is zero.
BOUNDARY = {"sigmoid": 0.5}
# What a comparison can be about: the share of right classes, or a mean error.
METRICS = ("accuracy", "mse", "mae")


@dataclass(frozen=True)
class Training:
    """How candidates are trained: all of them alike.

    Args:
        epochs: how many.
        batch_size: samples a step.
        learning_rate: of Adam.
        seed: of the order of the samples.
        metric: of the task, one of `METRICS`. A mean error is the loss as well.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 1
    metric: str = "accuracy"


def copy_of(model: Any) -> Any:
    """The same layers with the same weights, uncompiled."""
    copy = import_keras().models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def compile_for(model: Any, head: str | None, training: Training) -> None:
    """Compile a model for its task.

    Args:
        model: a tf_keras model.
        head: what a classifier ends with: "softmax", "sigmoid" of a single output, or None for numbers before one of these.
        training: its learning rate and metric.
    """
    model.compile(_optimizer(training), **_goal(model, head, training.metric))


def fine_tuning(model: Any, training: Training) -> dict[str, Any]:
    """The same training in the words of `finetune`, whose models end before a head.

    Args:
        model: the float model, for its outputs.
        training: its learning rate and metric.
    """
    monitor = training.metric if training.metric == "accuracy" else "loss"
    return {"optimizer": _optimizer(training), "monitor": monitor, **_goal(model, None, training.metric)}


def _optimizer(training: Training) -> Any:
    return import_keras().optimizers.legacy.Adam(training.learning_rate)


def _goal(model: Any, head: str | None, metric: str) -> dict[str, Any]:
    """Loss and metrics: cross-entropy and accuracy for class numbers, or a mean error as both."""
    if metric != "accuracy":
        return {"loss": metric, "metrics": [metric]}
    keras = import_keras()
    single = int(model.output_shape[-1]) == 1
    kind = keras.losses.BinaryCrossentropy if single else keras.losses.SparseCategoricalCrossentropy
    measure = keras.metrics.BinaryAccuracy if single else keras.metrics.SparseCategoricalAccuracy
    threshold = {"threshold": BOUNDARY.get(head or "", 0.0)} if single else {}
    return {"loss": kind(from_logits=head is None), "metrics": [measure(name="accuracy", **threshold)]}


def train(model: Any, data: Data, validation: Data, head: str | None, training: Training) -> float:
    """Compile a model and train it; returns the seconds that took. The weights are those of its best epoch.

    Args:
        model: a tf_keras or QKeras model with trained weights, which count as an epoch.
        data: inputs and targets.
        validation: inputs and targets, by which the epoch is chosen.
        head: as for `compile_for`.
        training: how.
    """
    compile_for(model, head, training)
    import_keras().utils.set_random_seed(training.seed)
    return fit_best(model, data, validation, training.epochs, training.batch_size)[0]


def fit_best(model: Any, data: Data, validation: Data, epochs: int, batch_size: int) -> tuple[float, float]:
    """Train a compiled model and give it the weights that validate best, those before training included.

    Returns:
        The seconds that took, and the validation accuracy, or the negative loss of a model without one.
    """
    started = time.monotonic()
    before = model.evaluate(*validation, batch_size=batch_size, verbose=0, return_dict=True)
    best, weights = goodness(before), model.get_weights()

    def keep(epoch: int, logs: Mapping[str, float]) -> None:
        nonlocal best, weights
        found = goodness(logs, "val_")
        if found > best:
            best, weights = found, model.get_weights()

    callback = import_keras().callbacks.LambdaCallback(on_epoch_end=keep)
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "callbacks": [callback], "verbose": 0}
    model.fit(*data, validation_data=validation, **settings)
    model.set_weights(weights)
    return time.monotonic() - started, best


def goodness(logs: Mapping[str, float], prefix: str = "") -> float:
    """What is to be large: the accuracy, or the negative loss where there is none."""
    accuracy = logs.get(f"{prefix}accuracy")
    return -float(logs[f"{prefix}loss"]) if accuracy is None else float(accuracy)


def scores(model: Any, inputs: npt.ArrayLike, head: str | None) -> Reals:
    """Outputs, shape `(n, outputs)`, of several outputs one behind the other.

    Of a classifier, the largest is the class, or the sign of a single one.
    """
    given = model.predict(np.asarray(inputs), verbose=0)
    parts = [np.asarray(part, dtype=np.float64) for part in (given if isinstance(given, list) else [given])]
    found = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    return found - BOUNDARY.get(head or "", 0.0) if found.shape[1] == 1 else found
