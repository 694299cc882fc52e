"""Where a search for the worst error looks next: steps along gradients, to breakpoints, to ends of the box, across the grid.

Only heuristics: nothing proved depends on them, and whatever input they propose is evaluated by the two networks themselves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Reals
from sound_qkeras.search.breakpoints import SearchSpace, breakpoints, slopes
from sound_qkeras.types import Indices

Mask = npt.NDArray[np.bool_]

# How close to a rounding tie an input is put, in steps: near enough to lose nothing, far enough to round as meant.
BESIDE_TIE = 0.5 - 2.0**-20
# Share of the moves that end beside a rounding tie of the input.
SNAPPED = 0.75
# Lengths of steps, as shares of the box's width, between these powers of ten.
LENGTHS = (-6.0, 0.0)


def propose(rng: np.random.Generator, space: SearchSpace, points: Reals, rows: Reals, count: int) -> Reals:
    """Inputs to try from each point, shape `(points, count, inputs)`, all in the box.

    Args:
        rng: the source of chance.
        space: the pair of networks.
        points: where to start, shape `(points, inputs)`.
        rows: for each point the output whose error is to grow, as a signed unit row, shape `(points, outputs)`.
        count: moves per point, at least 8.
    """
    falling = -slopes(space.network, points, rows)
    rising = slopes(space.unrounded, points, rows) + falling
    share = max(1, count // 7)
    guided = [
        _along(rng, space, points, np.sign(rising), share),
        _along(rng, space, points, np.sign(falling), share // 2),
        _to_breakpoints(rng, space, points, np.sign(rising), share),
        _jumps(rng, space, points, share),
        _across_grid(rng, space, points, 2 * share),
        _crossings(rng, points, share),
    ]
    rest = count - sum(part.shape[1] for part in guided)
    moved = np.concatenate([*guided, _anywhere(rng, space, points, rest)], axis=1)
    return space.clip(_beside_ties(rng, space, space.clip(moved), np.sign(falling)))


def _lengths(rng: np.random.Generator, points: Reals, count: int) -> Reals:
    return 10.0 ** rng.uniform(*LENGTHS, (len(points), count, 1))


def _some(rng: np.random.Generator, points: Reals, count: int) -> Mask:
    """Masks over inputs: all of them, or few."""
    keep = rng.choice([0.15, 0.5, 1.0], (len(points), count, 1))
    return rng.random((len(points), count, points.shape[1])) < keep


def _along(rng: np.random.Generator, space: SearchSpace, points: Reals, signs: Reals, count: int) -> Reals:
    """Signed steps up the error's gradient, as in projected sign ascent; the longest end in a corner of the box."""
    steps = 2.0 * _lengths(rng, points, count) * _some(rng, points, count) * space.width
    return points[:, None] + steps * signs[:, None]


def _to_breakpoints(rng: np.random.Generator, space: SearchSpace, points: Reals, signs: Reals, count: int) -> Reals:
    """To breakpoints, along the gradient's signs or a random direction: where piecewise linear functions have their maxima."""
    uphill = rng.random((len(points), 1)) < 0.3
    directions = np.where(uphill, signs, rng.normal(size=points.shape)) * space.width
    few = rng.random(points.shape) < rng.choice([0.2, 1.0], (len(points), 1))
    directions = directions * few
    nearest = np.sort(breakpoints(space.network, points, directions), axis=1)[:, :count]
    far = np.where(nearest < 2.0, nearest, 10.0 ** rng.uniform(*LENGTHS, nearest.shape))
    return points[:, None] + far[..., None] * directions[:, None]


def _jumps(rng: np.random.Generator, space: SearchSpace, points: Reals, count: int) -> Reals:
    """One input, now and then several, to an end of the box or anywhere in it."""
    shape = (len(points), count, space.lower.size)
    target = space.lower + space.width * np.clip(rng.uniform(-0.5, 1.5, shape), 0.0, 1.0)
    chosen: Indices = rng.integers(0, shape[2], (len(points), count, 1), dtype=np.int64)
    one: Mask = np.equal(chosen, np.arange(shape[2], dtype=np.int64))
    more = rng.random(shape) < rng.choice([0.0, 0.1], (len(points), count, 1))
    return np.where(one | more, target, points[:, None])


def _across_grid(rng: np.random.Generator, space: SearchSpace, points: Reals, count: int) -> Reals:
    """A few steps of the input's grid: another cell has other rounding errors inside."""
    shape = (len(points), count, points.shape[1])
    reach = rng.choice([1.0, 3.0, 30.0], (len(points), count, 1))
    cells = np.rint(rng.normal(size=shape) * reach) * _some(rng, points, count)
    return points[:, None] + space.step * cells


def _crossings(rng: np.random.Generator, points: Reals, count: int) -> Reals:
    """Differences of two other points added to each, as in differential evolution: steps of the size that still matters."""
    pairs: Indices = rng.integers(0, len(points), (2, len(points), count), dtype=np.int64)
    share = rng.choice([0.1, 0.5, 1.0], (len(points), count, 1))
    taken = rng.random((len(points), count, points.shape[1])) < 0.7
    return points[:, None] + share * taken * (points[pairs[0]] - points[pairs[1]])


def _anywhere(rng: np.random.Generator, space: SearchSpace, points: Reals, count: int) -> Reals:
    """Random steps of mixed length, some along few inputs."""
    normal = rng.normal(size=(len(points), count, points.shape[1]))
    return points[:, None] + normal * _lengths(rng, points, count) * _some(rng, points, count) * space.width


def _beside_ties(rng: np.random.Generator, space: SearchSpace, moved: Reals, falling: Reals) -> Reals:
    """Most of the moves, put into the corner of their cell of the input's grid towards which the trained network falls.

    The fixed-point network is constant in a cell, so the error is largest where the trained network is farthest below it
    (or above it: the rows that `falling` belongs to are signed).
    """
    cells = np.rint(moved / space.step) + BESIDE_TIE * falling[:, None]
    snapped = rng.random((*moved.shape[:2], 1)) < SNAPPED
    return np.where(snapped, cells * space.step, moved)
