"""Errors of one choice of integers on samples, or on boxes around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.interval import Reals


@dataclass(frozen=True)
class SampleErrors:
    """What is known about one choice of integers.

    Args:
        relative: the largest error over the tolerance of any output, for each sample.
        coverage: share of the samples that is to meet the tolerance.
    """

    relative: Reals
    coverage: float

    @property
    def worst(self) -> float:
        """The largest of the samples that count."""
        ordered = np.sort(self.relative)[::-1]
        return float(ordered[self.spare])

    @property
    def spare(self) -> int:
        """How many samples need not meet the tolerance."""
        return min(int((1.0 - self.coverage) * self.relative.size + 1e-9), self.relative.size - 1)
