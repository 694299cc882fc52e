"""What Keras' convolution and average pooling layers mean, 1D and 2D."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.keras_io.read.activations import Parts, activation
from sound_qkeras.keras_io.read.layers import Reader, stored
from sound_qkeras.keras_io.read.pieces import Linear, Piece, Shape
from sound_qkeras.keras_io.session.editions import KERAS_2, edition
from sound_qkeras.network.ops import AveragePool, Conv, Crop, Pad, Reshape
from sound_qkeras.network.ops.window import Padding, causal_padding, same_padding


def read_conv(layer: Any, shape: Shape) -> Parts:
    """Kernel and bias, then the inline activation."""
    check_channels_last(layer)
    kernel = stored(layer, "kernel", layer.kernel)
    bias = stored_bias(layer, kernel.shape[-1])
    return (("", convolution(layer, shape, kernel, bias, layer.groups)), *activation(layer, "_"))


def read_transposed(layer: Any, shape: Shape) -> Parts:
    """Zeros between the values, and a convolution of these with the kernel turned round."""
    check_channels_last(layer)
    axes = len(shape) - 1
    kernel = stored(layer, "kernel", layer.kernel)
    kernel = np.swapaxes(np.flip(kernel, tuple(range(axes))), -1, -2)  # Keras has the outputs before the inputs
    strides, dilation, ones = sizes_of(layer.strides), sizes_of(layer.dilation_rate), (1,) * axes
    target = tuple(int(size) for size in layer.compute_output_shape((None, *shape))[1:-1])
    parts, spread = _spread(shape, strides)
    reach = tuple((size - 1) * step for size, step in zip(kernel.shape, dilation, strict=False))
    cut, padding = [0] * axes, [(0, 0)] * axes
    for axis, (size, wanted, stride) in enumerate(zip(spread, target, strides, strict=False)):
        lost = 0
        if layer.padding == "same":
            lost = max((-(-wanted // stride) - 1) * stride + reach[axis] + 1 - wanted, 0) // 2
        before = reach[axis] - lost
        after = wanted + reach[axis] - size - before
        cut[axis], padding[axis] = max(-after, 0), (before, max(after, 0))
    if any(cut):
        parts.append(("_cut", Crop((0,) * (axes + 1), (*cut, 0))))
    source = (*(size - less for size, less in zip(spread, cut, strict=False)), shape[-1])
    bias = stored_bias(layer, kernel.shape[-1])
    parts.append(("", _conv(source, kernel, bias, ones, dilation, tuple(padding), 1)))
    return (*parts, *activation(layer, "_"))


def _spread(shape: Shape, strides: Shape) -> tuple[list[tuple[str, Piece]], Shape]:
    """Every value followed by zeros along its axes, `stride - 1` of them, and the shape then."""
    axes = len(shape) - 1
    spread = (*(size * stride for size, stride in zip(shape, strides, strict=False)), shape[-1])
    if spread == shape:
        return [], shape
    apart = (*(size for n in shape[:-1] for size in (n, 1)), shape[-1])
    filled = (*(size for pair in zip(shape, strides, strict=False) for size in pair), shape[-1])
    behind = (*(zeros for stride in strides for zeros in (0, stride - 1)), 0)
    return [
        ("_apart", Reshape(shape, apart)),
        ("_zeros", Pad((0,) * (2 * axes + 1), behind)),
        ("_spread", Reshape(filled, spread)),
    ], spread


def read_depthwise(layer: Any, shape: Shape) -> Parts:
    """Every channel by itself: a convolution with as many groups as channels."""
    check_channels_last(layer)
    kernel = stored(layer, "kernel", layer.depthwise_kernel if edition(layer) == KERAS_2 else layer.kernel)
    bias = stored_bias(layer, math.prod(kernel.shape[-2:]))
    return (("", depthwise(layer, shape, kernel, bias)), *activation(layer, "_"))


def read_separable(layer: Any, shape: Shape) -> Parts:
    """A depthwise convolution without bias, then one of single positions: two layers with weights."""
    check_channels_last(layer)
    first = stored(layer, "depthwise_kernel", layer.depthwise_kernel)
    last = stored(layer, "pointwise_kernel", layer.pointwise_kernel)
    parts = separable(layer, shape, first, last, stored_bias(layer, last.shape[-1]))
    return (*parts, *activation(layer, "_"))


def separable(layer: Any, shape: Shape, first: Reals, last: Reals, bias: Reals) -> Parts:
    """Both layers of a separable convolution with the kernels given, as Keras lays them out."""
    each = depthwise(layer, shape, first, np.zeros(math.prod(first.shape[-2:])))
    ones = (1,) * (len(shape) - 1)
    joined = _conv(each.output_shape, last, bias, ones, ones, ((0, 0),) * len(ones), 1)
    return ("_depthwise", each), ("_pointwise", joined)


def read_average_pooling(layer: Any, shape: Shape) -> Parts:
    """Windows reach beyond the input with `same`, but only what is inside counts."""
    check_channels_last(layer)
    sizes, strides = sizes_of(layer.pool_size), sizes_of(layer.strides)
    padding = _padding(layer.padding, shape[:-1], sizes, strides, (1,) * len(sizes))
    return (("", AveragePool.of(shape, sizes, strides, padding)),)


def read_global_average_pooling(layer: Any, shape: Shape) -> Parts:
    """One window over everything; the axes it leaves are dropped unless the layer keeps them."""
    check_channels_last(layer)
    ones = (1,) * (len(shape) - 1)
    pool = AveragePool.of(shape, shape[:-1], ones, ((0, 0),) * len(ones))
    if layer.keepdims:
        return (("", pool),)
    return (("", pool), ("_flat", Reshape((*ones, shape[-1]), shape[-1:])))


def check_channels_last(layer: Any) -> None:
    """Refuse the other order of axes.

    Raises:
        UnsupportedLayerError: the layer's channels come first.
    """
    if getattr(layer, "data_format", None) == "channels_first":  # some 1D layers know no other order
        raise UnsupportedLayerError(
            layer.name,
            f"{type(layer).__name__} with data_format='channels_first'",
            "channels_last",
            "rebuild the model with channels_last",
        )


def stored_bias(layer: Any, channels: int) -> Reals:
    """A layer's bias; zeros where it has none."""
    return stored(layer, "bias", layer.bias) if layer.use_bias else np.zeros(channels)


