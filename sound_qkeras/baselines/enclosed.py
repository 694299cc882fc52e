"""Bit operations of straight code, which multiplies by no zero, of any fixed-point network.

`nonzero_operations` are those of `Cost.bit_operations`, the product of both words with their signs, without weights that are zero.

EBOPs are the effective bit operations that HGQ2 minimises. Of a weight they count the bits from the first to the last that is
set, for straight code has no more of a constant. Of what it is multiplied by they count the word without its sign, and of a bias,
for every result, its own such bits:

    sum over products of enclosed(w) * magnitude(x)  +  sum over results of enclosed(b)

Reference: Sun et al., HGQ: High Granularity Quantization for Real-time Neural Networks on FPGAs (FPGA 2026).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.fixed_point import Codes
from sound_qkeras.network import Node, Pair, size_of
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.network.ops import Affine
from sound_qkeras.tuning.groups import sources_of


def enclosed(codes: Codes) -> npt.NDArray[np.int64]:
    """Bits from the first to the last that is set, signs aside.

    >>> enclosed(np.array([0, 1, 8, 5, -12, 11])).tolist()
    [0, 1, 1, 3, 2, 4]
    """
    magnitude = np.abs(codes)
    highest, lowest = (
        np.frexp(part.astype(np.float64))[1].astype(np.int64) for part in (magnitude, magnitude & -magnitude)
    )
    return np.where(magnitude == 0, 0, highest - lowest + 1)


def nonzero_operations(pair: Pair) -> int:
    """Sum over multiplications by weights that are not zero of the bits of both words.

    Args:
        pair: a fixed-point network with integers for all its weights.
    """
    total = 0.0
    for node, op in pair.network.affine():
        codes = pair.parameters[pair.network.owner(node.name)]
        words = np.array([output.word_length for output in codes.own_formats])
        if codes.kernel_grid is not None:
            words = np.array(codes.kernel_grid.bits(codes.kernel.shape) / codes.kernel.size)
        total += _uses(pair, node, op) * _read(pair, node) * float(np.sum((codes.kernel != 0) * words))
    return round(total)


def ebops(pair: Pair) -> int:
    """EBOPs of all multiplications by weights, and of the biases.

    Args:
        pair: a fixed-point network with integers for all its weights.
    """
    total = 0.0
    for node, op in pair.network.affine():
        codes, results = pair.parameters[pair.network.owner(node.name)], size_of(pair.network.shapes[node.name])
        total += _uses(pair, node, op) * _read(pair, node, signs=False) * float(enclosed(codes.kernel).sum())
        total += results // codes.bias.size * int(enclosed(codes.bias).sum())
    return round(total)


def _uses(pair: Pair, node: Node, op: Affine) -> float:
    """How often each weight of a node is a factor in one inference."""
    return size_of(pair.network.shapes[node.name]) * op.multiplications / op.kernel.size


def _read(pair: Pair, node: Node, *, signs: bool = True) -> float:
    """The mean word length of what a node multiplies, with its sign or without."""
    sources = sources_of(pair.network, node.name)
    return sum(share * _bits(pair, name, signs) for name, share in sources.items())


def _bits(pair: Pair, name: str, signs: bool) -> float:
    grid = pair.grids.get(name)
    if isinstance(grid, FixedPoint):
        return float(np.mean(grid.word_lengths - (not signs) * (grid.low < 0)))
    output = pair.code_formats[name]
    return output.word_length - (not signs and output.signed)
