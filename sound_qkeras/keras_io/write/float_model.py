"""A network as a plain float Keras model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sound_qkeras.keras_io.read.activations import keras_function, keras_layer
from sound_qkeras.keras_io.write.affine_layers import Chain, Names, Parameters, affine_layers, layer_name
from sound_qkeras.keras_io.write.keras_names import keras_names, renamed
from sound_qkeras.keras_io.write.model_ends import as_model, inner_nodes, model_inputs, output_ports, with_head
from sound_qkeras.keras_io.write.plain_layers import plain_layers
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Affine, Conv, Dense, Elementwise


def to_keras(network: Network, *, head: bool = False) -> Any:
    """The float32 tf_keras model of a network, with the layer names of the model it was read from.

    What tf_keras does not allow in names is mended.

    Parameters are cast to float32, which is exact unless something was folded into them. Two layers that came from one
    (of a separable convolution) have the names of their nodes.

    Args:
        network: the network.
        head: append the softmax or sigmoid that was set aside, if there was one.
    """
    network = renamed(network, keras_names(network))
    sources = model_inputs(network, "float32")
    tensors, chains = dict(sources), dict[str, Chain]()
    for node in inner_nodes(network):
        source = tensors[node.inputs[0]]
        if isinstance(node.op, Affine):
            names = Names.of(network, layer_name(network, node), "float32")
            chain = affine_layers(node.op, network.shapes[node.inputs[0]], Parameters.plain(node.op), names)
            inline = _inline(network, node)
            if inline is not None:
                chain.layers[-1][0].activation = inline
            owner = network.owner(node.name)
            chain = chain.sharing(chains[owner]) if node.shares is not None else chains.setdefault(owner, chain)
            tensors[node.name] = chain(source)
        elif isinstance(node.op, Elementwise):
            before = network.by_name[node.inputs[0]]
            inline = before.layer == node.layer and _inline(network, before) is not None
            shared = sum(other.layer == node.layer for other in network.nodes) > 1
            name = node.name if shared else node.layer
            tensors[node.name] = source if inline else keras_layer(node.op, name)(source)
        else:
            shapes = [network.shapes[name] for name in node.inputs]
            apply = plain_layers(node.op, shapes, Names.of(network, node.name, "float32"))
            tensors[node.name] = apply(*(tensors[name] for name in node.inputs))
    ports = output_ports(network)
    return as_model(network, sources, [with_head(network, port, tensors[port.node], "float32", head) for port in ports])


def _inline(network: Network, node: Node) -> Callable[[Any], Any] | None:
    """The activation that was part of the layer, if a Keras layer of this kind can have one."""
    same = [reader.op for reader in network.readers[node.name] if reader.layer == node.layer]
    if (
        not isinstance(node.op, Dense | Conv)
        or node.name in network.shared
        or not same
        or not isinstance(same[0], Elementwise)
    ):
        return None
    return keras_function(same[0])
