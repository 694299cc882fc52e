"""One function of a real variable in the place of another: tanh cut from three lines where a network was trained with tanh."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.smooth import Smooth, smooth

# Between these, functions differ most; there they are compared on so many pieces, and on one piece at each side.
NEAR, PIECES = 8.0, 32


@dataclass(frozen=True)
class FunctionPair:
    """The function that the other network computes, exactly, where one is computed.

    Args:
        function, alpha: what is computed; see `smooth`.
        other, other_alpha: what the other network computes in its place.
    """

    function: str
    alpha: float
    other: str
    other_alpha: float

    @property
    def same(self) -> bool:
        """Whether both are one function."""
        return (self.function, self.alpha) == (self.other, self.other_alpha)

    @property
    def smooth(self) -> Smooth:
        """The other network's function."""
        return smooth(self.other, self.other_alpha)

    def image(self, zq: Interval) -> Interval:
        """The other function's image."""
        return self.smooth.image(zq)

    def error(self, zq: Interval) -> Reals:
        """Bound on the functions' distance over intervals, from lines beside both on each of a few pieces."""
        found = np.zeros(zq.shape)
        if self.same:
            return found
        here, there = smooth(self.function, self.alpha), self.smooth
        low, high = np.clip(zq.lower, -NEAR, NEAR), np.clip(zq.upper, -NEAR, NEAR)
        cuts = [zq.lower, *(low + (high - low) * (n / PIECES) for n in range(PIECES)), high, zq.upper]
        for start, end in pairwise(cuts):
            piece = Interval(np.minimum(start, end), np.maximum(start, end))
            slope, rest = here.line(piece)
            found = np.maximum(found, (there.beside(slope, piece) - rest).magnitude)
        return found
