"""What both proofs say about every node of a network, held against exact fractions at points of the box."""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.proof import Proof
from sound_qkeras.interval import Interval
from sound_qkeras.network import Pair
from sound_qkeras.verify.propagation import propagate
from tests.networks import samples

Trace = Callable[[Pair, Any], Mapping[str, tuple[Any, Any]]]


def points_with_ties(rng, twin: Pair, ranges) -> np.ndarray:
    """Points of the box, and some on ties of the input's grid."""
    points = samples(rng, ranges, 4)
    step = twin.formats["x"].step
    ties = np.clip((np.floor(points / step) + 0.5) * step, *ranges)
    return np.concatenate([points, ties])


def inside(interval: Interval, x) -> bool:
    """Whether exact values lie in the intervals of the only box."""
    ends = zip(interval.lower[0].ravel(), np.ravel(x), interval.upper[0].ravel(), strict=True)
    return all(Fraction(low) <= value <= Fraction(high) for low, value, high in ends)


def check_facts(twin: Pair, ranges, points, trace: Trace) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Assert that every fact of both proofs holds at every point; yields each with its exact values by node."""
    box = Interval(*ranges)
    facts = propagate(twin.network, box[None], twin).facts
    exact = Proof(twin, Range(*(Dyadic.of(end.reshape(-1)) for end in ranges)))
    codes = twin.simulate_all(points)
    for number, point in enumerate(points):
        found = trace(twin, point)
        for name, (real, fixed) in found.items():
            value, twin_value, difference = facts[name].pair()
            assert inside(value, real), name
            assert inside(twin_value, fixed), name
            assert inside(difference, fixed - real), name
            step = Fraction(2) ** -twin.fractional_bits[name]
            assert [int(code) * step for code in codes[name][number].ravel()] == list(fixed.ravel()), name
            proved = exact.facts[name]
            for x, enclosure in ((real, proved.value), (fixed, proved.fixed), (fixed - real, proved.difference)):
                ends = zip(enclosure.lower.fractions(), x.ravel(), enclosure.upper.fractions(), strict=True)
                assert all(low <= one <= high for low, one, high in ends), name
        yield point, found
