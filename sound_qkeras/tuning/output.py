"""The output rounded to few bits: its rounding takes up part of the tolerance, `step / 2`, and nothing else.

Each bit less doubles that part. So that the output costs the weights next to nothing, it is given a fixed small share
while they are chosen, and at the end whatever slack the proof has left, or finds by cutting the box into more leaves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sound_qkeras.errors import InfeasibleError
from sound_qkeras.fixed_point import Format
from sound_qkeras.tuning.judge import E

if TYPE_CHECKING:
    from sound_qkeras.tuning.groups import Group
    from sound_qkeras.tuning.search import Attempt, Search

# Share of the tolerance that the output's rounding may have while the rest is chosen.
SHARE = 1.0 / 16.0


def output_candidates(low: float, high: float, eps: float, longest: int) -> list[int]:
    """Fractional bits of an output in `[low, high]`, fewest first: from half a step below `eps` to one within `SHARE` of it.

    Raises:
        InfeasibleError: all of them need words longer than `longest`.
    """
    coarsest = math.floor(-math.log2(2.0 * eps)) + 1
    finest = max(coarsest, math.ceil(-math.log2(2.0 * SHARE * eps)))
    lengths = {bits: Format.for_range(low, high, bits).word_length for bits in range(coarsest, finest + 1)}
    found = [bits for bits, length in lengths.items() if length <= longest]
    if not found:
        raise InfeasibleError(
            f"an output between {low:.6g} and {high:.6g} that is rounded within eps = {eps:g} has at least "
            f"{lengths[coarsest]} bits, allowed are {longest}; allow more with word_lengths, raise eps, or use "
            "round_output=False",
            best_bound=math.ldexp(0.5, lengths[coarsest] - longest - coarsest),
            word_length=lengths[coarsest],
        )
    return found


def coarsen_output(search: Search[E], found: Attempt[E], output: Group) -> Attempt[E]:
    """The network of a proved attempt with as few bits in its output as the proof allows, and nothing else changed."""
    exact = found.quantized.exact_bits[output.node]
    bits = min(found.bits[output], exact)
    while bits >= min(search.space.candidates[output]):
        tried = search.try_out({**found.bits, output: bits}, found)
        if not search.accepts(tried):
            break
        found, bits = tried, bits - 1
    return found
