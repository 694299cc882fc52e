"""Fixed-point networks become QKeras models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.read.activations import leaky_layer
from sound_qkeras.keras_io.session.environment import float_type, import_keras, import_qkeras
from sound_qkeras.keras_io.write.affine_layers import Chain, Names, quantized_layers
from sound_qkeras.keras_io.write.keras_names import with_keras_names
from sound_qkeras.keras_io.write.model_ends import as_model, inner_nodes, model_inputs, output_ports, unused, with_head
from sound_qkeras.keras_io.write.plain_layers import plain_layers
from sound_qkeras.keras_io.write.quantizers import rounding_of
from sound_qkeras.keras_io.write.representable import check_representable
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import MOVES, Affine, Relu

Dtype = Literal["float32", "float64"]

# Suffix of the QActivation that rounds a node's result.
ROUNDED = "_rounded"


def to_qkeras(pair: Pair, *, dtype: Dtype = "float32", head: bool = False, scaled: bool = True) -> Any:
    """The QKeras model of a fixed-point network, its weights set to the network's exact values.

    Guarantee: in float64, inside `sound_qkeras.float64()`, the model equals `simulate` bit for bit, for every input of
    up to 2**53 input steps. In float32 the same holds where every sum stays within 2**24 steps and every weight within 24
    bits. With `scaled=False` a format with negative `integer_bits` that saturates is an exception (a ReLU's is none).

    AutoQKeras counts as many bits of weights, biases and activations as `sound_qkeras.Result.cost` has, except: channels of
    different word lengths in one kernel count the longest; averages count a weight for every position of their window; weights
    with negative `integer_bits` count more where QKeras' own sums would round them, which takes steps below 2**-24.

    Every layer is a plain Keras or QKeras one, so any session can load the float32 model with
    `qkeras.utils.load_qmodel` and train it. Training clips what is stored to `+-max(1, 2**integer)`; a weight is that times the
    `alpha` of its quantizer. The exceptions are `TableActivation` and `TableNormalization` layers: they load wherever
    `sound_qkeras.keras_io.register()` was called, and hls4ml does not know them.

    Args:
        pair: the fixed-point network.
        dtype: "float32", what everybody runs, or "float64", the exact one.
        head: append the softmax or sigmoid that was set aside, in floating point, if there was one.
        scaled: False to say formats with negative `integer_bits` and those of channels by wider ones instead of scales, and leave
            out biases of zeros: hls4ml's own converter (`bit_exact=True`) reads no scales.

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
    with float_type(dtype):
        return _Writer(with_keras_names(pair), dtype, scaled).model(head=head)


@dataclass(frozen=True)
class _Writer:
    """Layers and their connections; see `to_qkeras`."""

    pair: Pair
    dtype: Dtype
    scaled: bool

    def model(self, *, head: bool) -> Any:
        """The whole model."""
        network = self.pair.network
        sources, entry = model_inputs(network, self.dtype), network.nodes[0].name
        tensors = {node: self._rounded(entry, source) for node, source in sources.items()}
        chains: dict[str, Chain] = {}
        for node in inner_nodes(network):
            written = WRITERS[node.op.kind](self, node)
            if isinstance(node.op, Affine):
                owner = network.owner(node.name)
                written = (
                    written.sharing(chains[owner]) if node.shares is not None else chains.setdefault(owner, written)
                )
            exact = written(*(tensors[name] for name in node.inputs))
            tensors[node.name] = exact if self._rectifies_itself(node) else self._rounded(node.name, exact)
        found: list[Any] = []
        for port in output_ports(network):
            output = tensors[port.node]
            if network.outputs:
                output = self._rounded(network.output.name, output)
            found.append(with_head(network, port, output, self.dtype, head))
        return as_model(network, sources, found)

    def _rounded(self, name: str, exact: Any) -> Any:
        """A tensor after the rounding of a node's format, if it has one."""
        pair = self.pair
        output, node = pair.formats.get(name), pair.network.by_name[name]
        if output is None or (node.op.rounds and not self.scaled):
            return exact  # what rounds by itself is rounded once more where that is to be counted
        several = pair.network.inputs and name == pair.network.nodes[0].name
        several = several or (pair.network.outputs and name == pair.network.output.name)
        stem = exact.node.layer.name if several else name
        return self._rounding(output, unused(pair.network, f"{stem}{ROUNDED}"))(exact)

    def _rounding(self, output: Format, name: str) -> Chain:
        """The QActivation of a format, and the multiplications by powers of two around it."""
        # A string, not a quantizer object: QActivation cannot be loaded from .keras files otherwise.
        text, shift = rounding_of(output, self.dtype, scaled=self.scaled)
        layers = [import_qkeras().QActivation(text, name=name, dtype=self.dtype)]
        if shift:
            scale = import_keras().layers.Rescaling
            names = (unused(self.pair.network, f"{name}_{what}") for what in ("up", "down"))
            up, down = (
                scale(2.0**exponent, name=one, dtype=self.dtype)
                for one, exponent in zip(names, (shift, -shift), strict=True)
            )
            layers = [up, *layers, down]
        return Chain(tuple((layer, ()) for layer in layers))

    def _rectifies_itself(self, node: Node) -> bool:
        """Whether the node is a ReLU that one `quantized_relu` computes, rounding included."""
        output = self.pair.formats.get(node.name)
        if output is None or not isinstance(node.op, Relu):
            return False
        text, shift = rounding_of(output, self.dtype, scaled=self.scaled)
        return text.startswith("quantized_relu") and output.integer_bits + shift >= 0

    def affine(self, node: Node) -> Any:
        """Layers with weights."""
        return quantized_layers(self.pair, node.name, self.dtype, scaled=self.scaled)

    def relu(self, node: Node) -> Any:
        """QKeras' rounding ReLU; where there is none, a plain one, whose gradient training needs although rounding clips.

        Where QKeras is given a wider format, the plain ReLU saturates in its place.
        """
        output = self.pair.formats.get(node.name)
        if output is not None and self._rectifies_itself(node):
            return self._rounding(output, node.name)
        widened = output is not None and not self.scaled and not output.signed and output.integer_bits < 0
        maximum = output.maximum if output is not None and widened else None
        return import_keras().layers.ReLU(max_value=maximum, name=node.name, dtype=self.dtype)

    def plain(self, node: Node) -> Any:
        """Layers without weights."""
        shapes = [self.pair.network.shapes[name] for name in node.inputs]
        return plain_layers(node.op, shapes, Names.of(self.pair.network, node.name, self.dtype))

    def clip(self, node: Node) -> Any:
        """A ReLU with an end."""
        maximum = node.op.settings()["maximum"]
        return import_keras().layers.ReLU(max_value=maximum, name=node.name, dtype=self.dtype)

    def leaky(self, node: Node) -> Any:
        """With the slopes of the fixed-point network."""
        return leaky_layer(self.pair.pairs[node.name].slope, node.name, self.dtype)

    def table(self, node: Node) -> Any:
        """A layer of integers."""
        from sound_qkeras.keras_io.write.table_layer import table_layer

        return table_layer(self.pair.pairs[node.name], node.name, self.dtype)

    def layer_norm(self, node: Node) -> Any:
        """A layer of integers."""
        from sound_qkeras.keras_io.write.norm_layer import norm_layer

        return norm_layer(self.pair.pairs[node.name], node.name, self.dtype)


WRITERS: dict[str, Callable[[_Writer, Node], Any]] = {
    **dict.fromkeys(("average_pool", "conv", "dense", "scale"), _Writer.affine),
    **dict.fromkeys(("add", "concatenate", "matmul", "max_pool", "multiply"), _Writer.plain),
    **dict.fromkeys((op.kind for op in MOVES), _Writer.plain),
    "clip": _Writer.clip,
    "layer_norm": _Writer.layer_norm,
    "leaky": _Writer.leaky,
    "relu": _Writer.relu,
    "table": _Writer.table,
}
