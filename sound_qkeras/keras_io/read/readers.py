"""The table of all layer kinds that can be read."""

from __future__ import annotations

from sound_qkeras.keras_io.read import activations, convolutions, layers, merges, resizing, structural
from sound_qkeras.keras_io.read.layers import Reader

READERS: dict[str, Reader] = (
    layers.READERS | activations.ACTIVATIONS | convolutions.CONVOLUTIONS | resizing.RESIZING | structural.STRUCTURAL
)
# A layer around another one.
OVER_TIME = "TimeDistributed"
# Every layer kind that can be read.
KINDS = frozenset(READERS) | frozenset(merges.MERGES) | {OVER_TIME}
