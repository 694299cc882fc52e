"""What is compared on: a trained model, its box, and data in three parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.baselines import accuracy, agreement, mean_error
from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.keras_io import read_model
from sound_qkeras.keras_io.autoqkeras.conversion import as_keras_2
from sound_qkeras.keras_io.autoqkeras.training import Data, scores
from sound_qkeras.keras_io.files.files import is_saved, load_keras_model
from sound_qkeras.network import Network, size_of
from sound_qkeras.network.boxes import network_box
from sound_qkeras.network.classes import labels_of, outputs_of
from sound_qkeras.network.ports import join_samples, split_rows

# Shares of the samples for training and, unless they come separately, for choosing among epochs and trials, and for the metric.
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
FEWEST_SAMPLES = 20
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model and data.

    Args:
        model: the float tf_keras model, as it was trained, or made of a Keras 3 one with its weights.
        network: the same, read.
        box: the inputs that bounds are about.
        independent: whether the box was given: one that the test samples span depends on them, and so does what is chosen in it, so
            that no limit can be counted on them.
        metric: of the task: "accuracy", "mse" or "mae".
        train: inputs and class numbers, or rows of numbers wanted, that weights may depend on.
        validation: those that epochs and trials are chosen by.
        test: those that nothing depends on; every metric is about them.
    """

    model: Any
    network: Network
    box: Interval
    independent: bool
    metric: str
    train: Data
    validation: Data
    test: Data

    @cached_property
    def reference(self) -> Reals:
        """Outputs of the float network on the test inputs, in float64."""
        return outputs_of(self.network, np.asarray(self.test[0], dtype=np.float64))

    def measured(self, outputs: npt.ArrayLike) -> dict[str, float]:
        """Accuracy and agreement of outputs on the test inputs, or their negative error, under the names of a row's fields."""
        if self.metric != "accuracy":
            return {"metric": -mean_error(outputs, self.test[1], self.metric)}
        return {"metric": accuracy(outputs, self.test[1]), "agreement": agreement(outputs, self.reference)}

    def targets(self, data: Data) -> Data:
        """Inputs, and targets as Keras takes them: of each output in its own shape."""
        inputs, labels = data
        if self.metric == "accuracy":
            return data
        network, rows = self.network, np.asarray(labels, dtype=np.float64)
        shapes = [network.shapes[port.node] for port in network.outputs] or [network.output_shape]
        parts = tuple(part.astype(np.float32) for part in split_rows(rows, shapes))
        return inputs, parts if network.outputs else parts[0]

    def scores(self, model: Any) -> Reals:
        """What a model that stands for this one, its head included, returns on the test inputs."""
        return scores(model, self.test[0], self.network.head)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, box and data."""
        digest = hashlib.sha256(self.network.weight_hash.encode())
        arrays = (self.box.lower, self.box.upper, *self.train, *self.validation, *self.test)
        for array in map(np.ascontiguousarray, arrays):
            digest.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
        return digest.hexdigest()


def subject_of(
    model: Any,
    train: Data,
    test: Data | None = None,
    box: Any = None,
    *,
    validation: Data | None = None,
    margin: float = 0.0,
    seed: int = 0,
    metric: str = "accuracy",
) -> Subject:
    """Read the model and divide the samples.

    Args:
        model: a trained model of Keras 3 or tf_keras, or the path of one.
        train: inputs `(n, *input_shape)`, and class numbers or one-hot rows, or the numbers wanted of every output.
        test: the same, of samples that the model was not trained on; None for a fifth of the others.
        box: the inputs, as for `quantize`; None for the smallest and largest values of all samples.
        validation: the same, for choosing among epochs and trials; None for some of the others, too.
        margin: widens the box by this share of its width.
        seed: of the division.
        metric: of the task.

    Raises:
        InputError: there are too few samples, or not one label for each, or the model does not suit the metric.
        ModelError: the model cannot be read, or tf_keras computes something else with its weights.
    """
    loaded = load_keras_model(model) if is_saved(model) else model
    network = read_model(loaded)
    _check_task(network, metric)
    parts = {
        name: _checked(network, *data, metric)
        for name, data in (("train", train), ("validation", validation), ("test", test))
        if data is not None
    }
    every = np.concatenate([inputs for inputs, _ in parts.values()])
    searched = as_keras_2(loaded, network, every)
    network = network if searched is loaded else read_model(searched)
    region = network_box(network, every.astype(np.float64) if box is None else box, margin)
    parts |= _divided(*parts["train"], [name for name in SHARES if name not in parts or name == "train"], seed)
    return Subject(searched, network, region, box is not None, metric, **parts)


def _divided(inputs: Samples, labels: Any, names: list[str], seed: int) -> dict[str, tuple[Samples, Any]]:
    """Parts of these names, as large as their shares."""
    order = np.random.default_rng(seed).permutation(len(inputs))
    shares = np.cumsum([SHARES[name] for name in names])
    ends = [int(len(inputs) * share / shares[-1]) for share in shares[:-1]]
    return {name: (inputs[part], labels[part]) for name, part in zip(names, np.split(order, ends), strict=True)}


def _check_task(network: Network, metric: str) -> None:
    if network.inputs:
        raise InputError("the model has several inputs; accepted: one")
    if metric == "accuracy" and network.outputs:
        raise InputError(
            "the model has several outputs; accepted: classifiers with one, or another metric than accuracy"
        )
    heads = [network.head, *(port.head for port in network.outputs)]
    if metric != "accuracy" and any(heads):
        raise InputError(
            f"the model ends in a softmax or sigmoid, which is set aside, and the metric is '{metric}'; accepted: accuracy, or "
            "a model that ends before it"
        )


def _checked(network: Network, samples: npt.ArrayLike, labels: Any, metric: str) -> tuple[Samples, Any]:
    given = np.asarray(samples, dtype=np.float32)
    if given.shape[1:] != network.input_shape or len(given) < FEWEST_SAMPLES:
        raise InputError(
            f"samples of shape {given.shape}; accepted: at least {FEWEST_SAMPLES} of shape {network.input_shape}"
        )
    if metric == "accuracy":
        return given, labels_of(labels, len(given), size_of(network.output_shape))
    return given, _rows(network, labels, len(given))


def _rows(network: Network, wanted: Any, samples: int) -> Reals:
    """What is wanted of all outputs, one behind the other, `(n, outputs)`."""
    if network.outputs:
        names = [port.name for port in network.outputs]
        wanted = join_samples(wanted, names, [network.shapes[port.node] for port in network.outputs])
    found: Reals = np.asarray(wanted, dtype=np.float64)
    size = size_of(network.output_shape)
    if len(found) != samples or found.size != samples * size or not np.all(np.isfinite(found)):
        raise InputError(
            f"targets of shape {found.shape} for {samples} samples; accepted: {size} finite numbers for each"
        )
    return found.reshape(samples, size)
