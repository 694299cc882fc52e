"""Affine operations as Keras layers, with quantizers (QKeras) or without: what to build and which weights to set.

QKeras' own average pooling divides and multiplies again, which is not exact; so pooling is a depthwise convolution with a
constant kernel, and a scaling one of a single position. Where windows at the border average fewer elements, sums come first
and each is then scaled by its own constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.session.environment import import_keras, import_qkeras
from sound_qkeras.keras_io.write.scales import Quantizer, Word, words_of
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import Affine, AffineCodes, AveragePool, Conv, Dense, Scale
from sound_qkeras.network.ops.base import Reals, Shape
from sound_qkeras.network.ops.window import causal_padding, same_padding

# The kernel of a sum: nothing but ones.
ONE = Format(1, 1, False)


@dataclass(frozen=True)
class Parameters:
    """What a layer stores as its kernel and its bias, and the words QKeras rounds them to.

    Args:
        kernel: divided by its scales.
        bias: divided by its scale; None where the layer has none.
        scales: powers of two, in the kernel's shape.
        words: of kernel and bias; None for a float layer.
        trainable: averages stay averages when a model is trained.
    """

    kernel: Reals
    bias: Reals | None
    scales: Reals
    words: tuple[Quantizer, Quantizer] | None
    trainable: bool = True

    @classmethod
    def quantized(cls, codes: AffineCodes, dtype: str, *, scaled: bool) -> Parameters:
        """What integers stand for; without scales, a bias of zeros is left out."""
        words = kernel, bias = words_of(codes, dtype, scaled=scaled)
        kept = codes.bias_value / bias.scales if scaled or np.any(codes.bias) else None
        scales = np.broadcast_to(kernel.scales, codes.kernel.shape)
        return cls(codes.kernel_value / scales, kept, scales, words)

    @classmethod
    def plain(cls, op: Affine) -> Parameters:
        """Float parameters."""
        return cls(op.kernel, op.bias, np.ones_like(op.kernel), None)

    def mapped(self, to_kernel: Callable[[Reals], Reals], to_bias: Callable[[Reals], Reals]) -> Parameters:
        """The same numbers in other places."""
        bias = None if self.bias is None else to_bias(self.bias)
        return replace(self, kernel=to_kernel(self.kernel), scales=to_kernel(self.scales), bias=bias)


@dataclass(frozen=True)
class Chain:
    """Layers one after the other; calling it applies them and sets their weights."""

    layers: tuple[tuple[Any, tuple[Reals, ...]], ...]

    def __call__(self, tensor: Any) -> Any:
        """The result of the last layer."""
        for layer, weights in self.layers:
            tensor = layer(tensor)
            if weights:
                layer.set_weights([array.astype(layer.dtype) for array in weights])
        return tensor

    def sharing(self, other: Chain) -> Chain:
        """With the layers of another chain in place of its own, wherever they are the same but for their names."""
        known = {_settings(layer): layer for layer, _ in other.layers}
        return Chain(tuple((known.get(_settings(layer), layer), weights) for layer, weights in self.layers))

    def then(self, other: Chain) -> Chain:
        """The layers of both."""
        return Chain(self.layers + other.layers)


def _settings(layer: Any) -> str:
    config = {name: value for name, value in layer.get_config().items() if name != "name"}
    return repr((type(layer).__name__, sorted(config.items(), key=lambda item: item[0])))


@dataclass(frozen=True)
class Names:
    """Names for the layers a node becomes: its own for the one with the weights, unused ones for helpers."""

    main: str
    unused: Callable[[str], str]
    dtype: str

    def helper(self, what: str) -> str:
        """A name for a layer beside the main one."""
        return self.unused(f"{self.main}_{what}")

    @classmethod
    def of(cls, network: Network, main: str, dtype: str) -> Names:
        """Names that no node of the network has."""

        def unused(name: str) -> str:
            while name in network.by_name:
                name += "_"
            return name

        return cls(main, unused, dtype)


def layer_name(network: Network, node: Node) -> str:
    """The Keras layer an affine node came from, or its own name where that is another's (as in separable convolutions)."""
    same = [other for other, _ in network.owners() if other.layer == node.layer]
    taken = node.layer in network.by_name and node.layer != node.name
    return node.layer if len(same) == 1 and not taken else node.name


