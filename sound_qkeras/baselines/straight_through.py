"""Weight-only training: rounded weights forward, latent float weights that the gradient moves as if nothing was rounded.

    y = f(Q(w), x),   w <- w - rate * dL/dQ(w),

with `Q` QKeras' `quantized_bits`, whose gradient is one: a straight-through estimator. Biases and values stay floats.

References: Bengio et al., Estimating or propagating gradients through stochastic neurons (2013); Courbariaux et al.,
BinaryConnect (NeurIPS 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sound_qkeras.baselines.candidate import FLOAT_BITS, count_bits, weight_nodes
from sound_qkeras.baselines.fixed import check_word_length, round_tensor
from sound_qkeras.fixed_point import Format, to_grid
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.autoqkeras.training import Data, Training, train
from sound_qkeras.keras_io.write.quantizers import model_quantize
from sound_qkeras.network import Network
from sound_qkeras.tuning.costs import Cost

# The argument of QKeras' layers for the kernel's quantizer.
KERNELS = {
    "Dense": "kernel_quantizer",
    "Conv1D": "kernel_quantizer",
    "Conv2D": "kernel_quantizer",
    "DepthwiseConv2D": "depthwise_quantizer",
}


@dataclass(frozen=True, eq=False)
class Trained:
    """A QKeras model with rounded weights, its cost, the seconds its training took, and notes for the reader."""

    model: Any
    cost: Cost
    seconds: float
    notes: tuple[str, ...]


def straight_through(
    model: Any, network: Network, bits: int, data: Data, validation: Data, training: Training
) -> Trained:
    """Train a model's weights in a word of `bits` bits, its fractional bits chosen for the trained weights.

    Args:
        model: the trained float tf_keras model; it is not changed.
        network: the same, read.
        bits: of every weight.
        data: inputs and targets.
        validation: those by which the epoch is chosen.
        training: how.

    Raises:
        InputError: the word length is not usable.
    """
    check_word_length(bits)
    formats = kernel_formats(model, bits)
    rounded = with_rounded_weights(model, formats)
    seconds = train(rounded, data, validation, network.head, training)
    lengths = {name: _needed(rounded.get_layer(name), output) for name, output in formats.items()}
    kernels = {node.name: FLOAT_BITS * op.kernel.size for node, op in network.owners()}
    for node, op in weight_nodes(network):
        kernels[node.name] = lengths.get(node.layer, FLOAT_BITS) * op.kernel.size
    biases = {node.name: FLOAT_BITS * op.bias.size for node, op in network.owners()}
    values = dict.fromkeys(network.rounding_points, FLOAT_BITS)
    left = [layer.name for layer in model.layers if layer.weights and type(layer).__name__ not in KERNELS]
    notes = (f"Biases and values between layers stay in floating point, {FLOAT_BITS} bits each.",)
    if left:
        notes += (f"Not rounded: {', '.join(left)}; counted as if folded into the layers around them.",)
    longer = max(lengths.values(), default=bits)
    if longer > bits:
        notes += (f"Weights grew in training, and need words of up to {longer} bits.",)
    return Trained(rounded, count_bits(network, kernels, biases, values), seconds, notes)


def kernel_formats(model: Any, bits: int) -> dict[str, Format]:
    """For each layer with a kernel, the word of `bits` bits with the most fractional bits that holds its weights."""
    layers = [layer for layer in model.layers if type(layer).__name__ in KERNELS]
    return {layer.name: round_tensor(_kernel(layer), bits)[1] for layer in layers}


def with_rounded_weights(model: Any, formats: Mapping[str, Format]) -> Any:
    """The QKeras model whose kernels have formats and everything else is as it was, the weights copied."""
    config = {
        name: {KERNELS[type(model.get_layer(name)).__name__]: output.to_quantized_bits()}
        for name, output in formats.items()
    }
    return model_quantize(model, config, transfer_weights=True)


def _needed(layer: Any, output: Format) -> int:
    """Bits that the rounded weights need: QKeras clips them at one, not at the ends of a finer format."""
    codes = to_grid(np.asarray(layer.get_quantizers()[0](_kernel(layer)), dtype=np.float64), output.fractional_bits)
    found = Format.for_codes(int(codes.min()), int(codes.max()), output.fractional_bits)
    return max(found.word_length, output.word_length)


def _kernel(layer: Any) -> Reals:
    return np.asarray(layer.get_weights()[0], dtype=np.float64)
