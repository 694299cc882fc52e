"""From integers to a fixed-point network whose every value has a word of a given length and provably fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Codes, Format, to_grid
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.tuning.build import narrow
from sound_qkeras.tuning.groups import candidate_bits
from sound_qkeras.verify.propagation import fixed_ranges, propagate

SHORTEST_WORD = 2
# Where a range is zero, or next to it, more would only strain float64: this is a step of 1e-30.
MOST_FRACTIONAL_BITS = 100


def check_word_length(word_length: int) -> None:
    """Refuse word lengths no format has.

    Raises:
        InputError: outside 2 to 53.
    """
    if not SHORTEST_WORD <= word_length <= MAX_WORD_LENGTH:
        raise InputError(f"word length {word_length}; accepted: {SHORTEST_WORD} to {MAX_WORD_LENGTH} bits")


def fitting_bits(low: float, high: float, word_length: int) -> int:
    """The most fractional bits with which values between `low` and `high`, rounded to nearest, fit a word."""
    return min(max(candidate_bits(low, high, 1, word_length)), MOST_FRACTIONAL_BITS)


def fixed_format(low: int, high: int, fractional_bits: int, word_length: int) -> Format:
    """A format of exactly `word_length` bits for codes between `low` and `high`, signed where one is negative."""
    found = Format.for_codes(low, high, fractional_bits)
    length = max(word_length, found.word_length)
    return Format(length, length - fractional_bits - found.signed, found.signed)


def round_tensor(values: Reals, word_length: int) -> tuple[Codes, Format]:
    """Codes of the nearest numbers, half to even, in a word with as many fractional bits as the tensor's range allows."""
    bits = fitting_bits(float(np.min(values)), float(np.max(values)), word_length)
    codes = to_grid(values, bits).astype(np.int64)
    return codes, fixed_format(int(codes.min()), int(codes.max()), bits, word_length)


def round_affine(kernel: Reals, bias: Reals, kernel_length: int, bias_length: int) -> AffineCodes:
    """Kernel and bias, each rounded to nearest in a word of its own."""
    kernel_codes, kernel_format = round_tensor(kernel, kernel_length)
    return AffineCodes(kernel_codes, kernel_format, *round_tensor(bias, bias_length))


def with_word_length(network: Network, box: Interval, parameters: Mapping[str, AffineCodes], word_length: int) -> Pair:
    """Round every value to a word of `word_length` bits, with as many fractional bits as its proved range leaves room for.

    Guarantee: nothing overflows for any input in the box.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`.
        parameters: integers of every affine node.
        word_length: bits of every rounded value, the input's included.

    Raises:
        InputError: the word length is outside 2 to 53.
    """
    check_word_length(word_length)
    facts = propagate(network, box[None]).facts
    ranges = {name: facts[name].value for name in network.rounding_points}
    bits = {name: fitting_bits(float(r.lower.min()), float(r.upper.max()), word_length) for name, r in ranges.items()}
    while True:
        found = with_fractional_bits(network, box, parameters, bits)
        excess = {name: output.word_length - word_length for name, output in found.formats.items()}
        if max(excess.values()) <= 0:
            break
        bits = {name: value - max(excess[name], 0) for name, value in bits.items()}
    formats = {
        name: Format(word_length, word_length - output.fractional_bits - output.signed, output.signed)
        for name, output in found.formats.items()
    }
    return replace(found, formats=formats)


def with_fractional_bits(
    network: Network, box: Interval, parameters: Mapping[str, AffineCodes], bits: Mapping[str, int]
) -> Pair:
    """Round every value to the given fractional bits, in the narrowest words that provably hold it for any input in the box."""
    wide = {name: Format(MAX_WORD_LENGTH, MAX_WORD_LENGTH - 1 - value, True) for name, value in bits.items()}
    provisional = Pair(network, parameters, wide, {})
    ranges = fixed_ranges(propagate(network, box[None], provisional))
    return narrow(provisional, {name: (float(r.lower), float(r.upper)) for name, r in ranges.items()})
