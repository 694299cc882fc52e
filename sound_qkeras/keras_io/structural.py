"""What Keras layers mean that only move values, or pool them by their maximum."""

from __future__ import annotations

from typing import Any

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.keras_io.convolutions import check_channels_last, sizes_of
from sound_qkeras.keras_io.layers import Parts, Reader
from sound_qkeras.keras_io.pieces import Shape
from sound_qkeras.network.ops import Crop, MaxPool, Pad, Permute, Reshape, Upsample


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


def read_upsampling(layer: Any, shape: Shape) -> Parts:
    """Repetition; other interpolations are refused."""
    check_channels_last(layer)
    interpolation = getattr(layer, "interpolation", "nearest")
    if interpolation != "nearest":
        raise UnsupportedLayerError(
            layer.name, f"upsampling with interpolation='{interpolation}'", "'nearest'", "use nearest and retrain"
        )
    return (("", Upsample((*sizes_of(layer.size), 1))),)


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


def _ends(setting: Any) -> tuple[Shape, Shape]:
    """Counts before and after along every axis, none along the channels; 1D layers have a single pair."""
    pairs = [setting] if isinstance(setting[0], int) else setting
    return (*(int(before) for before, _ in pairs), 0), (*(int(after) for _, after in pairs), 0)


STRUCTURAL: dict[str, Reader] = {
    **dict.fromkeys(("Cropping1D", "Cropping2D"), read_cropping),
    **dict.fromkeys(("GlobalMaxPooling1D", "GlobalMaxPooling2D"), read_global_max_pooling),
    **dict.fromkeys(("MaxPooling1D", "MaxPooling2D"), read_max_pooling),
    **dict.fromkeys(("UpSampling1D", "UpSampling2D"), read_upsampling),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), read_zero_padding),
    "Permute": read_permute,
    "RepeatVector": read_repeat_vector,
}
