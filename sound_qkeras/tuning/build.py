"""From chosen fractional bits to integers and formats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Codes, Format, to_grid
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.ops import Affine, AffineCodes
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.tuning.groups import Bits
from sound_qkeras.verify.proof import with_margin


@dataclass(frozen=True)
class Parameters:
    """Integers of one affine node before a format is put around them.

    Where output channels have fractional bits of their own, `channel_bits`, each column of codes is a multiple of its step.
    """

    kernel: Codes
    kernel_bits: int
    bias: Codes
    bias_bits: int
    channel_bits: Indices | None = None

    @property
    def step(self) -> Reals:
        """One unit in the last place of each output channel's weights."""
        own = np.full(self.kernel.shape[-1], self.kernel_bits) if self.channel_bits is None else self.channel_bits
        return np.ldexp(1.0, -own)

    def flipped(self, flips: Codes) -> Parameters:
        """With so many steps added to each weight."""
        if self.channel_bits is not None:
            flips = flips << (self.kernel_bits - self.channel_bits)
        return replace(self, kernel=self.kernel + flips)

    def to_codes(self) -> AffineCodes:
        """In the narrowest formats that hold them."""
        return AffineCodes(
            self.kernel,
            Format.for_codes(int(self.kernel.min()), int(self.kernel.max()), self.kernel_bits),
            self.bias,
            Format.for_codes(int(self.bias.min()), int(self.bias.max()), self.bias_bits),
            self._channel_formats(),
        )

    def _channel_formats(self) -> tuple[Format, ...] | None:
        if self.channel_bits is None:
            return None
        own = self.kernel >> (self.kernel_bits - self.channel_bits)
        columns = own.reshape(-1, own.shape[-1])
        ends = zip(columns.min(axis=0).tolist(), columns.max(axis=0).tolist(), self.channel_bits.tolist(), strict=True)
        return tuple(Format.for_codes(low, high, bits) for low, high, bits in ends)


def nearest(kernel: Reals, bits: int, channel_bits: Indices | None = None) -> Codes:
    """Nearest codes of a kernel, half to even; each channel on a grid of its own where `channel_bits` are given.

    Raises:
        InputError: a code would need more than 53 bits.
    """
    if channel_bits is None:
        codes = to_grid(kernel, bits)
    else:
        codes = np.ldexp(np.rint(np.ldexp(kernel, channel_bits)), bits - channel_bits)
    if np.any(np.abs(codes) >= 2.0 ** (MAX_WORD_LENGTH - 1)):
        raise InputError(
            f"{bits} fractional bits need more than {MAX_WORD_LENGTH} bits for weights up to {np.abs(kernel).max():.3g}"
        )
    return codes.astype(np.int64)


def round_parameters(
    network: Network, bits: Bits, centers: Mapping[str, Reals], offsets: Mapping[str, Indices] | None = None
) -> dict[str, Parameters]:
    """Nearest weights, and biases that absorb the mean weight error: `b_q = round(b - dW m)`, on average over positions.

    Args:
        network: the float network.
        bits: fractional bits of every group.
        centers: for each affine node the point `m` of its input at which weight errors are corrected by the bias.
        offsets: for some affine nodes, how many fractional bits more each output channel has than its group.
    """
    chosen = {(group.node, group.kind): value for group, value in bits.items()}
    found: dict[str, Parameters] = {}
    for node, op in network.owners():
        kernel_bits, bias_bits = chosen[node.name, "weight"], chosen[node.name, "bias"]
        channel_bits = None
        if offsets and node.name in offsets:
            channel_bits = kernel_bits + offsets[node.name]
            kernel_bits = int(channel_bits.max())
        kernel = nearest(op.kernel, kernel_bits, channel_bits)
        rounded = bias_corrected(network, node.name, kernel, kernel_bits, bias_bits, centers)
        found[node.name] = replace(rounded, channel_bits=channel_bits)
    return found


def bias_corrected(
    network: Network, name: str, kernel: Codes, kernel_bits: int, bias_bits: int, centers: Mapping[str, Reals]
) -> Parameters:
    """Codes of a kernel, and a bias that absorbs what they change at the centres, on average over positions and uses."""
    uses = [(cast(Affine, network.by_name[use].op), centers[use]) for use in network.uses(name)]
    op = uses[0][0]
    residual = np.ldexp(kernel.astype(np.float64), -kernel_bits) - op.kernel
    shifts = [one.apply(residual, center[None])[0].reshape(-1, *op.bias.shape).mean(axis=0) for one, center in uses]
    bias = op.bias - np.mean(shifts, axis=0)
    # What a bias absorbs may be far larger than the bias: it has no more fractional bits than there is room for then.
    bias_bits = min(bias_bits, MAX_WORD_LENGTH - 2 - math.frexp(float(np.max(np.abs(bias))))[1])
    return Parameters(kernel, kernel_bits, nearest(bias, bias_bits), bias_bits)


def provisional(network: Network, bits: Bits, parameters: Mapping[str, Parameters]) -> Pair:
    """The network with rounding points as wide as formats get: for analysis, before the proved ranges narrow them."""
    formats = {
        group.node: Format(MAX_WORD_LENGTH, MAX_WORD_LENGTH - 1 - value, True)
        for group, value in bits.items()
        if group.kind == "activation"
    }
    return Pair(network, {name: p.to_codes() for name, p in parameters.items()}, formats, {})


def narrow(quantized: Pair, ranges: Mapping[str, tuple[float, float]]) -> Pair:
    """The same integers in the narrowest formats that hold the ranges as they are recorded; accumulators get theirs."""
    coarser = {name: _no_finer(quantized, name) for name in quantized.parameters}
    quantized = replace(quantized, parameters=coarser, accumulators={})  # which are as fine as biases were
    recorded = {name: with_margin(*ends) for name, ends in ranges.items()}
    formats = {
        name: Format.for_range(*recorded[name], output.fractional_bits) for name, output in quantized.formats.items()
    }
    accumulators = {
        node.name: Format.for_range(*recorded[node.name], quantized.exact_bits[node.name])
        for node in quantized.network.nodes
        if node.op.accumulates
    }
    return replace(quantized, formats=formats, accumulators=accumulators)


def _no_finer(quantized: Pair, name: str) -> AffineCodes:
    """The integers of a layer; a bias of zeros gets no more fractional bits than the products it is added to."""
    codes, network = quantized.parameters[name], quantized.network
    read = (quantized.fractional_bits[network.by_name[use].inputs[0]] for use in network.uses(name))
    bits = min(read) + codes.kernel_format.fractional_bits
    if np.any(codes.bias) or codes.bias_format.fractional_bits <= bits:
        return codes
    return replace(codes, bias_format=Format.for_codes(0, 0, bits))
