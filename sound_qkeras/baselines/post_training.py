"""Weights rounded after training, one tensor at a time, by rule and level set; see `levels`.

With uniform levels the step may be a power of two: then the outcome is a fixed-point network, which the verifier can prove.
Otherwise weights become floats from a code book, and everything else stays in floating point.
"""

from __future__ import annotations

import numpy as np

from sound_qkeras.baselines.candidate import FLOAT_BITS, Candidate, from_quantized, from_weights, weight_nodes
from sound_qkeras.baselines.fixed import (
    SHORTEST_WORD,
    check_word_length,
    fitting_bits,
    fixed_format,
    round_affine,
    round_tensor,
    with_word_length,
)
from sound_qkeras.baselines.levels import check_options, quantize
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, to_grid
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network
from sound_qkeras.network.ops import AffineCodes


def from_levels(
    network: Network, bits: int, *, rule: str = "nearest", kind: str = "uniform", seed: int = 0
) -> Candidate:
    """Weights from a code book of `2**bits` levels made for each tensor, the ends of its range among them if uniform.

    Args:
        network: the trained network.
        bits: per weight.
        rule: "nearest", "mid_rise" or "stochastic".
        kind: of levels: "uniform", "histogram" or "normal".
        seed: of stochastic rounding; every tensor gets numbers of its own.

    Raises:
        InputError: an option is not known.
    """
    check_options(bits, rule, kind)
    book = 2 if kind in ("uniform", "normal") else 2**bits  # two numbers define evenly or normally spaced levels
    kernels: dict[str, Reals] = {}
    sizes: dict[str, int] = {}
    for number, (node, op) in enumerate(weight_nodes(network)):
        kernels[node.name] = quantize(op.kernel, bits, rule=rule, kind=kind, seed=seed + number)
        sizes[node.name] = bits * op.kernel.size + book * FLOAT_BITS
    note = f"Each code book counts {book} floats of {FLOAT_BITS} bits."
    floats = {node.name: FLOAT_BITS * op.kernel.size for node, op in weight_nodes(network)}
    return from_weights(f"{rule} rounding, {kind} levels, {bits} bits", network, kernels, sizes, (note,), floats)


def on_grid(
    network: Network, box: Interval, bits: int, *, rule: str = "nearest", other_bits: int = 16, seed: int = 0
) -> Candidate:
    """Weights on uniform levels whose step is a power of two, `k step` or, mid-rise, `(k + 1/2) step`.

    Guarantee: nothing overflows for any input in the box.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`.
        bits: of a weight.
        rule: "nearest", "mid_rise" or "stochastic".
        other_bits: word length of biases, values, and the factors of poolings and normalisations, rounded to nearest.
        seed: of stochastic rounding.

    Raises:
        InputError: an option is not usable.
    """
    check_options(bits, rule, "uniform")
    check_word_length(other_bits)
    if bits < SHORTEST_WORD:
        raise InputError(f"received {bits} bits; accepted on a power-of-two grid: {SHORTEST_WORD} or more")
    parameters = {node.name: round_affine(op.kernel, op.bias, other_bits, other_bits) for node, op in network.owners()}
    sizes: dict[str, int] = {}
    for number, (node, op) in enumerate(weight_nodes(network)):
        codes, fractional_bits = grid_codes(op.kernel, bits, rule, np.random.default_rng(seed + number))
        output = fixed_format(int(codes.min()), int(codes.max()), fractional_bits, bits)
        parameters[node.name] = AffineCodes(codes, output, *round_tensor(op.bias, other_bits))
        sizes[node.name] = bits * op.kernel.size
    pair = with_word_length(network, box, parameters, other_bits)
    notes = ("The last bit of every weight code is one and is not stored.",) if rule == "mid_rise" else ()
    name = f"{rule} rounding, power-of-two step, {bits} bits"
    return from_quantized(name, pair, kernel_bits=sizes, notes=notes)


def grid_codes(values: Reals, bits: int, rule: str, rng: np.random.Generator) -> tuple[Codes, int]:
    """Codes of a tensor and their fractional bits, for words of `bits` bits.

    A mid-rise quantiser's levels are odd multiples of half its step: its codes are odd, and count half steps.
    """
    if rule == "mid_rise":
        largest = np.nextafter(np.max(np.abs(values)), 0.0)  # the outermost cells hold their outer edges
        fractional_bits = bits - 1 - int(np.frexp(largest)[1])
        cells = np.floor(np.ldexp(values, fractional_bits))
        half = 2 ** (bits - 1)
        return 2 * np.clip(cells, -half, half - 1).astype(np.int64) + 1, fractional_bits + 1
    fractional_bits = fitting_bits(*_ends(values), bits)
    if rule == "nearest":
        return to_grid(values, fractional_bits).astype(np.int64), fractional_bits
    scaled = np.ldexp(values, fractional_bits)
    codes = np.floor(scaled + rng.random(values.shape)).astype(np.int64)
    low, high = _ends(to_grid(values, fractional_bits))
    held = fixed_format(int(low), int(high), fractional_bits, bits)
    return np.clip(codes, held.min_code, held.max_code), fractional_bits


def _ends(values: Reals) -> tuple[float, float]:
    return float(values.min()), float(values.max())
