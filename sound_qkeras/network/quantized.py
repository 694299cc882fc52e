"""The name that is going."""

from sound_qkeras.network.pair import Pair as QuantizedNetwork
from sound_qkeras.network.pair import as_integers as as_integers
from sound_qkeras.network.pair import round_integers as round_integers

__all__ = ["QuantizedNetwork"]
