"""The table of all layer kinds that can be read."""

from __future__ import annotations

from sound_qkeras.keras_io import activations, convolutions, layers, merges, structural
from sound_qkeras.keras_io.layers import Reader

READERS: dict[str, Reader] = (
    layers.READERS | activations.ACTIVATIONS | convolutions.CONVOLUTIONS | structural.STRUCTURAL
)
# Every layer kind that can be read.
KINDS = frozenset(READERS) | frozenset(merges.MERGES)
