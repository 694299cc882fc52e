"""Which observer suits a model: TensorFlow traces a longer training step, other backends are watched at the door."""

from __future__ import annotations

import importlib
from typing import Any

from sound_qkeras.keras_io.session.editions import KERAS_3, edition

from .observer import InputObserver


def observer_of(model: Any) -> InputObserver:
    """The observer for a model: within the graph where TensorFlow trains it, at the door elsewhere.

    Nothing is imported that the model has not imported.
    """
    if not trained_by_tensorflow(model):
        from .door_observer import DoorObserver

        return DoorObserver(model)
    from .graph_observer import GraphObserver

    return GraphObserver(model)


def trained_by_tensorflow(model: Any) -> bool:
    """Whether a graph of TensorFlow trains a model."""
    return edition(model) != KERAS_3 or importlib.import_module("keras.config").backend() == "tensorflow"
