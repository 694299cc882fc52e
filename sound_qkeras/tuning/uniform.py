"""The smallest single format for a whole network: what mixed formats are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sound_qkeras.analysis.splitting import Splitting, refine
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.tuning.build import Parameters, nearest, provisional
from sound_qkeras.tuning.costs import Cost, cost_of
from sound_qkeras.tuning.groups import groups_of
from sound_qkeras.verify.proof import bound_leaves, check_overflow, with_margin

# Fractional bits to begin with, and the fewest that are tried.
FIRST_BITS, FEWEST_BITS = 14, -16
# Beyond these, a bound over its tolerance says no more than that many bits can go, or must come.
SMALLEST, LARGEST = 2.0**-8, 2.0**40


@dataclass(frozen=True)
class Uniform:
    """One format for every weight, bias and rounded value, proved to meet a tolerance.

    Args:
        format: the format.
        relative: the proved bound over the tolerance, at most 1.
        cost: bits and bit operations.
    """

    format: Format
    relative: float
    cost: Cost


def smallest_uniform(network: Network, box: Interval, eps: Reals, *, max_leaves: int = 64) -> Uniform | None:
    """The format of fewest bits that, used for every weight, bias and rounded value, is proved to stay within `eps`.

    Guarantee: the proof is that of a certificate, on at most `max_leaves` parts of the box: within `eps` everywhere and
    no overflow. One fractional bit fewer was tried and not proved; sums are exact and cost nothing. Parameters are rounded
    to nearest, and the network is not rewritten.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`.
        eps: tolerance per output, shape `(outputs,)`.
        max_leaves: most parts the box is cut into.

    Returns:
        The format, or None where none of at most 53 bits was proved.
    """
    low, high, bits = FEWEST_BITS - 1, MAX_WORD_LENGTH, FIRST_BITS
    best = None
    while high - low > 1:
        relative, found = _attempt(network, box, eps, bits, max_leaves)
        if relative <= 1.0 and found is None:
            high = bits  # proved, but in no format of 53 bits: more fractional bits would not fit either
        elif found is not None:
            high, best = bits, found
        else:
            low = bits
        # Errors are proportional to the step.
        bits = min(max(bits + math.ceil(math.log2(min(max(relative, SMALLEST), LARGEST))), low + 1), high - 1)
    return best


def _attempt(network: Network, box: Interval, eps: Reals, bits: int, max_leaves: int) -> tuple[float, Uniform | None]:
    """The proved bound over the tolerance and, where that is at most 1, the format, unless it is too long."""
    try:
        codes = {
            node.name: Parameters(nearest(op.kernel, bits), bits, nearest(op.bias, bits), bits)
            for node, op in network.affine()
        }
    except InputError:
        return 1.0, None
    twin = provisional(network, dict.fromkeys(groups_of(network), bits), codes)
    splitting = refine(twin, box, eps, max_leaves=max_leaves)
    if not splitting.worst <= 1.0:
        return splitting.worst, None
    return splitting.worst, _in_one_format(twin, box, splitting)


def _in_one_format(twin: QuantizedNetwork, box: Interval, splitting: Splitting) -> Uniform | None:
    ranges = {name: with_margin(*ends) for name, ends in bound_leaves(twin, box, splitting.tree).ranges.items()}
    needed = [Format.for_range(*ranges[name], output.fractional_bits) for name, output in twin.formats.items()]
    for codes in twin.parameters.values():
        needed += [codes.kernel_format, codes.bias_format]
    integer_bits = max(output.integer_bits for output in needed)
    word_length = integer_bits + needed[0].fractional_bits + 1
    if word_length > MAX_WORD_LENGTH:
        return None
    only = Format(word_length, integer_bits, True)
    parameters = {n: AffineCodes(c.kernel, only, c.bias, only) for n, c in twin.parameters.items()}
    whole = replace(twin, parameters=parameters, formats=dict.fromkeys(twin.formats, only))
    check_overflow(whole, ranges)
    return Uniform(only, splitting.worst, cost_of(whole))
