"""Errors of one choice of integers on samples, or on boxes around them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sound_qkeras.interval import Reals

# Confidence of the tolerance limit, and the largest share it is for.
CONFIDENCE, MOST_COVERAGE = 0.9, 0.999


def tolerance_factor(samples: int, coverage: float) -> float:
    """Standard deviations beyond the mean of a normal sample within which the share `coverage` of the population lies.

    That is so with a confidence of 0.9. Formats that just meet a tolerance on a few samples would exceed it on many others.

    Reference: Natrella, Experimental statistics (NBS Handbook 91, 1963), section 2-5.

    >>> round(tolerance_factor(30, 0.99), 1), round(tolerance_factor(1000, 0.99), 1)
    (2.9, 2.4)
    """
    normal = NormalDist()
    p, q = normal.inv_cdf(min(coverage, MOST_COVERAGE)), normal.inv_cdf(CONFIDENCE)
    a, b = 1.0 - q**2 / (2.0 * (samples - 1)), p**2 - q**2 / samples
    return float((p + np.sqrt(max(p**2 - a * b, 0.0))) / a)


@dataclass(frozen=True)
class SampleErrors:
    """What is known about one choice of integers.

    Args:
        relative: the largest error over the tolerance of any output, for each sample; infinite where it was not looked at.
        coverage: share of the samples that is to meet the tolerance.
        deviations: the errors of other samples are taken to reach so many standard deviations beyond the mean.
    """

    relative: Reals
    coverage: float
    deviations: float | None = None

    @property
    def worst(self) -> float:
        """The largest of the samples that count, or what others are to be expected to reach."""
        largest = float(np.sort(self.relative)[::-1][self.spare])
        if self.deviations is None:
            return largest
        if not np.all(np.isfinite(self.relative)):
            return float("inf")
        return max(largest, float(self.relative.mean() + self.deviations * self.relative.std(ddof=1)))

    @property
    def spare(self) -> int:
        """How many samples need not meet the tolerance."""
        return min(int((1.0 - self.coverage) * self.relative.size + 1e-9), self.relative.size - 1)
