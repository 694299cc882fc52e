"""Keras models in, QKeras models out. TensorFlow is imported when a function here is first called, not before."""

from sound_qkeras.keras_io.autoqkeras.setup import import_keras_tuner
from sound_qkeras.keras_io.read.reader import read_model
from sound_qkeras.keras_io.session.environment import float64
from sound_qkeras.keras_io.session.storage import load_model, register, save_model
from sound_qkeras.keras_io.write.float_model import to_keras
from sound_qkeras.keras_io.write.quantizers import model_quantize, quantizer_config
from sound_qkeras.keras_io.write.writer import to_qkeras

__all__ = [
    "float64",
    "import_keras_tuner",
    "load_model",
    "model_quantize",
    "quantizer_config",
    "read_model",
    "register",
    "save_model",
    "to_keras",
    "to_qkeras",
]
