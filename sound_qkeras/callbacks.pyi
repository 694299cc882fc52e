# What type checkers see in a checkout; the code is in ../callbacks.
from callbacks.sound_quant import SoundQuant as SoundQuant

__all__ = ["SoundQuant"]
