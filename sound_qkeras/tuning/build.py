"""From chosen fractional bits to integers and formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Codes, Format, to_grid
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.tuning.groups import Group
from sound_qkeras.verify.proof import with_margin


@dataclass(frozen=True)
class Parameters:
    """Integers of one affine node before a format is put around them."""

    kernel: Codes
    kernel_bits: int
    bias: Codes
    bias_bits: int

    def to_codes(self) -> AffineCodes:
        """In the narrowest formats that hold them."""
        return AffineCodes(
            self.kernel,
            Format.for_codes(int(self.kernel.min()), int(self.kernel.max()), self.kernel_bits),
            self.bias,
            Format.for_codes(int(self.bias.min()), int(self.bias.max()), self.bias_bits),
        )


def nearest(kernel: Reals, bits: int) -> Codes:
    """Nearest codes of a kernel, half to even.

    Raises:
        InputError: a code would need more than 53 bits.
    """
    codes = to_grid(kernel, bits)
    if np.any(np.abs(codes) >= 2.0 ** (MAX_WORD_LENGTH - 1)):
        raise InputError(
            f"{bits} fractional bits need more than {MAX_WORD_LENGTH} bits for weights up to {np.abs(kernel).max():.3g}"
        )
    return codes.astype(np.int64)


def round_parameters(
    network: Network, bits: Mapping[Group, int], centers: Mapping[str, Reals]
) -> dict[str, Parameters]:
    """Nearest weights, and biases that absorb the mean weight error: `b_q = round(b - dW m)`, on average over positions.

    Args:
        network: the float network.
        bits: fractional bits of every group.
        centers: for each affine node the point `m` of its input at which weight errors are compensated.
    """
    chosen = {(group.node, group.kind): value for group, value in bits.items()}
    found: dict[str, Parameters] = {}
    for node, op in network.affine():
        kernel_bits, bias_bits = chosen[node.name, "weight"], chosen[node.name, "bias"]
        kernel = nearest(op.kernel, kernel_bits)
        residual = np.ldexp(kernel.astype(np.float64), -kernel_bits) - op.kernel
        shift = op.apply(residual, centers[node.name][None])[0]
        bias = nearest(op.bias - shift.reshape(-1, *op.bias.shape).mean(axis=0), bias_bits)
        found[node.name] = Parameters(kernel, kernel_bits, bias, bias_bits)
    return found


def provisional(network: Network, bits: Mapping[Group, int], parameters: Mapping[str, Parameters]) -> QuantizedNetwork:
    """The network with rounding points as wide as formats get: for analysis, before the proved ranges narrow them."""
    formats = {
        group.node: Format(MAX_WORD_LENGTH, MAX_WORD_LENGTH - 1 - value, True)
        for group, value in bits.items()
        if group.kind == "activation"
    }
    return QuantizedNetwork(network, {name: p.to_codes() for name, p in parameters.items()}, formats, {})


def narrow(quantized: QuantizedNetwork, ranges: Mapping[str, tuple[float, float]]) -> QuantizedNetwork:
    """The same integers in the narrowest formats that hold the ranges as they are recorded; accumulators get theirs."""
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
