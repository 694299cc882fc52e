"""The operations a network is made of, one file each."""

from sound_qkeras.network.ops.affine import Affine, AffineCodes, AffinePair, Dense
from sound_qkeras.network.ops.base import Facts, Op, Remainder, Rows
from sound_qkeras.network.ops.input import Input
from sound_qkeras.network.ops.max_pool import MaxPool
from sound_qkeras.network.ops.merge import Add, Concatenate
from sound_qkeras.network.ops.moves import Crop, Move, Pad, Permute, Reshape, Upsample
from sound_qkeras.network.ops.multiply import Multiply
from sound_qkeras.network.ops.relu import Relu

# Saved networks name operations by kind; only these classes can be made from a file.
OPS: dict[str, type[Op]] = {
    op.kind: op
    for op in (Input, Dense, Relu, Reshape, Permute, Crop, Pad, Upsample, MaxPool, Add, Multiply, Concatenate)
}

__all__ = [
    "OPS",
    "Add",
    "Affine",
    "AffineCodes",
    "AffinePair",
    "Concatenate",
    "Crop",
    "Dense",
    "Facts",
    "Input",
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
    "Upsample",
]
