"""A longer training step within the graph that TensorFlow trains a model in: Keras 2, and Keras 3 on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import tensorflow

from .steps import Extension

tf: Any = tensorflow  # its own types say little
Step = Callable[[Any], Any]


class StepExtension(Extension):
    """Trains with a fresh training function that is traced with a longer `train_step`.

    The step itself is only exchanged while that function is made and while it runs.
    """

    END_OF_DATA = (StopIteration, tf.errors.OutOfRangeError)

    def around(self, step: Step, data: Any) -> Any:
        """The longer step, which returns what `step(data)` does. Runs while the training function is traced."""
        raise NotImplementedError

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Exchange the model's `train_step` for the longer one."""
        with exchanged(self.model, "train_step", partial(self.around, self.model.train_step)):
            yield

    def observed(self, before: Any) -> Any:
        """A training function made for the longer step: Keras 3 looks for the step now, Keras 2 when it runs."""
        self.model.train_function = None
        with self.watching():
            self.model.make_train_function()
        return self.model.train_function


@contextmanager
def exchanged(model: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """While it lasts, a model has another method; past Keras' own bookkeeping of attributes."""
    attributes = vars(model)
    had, before = name in attributes, attributes.get(name)
    attributes[name] = method
    try:
        yield
    finally:
        if had:
            attributes[name] = before
        else:
            del attributes[name]
