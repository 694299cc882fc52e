"""The output rounded to few bits: its rounding takes up part of the tolerance, `step / 2`, and nothing else.

Each bit less doubles that part. So that the output costs the weights next to nothing, it is given a fixed small share
while they are chosen, and at the end whatever slack the proof has left, or finds by cutting the box into more leaves.
"""

from __future__ import annotations

from sound_qkeras.tuning.evaluator import E
from sound_qkeras.tuning.groups import Group
from sound_qkeras.tuning.search import Attempt, Search


def coarsen_output(search: Search[E], found: Attempt[E], output: Group) -> Attempt[E]:
    """The network of a proved attempt with as few bits in its output as the proof allows, and nothing else changed."""
    exact = found.pair.exact_bits[output.node]
    bits = min(found.bits[output], exact)
    while bits >= min(search.space.candidates[output]):
        tried = search.try_out({**found.bits, output: bits}, found)
        if not search.accepts(tried):
            break
        found, bits = tried, bits - 1
    return found
