"""The formats of a fixed-point network as QKeras' own configuration, for `qkeras.utils.model_quantize`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.session.environment import import_qkeras
from sound_qkeras.keras_io.write.affine_layers import kernel_quantizer_name, layer_name
from sound_qkeras.keras_io.write.keras_names import with_keras_names
from sound_qkeras.keras_io.write.representable import check_one_format_each
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import Affine, Elementwise, Input, Relu

# quantized_relu computes in float32 whatever the session does, exactly up to here.
RELU_BITS = 24

QuantizerConfig = dict[str, str | dict[str, str]]


def activation_quantizer(output: Format, dtype: str) -> str:
    """The quantizer of an activation.

    An unsigned one is `quantized_relu` where that is exact, because hls4ml takes every `quantized_bits` for signed. A format
    with negative integer bits is a wider one.
    """
    wide = output.widened
    if output.signed or dtype != "float32" or wide.word_length > RELU_BITS:
        return output.to_quantized_bits()
    return f"quantized_relu({wide.word_length},{wide.integer_bits})"


def rounding_of(output: Format, dtype: str, *, scaled: bool) -> tuple[str, int]:
    """The quantizer of an activation, and by which power of two what it reads is multiplied and what it returns divided.

    Args:
        output: the format.
        dtype: "float32" or "float64".
        scaled: whether a format with negative integer bits becomes one of its own length on multiplied values, or a wider one.
    """
    shift = max(0, -output.integer_bits) if scaled else 0
    held = Format(output.word_length, output.integer_bits + shift, output.signed)
    return activation_quantizer(held, dtype), shift


def quantizer_config(pair: Pair) -> QuantizerConfig:
    """What `qkeras.utils.model_quantize` takes: Keras layer names to quantizer strings, for float32 sessions.

    A layer with weights maps to its `kernel_quantizer` (`depthwise_quantizer`), `bias_quantizer` and, where its result is rounded,
    `activation_quantizer`; an activation layer to one string. The input layer's entry says how inputs are rounded:
    `model_quantize`, which can only replace layers, ignores it. The guarantee is about the model `to_qkeras` builds;
    the model `model_quantize` makes does not round its input, nor its output before a final softmax or sigmoid, and keeps
    normalisation layers. Kernels are per tensor there: formats of single channels are not in it, and change no value. Formats with
    negative integer bits are wider ones, because scales would ask for other weights than the trained ones.

    Raises:
        InputError: a result is rounded to several formats, or to few values.
    """
    check_one_format_each(pair)
    pair = with_keras_names(pair)
    config: QuantizerConfig = {}
    for node in pair.network.nodes:
        if isinstance(node.op, Affine) and node.shares is None:
            codes = pair.codes(node.name)
            config[layer_name(pair.network, node)] = {
                kernel_quantizer_name(node.op): codes.kernel_format.to_quantized_bits(),
                "bias_quantizer": codes.bias_format.to_quantized_bits(),
            }
        _add_activation(config, pair, node)
    return config


def _add_activation(config: QuantizerConfig, pair: Pair, node: Node) -> None:
    """The node's rounding; a rectifier that is not rounded stays one, which QKeras has to be told.

    `model_quantize` has no words for tables, nor for clipped and leaky units: those stay as they are in the float model.
    """
    if _has_own_layer(pair, node):
        return
    if node is pair.network.output and pair.network.head is not None:
        return  # the layer keeps its softmax or sigmoid, whose place the rounding would take
    source = pair.network.by_name[node.inputs[0]] if node.inputs else node
    shared = source.name in pair.network.shared
    inline = isinstance(source.op, Affine) and source.layer == node.layer and not shared
    own = node.name if shared else node.layer
    entry = config.get(layer_name(pair.network, source) if inline else own)
    if node.name in pair.formats:
        quantizer = activation_quantizer(pair.formats[node.name], "float32")
    elif isinstance(node.op, Relu) and isinstance(entry, dict):
        quantizer = "relu"
    else:
        return
    if isinstance(entry, dict):
        entry["activation_quantizer"] = quantizer
    elif isinstance(node.op, Relu | Input):
        config[own] = quantizer


def _has_own_layer(pair: Pair, node: Node) -> bool:
    """Whether a node, or what reads its rounded sum, is a unit that QKeras' configuration cannot describe."""
    readers = [reader.op for reader in pair.network.readers[node.name]]
    units = [node.op, *(readers if isinstance(node.op, Affine) else [])]
    return any(isinstance(op, Elementwise) and not isinstance(op, Relu) for op in units)


def model_quantize(model: Any, config: Mapping[str, Any], *, transfer_weights: bool = False) -> Any:
    """`qkeras.utils.model_quantize` for models of current Keras: without this, QKeras cannot find its own classes.

    What the configuration does not name stays as it is; QKeras alone turns an inline sigmoid into an 8-bit one.

    Args:
        model: the tf_keras model the configuration was made for.
        config: as `quantizer_config` returns it.
        transfer_weights: copy the float weights.

    Returns:
        The QKeras model, uncompiled.

    Raises:
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
    """
    described = _Described(model)
    utils = import_qkeras().utils
    return utils.model_quantize(described, described.completed(config), 8, transfer_weights=transfer_weights)


class _Described:
    """A model whose json names classes only, so that QKeras may exchange them."""

    def __init__(self, model: Any) -> None:
        self.layers = model.layers
        self._content = json.loads(model.to_json())
        for part in (self._content, *self._content["config"]["layers"]):
            for key in ("module", "registered_name", "build_config"):
                part.pop(key, None)

    def to_json(self) -> str:
        """The model's json without the modules its layers are imported from."""
        return json.dumps(self._content)

    def completed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with the inline activations it does not mention, as they are."""
        complete = dict(config)
        for layer in self._content["config"]["layers"]:
            name, activation = layer["config"]["name"], layer["config"].get("activation")
            if isinstance(complete.get(name), dict) and isinstance(activation, str) and activation != "linear":
                complete[name] = {"activation_quantizer": activation, **complete[name]}
        return complete
