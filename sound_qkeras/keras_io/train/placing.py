"""Where the binary point of short words is best: what a range asks for wastes words of few bits on a few large weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.train.latent import Grid
from sound_qkeras.network import Pair
from sound_qkeras.network.ops import AffineCodes, Conv, Dense
from sound_qkeras.types import Reals

# So many bits finer than the range asks for are tried.
FINER = 5


def placed(pair: Pair) -> Pair:
    """The network with the kernels' formats moved, each to the least mean square of its rounding; words are as long as before.

    Guarantee: kernels with a format for each channel stay, and so does one that no move makes better than the nearest integers in
    its own format.
    """
    made = {
        node.name: _placed(pair.parameters[node.name], op.kernel)
        for node, op in pair.network.owners()
        if isinstance(op, Dense | Conv)
    }
    return replace(pair, parameters={**pair.parameters, **made}, accumulators={})


def _placed(codes: AffineCodes, trained: Reals) -> AffineCodes:
    if codes.channel_formats is not None:
        return codes
    own = codes.kernel_format
    found = [replace(own, integer_bits=own.integer_bits - finer) for finer in range(FINER + 1)]
    best = min(found, key=lambda output: _error(output, trained))
    if best == own:
        return codes
    return replace(codes, kernel=Grid.of(codes.kernel, best).round(trained), kernel_format=best)


def _error(output: Format, trained: Reals) -> float:
    near = np.clip(np.rint(trained / output.step), output.min_code, output.max_code) * output.step
    return float(np.sum((near - trained) ** 2))
