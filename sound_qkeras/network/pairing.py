"""Two networks of one graph become a pair: whatever is fixed point or takes few values becomes integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format, scaled
from sound_qkeras.network.graph import Network
from sound_qkeras.network.grids import FixedPoint, Grid, fractional_bits_of
from sound_qkeras.network.ops import Affine, AffineCodes, Op
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.real_ops import check_alike
from sound_qkeras.network.staircases import few_values


def pair_of(reference: Network, subject: Network, roundings: Mapping[str, Grid], input_bits: int | None = None) -> Pair:
    """Two networks of one graph as a pair; parameters that are fixed point become integers, roundings of one format formats.

    Args:
        reference: the network that is stood for.
        subject: the one that stands for it, node by node the same graph.
        roundings: what the subject's results are rounded to, by node name.
        input_bits: see `Pair`.

    Raises:
        ModelError: the graphs differ, or a name is no node.
    """
    graphs = [[(node.name, node.inputs, node.shares) for node in network.nodes] for network in (reference, subject)]
    if graphs[0] != graphs[1]:
        raise ModelError("the two networks are not node by node the same graph")
    parameters: dict[str, AffineCodes] = {}
    real: dict[str, Op] = {}
    for node, other in zip(reference.nodes, subject.nodes, strict=True):
        check_alike(node, other.op)
        codes = _codes_of(other.op) if isinstance(other.op, Affine) else None
        if codes is not None and node.shares is not None:
            continue
        if codes is not None:
            parameters[node.name] = codes
        elif isinstance(node.op, Affine) or node.op.derives:
            real[node.name] = other.op
    single = {name for name, grid in roundings.items() if isinstance(grid, FixedPoint) and not grid.shape}
    formats = {name: grid.codes for name, grid in roundings.items() if name in single and grid.codes is not None}
    grids = {name: grid for name, grid in roundings.items() if name not in single}
    return Pair(
        reference,
        parameters,
        formats,
        {},
        saturating=frozenset(formats),
        real=real,
        grids=grids,
        input_bits=input_bits,
    )


def _codes_of(op: Affine) -> AffineCodes | None:
    """The parameters as integers in the narrowest formats, or of the fewest values, that hold them; None where there are none."""
    if op.kernel_radius is not None or op.bias_radius is not None:
        return None
    kernel, bias = fractional_bits_of(op.kernel), fractional_bits_of(op.bias)
    if kernel is None or bias is None:
        return None
    bias = bias if np.any(op.bias) else kernel
    values = scaled(op.kernel, kernel), scaled(op.bias, bias)
    if max(float(np.max(np.abs(part), initial=0.0)) for part in values) >= 2.0 ** (MAX_WORD_LENGTH - 1):
        return None
    codes = [part.astype(np.int64) for part in values]
    made = [
        Format.for_codes(int(part.min()), int(part.max()), bits)
        for part, bits in zip(codes, (kernel, bias), strict=True)
    ]
    few = few_values(op.kernel)
    fewer = few is not None and few.bits(op.kernel.shape) <= made[0].word_length * op.kernel.size
    return AffineCodes(codes[0], made[0], codes[1], made[1], kernel_grid=few if fewer else None)
