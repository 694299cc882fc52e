"""What the layers of QKeras 0.9.0 mean: one function a layer kind, in the table `QKERAS`.

A function gets the built layer, the shape of its input without the batch axis, and whether the latent weights are wanted
instead of those that the quantizers make of them. It returns what the layer becomes, as the readers of Keras' layers do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.keras_io.qkeras.quantizers import effective, powers_of_two, quantized_activation
from sound_qkeras.keras_io.read.activations import Parts
from sound_qkeras.keras_io.read.convolutions import (
    check_channels_last,
    convolution,
    depthwise,
    read_average_pooling,
    read_global_average_pooling,
    separable,
)
from sound_qkeras.keras_io.read.layers import batch_normalization, read_batch_normalization, stored
from sound_qkeras.keras_io.read.pieces import Linear, Piece, Shape, product
from sound_qkeras.network.ops import AveragePool

QReader = Callable[[Any, Shape, bool], Parts]


def parameter(layer: Any, name: str, *, latent: bool, quantizer: str | None = None) -> Reals:
    """A parameter of a layer, quantised unless the latent one is wanted.

    Args:
        layer: the layer.
        name: of the variable.
        latent: as it is stored, times scales of the quantizer that are powers of two.
        quantizer: the quantizer's name where it is not the variable's.
    """
    found = getattr(layer, f"{quantizer or name}_quantizer_internal")
    if latent:
        return stored(layer, name, getattr(layer, name)) * powers_of_two(found)
    return effective(layer, name, getattr(layer, name), found)


def bias_of(layer: Any, channels: int, *, latent: bool) -> Reals:
    """A layer's bias; zeros where it has none."""
    return parameter(layer, "bias", latent=latent) if layer.use_bias else np.zeros(channels)


def inline(layer: Any) -> Parts:
    """The activation that is part of a layer."""
    return quantized_activation(layer, layer.activation, "_")


def read_qdense(layer: Any, shape: Shape, latent: bool) -> Parts:
    """Kernel and bias, then the activation."""
    kernel = parameter(layer, "kernel", latent=latent)
    bias = bias_of(layer, kernel.shape[1], latent=latent)
    linear = Linear(Interval.point(kernel), Interval.point(bias), shape, (*shape[:-1], kernel.shape[1]))
    return ("", linear), *inline(layer)


def read_qconv(layer: Any, shape: Shape, latent: bool) -> Parts:
    """Kernel and bias, then the activation."""
    check_channels_last(layer)
    kernel = parameter(layer, "kernel", latent=latent)
    bias = bias_of(layer, kernel.shape[-1], latent=latent)
    return ("", convolution(layer, shape, kernel, bias, layer.groups)), *inline(layer)


def read_qdepthwise(layer: Any, shape: Shape, latent: bool) -> Parts:
    """Every channel by itself."""
    check_channels_last(layer)
    kernel = parameter(layer, "depthwise_kernel", latent=latent, quantizer="depthwise")
    bias = bias_of(layer, math.prod(kernel.shape[-2:]), latent=latent)
    return ("", depthwise(layer, shape, kernel, bias)), *inline(layer)


def read_qseparable(layer: Any, shape: Shape, latent: bool) -> Parts:
    """A depthwise convolution, then one of single positions."""
    check_channels_last(layer)
    first = parameter(layer, "depthwise_kernel", latent=latent, quantizer="depthwise")
    last = parameter(layer, "pointwise_kernel", latent=latent, quantizer="pointwise")
    bias = bias_of(layer, last.shape[-1], latent=latent)
    return *separable(layer, shape, first, last, bias), *inline(layer)


def read_folded_conv(layer: Any, shape: Shape, latent: bool) -> Parts:
    """A convolution whose parameters are quantised after the normalisation was folded into them, in QKeras' own arithmetic."""
    return _folded(layer, shape, latent, "kernel")


def read_folded_depthwise(layer: Any, shape: Shape, latent: bool) -> Parts:
    """The same of a depthwise convolution."""
    return _folded(layer, shape, latent, "depthwise")


