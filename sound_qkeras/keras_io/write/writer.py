"""Fixed-point networks become QKeras models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.read.activations import leaky_layer
from sound_qkeras.keras_io.session.environment import float_type, import_keras, import_qkeras
from sound_qkeras.keras_io.write.affine_layers import Chain, Names, quantized_layers
from sound_qkeras.keras_io.write.keras_names import with_keras_names
from sound_qkeras.keras_io.write.model_ends import as_model, inner_nodes, model_inputs, output_ports, unused, with_head
from sound_qkeras.keras_io.write.plain_layers import plain_layers
from sound_qkeras.keras_io.write.quantizers import activation_quantizer
from sound_qkeras.keras_io.write.representable import check_representable
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import MOVES, Affine, Relu

Dtype = Literal["float32", "float64"]

# Suffix of the QActivation that rounds a node's result.
ROUNDED = "_rounded"


def to_qkeras(pair: Pair, *, dtype: Dtype = "float32", head: bool = False) -> Any:
    """The QKeras model of a fixed-point network, its weights set to the network's exact values.

    Guarantee: in float64, inside `sound_qkeras.float64()`, the model equals `simulate` bit for bit, for every input of
    up to 2**53 input steps, as long as no format with negative `integer_bits` saturates (a ReLU's may): QKeras cannot
    say such a format and gets a wider one on the same grid. Inside the proved box nothing saturates. In float32 the
    same holds where every sum stays within 2**24 steps and every weight within 24 bits.

    Every layer is a plain Keras or QKeras one, so any session can load the float32 model with
    `qkeras.utils.load_qmodel`, train it, and convert it with hls4ml (`bit_exact=True`). Training clips kernels to
    `+-max(1, 2**integer)`. The exceptions are `TableActivation` and `TableNormalization` layers: they load wherever
    `sound_qkeras.keras_io.register()` was called, and hls4ml does not know them.

    Args:
        pair: the fixed-point network.
        dtype: "float32", what everybody runs, or "float64", the exact one.
        head: append the softmax or sigmoid that was set aside, in floating point, if there was one.

    Returns:
        An uncompiled tf_keras model; what tf_keras does not allow in a name is mended, see `sound_qkeras.Result.keras_names`.

    Raises:
        InputError: QKeras misreads one of the formats, or `dtype` is something else.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r} is not known; accepted: 'float32', 'float64'")
    check_representable(pair, dtype)
    import_qkeras()
    pair = with_keras_names(pair)
    with float_type(dtype):
        return _build(pair, dtype, head)


def _build(pair: Pair, dtype: Dtype, head: bool) -> Any:
    """The layers and their connections."""
    network = pair.network
    sources, entry = model_inputs(network, dtype), network.nodes[0].name
    tensors = {node: _rounded(pair, entry, source, dtype) for node, source in sources.items()}
    chains: dict[str, Chain] = {}
    for node in inner_nodes(network):
        written = WRITERS[node.op.kind](pair, node, dtype)
        if isinstance(node.op, Affine):
            owner = network.owner(node.name)
            written = written.sharing(chains[owner]) if node.shares is not None else chains.setdefault(owner, written)
        exact = written(*(tensors[name] for name in node.inputs))
        tensors[node.name] = _rounded(pair, node.name, exact, dtype)
    found: list[Any] = []
    for port in output_ports(network):
        output = tensors[port.node]
        if network.outputs:
            output = _rounded(pair, network.output.name, output, dtype)
        found.append(with_head(network, port, output, dtype, head))
    return as_model(network, sources, found)


def _rounded(pair: Pair, name: str, exact: Any, dtype: Dtype) -> Any:
    """A tensor after the rounding of a node's format, if it has one."""
    output, node = pair.formats.get(name), pair.network.by_name[name]
    if output is None or node.op.rounds or _rectifies_itself(pair, node, dtype):
        return exact
    several = pair.network.inputs and name == pair.network.nodes[0].name
    several = several or (pair.network.outputs and name == pair.network.output.name)
    stem = exact.node.layer.name if several else name
    return _q_activation(output, unused(pair.network, f"{stem}{ROUNDED}"), dtype)(exact)


def _q_activation(output: Format, name: str, dtype: Dtype) -> Any:
    # A string, not a quantizer object: QActivation cannot be loaded from .keras files otherwise.
    return import_qkeras().QActivation(activation_quantizer(output, dtype), name=name, dtype=dtype)


def _rectifies_itself(pair: Pair, node: Node, dtype: Dtype) -> bool:
    """Whether the node is a ReLU that one `quantized_relu` computes, rounding included."""
    output = pair.formats.get(node.name)
    if output is None or not isinstance(node.op, Relu) or output.integer_bits < 0:
        return False
    return activation_quantizer(output, dtype).startswith("quantized_relu")


def _write_affine(pair: Pair, node: Node, dtype: Dtype) -> Any:
    return quantized_layers(pair, node.name, dtype)


def _write_relu(pair: Pair, node: Node, dtype: Dtype) -> Any:
    """QKeras' rounding ReLU; where there is none, a plain one, whose gradient training needs although rounding clips.

    Where QKeras has to be given a wider format, the plain ReLU saturates in its place.
    """
    output = pair.formats.get(node.name)
    if output is not None and _rectifies_itself(pair, node, dtype):
        return _q_activation(output, node.name, dtype)
    widened = output is not None and not output.signed and output.integer_bits < 0
    maximum = output.maximum if output is not None and widened else None
    return import_keras().layers.ReLU(max_value=maximum, name=node.name, dtype=dtype)


def _write_plain(pair: Pair, node: Node, dtype: Dtype) -> Any:
    shapes = [pair.network.shapes[name] for name in node.inputs]
    return plain_layers(node.op, shapes, Names.of(pair.network, node.name, dtype))


def _write_clip(pair: Pair, node: Node, dtype: Dtype) -> Any:
    return import_keras().layers.ReLU(max_value=node.op.settings()["maximum"], name=node.name, dtype=dtype)


def _write_leaky(pair: Pair, node: Node, dtype: Dtype) -> Any:
    """With the slopes of the fixed-point network."""
    return leaky_layer(pair.pairs[node.name].slope, node.name, dtype)


def _write_table(pair: Pair, node: Node, dtype: Dtype) -> Any:
    from sound_qkeras.keras_io.write.table_layer import table_layer

    return table_layer(pair.pairs[node.name], node.name, dtype)


def _write_layer_norm(pair: Pair, node: Node, dtype: Dtype) -> Any:
    from sound_qkeras.keras_io.write.norm_layer import norm_layer

    return norm_layer(pair.pairs[node.name], node.name, dtype)


WRITERS: dict[str, Callable[[Pair, Node, Dtype], Any]] = {
    **dict.fromkeys(("average_pool", "conv", "dense", "scale"), _write_affine),
    **dict.fromkeys(("add", "concatenate", "matmul", "max_pool", "multiply"), _write_plain),
    **dict.fromkeys((op.kind for op in MOVES), _write_plain),
    "clip": _write_clip,
    "layer_norm": _write_layer_norm,
    "leaky": _write_leaky,
    "relu": _write_relu,
    "table": _write_table,
}
