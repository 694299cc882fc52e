"""Whether integers, formats and operations belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import INT64_SHIFTS, MAX_WORD_LENGTH, Format
from sound_qkeras.network.graph import Node
from sound_qkeras.network.grids import MOST_FRACTIONAL_BITS, Grid
from sound_qkeras.network.ops import Affine, AffineCodes
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.types import Shape


def check_scale(name: str, output: Format) -> None:
    """Steps must stay far from the ends of float64, or scaling by them would not be exact."""
    if abs(output.fractional_bits) > MOST_FRACTIONAL_BITS:
        raise ModelError(
            f"node '{name}': {output} has {output.fractional_bits} fractional bits; accepted: between "
            f"{-MOST_FRACTIONAL_BITS} and {MOST_FRACTIONAL_BITS}; scale the model's inputs or weights"
        )


def fits_shape(grid: Grid, shape: Shape) -> bool:
    """Whether a grid broadcasts against a tensor."""
    sizes = zip(grid.shape[::-1], shape[::-1], strict=False)
    return len(grid.shape) <= len(shape) and all(own in (1, size) for own, size in sizes)


def check_grid(node: Node, shape: Shape, grid: Grid) -> None:
    """What a result is rounded to must fit the result.

    Raises:
        ModelError: it has another shape, or channels' scales of their own where those are for parameters.
    """
    if not fits_shape(grid, shape):
        raise ModelError(
            f"layer '{node.layer}' has results of shape {shape}, which a grid of shape {grid.shape} does not fit"
        )
    if isinstance(grid, Staircase) and grid.exponent.size != 1:
        raise ModelError(f"layer '{node.layer}': {grid} of a result have one scale, received {grid.exponent.size}")


def check_codes(node: Node, op: Affine, codes: AffineCodes) -> None:
    """Integers must have the operation's shapes and fit their formats.

    Raises:
        ModelError: they do not; names the layer.
    """
    for kind, array, output, expected in (
        ("kernel", codes.kernel, codes.kernel_format, op.kernel.shape),
        ("bias", codes.bias, codes.bias_format, op.bias.shape),
    ):
        if array.shape != expected or array.dtype != np.int64:
            raise ModelError(
                f"layer '{node.layer}' {kind} codes are {array.dtype}{array.shape}, expected int64{expected}"
            )
        check_scale(node.name, output)
        if output.word_length > MAX_WORD_LENGTH:
            raise ModelError(
                f"layer '{node.layer}' {kind}: a stored value has at most {MAX_WORD_LENGTH} bits, received {output}"
            )
        if not _fits(array, output):
            raise ModelError(f"layer '{node.layer}' {kind}: a code does not fit {output}")
    _check_channels(node, codes)


def _check_channels(node: Node, codes: AffineCodes) -> None:
    """Every channel's own format must hold exactly the values of its column."""
    if codes.kernel_grid is not None:
        _check_stored(node, codes, codes.kernel_grid)
    if codes.channel_formats is None:
        return
    channels = codes.kernel.shape[-1]
    if len(codes.channel_formats) != channels:
        raise ModelError(f"layer '{node.layer}': {len(codes.channel_formats)} channel formats, expected {channels}")
    columns = codes.kernel.reshape(-1, channels).T
    for number, (output, column) in enumerate(zip(codes.channel_formats, columns, strict=True)):
        shift = codes.kernel_format.fractional_bits - output.fractional_bits
        fits = output.word_length <= MAX_WORD_LENGTH and 0 <= shift < INT64_SHIFTS
        own = column >> shift if fits else column
        if not (fits and np.array_equal(own << shift, column) and _fits(own, output)):
            raise ModelError(
                f"layer '{node.layer}' channel {number}: {output} does not hold the values that its codes have in "
                f"{codes.kernel_format}"
            )


def _check_stored(node: Node, codes: AffineCodes, grid: Grid) -> None:
    """Every weight must be one of its grid's values."""
    shape, values = codes.kernel.shape, codes.kernel_value
    held = (
        fits_shape(grid, shape) and codes.channel_formats is None and np.array_equal(grid.neighbours(values)[0], values)
    )
    if not held:
        raise ModelError(
            f"layer '{node.layer}': {grid} of shape {grid.shape} do not hold the values that its codes have in "
            f"{codes.kernel_format}"
        )


def _fits(codes: npt.NDArray[Any], output: Format) -> bool:
    return not codes.size or (output.min_code <= int(codes.min()) and int(codes.max()) <= output.max_code)
