"""How code rounds a tensor to a grid that is no one format: what the template of each kind of grid reads.

The template of a kind is `<target>/grid_<kind>.j2`; `grid_input.j2` rounds real inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.backends.tensors import Tensor
from sound_qkeras.errors import InputError
from sound_qkeras.network.grids import FixedPoint, Grid
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.types import Shape

# The C target rounds in 64 bits, of which a shift may drop so many.
MOST_DROPPED = 62


def context(tensor: Tensor) -> dict[str, Any]:
    """What the templates of a tensor's grid read.

    Raises:
        InputError: there is no code for grids of this kind, or more bits are dropped than code is written for.
    """
    for kind, meaning in MEANINGS.items():
        if isinstance(tensor.grid, kind):
            return {"t": tensor, **meaning(tensor)}
    raise InputError(f"'{tensor.node.name}' is rounded to {tensor.grid}, for which no code is written; use `simulate`")


def _fixed_point(tensor: Tensor) -> dict[str, Any]:
    """Per element, or per channel where these are alike: bits dropped, both ends, and bits of the finest step that it lacks."""
    grid: Any = tensor.grid
    parts = [_repeated(part, tensor.shape) for part in (grid.fractional, grid.low, grid.high)]
    dropped = tensor.exact.fractional_bits - parts[0]
    if np.any(np.abs(dropped) > MOST_DROPPED):
        raise InputError(
            f"'{tensor.node.name}' is rounded to {grid}, from {tensor.exact.fractional_bits} fractional bits; code drops or adds "
            f"at most {MOST_DROPPED}; use `simulate`"
        )
    finer = tensor.format.fractional_bits - parts[0]
    width = tensor.exact.word_length + int(max(np.max(dropped), -np.min(dropped), 0)) + 3
    return {
        "period": len(dropped),
        "width": max(width, tensor.format.word_length + 2),
        "arrays": {
            name: _listed(part)
            for name, part in (("dropped", dropped), ("low", parts[1]), ("high", parts[2]), ("finer", finer))
        },
        "fractional": _listed(parts[0]),
    }


def _staircase(tensor: Tensor) -> dict[str, Any]:
    """Thresholds that exact results can reach, and the values behind them; edges of an input as texts that read back exactly."""
    grid: Any = tensor.grid
    values = grid.value_codes.tolist()
    steps = list(zip(grid.thresholds(tensor.exact.fractional_bits), values[1:], strict=True))
    first = [values[0], *(value for threshold, value in steps if threshold <= tensor.exact.min_code)][-1]
    reached = [one for one in steps if tensor.exact.min_code < one[0] <= tensor.exact.max_code]
    edges = (grid.edges * grid.scale.reshape(())).tolist()
    return {
        "first": first,
        "steps": reached,
        "edges": list(zip(map(repr, edges), grid.upper, values[1:], strict=True)),
        "least": values[0],
    }


MEANINGS: dict[type[Grid], Callable[[Tensor], dict[str, Any]]] = {FixedPoint: _fixed_point, Staircase: _staircase}


def _repeated(array: npt.NDArray[np.int64], shape: Shape) -> npt.NDArray[np.int64]:
    """The flat array of a tensor of this shape as far as it does not repeat itself: of all elements, of channels, or one number."""
    if array.size == 1 or array.shape[-1:] == (array.size,):
        return array.reshape(-1)
    return np.broadcast_to(array, shape).reshape(-1)


def _listed(numbers: npt.NDArray[np.int64]) -> str:
    return ", ".join(map(str, numbers.tolist()))