def kernel_quantizer_name(op: Affine) -> str:
    """What QKeras calls the kernel's quantizer of the layer that an operation becomes."""
    if isinstance(op, Conv):
        depthwise = _has_depthwise_layer(op)
    elif isinstance(op, AveragePool):
        depthwise = op.kernel.size > 1 or _has_depthwise_layer(_sums(op, 1.0))
    else:
        depthwise = isinstance(op, Scale)
    return "depthwise_quantizer" if depthwise else "kernel_quantizer"


def quantized_layers(pair: Pair, name: str, dtype: str, *, scaled: bool) -> Chain:
    """The QKeras layers of an affine node, named after it; see `words_of`."""
    node = pair.network.by_name[name]
    shape = pair.network.shapes[node.inputs[0]]
    parameters = Parameters.quantized(pair.codes(name), dtype, scaled=scaled)
    return affine_layers(node.op, shape, parameters, Names.of(pair.network, name, dtype))


def affine_layers(op: Any, shape: Shape, parameters: Parameters, names: Names) -> Chain:
    """The layers of an affine operation on inputs of a shape.

    Raises:
        TypeError: it is of another kind.
    """
    if isinstance(op, Dense):
        return _dense(parameters, names)
    if isinstance(op, Conv):
        return _conv(op, parameters, names)
    if isinstance(op, Scale):
        return _scale(shape, parameters, names)
    if isinstance(op, AveragePool):
        return _pool(op, parameters, names)
    raise TypeError(f"no affine layer is written for {type(op).__name__}")


def _dense(parameters: Parameters, names: Names) -> Chain:
    shape = parameters.kernel.shape
    return _with_weights("Dense", parameters, names, "kernel", {"units": shape[-1]}, shape)


def _conv(op: Conv, parameters: Parameters, names: Names) -> Chain:
    padding, before = _padding(op, names)
    settings: dict[str, Any] = {"strides": op.strides, "padding": padding, "dilation_rate": op.dilation}
    settings["kernel_size"] = op.window.kernel
    shape, channels = parameters.kernel.shape, op.input_shape[-1]
    if _has_depthwise_layer(op):
        settings["depth_multiplier"] = multiplier = shape[-1] // channels
        shape = (*shape[:2], channels, multiplier)
        return before.then(_with_weights("DepthwiseConv2D", parameters, names, "depthwise", settings, shape))
    settings |= {"filters": shape[-1], "groups": op.groups}
    return before.then(_with_weights(f"Conv{len(op.strides)}D", parameters, names, "kernel", settings, shape))


def _has_depthwise_layer(op: Conv) -> bool:
    """TensorFlow's depthwise convolution has two axes and one stride for both."""
    return op.is_depthwise and len(op.strides) == 2 and op.strides[0] == op.strides[1]


def _padding(op: Conv, names: Names) -> tuple[str, Chain]:
    """The name of the padding, and a layer that pads where it has none."""
    window = op.window
    if not any(map(sum, op.padding)):
        return "valid", Chain(())
    if op.padding == same_padding(window.sizes, window.kernel, op.strides, op.dilation):
        return "same", Chain(())
    if len(op.strides) == 1 and op.padding == causal_padding(window.kernel, op.dilation):
        return "causal", Chain(())
    layers = import_keras().layers
    kind, padding = (
        (layers.ZeroPadding1D, op.padding[0]) if len(op.strides) == 1 else (layers.ZeroPadding2D, op.padding)
    )
    return "valid", Chain(((kind(padding, name=names.helper("padded"), dtype=names.dtype), ()),))


