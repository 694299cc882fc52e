"""Keras models in, QKeras models out. TensorFlow is imported when a function here is first called, not before."""

from sound_qkeras.keras_io.environment import float64, select_legacy_keras
from sound_qkeras.keras_io.reader import read_model

__all__ = ["float64", "read_model", "select_legacy_keras"]
