"""Multipoint quantisation: a weight vector as a sum of scaled low-bit vectors, more of them where outputs suffer.

The weights w of an output channel become `sum_i a_i q_i` with `q_i` from `{-1, ..., -1/M, 0, 1/M, ..., 1}`, `M = 2**(b-1) - 1`:

    (a_i, q_i) = argmin over a, q of |r_i - a q|^2,   r_1 = w,   r_(i+1) = r_i - a_i q_i,

where q for a given a is the nearest vector to `r / a`, and a runs over a grid. A channel gets points until its mean squared
output error on samples is small enough.

Reference: Liu et al., Post-training quantization with multiple points: mixed precision without mixed precision (AAAI 2021).
Here the grid's best scale is replaced by the least-squares one of its vector, `<r, q> / <q, q>`, which is never worse; and
the error a channel may have is relative to its layer's mean squared output, so that one number serves every layer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.baselines.candidate import FLOAT_BITS, Candidate, from_weights, weight_nodes
from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.network import Network
from sound_qkeras.network.ops import Affine

# Scales tried, evenly spaced up to the largest weight.
GRID = 64


def next_point(residual: Reals, bits: int) -> tuple[float, npt.NDArray[np.int64]]:
    """The best scaled low-bit vector: scale `a` and codes `k`, standing for `a k / M`; scale 0 for a zero residual."""
    most = 2 ** (bits - 1) - 1
    largest = float(np.max(np.abs(residual)))
    if largest == 0.0:
        return 0.0, np.zeros(residual.shape, np.int64)
    scales = largest * np.arange(1, GRID + 1) / GRID
    codes = np.clip(np.rint(residual / scales[:, None] * most), -most, most)
    fitted = (codes @ residual) / np.maximum((codes**2).sum(axis=1), 1.0)
    errors = ((residual - fitted[:, None] * codes) ** 2).sum(axis=1)
    best = int(np.argmin(errors))
    return float(fitted[best] * most), codes[best].astype(np.int64)


def multipoint(network: Network, samples: Reals, bits: int, *, error: float = 1e-3, most_points: int = 4) -> Candidate:
    """Weight-only multipoint quantisation of every layer.

    Args:
        network: the trained network.
        samples: inputs `(n, *input_shape)` on which output errors are measured, in the float network.
        bits: of every low-bit weight, 2 to 16.
        error: mean squared output error a channel may have, over its layer's mean squared output.
        most_points: where adding points ends.

    Raises:
        InputError: an option is not usable.
    """
    if not 2 <= bits <= 16 or most_points < 1 or not error >= 0.0:
        raise InputError(
            f"received bits={bits}, error={error}, most_points={most_points}; accepted: 2 to 16 bits, an error >= 0, one "
            "point or more"
        )
    values = network.evaluate_all(samples)
    kernels: dict[str, Reals] = {}
    sizes: dict[str, int] = {}
    counts: list[int] = []
    for node, op in weight_nodes(network):
        kernel, points = _layer(op, values[node.inputs[0]], bits, error, most_points)
        kernels[node.name] = kernel
        sizes[node.name] = int(points.sum()) * (bits * op.kernel[..., 0].size + FLOAT_BITS)
        counts += points.tolist()
    note = f"{np.mean(counts):.3g} points an output channel on average, each with a scale of {FLOAT_BITS} bits."
    return from_weights(f"multipoint, {bits} bits", network, kernels, sizes, (note,))


def _layer(op: Affine, inputs: Reals, bits: int, error: float, most: int) -> tuple[Reals, npt.NDArray[np.int64]]:
    """The kernel and each output channel's number of points."""
    columns = op.kernel.reshape(-1, op.kernel.shape[-1])
    allowed = error * float(np.mean(op.apply(op.kernel, inputs) ** 2))
    total, points = np.zeros_like(columns), np.zeros(columns.shape[1], np.int64)
    open_channels = np.ones(columns.shape[1], bool)
    for _ in range(most):
        for channel in np.flatnonzero(open_channels):
            residual = columns[:, channel] - total[:, channel]
            scale, codes = next_point(residual, bits)
            total[:, channel] += scale * codes / (2 ** (bits - 1) - 1)
        points += open_channels
        wrong = op.apply(op.kernel - total.reshape(op.kernel.shape), inputs)
        open_channels = np.mean(wrong**2, axis=tuple(range(wrong.ndim - 1))) > allowed
    return total.reshape(op.kernel.shape), points
