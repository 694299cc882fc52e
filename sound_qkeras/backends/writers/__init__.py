"""One writer per kind of operation: adding a kind is one class here and one template per target."""

from __future__ import annotations

from sound_qkeras.backends.writers.activations import ClipWriter, LeakyWriter, TableWriter
from sound_qkeras.backends.writers.affine import AveragePoolWriter, ConvWriter, DenseWriter, ScaleWriter
from sound_qkeras.backends.writers.base import Constant, OpWriter
from sound_qkeras.backends.writers.elementwise import ReluWriter, ReshapeWriter
from sound_qkeras.backends.writers.matmul import MatMulWriter
from sound_qkeras.backends.writers.merges import AddWriter, ConcatenateWriter, MultiplyWriter
from sound_qkeras.backends.writers.moves import CropWriter, PadWriter, PermuteWriter, UpsampleWriter
from sound_qkeras.backends.writers.norms import LayerNormWriter
from sound_qkeras.backends.writers.pooling import MaxPoolWriter
from sound_qkeras.network import Node

_AFFINE: tuple[OpWriter, ...] = (DenseWriter(), ConvWriter(), AveragePoolWriter(), ScaleWriter())
_UNITS: tuple[OpWriter, ...] = (ReluWriter(), ClipWriter(), LeakyWriter(), TableWriter(), LayerNormWriter())
_MOVES: tuple[OpWriter, ...] = (ReshapeWriter(), PermuteWriter(), CropWriter(), PadWriter(), UpsampleWriter())
_MERGES: tuple[OpWriter, ...] = (AddWriter(), MultiplyWriter(), MatMulWriter(), ConcatenateWriter(), MaxPoolWriter())
WRITERS: dict[str, OpWriter] = {writer.kind: writer for writer in (*_AFFINE, *_UNITS, *_MOVES, *_MERGES)}


def writer_for(node: Node) -> OpWriter:
    """The writer of a node's kind; `Target.check_operation` refuses those without one."""
    return WRITERS[node.op.kind]


__all__ = ["WRITERS", "Constant", "DenseWriter", "OpWriter", "ReluWriter", "ReshapeWriter", "writer_for"]
