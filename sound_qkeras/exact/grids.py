"""What results are rounded to, in exact rational arithmetic on flattened tensors."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.dyadic import Dyadic, Integers, Range
from sound_qkeras.network.grids import FixedPoint, Grid
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.types import Shape


@singledispatch
def image(grid: Grid, x: Dyadic, shape: Shape) -> Dyadic:
    """What numbers become.

    Args:
        grid: what they are rounded to.
        x: the numbers, flattened.
        shape: of the tensor.

    Raises:
        VerificationError: the grid has no meaning here.
    """
    raise VerificationError(f"the exact proof does not know grids of kind '{grid.kind}'; rely on the float64 proof")


@singledispatch
def largest_error(grid: Grid, x: Range, bits: int | None, shape: Shape) -> Dyadic:
    """How far numbers in a range, with so many fractional bits if that is known, may be from what they become.

    Raises:
        VerificationError: the grid has no meaning here.
    """
    raise VerificationError(f"the exact proof does not know grids of kind '{grid.kind}'; rely on the float64 proof")


@image.register
def _(grid: FixedPoint, x: Dyadic, shape: Shape) -> Dyadic:
    own, low, high = (_flat(array, shape) for array in (grid.fractional, grid.low, grid.high))
    finest = grid.fractional_bits
    found = Dyadic.zeros(own.size).numbers
    for bits in set(own.tolist()):
        codes = np.minimum(np.maximum(x.rounded(bits), low), high)
        found = np.where(own == bits, codes * (1 << (finest - bits)), found)
    return Dyadic.codes(found, finest)


@image.register
def _(grid: Staircase, x: Dyadic, shape: Shape) -> Dyadic:
    values, edges = _steps(grid)
    found = values[0]
    for edge, closed, value in zip(edges, grid.upper, values[1:], strict=True):
        found = value.where(~x.less(edge) if closed else edge.less(x), found)
    return found


@largest_error.register
def _(grid: FixedPoint, x: Range, bits: int | None, shape: Shape) -> Dyadic:
    own, low, high = (_flat(array, shape) for array in (grid.fractional, grid.low, grid.high))
    finest = grid.fractional_bits
    steps = [1 << (finest - one) for one in own.tolist()]
    rounds = np.array([bits is None or bits > one for one in own.tolist()])
    halves = Dyadic.codes(np.where(rounds, np.array(steps, object), 0), finest + 1)
    ends = [Dyadic.codes(end * np.array(steps, object), finest) for end in (low, high)]
    # A number the grid reaches is half a step away at most; one beyond its ends becomes the end.
    return halves.maximum((x.upper - ends[1]).maximum(ends[0] - x.lower))


@largest_error.register
def _(grid: Staircase, x: Range, bits: int | None, shape: Shape) -> Dyadic:
    values, edges = _steps(grid)
    found = Dyadic.zeros(*x.lower.shape)
    for value, starts, ends in zip(values, [None, *edges], [*edges, None], strict=True):
        lower = x.lower if starts is None else x.lower.maximum(starts)
        upper = x.upper if ends is None else x.upper.minimum(ends)
        far = (value - lower).magnitude().maximum((value - upper).magnitude())
        found = found.maximum(far).where(~upper.less(lower), found)
    return found


def _flat(array: npt.NDArray[np.int64], shape: Shape) -> Integers:
    return np.broadcast_to(array, shape).reshape(-1).astype(object)


def _steps(grid: Staircase) -> tuple[list[Dyadic], list[Dyadic]]:
    """The values and the edges."""
    scale = grid.scale.reshape(())
    values, edges = (
        [Dyadic.of(np.array(one)) for one in (part * scale).tolist()] for part in (grid.values, grid.edges)
    )
    return values, edges
