"""Formats by habit: the same word length everywhere.

*plain*: every tensor has one word length and as many fractional bits as its range leaves room for.
*single*: one format for everything, its fractional bits included; see `tuning.uniform`, which finds the smallest.
*auto_po2*: weights as QKeras' `quantized_bits(b, 0, alpha="auto_po2")` would store them, one power-of-two scale an output
channel, fitted by least squares; biases and values as in *plain*.

Reference: Coelho et al., Automatic heterogeneous quantization of deep neural networks (Nature Machine Intelligence 2021).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.baselines.candidate import Candidate, from_quantized, weight_nodes
from sound_qkeras.baselines.fixed import (
    SHORTEST_WORD,
    check_word_length,
    fixed_format,
    round_affine,
    round_tensor,
    with_word_length,
)
from sound_qkeras.baselines.proving import ProvedCandidate, prove_candidate
from sound_qkeras.errors import InfeasibleError, InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Codes
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.tuning.uniform import smallest_uniform
from sound_qkeras.verify.certificate import make_certificate
from sound_qkeras.verify.split_tree import SplitTree

SCALES = ("plain", "auto_po2")
# What people set a whole network to.
FLAT = (4, 8, 16)
# QKeras' K.epsilon(), and how often it fits the scale again.
EPSILON = np.float32(1e-7)
REFITS = 5

Floats = npt.NDArray[np.float32]


def uniform(network: Network, box: Interval, word_length: int, *, scale: str = "plain") -> Candidate:
    """Every weight, bias and value in a word of the same length.

    Guarantee: nothing overflows for any input in the box; integer bits come from proved ranges, not from samples.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`.
        word_length: bits of every number.
        scale: "plain" or "auto_po2".

    Raises:
        InputError: the word length or the scale is not usable.
    """
    check_word_length(word_length)
    if scale not in SCALES:
        raise InputError(f"scale '{scale}' is unknown; accepted: {', '.join(SCALES)}")
    parameters = {
        node.name: round_affine(op.kernel, op.bias, word_length, word_length) for node, op in network.owners()
    }
    kernel_bits: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    if scale == "auto_po2":
        for node, op in weight_nodes(network):
            parameters[node.name] = _auto_po2_codes(op.kernel, op.bias, word_length)
            kernel_bits[node.name] = word_length * op.kernel.size
        notes = ("The power-of-two scale of each output channel is a shift and counts no bits.",)
    pair = with_word_length(network, box, parameters, word_length)
    return from_quantized(f"uniform {word_length} bits, {scale}", pair, kernel_bits=kernel_bits, notes=notes)


def auto_po2(kernel: Reals, bits: int) -> tuple[Codes, Codes]:
    """Codes and scales as `quantized_bits(bits, 0, alpha="auto_po2")` finds them, in float32 like QKeras.

    The scale of an output channel starts at `2 max|w| / levels` and is fitted five times, `<w, z> / <z, z>`, each time
    rounded to a power of two; the codes z are those of the last but one scale, half away from zero.

    Args:
        kernel: output channels on the last axis, two axes or more.
        bits: of a weight, the sign included.

    Returns:
        Codes `z` of the kernel's shape, `|z| <= 2**(bits-1) - 1`, and exponents `(channels,)`: weights are `z * 2**exponent`.
    """
    x: Floats = kernel.astype(np.float32)
    axes = tuple(range(x.ndim - 1))
    largest = np.float32(2 ** (bits - 1) - 1)
    exponent = _log2(np.max(np.abs(x), axis=axes, keepdims=True) * 2 / (2 * largest))
    z = np.zeros_like(x)
    for _ in range(REFITS):
        v = np.floor(np.abs(x) / np.exp2(exponent) + np.float32(0.5))
        z = np.sign(x) * np.minimum(v, largest)
        qx, qq = np.mean(x * z, axis=axes, keepdims=True), np.mean(z * z, axis=axes, keepdims=True)
        exponent = _log2(qx / (qq + EPSILON))
    return z.astype(np.int64), exponent.ravel().astype(np.int64)


def _log2(scale: Floats) -> Floats:
    """Nearest exponent of a power of two, as QKeras computes it."""
    return np.rint(np.log(scale + EPSILON) / np.float32(np.log(2.0)))


def _auto_po2_codes(kernel: Reals, bias: Reals, word_length: int) -> AffineCodes:
    codes, exponents = auto_po2(kernel, word_length)
    used = np.any(codes.reshape(-1, codes.shape[-1]), axis=0)
    finest = int(exponents[used].min()) if np.any(used) else 0
    shifts = np.where(used, exponents - finest, 0)
    if np.max(shifts) + word_length > 53:
        raise InputError(
            f"channels differ by a factor of 2**{np.max(shifts)}; accepted: 2**{53 - word_length}; rescale them"
        )
    shared = codes << shifts
    output = fixed_format(int(shared.min()), int(shared.max()), -finest, word_length)
    return AffineCodes(shared, output, *round_tensor(bias, word_length))


def single_format(network: Network, box: Interval, eps: Reals) -> Candidate:
    """The format of fewest bits that is proved to meet `eps` when every weight, bias and value has it.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`.
        eps: tolerance per output, shape `(outputs,)`.

    Raises:
        InfeasibleError: none of at most 53 bits does.
    """
    longest = max(FLAT)
    asked = make_certificate(uniform(network, box, longest).quantized_network, box, eps, SplitTree())
    found = smallest_uniform(network, asked)
    if found is None:
        raise InfeasibleError(
            f"no single format of at most {MAX_WORD_LENGTH} bits is proved to meet the tolerance; raise eps",
            best_bound=float("inf"),
        )
    return from_quantized(f"single format of {found.format.word_length} bits", found.pair)


def smallest_word(
    network: Network,
    box: Interval,
    eps: Reals,
    *,
    scale: str = "plain",
    longest: int = 32,
    max_leaves: int = 256,
    seconds: float = 30.0,
) -> ProvedCandidate:
    """The shortest word for which the uniform format is proved to meet `eps`.

    Every shorter word was tried and not proved: bounds need not fall with every bit, least of all those of auto_po2, whose
    scale may clip the largest weights at any length.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`.
        eps: tolerance per output, shape `(outputs,)`.
        scale: as in `uniform`.
        longest: most bits tried.
        max_leaves: as in `prove_candidate`, for each word length tried.
        seconds: the same.

    Raises:
        InfeasibleError: `longest` bits do not do; carries the best bound.
    """
    best = float("inf")
    for word_length in range(SHORTEST_WORD, longest + 1):
        candidate = uniform(network, box, word_length, scale=scale)
        found = prove_candidate(candidate, box, eps, max_leaves=max_leaves, seconds=seconds, hopeless=True)
        if found.meets(eps):
            return found
        best = min(best, found.bound)
    raise InfeasibleError(
        f"uniform words of up to {longest} bits ({scale}) are proved to {best:.3g} at best; raise eps above it or allow "
        "longer words",
        best_bound=best,
    )
