"""What Keras layers mean that make images or sequences larger or smaller: along one axis after the other.

The nearest value is a copy. A line between two values is a matrix along the axis, which is quantised as weights are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.keras_io.read.activations import Parts
from sound_qkeras.keras_io.read.convolutions import check_channels_last, sizes_of
from sound_qkeras.keras_io.read.layers import Reader
from sound_qkeras.keras_io.read.pieces import Linear, Shape, quotient
from sound_qkeras.keras_io.session.editions import evaluated
from sound_qkeras.network.ops import Crop, Permute, Reshape, Upsample

ACCEPTED = "interpolation='nearest' or 'bilinear'"
# How far the matrices may be from what Keras computes, for values up to one: in float32, and in units of shorter types.
NEAR, UNITS = 1e-3, 4
# Bits of numbers in the types that layers compute in; float64 is given float32.
PRECISIONS = {"float16": 11, "bfloat16": 8}
# Most numbers on the way, unless the image itself has more.
LARGEST = 1 << 24


def read_upsampling(layer: Any, shape: Shape) -> Parts:
    """Repetition, or lines between values."""
    check_channels_last(layer)
    sizes = tuple(n * size for n, size in zip(shape, sizes_of(layer.size), strict=False))
    return _resized(layer, shape, sizes, getattr(layer, "interpolation", "nearest"))


def read_resizing(layer: Any, shape: Shape) -> Parts:
    """To a fixed size."""
    check_channels_last(layer)
    settings = ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio")
    given = [name for name in settings if getattr(layer, name, False)]
    if given:
        raise UnsupportedLayerError(
            layer.name, f"Resizing with {given[0]}=True", f"{given[0]}=False", "crop, pad or smooth the inputs before"
        )
    return _resized(layer, shape, (int(layer.height), int(layer.width)), str(layer.interpolation))


def read_center_crop(layer: Any, shape: Shape) -> Parts:
    """The middle; a smaller image would be made larger first."""
    check_channels_last(layer)
    sizes = (int(layer.height), int(layer.width))
    less = tuple(n - size for n, size in zip(shape, sizes, strict=False))
    if min(less) < 0:
        received = f"CenterCrop to {sizes} of an image of {shape[:2]}"
        raise UnsupportedLayerError(layer.name, received, "a size within the image", "use Resizing instead")
    before = tuple(one // 2 for one in less)
    return (("", Crop((*before, 0), (*(one - first for one, first in zip(less, before, strict=True)), 0))),)


def _resized(layer: Any, shape: Shape, sizes: Shape, interpolation: str) -> Parts:
    axes = [axis for axis, size in enumerate(sizes) if size != shape[axis]]
    most = _most(shape, sizes, axes, interpolation)
    if most > max(LARGEST, math.prod(shape), math.prod((*sizes, shape[-1]))):
        raise UnsupportedLayerError(
            layer.name,
            f"{type(layer).__name__} from {shape[:-1]} to {sizes}, interpolation='{interpolation}', with {most} numbers on the way",
            f"up to {LARGEST}: 'nearest' takes copies by the ratio of sizes, 'bilinear' a matrix for each axis",
            "choose a smaller image, or 'nearest' by whole factors, and retrain",
        )
    if interpolation == "nearest":
        parts = _nearest(shape, sizes, axes)
    elif interpolation == "bilinear":
        parts = _bilinear(shape, sizes, axes)
    else:
        received = f"{type(layer).__name__} with interpolation='{interpolation}'"
        raise UnsupportedLayerError(layer.name, received, ACCEPTED, "use one of these and retrain")
    _check(layer, shape, sizes, interpolation)
    # The last part is the layer's own; the others are on the way.
    return tuple((f"_{what}" if number < len(parts) else "", op) for number, (what, op) in enumerate(parts, 1))


def _check(layer: Any, shape: Shape, sizes: Shape, interpolation: str) -> None:
    """Refuse a layer that computes something else than is read: not every backend rounds places alike."""
    unit = 2.0 ** (1 - PRECISIONS.get(layer.compute_dtype, 24))
    near = max(NEAR, UNITS * unit) if interpolation == "bilinear" else 0.0
    x = np.rint(np.random.default_rng(0).uniform(-1.0, 1.0, (1, *shape)) / unit) * unit  # exact in that type
    expected = x[0]
    for axis, size in enumerate(sizes):
        if interpolation == "bilinear":
            expected = np.moveaxis(np.tensordot(_matrix(shape[axis], size), expected, (1, axis)), 0, axis)
        else:
            expected = np.take(expected, _places(shape[axis], size), axis)
    if np.any(np.abs(evaluated(layer, x.astype(np.float32))[0] - expected) > near):
        received = f"{type(layer).__name__} from {shape[:-1]} to {sizes}, which this Keras takes from other places"
        raise UnsupportedLayerError(layer.name, received, "places counted from centres", "resize by a whole factor")


def _places(n: int, size: int) -> npt.NDArray[np.int64]:
    """Which of `n` values are the nearest to the centres of `size`."""
    return (2 * np.arange(size) + 1) * n // (2 * size)


def _copies(n: int, size: int) -> tuple[int, int, int]:
    """Copies of each value, and which of how many is kept."""
    p, q = n // math.gcd(n, size), size // math.gcd(n, size)
    return (q, 0, 1) if p == 1 else (1, p // 2, p) if q == 1 else (2 * q, p, 2 * p)


def _most(shape: Shape, sizes: Shape, axes: list[int], interpolation: str) -> int:
    """The most numbers on the way: of an image, or of a matrix."""
    found = [0]
    for axis in axes:
        n, size = shape[axis], sizes[axis]
        found += [math.prod(shape) // n * (n * _copies(n, size)[0] if interpolation == "nearest" else size)]
        found += [n * size] if interpolation == "bilinear" else []
        shape = (*shape[:axis], size, *shape[axis + 1 :])
    return max(found)


def _nearest(shape: Shape, sizes: Shape, axes: list[int]) -> list[tuple[str, Any]]:
    """Each axis repeated, and one of so many kept: `floor((2 i + 1) p / (2 q))` for a ratio of `p / q`."""
    found: list[tuple[str, Any]] = []
    for axis in axes:
        n, size = shape[axis], sizes[axis]
        copies, kept, every = _copies(n, size)
        rank = len(shape)
        if copies > 1:
            found.append((f"copies{axis}", Upsample(tuple(copies if one == axis else 1 for one in range(rank)))))
        if every > 1:
            whole, split = (
                (*shape[:axis], n * copies, *shape[axis + 1 :]),
                (*shape[:axis], size, every, *shape[axis + 1 :]),
            )
            before = tuple(kept if one == axis + 1 else 0 for one in range(rank + 1))
            after = tuple(every - 1 - kept if one == axis + 1 else 0 for one in range(rank + 1))
            found += [(f"groups{axis}", Reshape(whole, split)), (f"kept{axis}", Crop(before, after))]
            inner = (*shape[:axis], size, 1, *shape[axis + 1 :])
            found.append((f"axis{axis}", Reshape(inner, (*shape[:axis], size, *shape[axis + 1 :]))))
        shape = (*shape[:axis], size, *shape[axis + 1 :])
    return found


def _bilinear(shape: Shape, sizes: Shape, axes: list[int]) -> list[tuple[str, Any]]:
    """A matrix along each axis, which is made the last one for it."""
    found: list[tuple[str, Any]] = []
    for axis in axes:
        n, size = shape[axis], sizes[axis]
        order = (*(one for one in range(len(shape)) if one != axis), axis)
        turned = tuple(shape[one] for one in order)
        back = tuple(int(one) for one in np.argsort(order))
        numbers = Interval.point(_numerators(n, size).T)
        kernel = quotient(numbers, Interval.point(np.full(numbers.shape, 2.0 * size)))
        linear = Linear(kernel, Interval.point(np.zeros(size)), turned, (*turned[:-1], size))
        found += [(f"turned{axis}", Permute(order)), (f"matrix{axis}", linear), (f"axis{axis}", Permute(back))]
        shape = (*shape[:axis], size, *shape[axis + 1 :])
    return found


def _numerators(n: int, size: int) -> Reals:
    """`2 size` times how much of each of `n` values is in each of `size`: whole numbers.

    Centre i lies at `((2 i + 1) n - size) / (2 size)`, counted in values; beyond the first and the last there is none.
    """
    places = np.clip((2 * np.arange(size) + 1) * n - size, 0, 2 * size * (n - 1))
    first, rest = places // (2 * size), places % (2 * size)
    rows = np.zeros((size, n))
    rows[np.arange(size), first] = 2 * size - rest
    rows[np.arange(size), np.minimum(first + 1, n - 1)] += rest
    return rows


def _matrix(n: int, size: int) -> Reals:
    return _numerators(n, size) / (2.0 * size)


RESIZING: dict[str, Reader] = {
    **dict.fromkeys(("UpSampling1D", "UpSampling2D"), read_upsampling),
    "CenterCrop": read_center_crop,
    "Resizing": read_resizing,
}
