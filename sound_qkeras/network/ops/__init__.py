"""The operations a network is made of, one file each."""

from sound_qkeras.network.ops.affine import Affine, AffineCodes, AffinePair, Dense
from sound_qkeras.network.ops.base import Facts, Op, Remainder, Rows
from sound_qkeras.network.ops.input import Input
from sound_qkeras.network.ops.relu import Relu
from sound_qkeras.network.ops.reshape import Reshape

# Saved networks name operations by kind; only these classes can be made from a file.
OPS: dict[str, type[Op]] = {op.kind: op for op in (Input, Dense, Relu, Reshape)}

__all__ = [
    "OPS",
    "Affine",
    "AffineCodes",
    "AffinePair",
    "Dense",
    "Facts",
    "Input",
    "Op",
    "Relu",
    "Remainder",
    "Reshape",
    "Rows",
]
