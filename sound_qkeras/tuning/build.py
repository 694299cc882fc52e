"""From chosen fractional bits to integers and formats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Codes, Format, to_grid
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.ops import Affine, AffineCodes
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.tuning.families import words_of
from sound_qkeras.tuning.groups import Bits
from sound_qkeras.tuning.words import Words, check_words
from sound_qkeras.verify.proof import with_margin


@dataclass(frozen=True)
class Parameters:
    """Integers of one affine node before a format is put around them.

    Args:
        kernel: codes of the kernel, each in the steps of its word.
        words: the words, one kind or one for every output channel.
        bias: codes of the bias.
        bias_bits: its fractional bits.
    """

    kernel: Codes
    words: Words
    bias: Codes
    bias_bits: int

    @property
    def value(self) -> Reals:
        """The kernel that the codes stand for."""
        return self.words.value(self.kernel)

    def to_codes(self) -> AffineCodes:
        """In the narrowest formats that hold them; the kernel's has the finest step of all channels."""
        finest = int(self.words.bits.max())
        check_words(np.ldexp(np.abs(self.kernel).astype(np.float64), finest - self.words.bits), self.value, finest)
        kernel = self.kernel << (finest - self.words.bits)
        return AffineCodes(
            kernel,
            self._kernel_format(kernel, finest),
            self.bias,
            Format.for_codes(int(self.bias.min()), int(self.bias.max()), self.bias_bits),
            self._channel_formats() if self.words.bits.ndim and self.words.levels is None else None,
            self.words.grid,
        )

    def _kernel_format(self, kernel: Codes, finest: int) -> Format:
        """The narrowest that holds a kernel; of few values all of them, so that another kernel of the same values fits, too."""
        if self.words.levels is not None:
            kernel = self.words.levels << (finest - int(self.words.bits.min()))
        return Format.for_codes(int(kernel.min()), int(kernel.max()), finest)

    def _channel_formats(self) -> tuple[Format, ...]:
        columns = self.kernel.reshape(-1, self.kernel.shape[-1])
        ends = zip(columns.min(axis=0).tolist(), columns.max(axis=0).tolist(), self.words.bits.tolist(), strict=True)
        return tuple(Format.for_codes(low, high, bits) for low, high, bits in ends)


def nearest(values: Reals, bits: int) -> Codes:
    """Nearest codes of numbers, half to even.

    Raises:
        InputError: a code would need more than 53 bits.
    """
    codes = to_grid(values, bits)
    check_words(codes, values, bits)
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
    found: dict[str, Parameters] = {}
    for node, op, chosen in choices(network, bits):
        words = words_of(op.kernel, chosen.bits, (offsets or {}).get(node.name), chosen.families)
        kernel = words.nearest(op.kernel)
        found[node.name] = bias_corrected(network, node.name, kernel, words, chosen.bias_bits, centers)
    return found


@dataclass(frozen=True)
class Choice:
    """What was chosen for one affine node: fractional bits of weights and biases, and what the weights may be."""

    bits: int
    bias_bits: int
    families: tuple[str, ...]


def choices(network: Network, bits: Bits) -> Iterator[tuple[Node, Affine, Choice]]:
    """What was chosen for each affine node that has parameters."""
    groups = {(group.node, group.kind): group for group in bits}
    for node, op in network.owners():
        weight, bias = (groups[node.name, kind] for kind in ("weight", "bias"))
        yield node, op, Choice(bits[weight], bits[bias], weight.families)


def bias_corrected(
    network: Network, name: str, kernel: Codes, words: Words, bias_bits: int, centers: Mapping[str, Reals]
) -> Parameters:
    """Codes of a kernel, and a bias that absorbs what they change at the centres, on average over positions and uses."""
    uses = [(cast(Affine, network.by_name[use].op), centers[use]) for use in network.uses(name)]
    op = uses[0][0]
    residual = words.value(kernel) - op.kernel
    shifts = [one.apply(residual, center[None])[0].reshape(-1, *op.bias.shape).mean(axis=0) for one, center in uses]
    bias = op.bias - np.mean(shifts, axis=0)
    # What a bias absorbs may be far larger than the bias: it has no more fractional bits than there is room for then.
    bias_bits = min(bias_bits, MAX_WORD_LENGTH - 2 - math.frexp(float(np.max(np.abs(bias))))[1])
    return Parameters(kernel, words, nearest(bias, bias_bits), bias_bits)


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
