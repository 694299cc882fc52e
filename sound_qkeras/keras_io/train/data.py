"""Data to train on, and the loss that suits it. Imports TensorFlow: import it inside functions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow
from sound_qkeras.keras_io.train.student import distances
from sound_qkeras.network import Network, size_of
from sound_qkeras.network.classes import labels_of
from sound_qkeras.network.ports import per_port, split_rows

keras, tf = import_keras(), import_tensorflow()

ACCEPTED = "(x, y) or (x, y, weights) arrays of equal length, or a finite, batched tf.data.Dataset of them"
# Where a teacher takes the place of targets.
INPUTS = f"inputs alone, one array, or for several inputs a list of arrays; {ACCEPTED}"


@dataclass(frozen=True)
class Task:
    """What to train on, what to measure on, and how good a result is.

    Args:
        training: batches, shuffled anew in every epoch where arrays were given.
        measured: batches that losses and metrics are of.
        loss: of Keras; it gets logits where the network's softmax or sigmoid was set aside.
        metrics: of Keras.
        taught: whether the loss is of the float network's outputs instead of targets, which data may then lack.
    """

    training: Any
    measured: Any
    loss: Any
    metrics: Sequence[Any]
    taught: bool = False

    @classmethod
    def of(
        cls,
        network: Network,
        data: Any,
        validation: Any,
        loss: Any,
        metrics: Any,
        batch_size: int,
        seed: int,
        taught: bool = False,
    ) -> Task:
        """Check the data, and fill in what was not given.

        Raises:
            InputError: the data do not suit the network, or Keras has no such loss or metric.
        """
        if loss is not None:
            by_name("loss", loss, keras.losses.get)
        metrics = [metrics] if isinstance(metrics, str) else metrics
        for metric in metrics or ():
            by_name("metric", metric, _metric)
        training = _batches(network, data, batch_size, seed, taught)
        measured = _batches(network, data if validation is None else validation, batch_size, None, taught)
        if len(measured.element_spec) == 1:
            if metrics:
                raise InputError(
                    "metrics are given, but no targets to measure them on; accepted: data or validation (x, y)"
                )
            return cls(training, measured, distances(network) if loss is None else loss, [], taught)
        usual_loss, usual_metrics = _usual(network, measured.element_spec[1])
        if taught:
            usual_loss = distances(network) if loss is None else loss
        elif loss is not None:
            usual_loss, usual_metrics = loss, []
        elif isinstance(usual_loss, keras.losses.SparseCategoricalCrossentropy):
            for one in (data, validation):
                if isinstance(one, tuple | list):
                    classes = np.asarray(cast("Sequence[Any]", one)[1])
                    labels_of(classes, len(classes), size_of(network.output_shape))
        return cls(training, measured, usual_loss, usual_metrics if metrics is None else metrics, taught)

    def inputs(self, network: Network) -> Iterator[Reals]:
        """All inputs that are trained or measured on, batch by batch, each `(n, *input_shape)`."""
        for batches in (self.training, self.measured):
            for batch in batches:
                yield network.input_arrays(_plain(batch[0]))


def by_name(what: str, given: Any, get: Callable[[Any], Any]) -> Any:
    """What Keras makes of a name or an object.

    Raises:
        InputError: nothing.
    """
    unknown = f"{what} is {given!r}, which Keras does not know; accepted: one of Keras, by name or as an object"
    try:
        found = get(given)
    except (ValueError, TypeError) as error:
        raise InputError(unknown) from error
    if isinstance(found, str):
        raise InputError(unknown)
    return found


def _metric(given: Any) -> Any:
    """Keras chooses the kind of some by the targets, when it has them."""
    chosen = isinstance(given, str) and given in ("accuracy", "acc", "crossentropy", "ce")
    return None if chosen else keras.metrics.get(given)


def _plain(x: Any) -> Any:
    """Numpy arrays in the structure of some tensors."""
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), x)


def _batches(network: Network, data: Any, batch_size: int, seed: int | None, taught: bool) -> Any:
    """A dataset of tuples, those of one where there are inputs alone; shuffled with a seed, unless it came as one."""
    if isinstance(data, tf.data.Dataset):
        return _checked(network, data, taught)
    labelled = isinstance(data, tuple if network.inputs and taught else tuple | list)
    alone = taught and (hasattr(data, "__array__") or isinstance(data, list | Mapping))
    if len(cast("Any", data)) not in (2, 3) if labelled else not alone:
        raise InputError(f"the data are {type(data).__name__}; accepted: {INPUTS if taught else ACCEPTED}")
    x, *targets = cast("Sequence[Any]", data if labelled else (data,))
    samples = network.input_arrays(x)
    arrays = [
        tf.nest.map_structure(np.asarray, tuple(y) if isinstance(y, list) and network.outputs else y) for y in targets
    ]
    counts = {len(samples), *(len(array) if array.ndim else 0 for array in tf.nest.flatten(arrays))}
    if len(counts) != 1 or not len(samples):
        raise InputError(f"the data have {sorted(counts)} samples and targets; accepted: {ACCEPTED}")
    for array in tf.nest.flatten(arrays):
        if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)):
            raise InputError("the targets or weights hold NaN or infinity, or are no numbers; accepted: finite numbers")
    dataset = tf.data.Dataset.from_tensor_slices((_as_inputs(network, samples), *arrays))
    if seed is not None:
        dataset = dataset.shuffle(len(samples), seed=seed, reshuffle_each_iteration=True)
    return dataset.batch(batch_size)


def _as_inputs(network: Network, samples: Reals) -> Any:
    """Samples as the Keras model takes them."""
    if not network.inputs:
        return samples.astype(np.float32)
    shapes = [network.shapes[port.node] for port in network.inputs]
    return tuple(part.astype(np.float32) for part in split_rows(samples, shapes))


def _checked(network: Network, dataset: Any, taught: bool) -> Any:
    """A dataset of batches that ends."""
    if taught and not isinstance(dataset.element_spec, tuple):
        dataset = dataset.map(lambda x: (x,))
    spec = dataset.element_spec
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InputError(f"the dataset never ends; accepted: {ACCEPTED}; take(n) of it, or leave out repeat()")
    if not isinstance(spec, tuple) or len(spec) not in ((1, 2, 3) if taught else (2, 3)):
        raise InputError(f"the dataset's elements are {spec}; accepted: {ACCEPTED}")
    names = [port.name for port in network.inputs]
    parts = per_port(spec[0], names, "a batch") if names else [spec[0]]
    shapes = [network.shapes[port.node] for port in network.inputs] or [network.input_shape]
    for part, shape in zip(parts, shapes, strict=True):
        if not tf.TensorShape((None, *shape)).is_compatible_with(part.shape):
            raise InputError(f"the dataset's inputs have shape {part.shape}; accepted: {('n', *shape)}; batch it")
    return dataset


def _usual(network: Network, target: Any) -> tuple[Any, list[Any]]:
    """Cross-entropy of logits for classifiers, the mean square for the rest."""
    outputs, losses = size_of(network.output_shape), keras.losses
    shape = None if network.outputs or not hasattr(target, "shape") else target.shape
    if shape is None or shape.rank is None:
        return "mse", ["mae"]
    if outputs > 1 and shape[1:].num_elements() == 1:
        return losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]
    if network.head == "softmax":
        return losses.CategoricalCrossentropy(from_logits=True), ["accuracy"]
    if network.head == "sigmoid":
        return losses.BinaryCrossentropy(from_logits=True), [keras.metrics.BinaryAccuracy(threshold=0.0)]
    return "mse", ["mae"]
