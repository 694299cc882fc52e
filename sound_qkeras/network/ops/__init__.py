"""The operations a network is made of, one file each."""

from sound_qkeras.network.ops.affine import Affine, AffineCodes, AffineComparison, AffinePair
from sound_qkeras.network.ops.base import Facts, Op, Remainder, Rows
from sound_qkeras.network.ops.conv import Conv
from sound_qkeras.network.ops.dense import Dense
from sound_qkeras.network.ops.elementwise import Elementwise
from sound_qkeras.network.ops.input import Input
from sound_qkeras.network.ops.layer_norm import LayerNorm
from sound_qkeras.network.ops.layer_norm_pair import LayerNormPair
from sound_qkeras.network.ops.lookup import Lookup
from sound_qkeras.network.ops.matmul import MatMul
from sound_qkeras.network.ops.max_pool import MaxPool
from sound_qkeras.network.ops.merge import Add, Concatenate
from sound_qkeras.network.ops.moves import Crop, Move, Pad, Permute, Reshape, Upsample
from sound_qkeras.network.ops.multiply import Multiply
from sound_qkeras.network.ops.pool import AveragePool
from sound_qkeras.network.ops.rectifiers import Clip, Leaky, LeakyPair
from sound_qkeras.network.ops.relu import Relu
from sound_qkeras.network.ops.scale import Scale
from sound_qkeras.network.ops.table import Table
from sound_qkeras.network.ops.table_pair import TablePair

AFFINE: tuple[type[Affine], ...] = (Dense, Conv, AveragePool, Scale)
MOVES: tuple[type[Op], ...] = (Reshape, Permute, Crop, Pad, Upsample)
UNITS: tuple[type[Elementwise], ...] = (Relu, Clip, Leaky, Table)

# Saved networks name operations by kind; only these classes can be made from a file.
OPS: dict[str, type[Op]] = {
    op.kind: op for op in (Input, *AFFINE, *UNITS, *MOVES, LayerNorm, MaxPool, Add, Multiply, MatMul, Concatenate)
}

__all__ = [
    "AFFINE",
    "MOVES",
    "OPS",
    "UNITS",
    "Add",
    "Affine",
    "AffineCodes",
    "AffineComparison",
    "AffinePair",
    "AveragePool",
    "Clip",
    "Concatenate",
    "Conv",
    "Crop",
    "Dense",
    "Elementwise",
    "Facts",
    "Input",
    "LayerNorm",
    "LayerNormPair",
    "Leaky",
    "LeakyPair",
    "Lookup",
    "MatMul",
    "MaxPool",
    "Move",
    "Multiply",
    "Op",
    "Pad",
    "Permute",
    "Relu",
    "Remainder",
    "Reshape",
    "Rows",
    "Scale",
    "Table",
    "TablePair",
    "Upsample",
]
