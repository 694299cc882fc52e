"""Seeing the inputs of a fit: the smallest and largest value of every feature, batch by batch, in graph mode too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.keras_io.environment import import_tensorflow

tf: Any = import_tensorflow()

Reals = npt.NDArray[np.float64]


class InputObserver:
    """Follows the batches one model is trained on, for the length of one fit.

    `attach` replaces the model's compiled training function by a fresh one that is traced with a longer `train_step`;
    the step itself is only exchanged while that function runs. `detach` puts the old function back. Training that
    fails or is interrupted detaches by itself.
    """

    def __init__(self, model: Any) -> None:
        """Nothing is touched yet."""
        self.model = model
        self.problem: Exception | None = None
        self._variables: tuple[Any, Any, Any] | None = None

    def attach(self) -> None:
        """Start; call it inside `fit`, before its first batch."""
        before = self.model.train_function
        inner = before
        if not isinstance(before, _ObservedFunction):
            self.model.train_function = None
            inner = self.model.make_train_function()
        self.model.train_function = _ObservedFunction(self, before, inner)

    def detach(self) -> None:
        """Stop, and leave the model's training function as it was found. May be called twice."""
        top = self.model.train_function
        function = top
        while isinstance(function, _ObservedFunction):
            function.released |= function.observer is self
            function = function.before
        while isinstance(top, _ObservedFunction) and top.released:
            top = top.before
        self.model.train_function = top

    @property
    def batches(self) -> int:
        """How many batches were seen, on all replicas."""
        return 0 if self._variables is None else int(sum(_copies(self._variables[2])))

    def box(self) -> tuple[Reals, Reals]:
        """Smallest and largest value of every feature, shape `input_shape`.

        Raises:
            InputError: no batch could be observed, or one held NaN or infinity.
        """
        if self.problem is not None:
            raise InputError(f"the training batches could not be observed ({self.problem}); give SoundQuant a box=")
        if self._variables is None or self.batches == 0:
            raise InputError("no training batch was observed: train_step was not called; give SoundQuant a box=")
        lower, upper = (_copies(variable) for variable in self._variables[:2])
        lower, upper = np.min(lower, axis=0).astype(np.float64), np.max(upper, axis=0).astype(np.float64)
        if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper))):
            raise InputError("the training batches hold NaN or infinity; clean them, or give SoundQuant a box=")
        return lower, upper

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Exchange the model's `train_step` for one that also records; past Keras' own bookkeeping of attributes."""
        attributes = vars(self.model)
        had, before = "train_step" in attributes, self.model.train_step
        attributes["train_step"] = partial(self._step, before)
        try:
            yield
        finally:
            if had:
                attributes["train_step"] = before
            else:
                del attributes["train_step"]

    def _step(self, step: Callable[[Any], Any], data: Any) -> Any:
        """A training step, then the record: a model without a shape has one by then."""
        outputs = step(data)
        self._record(data)
        return outputs

    @tf.autograph.experimental.do_not_convert
    def _record(self, data: Any) -> None:
        """Runs while the training function is traced. Whatever goes wrong here is no reason to stop training."""
        try:
            x = _samples(self.model, data)
            if self._variables is None:
                self._variables = _make_variables(x.shape[1:], x.dtype)
            lower, upper, count = self._variables
            lower.assign(tf.minimum(lower, tf.reduce_min(x, axis=0)))
            upper.assign(tf.maximum(upper, tf.reduce_max(x, axis=0)))
            # Counts what was read: without this the end of the data would be a batch.
            count.assign_add(tf.cast(tf.shape(x)[0] > 0, tf.int64))
        except Exception as error:
            self.problem = error


class _ObservedFunction:
    """A model's training function while an observer watches."""

    def __init__(self, observer: InputObserver, before: Any, inner: Any) -> None:
        """Keep what was there `before`, to be put back, and the function that trains."""
        self.observer, self.before, self.inner = observer, before, inner
        self.history = observer.model.history
        self.released = False

    def __call__(self, *args: Any) -> Any:
        model = self.observer.model
        if self.history is not model.history:
            # The fit this was made for ended where nobody could tell us; this is another one.
            self.observer.detach()
            return model.train_function(*args)
        if self.released:
            return self.inner(*args)
        try:
            with self.observer.watching():
                return self.inner(*args)
        except (StopIteration, tf.errors.OutOfRangeError):
            raise  # the end of the data
        except BaseException:
            self.observer.detach()
            raise


def _samples(model: Any, data: Any) -> Any:
    """The inputs of a batch, `(n, *input_shape)`, in the type the model computes in; several flattened into one."""
    x, _, _ = tf.keras.utils.unpack_x_y_sample_weight(data)
    names = getattr(model, "input_names", None) or []
    if isinstance(x, dict) and names and set(names) <= set(x):
        x = [x[name] for name in names]
    tensors = tf.nest.flatten(x)
    if len(tensors) != max(1, len(names)):
        raise InputError(f"batches have {len(tensors)} inputs; accepted: {max(1, len(names))}")
    if len(tensors) > 1:
        kind = tf.float64 if model.inputs[0].dtype == tf.float64 else tf.float32
        flat = [tf.reshape(tf.cast(one, kind), (tf.shape(one)[0], -1)) for one in tensors]
        sizes = [like.shape[1:].num_elements() for like in model.inputs]
        return tf.ensure_shape(tf.concat(flat, axis=1), (None, sum(sizes)))
    like = model.inputs[0] if getattr(model, "inputs", None) else tensors[0]
    samples = tf.cast(tensors[0], tf.float64 if like.dtype == tf.float64 else tf.float32)
    shape = tf.TensorShape(like.shape[1:])
    return tf.reshape(samples, (-1, *shape)) if shape.is_fully_defined() else samples


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
