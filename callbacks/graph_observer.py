"""Batches within the graph that TensorFlow trains a model in: Keras 2, and Keras 3 on TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow

from sound_qkeras.errors import InputError

from .graph_steps import Step, StepExtension
from .observer import InputObserver, Reals, inputs_of, is_float64, shapes_of

tf: Any = tensorflow  # its own types say little


class GraphObserver(StepExtension, InputObserver):
    """Records the extremes of each batch within the training step."""

    def __init__(self, model: Any) -> None:
        """Nothing seen."""
        super().__init__(model)
        self._variables: tuple[Any, Any, Any] | None = None

    @property
    def batches(self) -> int:
        """How many batches were seen, on all replicas."""
        return 0 if self._variables is None else int(sum(_copies(self._variables[2])))

    def around(self, step: Step, data: Any) -> Any:
        """A training step, then the record: a model without a shape has one by then."""
        outputs = step(data)
        self._record(data)
        return outputs

    @tf.autograph.experimental.do_not_convert
    def _record(self, data: Any) -> None:
        """Runs while the training function is traced. Whatever goes wrong here is no reason to stop training."""
        try:
            self.extremes(data)
        except Exception as error:
            self.problem = error

    def extremes(self, data: Any) -> tuple[Any, Any]:
        """Record a batch; returns the smallest and largest values up to it, as tensors."""
        x = _samples(self.model, data)
        if self._variables is None:
            self._variables = _make_variables(x.shape[1:], x.dtype)
        lower, upper, count = self._variables
        lower.assign(tf.minimum(lower, tf.reduce_min(x, axis=0)))
        upper.assign(tf.maximum(upper, tf.reduce_max(x, axis=0)))
        # Counts what was read: without this the end of the data would be a batch.
        count.assign_add(tf.cast(tf.shape(x)[0] > 0, tf.int64))
        return lower.read_value(), upper.read_value()

    def _ends(self) -> tuple[Reals, Reals]:
        lower, upper, _ = (_copies(variable) for variable in self._variables or ())
        return np.min(lower, axis=0).astype(np.float64), np.max(upper, axis=0).astype(np.float64)


def _samples(model: Any, data: Any) -> Any:
    """The inputs of a batch, `(n, *input_shape)`, in the type the model computes in; several flattened into one."""
    kind = tf.float64 if is_float64(model) else tf.float32
    tensors, shapes = [tf.cast(tensor, kind) for tensor in inputs_of(model, data)], shapes_of(model)
    if len(tensors) > 1:
        sizes = [math.prod(int(size or 0) for size in shape) for shape in shapes]
        flat = [tf.reshape(one, (tf.shape(one)[0], -1)) for one in tensors]
        return tf.ensure_shape(tf.concat(flat, axis=1), (None, sum(sizes)))
    shape = tf.TensorShape(shapes[0] if shapes else tensors[0].shape[1:])
    return tf.reshape(tensors[0], (-1, *shape)) if shape.is_fully_defined() else tensors[0]


def _make_variables(shape: Any, kind: Any) -> tuple[Any, Any, Any]:
    """Minimum, maximum and count, outside of whatever is being traced, one copy per replica."""
    if not shape.is_fully_defined():
        raise InputError(f"batches have samples of shape {shape}; accepted: known sizes")
    options = {
        "trainable": False,
        "synchronization": tf.VariableSynchronization.ON_READ,
        "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
    }
    with tf.init_scope():
        ends = (tf.Variable(np.full(shape, end), dtype=kind, **options) for end in (np.inf, -np.inf))
        return (*ends, tf.Variable(0, dtype=tf.int64, **options))


def _copies(variable: Any) -> list[Any]:
    """The value on every replica; there is one where training is not distributed."""
    return [copy.numpy() for copy in getattr(variable, "values", (variable,))]
