"""EBOPs, the effective bit operations of HGQ2, of any fixed-point network.

Of a weight they count the bits from the first to the last that is set, for straight code has no more of a constant: none of a zero.
Of what it is multiplied by they count the word without its sign, and of a bias, for every result, its own such bits:

    sum over products of enclosed(w) * magnitude(x)  +  sum over results of enclosed(b)

`Cost.bit_operations` takes whole words instead, with the signs, of zeros too, and leaves the biases out.

Reference: Sun et al., HGQ: High Granularity Quantization for Real-time Neural Networks on FPGAs (FPGA 2026).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.fixed_point import Codes
from sound_qkeras.network import Pair, size_of
from sound_qkeras.network.grids import FixedPoint
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


def ebops(pair: Pair) -> int:
    """EBOPs of all multiplications by weights, and of the biases.

    Args:
        pair: a fixed-point network with integers for all its weights.
    """
    total = 0.0
    for node, op in pair.network.affine():
        codes, results = pair.parameters[pair.network.owner(node.name)], size_of(pair.network.shapes[node.name])
        sources = sources_of(pair.network, node.name)
        read = sum(share * _magnitude(pair, name) for name, share in sources.items())
        uses = results * op.multiplications / codes.kernel.size
        total += uses * read * float(enclosed(codes.kernel).sum())
        total += results // codes.bias.size * int(enclosed(codes.bias).sum())
    return round(total)


def _magnitude(pair: Pair, name: str) -> float:
    """Bits of a rounded value without its sign, on average over the tensor."""
    grid = pair.grids.get(name)
    if isinstance(grid, FixedPoint):
        return float(np.mean(grid.word_lengths - (grid.low < 0)))
    output = pair.code_formats[name]
    return output.word_length - output.signed
