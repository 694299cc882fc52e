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
        deviations: the errors of other samples are taken to reach so many standard deviations beyond the mean; None where the
            claim is about these samples alone.
        later: the errors of samples that did not choose, where these accept.
    """

    relative: Reals
    coverage: float
    deviations: float | None = None
    later: SampleErrors | None = None

    @property
    def worst(self) -> float:
        """The largest of the samples that count, or what others are to be expected to reach."""
        largest = float(np.sort(self.relative)[::-1][self.spare])
        if self.deviations is not None:
            if not np.all(np.isfinite(self.relative)):
                return float("inf")
            largest = max(largest, float(self.relative.mean() + self.deviations * self.relative.std(ddof=1)))
        return largest if self.later is None else max(largest, self.later.worst)

    @property
    def spare(self) -> int:
        """How many samples need not meet the tolerance.

        Where they stand for others: of n + 1 samples drawn alike the new one is beyond the k-th largest of the n with
        probability k / (n + 1).

        Reference: Vovk, Gammerman and Shafer, Algorithmic learning in a random world (2005).
        """
        size = self.relative.size
        if self.deviations is not None:
            return max(int((1.0 - self.coverage) * (size + 1) + 1e-9) - 1, 0)
        return min(int((1.0 - self.coverage) * size + 1e-9), size - 1)