def _scale(shape: Shape, parameters: Parameters, names: Names) -> Chain:
    """A depthwise convolution of single positions; every value is a channel where each has its own factor."""
    if len(shape) == 3 and parameters.kernel.ndim == 1:
        return _single_positions(shape, parameters, names)
    rank = parameters.kernel.ndim
    inner = (math.prod(shape[: len(shape) - rank]), 1, parameters.kernel.size)
    before, after = _reshape(inner, names, "flat"), _reshape(shape, names, "back")
    return before.then(_single_positions(inner, parameters, names)).then(after)


def _single_positions(shape: Shape, parameters: Parameters, names: Names) -> Chain:
    channels, ones = parameters.kernel.size, (1, 1)
    parameters = parameters.mapped(lambda kernel: kernel.reshape(1, 1, 1, -1), np.ravel)
    op = Conv(
        parameters.kernel,
        np.zeros(channels),
        input_shape=shape,
        strides=ones,
        dilation=ones,
        padding=((0, 0), (0, 0)),
        groups=channels,
    )
    return _conv(op, parameters, names)


def _pool(op: AveragePool, parameters: Parameters, names: Names) -> Chain:
    parameters = replace(parameters, trainable=False)
    sums, output = _sums(op, 1.0), (*op.window.output_sizes, op.input_shape[-1])
    if parameters.kernel.size == 1:
        same = parameters.mapped(lambda kernel: np.broadcast_to(kernel, sums.kernel.shape), lambda bias: bias)
        return _conv(sums, same, names)
    words = None if parameters.words is None else (Word.widened(ONE), Word.widened(ONE))
    inner = replace(names, main=names.helper("sums"))
    each = parameters.mapped(
        lambda kernel: np.broadcast_to(kernel[op.which][..., None], output),
        lambda bias: np.broadcast_to(bias, output),
    )
    ones = Parameters(sums.kernel, None, sums.kernel, words, trainable=False)
    return _conv(sums, ones, inner).then(_scale(output, each, names))


def pool_as_conv(op: AveragePool) -> Conv | None:
    """The depthwise convolution that an average pooling is; None where windows average different numbers of elements."""
    if op.kernel.size > 1:
        return None
    sums = _sums(op, float(op.kernel[0]))
    radius = None if op.kernel_radius is None else np.full(sums.kernel.shape, op.kernel_radius[0])
    return replace(sums, kernel_radius=radius, bias=op.bias, bias_radius=op.bias_radius)


def _sums(op: AveragePool, factor: float) -> Conv:
    """The depthwise convolution with one number everywhere in its kernel."""
    channels = op.input_shape[-1]
    return Conv(
        np.full((*op.sizes, 1, channels), factor),
        np.zeros(channels),
        input_shape=op.input_shape,
        strides=op.strides,
        dilation=op.window.dilation,
        padding=op.padding,
        groups=channels,
    )


def _reshape(shape: Shape, names: Names, what: str) -> Chain:
    return Chain(((import_keras().layers.Reshape(shape, name=names.helper(what), dtype=names.dtype), ()),))


def _with_weights(
    kind: str, parameters: Parameters, names: Names, kernel_name: str, settings: dict[str, Any], shape: Shape
) -> Chain:
    """One layer with a kernel of this shape, and a bias where there is one."""
    bias = parameters.bias
    settings |= {"use_bias": bias is not None, "name": names.main, "dtype": names.dtype}
    settings["trainable"] = parameters.trainable
    layers = import_keras().layers
    if parameters.words is not None:
        layers, kind, (kernel_word, bias_word) = import_qkeras(), f"Q{kind}", parameters.words
        channels = shape[-2:] if kernel_name == "depthwise" else shape[-1:]
        scales = parameters.scales.reshape(-1, *channels)[0]
        settings |= {
            f"{kernel_name}_initializer": "zeros",  # overwritten at once; QKeras wraps others in a random search
            f"{kernel_name}_quantizer": kernel_word.quantizer(scales),
            "bias_quantizer": bias_word.quantizer(bias_word.scales),
        }
    kernel = parameters.kernel.reshape(shape)
    return Chain(((getattr(layers, kind)(**settings), (kernel,) if bias is None else (kernel, bias)),))
