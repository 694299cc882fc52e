"""Training a fixed-point network with its formats fixed. Imports TensorFlow: import it inside functions only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.keras_io.session.environment import float_type, import_keras, import_tensorflow
from sound_qkeras.keras_io.train.blocks import students
from sound_qkeras.keras_io.train.data import Task, by_name
from sound_qkeras.keras_io.train.latent import Latent, latents_of, with_values
from sound_qkeras.keras_io.train.student import Student, falling, teaching
from sound_qkeras.keras_io.write.float_model import to_keras
from sound_qkeras.keras_io.write.writer import to_qkeras
from sound_qkeras.network import Pair

keras, tf = import_keras(), import_tensorflow()

Measures = dict[str, float]
# What the loss towards a teacher is called.
DISTANCE = "distance to the float network"


@dataclass(frozen=True)
class Trained:
    """Trained integers.

    Args:
        pair: the network with them; formats of results are those it had.
        kept_epoch: the one that measured best; 0 where none was better than the start.
    """

    pair: Pair
    kept_epoch: int


def train(
    quantized: Pair,
    task: Task,
    optimizer: Any,
    epochs: int,
    monitor: str,
    accepts: Callable[[Pair], bool],
    report: Callable[[float], None],
    blocks: bool = False,
) -> Trained:
    """Train the QKeras model of a fixed-point network, and round what comes out to the same formats.

    Guarantee: every integer fits the format it had, and where training changed nothing the integers are the same. The epoch
    that is best on the measured data counts, among those that are accepted and the start.

    Args:
        quantized: the network.
        task: data, loss, metrics and teacher.
        optimizer: of Keras, or its name; None takes Adam, towards a teacher in steps of each weight's format, fewer
            from epoch to epoch.
        epochs: how often to go through the data.
        monitor: the loss or metric that decides which is best.
        accepts: asked about the network of every epoch that is better than all accepted before.
        report: called with the fraction that is done.
        blocks: with a teacher, train one block after the other, each for so many epochs, towards the float network's values
            behind it; what counts is then the end.

    Raises:
        InputError: nothing measured is called `monitor`.
    """
    in_steps = task.taught and optimizer is None
    chosen = _known("adam" if optimizer is None else optimizer)
    schedule = [falling(epochs, sum(1 for _ in task.training))] if in_steps else []
    with float_type("float32"):
        emitted = to_qkeras(quantized, scaled=False)
        latents = latents_of(quantized, emitted)
        student = _student(emitted, quantized, task, chosen)
        student.latents, student.in_steps = [one for pair in latents.values() for one in pair], in_steps
        first = _first(student, task)
        if monitor not in first:
            raise InputError(f"monitor is {monitor!r}; accepted: what is measured, {', '.join(first)}")
        measured = monitor, _to_be_small(monitor, first)
        best = _Best(quantized, latents, measured, accepts, lambda n: report(n / epochs))
        if not blocks:
            student.fit(
                task.training,
                epochs=epochs,
                validation_data=task.measured,
                verbose=0,
                callbacks=[best, *schedule],
            )
        else:
            inputs = task.training.map(lambda x, *_: (x,))
            for number, block in enumerate(students(quantized, emitted, latents)):
                report(number / len(latents))
                block.in_steps = in_steps
                block.compile(_fresh(chosen, keras.optimizers.get), loss="mse")
                block.fit(inputs, epochs=epochs, verbose=0, callbacks=schedule)
            best.on_epoch_end(epochs - 1, {f"val_{name}": value for name, value in _first(student, task).items()})
    return Trained(best.pair, best.epoch)


def _first(model: Any, task: Task) -> Measures:
    """Loss and metrics before training."""
    try:
        return model.evaluate(task.measured, verbose=0, return_dict=True)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        # TensorFlow's traceback and the names of its nodes surround the reason.
        told = [line for line in lines if line and not line.startswith(("[[", "File ", "Detected ", "Traceback"))]
        reason = told[-1] if told else type(error).__name__
        raise InputError(
            f"Keras cannot measure the network on these data ({reason}); accepted: targets, weights, loss and metrics that suit "
            "its output"
        ) from error


def measure_float(pair: Pair, task: Task) -> Measures:
    """Loss and metrics of the network as it was trained."""
    with float_type("float32"):
        return _measure(to_keras(pair.reference), pair, task)


def measure(pair: Pair, task: Task) -> Measures:
    """Loss and metrics of the fixed-point network as QKeras evaluates it in float32."""
    with float_type("float32"):
        return _measure(to_qkeras(pair), pair, task)


def _measure(model: Any, pair: Pair, task: Task) -> Measures:
    """By name; the loss towards a teacher is called what it is."""
    found = _student(model, pair, task).evaluate(task.measured, verbose=0, return_dict=True)
    return {DISTANCE if task.taught and name == "loss" else name: float(value) for name, value in found.items()}


def _student(model: Any, pair: Pair, task: Task, optimizer: Any = "adam") -> Any:
    """What computes as a model of the network does, ready to be trained or measured."""
    student = Student(model.input, model.output)
    if task.taught:
        student.teacher = teaching(to_keras(pair.reference))
    student.compile(optimizer, loss=task.loss, metrics=_fresh_all(task.metrics))
    return student


def _known(optimizer: Any) -> Any:
    return by_name("optimizer", optimizer, lambda given: _fresh(given, keras.optimizers.get))


def _fresh_all(metrics: Sequence[Any]) -> list[Any]:
    return [_fresh(metric, lambda name: name) for metric in metrics]


def _fresh(given: Any, by_name: Callable[[Any], Any]) -> Any:
    """A copy of what holds state, so that what the caller gave is not changed."""
    return type(given).from_config(given.get_config()) if hasattr(given, "get_config") else by_name(given)


def _to_be_small(monitor: str, logs: Mapping[str, float], prefix: str = "") -> float:
    """What was measured, negated where it is to be large; by its name, as Keras' callbacks decide."""
    value = float(logs[f"{prefix}{monitor}"])
    return -value if "acc" in monitor or monitor.endswith("auc") else value


class _Best(keras.callbacks.Callback):
    """Keeps the integers of the best epoch that is accepted; the network as it was is epoch 0."""

    def __init__(
        self,
        pair: Pair,
        latents: Mapping[str, tuple[Latent, ...]],
        first: tuple[str, float],
        accepts: Callable[[Pair], bool],
        report: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.pair, self.epoch = pair, 0
        self._monitor, self._lowest = first
        self._latents, self._accepts, self._report = latents, accepts, report

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """A loss that is NaN is never lower."""
        value = _to_be_small(self._monitor, logs, "val_")
        if value < self._lowest:
            found = self._rounded()
            if self._accepts(found):
                self.pair, self._lowest, self.epoch = found, value, epoch + 1
        self._report(epoch + 1)

    def _rounded(self) -> Pair:
        old = self.pair.parameters
        made = {
            name: with_values(old[name], pair, [np.array(latent.variable.numpy()) for latent in pair])
            for name, pair in self._latents.items()
        }
        # Accumulators are as wide as the old integers need.
        return replace(self.pair, parameters={**old, **made}, accumulators={})
