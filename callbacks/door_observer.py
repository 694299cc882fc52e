"""Batches on their way into a training function, where that takes them from an iterator: Keras 3 on JAX and torch."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .observer import InputObserver, Reals, inputs_of, is_float64, shapes_of


class DoorObserver(InputObserver):
    """Looks at every batch before the training function gets it, in numpy."""

    def __init__(self, model: Any) -> None:
        """Nothing seen."""
        super().__init__(model)
        self._count = 0
        self._seen: tuple[Any, Any] | None = None

    @property
    def batches(self) -> int:
        """How many batches were seen."""
        return self._count

    def seen(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same, with every batch recorded: those in a list at once, those of an iterator as they are taken."""
        *others, batches = arguments
        if isinstance(batches, Iterator):
            return *others, self._recorded(batches)
        for batch in batches:
            self._record(batch)
        return arguments

    def _recorded(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._record(batch)
            yield batch

    def _record(self, batch: Any) -> None:
        """Whatever goes wrong here is no reason to stop training."""
        try:
            x = _samples(self.model, batch)
            if len(x) == 0:
                return
            lower, upper = self._seen or (np.inf, -np.inf)
            self._seen = np.minimum(lower, x.min(axis=0)), np.maximum(upper, x.max(axis=0))
            self._count += 1
        except Exception as error:
            self.problem = error

    def _ends(self) -> tuple[Reals, Reals]:
        lower, upper = self._seen or (np.inf, -np.inf)
        return np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)


def _samples(model: Any, batch: Any) -> Any:
    """The inputs of a batch, `(n, *input_shape)`, in the type the model computes in; several flattened into one."""
    kind = np.float64 if is_float64(model) else np.float32
    as_array = importlib.import_module("keras.ops").convert_to_numpy
    arrays = [np.asarray(as_array(tensor)).astype(kind) for tensor in inputs_of(model, batch)]
    shapes = shapes_of(model)
    if len(arrays) > 1:
        return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
    shape = shapes[0] if shapes else arrays[0].shape[1:]
    known = [size for size in shape if size is not None]
    return arrays[0].reshape(-1, *known) if len(known) == len(shape) and math.prod(known) else arrays[0]
