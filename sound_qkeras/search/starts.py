"""Where a search for the worst error begins: corners, faces, strata, a grid of few inputs, or everywhere there are few points."""

from __future__ import annotations

import numpy as np

from sound_qkeras.fixed_point import from_codes
from sound_qkeras.interval import Reals
from sound_qkeras.search.breakpoints import SearchSpace
from sound_qkeras.types import Codes

# Boxes with at most so many inputs have all their corners tried, where those are at most half of the starting points.
MOST_INPUTS_FOR_CORNERS = 12
# With at most so many inputs this share of the starting points is a grid.
MOST_INPUTS_FOR_GRID, GRID_SHARE = 2, 0.5


def every_input(space: SearchSpace, most: int) -> Reals | None:
    """All inputs there are, shape `(count, inputs)`; None where they have no grid, or are more than `most`."""
    if space.input_bits is None:
        return None
    low, high = space.input_codes
    sizes = high - low + 1.0
    with np.errstate(over="ignore"):
        count = np.prod(sizes)
    if not 1.0 <= count <= most:
        return None
    return from_codes(low + _counted(sizes.astype(np.int64)), space.input_bits)


def starts(rng: np.random.Generator, space: SearchSpace, count: int) -> Reals:
    """So many points to begin with, shape `(count, inputs)`: a grid where inputs are few, corners of a small box, and others."""
    if space.lower.size > MOST_INPUTS_FOR_GRID:
        return spread(rng, space, count, corners=True)
    evenly = grid(space, int(GRID_SHARE * count))
    return np.concatenate([evenly, spread(rng, space, count - len(evenly), corners=True)])


def grid(space: SearchSpace, count: int) -> Reals:
    """At most so many points, as far apart along every input and from end to end of it, shape `(points, inputs)`."""
    inputs = space.lower.size
    along = int((count + 0.5) ** (1.0 / inputs))
    shares = _counted(np.full(inputs, along)) / max(1, along - 1)
    return space.clip(space.lower + space.width * shares)


def _counted(sizes: Codes) -> Codes:
    """All rows of numbers from zero on, each less than its size."""
    steps = np.cumprod(np.append(1, sizes[:0:-1]))[::-1]
    return np.arange(int(np.prod(sizes)))[:, None] // steps % sizes


def spread(rng: np.random.Generator, space: SearchSpace, count: int, *, corners: bool) -> Reals:
    """Points on the faces and edges of the box and inside it, all corners of a small box first, shape `(count, inputs)`.

    Each input is stratified, so that a peak along one input is missed only where it is narrower than a stratum.

    Reference: McKay, Beckman and Conover (1979), for Latin hypercubes.
    """
    inputs = space.lower.size
    strata = rng.permuted(np.tile(np.arange(count)[:, None], inputs), axis=0)
    shares = (strata + rng.random((count, inputs))) / count
    at_ends = rng.random((count, 1)) * (rng.random((count, 1)) < 0.6)
    shares = np.where(rng.random((count, inputs)) < at_ends, np.rint(shares), shares)
    if corners and inputs <= MOST_INPUTS_FOR_CORNERS and 2**inputs <= count // 2:
        shares[: 2**inputs] = np.arange(2**inputs)[:, None] >> np.arange(inputs) & 1
    return space.clip(space.lower + space.width * shares)