def _folded(layer: Any, shape: Shape, latent: bool, quantizer: str) -> Parts:
    check_channels_last(layer)
    name = "kernel" if quantizer == "kernel" else "depthwise_kernel"

    def placed(kernel: Reals, bias: Reals) -> Linear:
        if quantizer == "depthwise":
            return depthwise(layer, shape, kernel, bias)
        return convolution(layer, shape, kernel, bias, layer.groups)

    if latent:
        kernel = stored(layer, name, getattr(layer, name))
        channels = kernel.shape[-1] if quantizer == "kernel" else math.prod(kernel.shape[-2:])
        linear = placed(kernel, bias_of(layer, channels, latent=True))
        ((_, normal),) = read_batch_normalization(layer.batchnorm, linear.output_shape)
        return ("", linear), ("_normalised", normal), *inline(layer)
    folded, shift = layer.get_folded_weights()
    kernel = effective(layer, name, folded, getattr(layer, f"{quantizer}_quantizer_internal"))
    bias = effective(layer, "bias", shift, layer.bias_quantizer_internal)
    return ("", placed(kernel, bias)), *inline(layer)


def read_qbatch_normalization(layer: Any, shape: Shape, latent: bool) -> Parts:
    """A normalisation with quantised parameters, in real arithmetic."""
    names = {"gamma": "gamma", "beta": "beta", "moving_mean": "mean", "moving_variance": "variance"}
    return batch_normalization(layer, shape, lambda name: parameter(layer, name, latent=latent, quantizer=names[name]))


def read_qactivation(layer: Any, shape: Shape, latent: bool) -> Parts:
    """A quantizer, or one of Keras' own functions."""
    return quantized_activation(layer, layer.quantizer, "")


def read_qaverage_pooling(layer: Any, shape: Shape, latent: bool) -> Parts:
    """An average whose divisor is quantised, then the activation."""
    ((suffix, pool),) = read_average_pooling(layer, shape)
    return (suffix, _pooled(layer, pool, latent)), *inline(layer)


def read_qglobal_average_pooling(layer: Any, shape: Shape, latent: bool) -> Parts:
    """The same over everything."""
    (suffix, pool), *rest = read_global_average_pooling(layer, shape)
    return (suffix, _pooled(layer, pool, latent)), *rest, *inline(layer)


def _pooled(layer: Any, pool: Piece, latent: bool) -> Piece:
    """The average times the window's size, times the quantised reciprocal of that."""
    if latent or layer.average_quantizer_internal is None or not isinstance(pool, AveragePool):
        return pool
    area = math.prod(pool.sizes)
    share = effective(layer, "average", 1.0 / area, layer.average_quantizer_internal)
    kernel = Interval.point(pool.kernel)
    if pool.kernel_radius is not None:
        kernel = Interval.around(pool.kernel, pool.kernel_radius)
    found = product(kernel, Interval.point(area * share.reshape(1)))
    exact = Interval.point(np.broadcast_to(share.reshape(1), pool.kernel.shape))
    if pool.kernel.size == 1:  # every window is whole
        found = exact
    return AveragePool(
        found.center,
        pool.bias,
        found.radius if np.any(found.radius) else None,
        input_shape=pool.input_shape,
        sizes=pool.sizes,
        strides=pool.strides,
        padding=pool.padding,
    )


QKERAS: dict[str, QReader] = {
    "QActivation": read_qactivation,
    "QAveragePooling2D": read_qaverage_pooling,
    "QBatchNormalization": read_qbatch_normalization,
    "QConv1D": read_qconv,
    "QConv2D": read_qconv,
    "QConv2DBatchnorm": read_folded_conv,
    "QDense": read_qdense,
    "QDepthwiseConv2D": read_qdepthwise,
    "QDepthwiseConv2DBatchnorm": read_folded_depthwise,
    "QGlobalAveragePooling2D": read_qglobal_average_pooling,
    "QSeparableConv1D": read_qseparable,
    "QSeparableConv2D": read_qseparable,
}
