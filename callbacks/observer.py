"""Seeing the inputs of a fit: the smallest and largest value of every feature, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.keras_io.session.editions import KERAS_3, edition
from sound_qkeras.types import Reals

from .steps import Extension


class InputObserver(Extension):
    """Follows the batches one model is trained on, for the length of one fit."""

    def __init__(self, model: Any) -> None:
        """Nothing is touched yet."""
        super().__init__(model)
        self.problem: Exception | None = None

    @property
    def batches(self) -> int:
        """How many batches were seen."""
        raise NotImplementedError

    def box(self) -> tuple[Reals, Reals]:
        """Smallest and largest value of every feature, shape `input_shape`.

        Raises:
            InputError: no batch could be observed, or one held NaN or infinity.
        """
        if self.problem is not None:
            raise InputError(f"the training batches could not be observed ({self.problem}); give SoundQuant a box=")
        if self.batches == 0:
            raise InputError("no training batch was observed: train_step was not called; give SoundQuant a box=")
        lower, upper = self._ends()
        if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper))):
            raise InputError("the training batches hold NaN or infinity; clean them, or give SoundQuant a box=")
        return lower, upper

    def _ends(self) -> tuple[Reals, Reals]:
        """Smallest and largest value of every feature."""
        raise NotImplementedError


def shapes_of(model: Any) -> list[tuple[int | None, ...]]:
    """The shapes of the model's inputs, without the batch axis; none while it has not been built."""
    return [tuple(tensor.shape)[1:] for tensor in getattr(model, "inputs", None) or []]


def is_float64(model: Any) -> bool:
    """Whether the model computes in float64, as far as its inputs tell."""
    inputs = getattr(model, "inputs", None) or []
    return bool(inputs) and "float64" in str(inputs[0].dtype)


def inputs_of(model: Any, batch: Any) -> list[Any]:
    """The tensors of a batch that are inputs, in the model's order.

    Raises:
        InputError: they are more or fewer than the model has.
    """
    x = batch[0] if isinstance(batch, tuple | list) else batch
    count = max(1, len(getattr(model, "inputs", None) or []))
    tensors = _flat(x, _names(model))
    if len(tensors) != count:
        raise InputError(f"batches have {len(tensors)} inputs; accepted: {count}")
    return tensors


def _names(model: Any) -> list[str]:
    """What an input is called where a batch is a dictionary."""
    if edition(model) == KERAS_3:
        return [str(tensor.name) for tensor in getattr(model, "inputs", None) or []]
    return list(getattr(model, "input_names", None) or [])


def _flat(x: Any, names: Sequence[str]) -> list[Any]:
    if isinstance(x, Mapping):
        order = names if names and set(names) <= set(x) else sorted(x)
        return [tensor for name in order for tensor in _flat(x[name], ())]
    if isinstance(x, tuple | list):
        return [tensor for part in x for tensor in _flat(part, ())]
    return [x]
