"""Keras callbacks, installed as `sound_qkeras.callbacks`."""

if __name__ != "sound_qkeras.callbacks":
    raise ImportError(f"received an import as '{__name__}'; import this package as 'sound_qkeras.callbacks'")

from .sound_quant import SoundQuant

__all__ = ["SoundQuant"]
