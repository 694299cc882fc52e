"""Confidence limits hold what they promise, in exact arithmetic."""

from fractions import Fraction
from math import comb

import pytest

from sound_qkeras.errors import InputError
from sound_qkeras.verify.binomial import upper_limit


def seen_at_most(failures: int, trials: int, p: Fraction) -> Fraction:
    return sum((comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(failures + 1)), Fraction(0))


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("trials", [1, 2, 7, 40])
def test_the_limit_is_the_least_that_makes_the_observation_unlikely(trials, confidence):
    for failures in range(trials):
        limit = upper_limit(failures, trials, confidence)
        allowed = 1 - Fraction(confidence)
        assert seen_at_most(failures, trials, Fraction(limit)) <= allowed
        assert seen_at_most(failures, trials, Fraction(limit) - Fraction(1, 1 << 20)) > allowed


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_a_true_probability_is_exceeded_as_often_as_was_promised(confidence):
    """The chance of drawing a count whose limit is below the truth, summed over all counts."""
    trials = 30
    limits = [upper_limit(failures, trials, confidence) for failures in range(trials + 1)]
    for p in (Fraction(n, 37) for n in range(1, 37)):
        missed = [failures for failures, limit in enumerate(limits) if Fraction(limit) < p]
        chance = sum((comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in missed), Fraction(0))
        assert chance <= 1 - Fraction(confidence)


@pytest.mark.parametrize(
    "wrong", [(1, 0, 0.9), (-1, 5, 0.9), (6, 5, 0.9), (0, 5, 0.0), (0, 5, 1.0), (0, 5, float("nan"))]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(InputError, match="make no sense"):
        upper_limit(*wrong)
