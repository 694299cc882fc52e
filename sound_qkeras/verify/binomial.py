"""Exact confidence limits of a binomial proportion.

Reference: Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial
(Biometrika 1934).
"""

from __future__ import annotations

import math
from fractions import Fraction

from sound_qkeras.errors import InputError

# Limits are multiples of 2**-GRID_BITS, rounded to the safe side.
GRID_BITS = 24


def upper_limit(failures: int, trials: int, confidence: float) -> float:
    """A `p`, as small as float64 finds it, with which at most `failures` in `trials` have probability `<= 1 - confidence`.

    Guarantee: whatever the true probability of a failure is, the limit computed from independent trials is at least that
    with at least this confidence. That the returned number has the property is checked in integer arithmetic.

    >>> upper_limit(0, 459, 0.99) < 0.01 < upper_limit(0, 458, 0.99)
    True

    Raises:
        InputError: the counts or the confidence make no sense.
    """
    if not (0 <= failures <= trials and trials > 0 and 0.0 < confidence < 1.0):
        raise InputError(f"{failures} failures in {trials} trials at confidence {confidence} make no sense")
    if failures == trials:
        return 1.0
    allowed, whole = 1 - Fraction(confidence), 1 << GRID_BITS
    part = math.ceil(_estimate(failures, trials, 1.0 - confidence) * whole)
    while part < whole and _tail(failures, trials, part, whole) > allowed:
        part += 1
    return part / whole


def shared(confidence: float, claims: int) -> float:
    """The confidence of each of several claims, so that all hold at once with at least the given one (Bonferroni).

    >>> shared(0.99, 1), round(shared(0.99, 10), 6)
    (0.99, 0.999)
    """
    return math.nextafter(1.0 - (1.0 - confidence) / claims, 1.0) if claims > 1 else confidence


def _estimate(failures: int, trials: int, allowed: float) -> float:
    """The limit in float64, by bisection: where to begin."""
    low, high = 0.0, 1.0
    for _ in range(60):
        p = 0.5 * (low + high)
        logs = [
            math.lgamma(trials + 1)
            - math.lgamma(i + 1)
            - math.lgamma(trials - i + 1)
            + i * math.log(p)
            + (trials - i) * math.log1p(-p)
            for i in range(failures + 1)
        ]
        largest = max(logs)
        tail = largest + math.log(math.fsum(math.exp(log - largest) for log in logs))
        low, high = (low, p) if tail <= math.log(allowed) else (p, high)
    return high * (1.0 - 1e-9)


def _tail(failures: int, trials: int, part: int, whole: int) -> Fraction:
    """`P[X <= failures]` for `X ~ B(trials, part / whole)`: the common power of `1 - p` is taken out of the sum."""
    other, total = whole - part, 0
    for i in range(failures + 1):
        total += math.comb(trials, i) * part**i * other ** (failures - i)
    return Fraction(total * other ** (trials - failures), whole**trials)
