"""Functions between two lines, a slope of its own each: rows that bound from above, pulled back through them.

Where a coefficient is positive the line above counts, where it is negative the line below. With the mean `m` of both slopes,
half their difference `h`, and the same of the constants, a coefficient `c` becomes `c m + |c| h`, and leaves over at most
`c center + |c| gap`.

Reference: Zhang et al., Efficient neural network robustness certification with general activation functions (NeurIPS 2018),
for values; Paulsen et al., NeuroDiff (ASE 2020), for differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.interval import Precision, Reals, gamma, inflate
from sound_qkeras.network.ops import Remainder
from sound_qkeras.network.ops.base import contract
from sound_qkeras.network.ops.linear import About, Lines
from sound_qkeras.types import Indices


@dataclass(frozen=True)
class Between:
    """Both lines, written about points, in the precision of rows; shapes `(boxes, *shape)`.

    Args:
        middle: mean of the slopes.
        opening: half their difference.
        center: mean of the constants.
        gap: at least half their difference, with what rounding adds; not negative.
    """

    middle: Reals
    opening: Reals
    center: Reals
    gap: Reals

    @classmethod
    def of(cls, lines: Lines, about: About, point: Reals, before: Reals | None, precision: Precision) -> Between:
        """A line `s z + k`, written about points, is `s z~ + (s point_z + k - point)`.

        Args:
            lines: slope and constant of the line above, and of the one below.
            about: the point of what is read, and how far that is from it.
            point: of the result.
            before: what the step before leaves over per unit of a coefficient, where it is charged here.
            precision: of rows.
        """
        (high, over), (low, under) = lines
        middle, opening = (0.5 * (high + low)).astype(precision.kind), (0.5 * (high - low)).astype(precision.kind)
        mean, half = middle.astype(np.float64), opening.astype(np.float64)
        missed = np.maximum(np.abs(high - (mean + half)), np.abs(low - (mean - half)))
        slopes = np.abs(mean) + np.abs(half)
        above, below = high * about.point + over - point, low * about.point + under - point
        terms = np.abs(high * about.point) + np.abs(low * about.point) + np.abs(over) + np.abs(under) + np.abs(point)
        center = 0.5 * (above + below)
        rounding = 2.0**-50 * terms + gamma(point[0].size, precision) * np.abs(center)
        rounding = rounding + (missed + (2.0**-50 + 4.0 * precision.unit) * slopes) * about.size
        gap = np.maximum(0.5 * (above - below), 0.0) + rounding
        if before is not None:
            gap = gap + (1.0 + 4.0 * precision.unit) * slopes * before
        return cls(middle, opening, center.astype(precision.kind), precision.above(inflate(gap, 16)))

    def at(self, boxes: Indices | None) -> Between:
        """Those of some boxes."""
        return self if boxes is None else Between(*(array[boxes] for array in vars(self).values()))

    def pull(self, rows: Reals, remainder: Remainder, precision: Precision) -> Reals:
        """The rows in what is read, `(boxes, rows, *shape)`; only the upper end of the remainder means something afterwards."""
        size, terms = np.abs(rows), self.gap[0].size
        center = contract(rows, self.center).astype(np.float64)
        remainder.add(center, inflate(contract(size, self.gap), terms, precision))
        size *= self.opening[:, None]  # in place: memory costs more here than arithmetic
        pulled = rows * self.middle[:, None]
        pulled += size
        return pulled