def depthwise(layer: Any, shape: Shape, kernel: Reals, bias: Reals) -> Linear:
    """A depthwise layer's operation with a kernel as Keras lays it out."""
    return convolution(layer, shape, kernel.reshape(*kernel.shape[:-2], 1, -1), bias, shape[-1])


def convolution(layer: Any, shape: Shape, kernel: Reals, bias: Reals, groups: int) -> Linear:
    """A convolutional layer's operation with the parameters given."""
    axes = len(shape) - 1
    # Depthwise layers keep some of their settings for two axes even where they have one.
    strides, dilation = sizes_of(layer.strides)[:axes], sizes_of(layer.dilation_rate)[:axes]
    padding = _padding(layer.padding, shape[:-1], kernel.shape[:axes], strides, dilation)
    return _conv(shape, kernel, bias, strides, dilation, padding, groups)


def _conv(
    shape: Shape, kernel: Reals, bias: Reals, strides: Shape, dilation: Shape, padding: Padding, groups: int
) -> Linear:
    build = partial(Conv, input_shape=shape, strides=strides, dilation=dilation, padding=padding, groups=groups)
    output = build(kernel, bias).output_shape(shape)
    padded = any(map(sum, padding))
    return Linear(Interval.point(kernel), Interval.point(bias), shape, output, build, groups, padded)


def _padding(kind: str, sizes: Shape, kernel: Shape, strides: Shape, dilation: Shape) -> Padding:
    if kind.lower() == "same":
        return same_padding(sizes, kernel, strides, dilation)
    return causal_padding(kernel, dilation) if kind.lower() == "causal" else ((0, 0),) * len(sizes)


def sizes_of(setting: Any) -> Shape:
    """A size, or one for each axis, as a tuple."""
    return tuple(int(size) for size in np.atleast_1d(setting))


CONVOLUTIONS: dict[str, Reader] = {
    **dict.fromkeys(("Conv1D", "Conv2D"), read_conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose"), read_transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), read_depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), read_separable),
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D"), read_average_pooling),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalAveragePooling2D"), read_global_average_pooling),
}
