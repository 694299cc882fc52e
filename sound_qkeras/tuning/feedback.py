"""Rounding with error feedback: what one weight's rounding changes in a layer's results, the weights after it make up for.

Weights of one output are rounded one after another, those of inputs that vary most first; with C the covariance of what they
multiply, the error of each is spread over those not yet rounded so that `r C r` for the residual r grows least. Means are left
out of C: biases make up for them.

Reference: Frantar et al., GPTQ: accurate post-training quantization for generative pre-trained transformers (ICLR 2023), after
Hassibi and Stork, Second order derivatives for network pruning: optimal brain surgeon (NeurIPS 1992). The order is that of
Frantar et al.'s program (`act-order`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sound_qkeras.fixed_point import Codes
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.ops import Affine, Conv, Dense
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.support.scratch import SCRATCH_NUMBERS
from sound_qkeras.tuning.build import Choice, Parameters, bias_corrected, choices
from sound_qkeras.tuning.families import words_of
from sound_qkeras.tuning.groups import Bits
from sound_qkeras.tuning.words import Words

# Share of the mean variance that is added to each: directions the samples do not show matter a little, too.
DAMPING = 0.01
# The same as a share of the mean square, below which variances are rounding errors of the means.
NOISE = 2.0**-40
# Windows that covariances are taken from, per sample and layer.
MOST_ROWS = 1 << 12
# Longest window; beyond, weights go to their nearest codes.
MOST_INPUTS = 4096
# Covariances of all layers take at most one of so many parts of the scratch memory; the weights of further layers go to their
# nearest codes.
COVARIANCE_PARTS = 4
# Numbers of integers that are kept for choices seen before.
MOST_KEPT = SCRATCH_NUMBERS // 2


class FeedbackRounding:
    """Rounds all weights of a network for a choice of bits, each layer with its own samples."""

    def __init__(
        self, network: Network, samples: Reals, centers: Mapping[str, Reals], deadline: Deadline | None = None
    ) -> None:
        """Take covariances of what every layer reads.

        Args:
            network: the network.
            samples: inputs, shape `(n, *input_shape)`.
            centers: for each affine node the mean of its input.
            deadline: when it passes, fewer samples have to do.
        """
        self.network, self.centers = network, centers
        self.factors = _factors(network, samples, deadline or Deadline())
        self._kept: dict[tuple[str, Choice, bytes], Parameters] = {}
        self._numbers = 0

    def __call__(self, bits: Bits, offsets: Mapping[str, Indices]) -> dict[str, Parameters]:
        """Integers of every affine node."""
        return {
            node.name: self._rounded(node.name, op, chosen, offsets.get(node.name))
            for node, op, chosen in choices(self.network, bits)
        }

    def _rounded(self, name: str, op: Affine, chosen: Choice, offsets: Indices | None) -> Parameters:
        key = (name, chosen, b"" if offsets is None else offsets.tobytes())
        if key not in self._kept:
            if self._numbers > MOST_KEPT:
                self._kept.clear()
                self._numbers = 0
            words = words_of(op.kernel, chosen.bits, offsets, chosen.families)
            kernel = words.nearest(op.kernel)
            if name in self.factors:
                kernel = _feed_back(op.kernel, words, self.factors[name])
            self._kept[key] = bias_corrected(self.network, name, kernel, words, chosen.bias_bits, self.centers)
            self._numbers += kernel.size
        return self._kept[key]


@dataclass(frozen=True)
class Factors:
    """How errors of a layer's weights are spread, per group of channels.

    Args:
        order: the inputs of a window, those that vary most first, shape `(groups, fan_in)`.
        upper: the upper Cholesky factor of the inverse of their covariance in this order, `(groups, fan_in, fan_in)`.
    """

    order: Indices
    upper: Reals

    @classmethod
    def of(cls, covariance: Reals) -> Factors:
        """Those of positive definite matrices."""
        order = np.argsort(-np.diagonal(covariance, axis1=1, axis2=2), axis=1, kind="stable")
        sorted_by_variance = np.stack([own[np.ix_(at, at)] for own, at in zip(covariance, order, strict=True)])
        lower: Reals = np.linalg.cholesky(np.linalg.inv(sorted_by_variance)).astype(np.float64, copy=False)
        return cls(order, np.swapaxes(lower, 1, 2))


def _factors(network: Network, samples: Reals, deadline: Deadline) -> dict[str, Factors]:
    """For each layer those of what it multiplies, over all its uses."""
    sums: dict[str, tuple[Reals, Reals, int]] = {}
    suited = _suited(network)
    for tile in network.tiles(samples):
        if sums and deadline.passed:
            break
        deadline.count(4.0 * network.products * len(tile))
        values = network.evaluate_all(tile)
        for node, op in suited:
            rows = _windows(op, values[node.inputs[0]])
            square, total = np.swapaxes(rows, 1, 2) @ rows, rows.sum(axis=1)
            owner = network.owner(node.name)
            old = sums.get(owner, (0.0, 0.0, 0))
            sums[owner] = (old[0] + square, old[1] + total, old[2] + rows.shape[1])
    found: dict[str, Factors] = {}
    for name, (square, total, count) in sums.items():
        mean = total / count
        covariance: Reals = square / count - mean[:, :, None] * mean[:, None, :]
        size = covariance.shape[-1]
        diagonal: Reals = np.trace(covariance, axis1=1, axis2=2) / covariance.shape[-1]
        noise: Reals = NOISE * np.trace(square, axis1=1, axis2=2) / count
        damped: Reals = covariance + (np.maximum(DAMPING * diagonal, noise) + 1e-30)[:, None, None] * np.eye(size)
        found[name] = Factors.of(damped)
    return found


def _suited(network: Network) -> list[tuple[Node, Affine]]:
    """Layers whose covariances are taken, in order, as long as these fit in memory."""
    found: list[tuple[Node, Affine]] = []
    numbers = 0
    for node, op in network.affine():
        if isinstance(op, Dense | Conv) and 1 < op.fan_in <= MOST_INPUTS:
            own = (op.groups if isinstance(op, Conv) else 1) * op.fan_in**2
            if numbers + own <= SCRATCH_NUMBERS // COVARIANCE_PARTS:
                found.append((node, op))
                numbers += own
    return found


def _windows(op: Affine, x: Reals) -> Reals:
    """Some of what the layer multiplies, one row a position, shape `(groups, rows, fan_in)`."""
    if isinstance(op, Conv):
        patches = op.window.patches(x)
        places = patches.shape[: 1 + len(op.strides)]
        count = math.prod(places)
        flat = patches[np.unravel_index(np.arange(0, count, max(1, count // MOST_ROWS)), places)]
        parts = flat.reshape(len(flat), -1, op.groups, op.kernel.shape[-2])
        return np.ascontiguousarray(np.moveaxis(parts, 2, 0).reshape(op.groups, len(flat), -1))
    return x.reshape(1, -1, op.kernel.shape[0])


def _feed_back(kernel: Reals, words: Words, factors: Factors) -> Codes:
    """Codes of a kernel, which stay within their words."""
    groups, size = factors.order.shape
    order = factors.order.T[:, :, None]
    left = np.take_along_axis(np.ldexp(kernel, words.bits).reshape(size, groups, -1), order, axis=0)
    codes = np.empty_like(left)
    for row in range(size):
        codes[row] = words.held(left[row].reshape(-1)).reshape(codes[row].shape)
        error = (left[row] - codes[row]) / factors.upper[:, row, row, None]
        left[row + 1 :] -= np.swapaxes(factors.upper[:, row, row + 1 :], 0, 1)[:, :, None] * error
    found = np.empty_like(codes)
    np.put_along_axis(found, order, codes, axis=0)
    return found.reshape(kernel.shape).astype(np.int64)
