"""What Keras layers mean that only move values, or pool them by their maximum."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sound_qkeras.keras_io.read.convolutions import check_channels_last, sizes_of
from sound_qkeras.keras_io.read.layers import Parts, Reader
from sound_qkeras.keras_io.read.pieces import Diagonal, Gain, Head, Linear, Piece, Rounded, Shape
from sound_qkeras.network.ops import (
    Crop,
    Dense,
    Elementwise,
    LayerNorm,
    Leaky,
    MaxPool,
    Pad,
    Permute,
    Reshape,
    Upsample,
)


def read_permute(layer: Any, shape: Shape) -> Parts:
    """Axes in another order; Keras counts them from one."""
    return (("", Permute(tuple(int(axis) - 1 for axis in layer.dims))),)


def read_repeat_vector(layer: Any, shape: Shape) -> Parts:
    """The vector as so many equal rows."""
    return (("_row", Reshape(shape, (1, *shape))), ("", Upsample((int(layer.n), 1))))


def read_zero_padding(layer: Any, shape: Shape) -> Parts:
    """Zeros around every axis but the channels."""
    check_channels_last(layer)
    return (("", Pad(*_ends(layer.padding))),)


def read_cropping(layer: Any, shape: Shape) -> Parts:
    """Less at both ends of every axis but the channels."""
    check_channels_last(layer)
    return (("", Crop(*_ends(layer.cropping))),)


def read_max_pooling(layer: Any, shape: Shape) -> Parts:
    """The largest value of each window; what `same` padding adds never wins."""
    check_channels_last(layer)
    return (("", MaxPool(sizes_of(layer.pool_size), sizes_of(layer.strides), layer.padding)),)


def read_global_max_pooling(layer: Any, shape: Shape) -> Parts:
    """One window over everything; the axes it leaves are dropped unless the layer keeps them."""
    check_channels_last(layer)
    pool = MaxPool(shape[:-1], shape[:-1])
    if layer.keepdims:
        return (("", pool),)
    return (("_pool", pool), ("", Reshape((*(1,) * (len(shape) - 1), shape[-1]), shape[-1:])))


def over_time(steps: int, parts: Parts) -> Parts | None:
    """What a layer becomes that is applied to every time step alone; None where one operation cannot do so for all of them.

    Args:
        steps: how many there are.
        parts: what the layer inside becomes for one step.
    """
    found = [(suffix, _at_all_times(steps, piece)) for suffix, piece in parts]
    return (
        tuple((suffix, piece) for suffix, piece in found if piece is not None)
        if None not in dict(found).values()
        else None
    )


def _at_all_times(steps: int, piece: Piece) -> Piece | None:
    if isinstance(piece, Linear) and piece.build is Dense:
        inner, outer = (steps, *piece.input_shape), (steps, *piece.output_shape)
        return replace(piece, input_shape=inner, output_shape=outer)
    if isinstance(piece, Diagonal):
        shape = (steps, *piece.shape)
        terms = None if piece.offset_terms is None else np.broadcast_to(piece.offset_terms, shape)
        scale, offset = (part.mapped(lambda end: np.broadcast_to(end, shape)) for part in (piece.scale, piece.offset))
        return Diagonal(scale, offset, terms)
    if isinstance(piece, Reshape):
        return Reshape((steps, *piece.input_shape), (steps, *piece.shape))
    if isinstance(piece, Leaky) and piece.slope.size > 1:
        return Leaky(piece.slope[None])
    if isinstance(piece, Elementwise | LayerNorm | Head | Rounded | Gain):
        return piece
    return None


def _ends(setting: Any) -> tuple[Shape, Shape]:
    """Counts before and after along every axis, none along the channels; 1D layers have a single pair."""
    pairs = [setting] if isinstance(setting[0], int) else setting
    return (*(int(before) for before, _ in pairs), 0), (*(int(after) for _, after in pairs), 0)


STRUCTURAL: dict[str, Reader] = {
    **dict.fromkeys(("Cropping1D", "Cropping2D"), read_cropping),
    **dict.fromkeys(("GlobalMaxPooling1D", "GlobalMaxPooling2D"), read_global_max_pooling),
    **dict.fromkeys(("MaxPooling1D", "MaxPooling2D"), read_max_pooling),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), read_zero_padding),
    "Permute": read_permute,
    "RepeatVector": read_repeat_vector,
}
