"""Layers with parameters for hls4ml: the exact integers, and accumulators that hold the exact sum."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from sound_qkeras.backends.hls4ml_graph import ONE, Builder, Reals, Shape, ap_type, ends_of, factors, sizes_of
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node
from sound_qkeras.network.ops import AveragePool, Conv
from sound_qkeras.network.ops.window import Window


def dense(build: Builder, node: Node) -> None:
    """A matrix product; of several positions a convolution of single ones."""
    codes = build.plan.pair.codes(node.name)
    (source,) = (build.result.names[name] for name in node.inputs)
    inputs, outputs = codes.kernel.shape
    if len(build.shapes[source]) == 1:
        settings = {"weight_data": codes.kernel_value, "bias_data": codes.bias_value}
        build.finish(node, "Dense", [source], n_in=inputs, n_out=outputs, types=_sums(build, node), **settings)
        return
    positions = math.prod(build.shapes[source][:-1])
    window = Window((positions,), (1,), (1,), (1,), ((0, 0),))
    _convolved(build, node, build.reshape(source, (positions, inputs)), window, codes.kernel_value[None])


def conv(build: Builder, node: Node) -> None:
    """A convolution; groups and dilation become zeros in the kernel."""
    op = cast(Conv, node.op)
    if len(op.strides) > 2:
        build.refuse(node, f"a convolution over {len(op.strides)} axes", "one or two axes")
    kernel = _spread(build.plan.pair.codes(node.name).kernel_value, op.dilation)
    window = Window(op.window.sizes, kernel.shape[:-2], op.strides, (1,) * len(op.strides), op.padding)
    source = build.result.names[node.inputs[0]]
    depthwise = op.is_depthwise and kernel.shape[-1] == op.groups and len(op.strides) == 2
    _convolved(build, node, source, window, kernel if depthwise else _ungrouped(kernel, op.groups), depthwise)


def _convolved(build: Builder, node: Node, source: str, window: Window, kernel: Reals, depthwise: bool = False) -> None:
    bias = build.plan.pair.codes(node.name).bias_value
    channels, filters = build.shapes[source][-1], kernel.shape[-1]
    kind, settings = _convolution(window, kernel, channels, depthwise)
    shape = (*window.output_sizes, filters)
    settings |= {"bias_data": bias, "types": _sums(build, node)}
    if shape == build.network.shapes[node.name]:
        build.finish(node, kind, [source], **settings)
        return
    rounds, saturates = build.modes(node)
    output = build.format_of(node)
    flat = build.layer(
        kind, f"{build.stems[node.name]}_flat", [source], shape, output,
        rounds=rounds, saturates=saturates, **settings,
    )  # fmt: skip
    build.moved(node, "Reshape", flat, target_shape=list(build.network.shapes[node.name]))


def _convolution(window: Window, kernel: Reals, channels: int, depthwise: bool) -> tuple[str, dict[str, Any]]:
    """Kind and settings of a convolution, but for its bias and types."""
    settings: dict[str, Any] = {
        "n_chan": channels,
        "n_filt": kernel.shape[-1],
        **sizes_of("in", window.sizes),
        **sizes_of("out", window.output_sizes),
        **sizes_of("filt", window.kernel),
        **sizes_of("stride", window.strides),
        **ends_of("pad", window.padding),
    }
    kind = f"Conv{len(window.sizes)}D"
    if not depthwise:
        return kind, {**settings, "weight_data": kernel}
    own = kernel.reshape(*window.kernel, channels, 1)
    return f"Depthwise{kind}", {**settings, "depth_multiplier": 1, "depthwise_data": own}


def _sums(build: Builder, node: Node) -> dict[str, str]:
    """Types of a sum of products and of its parameters: the exact sum, with what rounding needs."""
    codes, tensor = build.plan.pair.codes(node.name), build.plan.tensors[node.name]
    least = tensor.exact.fractional_bits - tensor.format.fractional_bits + 2
    return {
        "accum": ap_type(tensor.exact, least=least),
        "weight": ap_type(codes.kernel_format),
        "bias": ap_type(codes.bias_format),
    }


def scale(build: Builder, node: Node) -> None:
    """A factor and an offset for every value."""
    codes = build.plan.pair.codes(node.name)
    kind, settings = factors(codes.kernel_value, codes.bias_value, codes.kernel_format, codes.bias_format)
    build.finish(node, kind, build.reads(node), **settings)


def average_pool(build: Builder, node: Node) -> None:
    """Sums of windows, times the constant of each."""
    op = cast(AveragePool, node.op)
    codes = build.plan.pair.codes(node.name)
    source = build.result.names[node.inputs[0]]
    channels, axes = op.input_shape[-1], len(op.strides)
    if axes > 2:
        build.refuse(node, f"pooling over {axes} axes", "one or two axes")
    held = build.formats[source]
    grown = held.word_length + max(1, math.prod(op.sizes).bit_length()) + (not held.signed)
    exact = Format(grown, grown - held.fractional_bits - 1, True)
    ones = np.ones((*op.sizes, 1, channels))
    depthwise = axes == 2 and channels > 1
    kind, settings = _convolution(op.window, ones if depthwise else _ungrouped(ones, channels), channels, depthwise)
    one = ap_type(ONE)
    sums = build.helper(
        node, "sums", kind, [source], exact, shape=(*op.window.output_sizes, channels), bias_data=np.zeros(channels),
        types={"accum": ap_type(exact), "weight": one, "bias": one}, **settings,
    )  # fmt: skip
    shape = build.shapes[sums]
    shares = np.broadcast_to(codes.kernel_value[op.which][..., None], shape)
    offsets = np.broadcast_to(codes.bias_value, shape)
    sums = build.wide(sums, build.format_of(node).fractional_bits)
    kind, scaled = factors(shares, offsets, codes.kernel_format, codes.bias_format)
    build.finish(node, kind, [sums], **scaled)


def _spread(kernel: Reals, dilation: Shape) -> Reals:
    """The kernel with its zeros written out."""
    sizes = [(size - 1) * step + 1 for size, step in zip(kernel.shape, dilation, strict=False)]
    spread = np.zeros((*sizes, *kernel.shape[-2:]))
    spread[tuple(slice(None, None, step) for step in dilation)] = kernel
    return spread


def _ungrouped(kernel: Reals, groups: int) -> Reals:
    """A kernel that reads all channels, those of other groups with zeros."""
    if groups == 1:
        return kernel
    inputs, outputs = kernel.shape[-2:]
    whole = np.zeros((*kernel.shape[:-2], inputs * groups, outputs))
    width = outputs // groups
    for group in range(groups):
        columns = slice(group * width, (group + 1) * width)
        whole[..., group * inputs : (group + 1) * inputs, columns] = kernel[..., columns]
    return whole
