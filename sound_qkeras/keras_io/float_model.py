"""A network as a plain float Keras model."""

from __future__ import annotations

from typing import Any

from sound_qkeras.keras_io.environment import import_keras
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Affine, Relu


def to_keras(network: Network) -> Any:
    """The float32 tf_keras model of a network, with the layer names of the model it was read from.

    Parameters are cast to float32, which is exact unless something was folded into them.

    Args:
        network: the network; a head that was set aside stays aside.
    """
    keras = import_keras()
    first, *others = network.nodes
    tensors = {first.name: keras.Input(network.input_shape, name=first.name)}
    for node in others:
        source = tensors[node.inputs[0]]
        if isinstance(node.op, Affine):
            layer = keras.layers.Dense(node.op.bias.size, activation=_inline(network, node), name=node.layer)
            tensors[node.name] = layer(source)
            layer.set_weights([node.op.kernel.astype("float32"), node.op.bias.astype("float32")])
        elif isinstance(node.op, Relu):
            inline = network.by_name[node.inputs[0]].layer == node.layer
            tensors[node.name] = source if inline else keras.layers.ReLU(name=node.layer)(source)
        else:
            tensors[node.name] = keras.layers.Reshape(network.shapes[node.name], name=node.layer)(source)
    return keras.Model(tensors[first.name], tensors[network.output.name])


def _inline(network: Network, node: Node) -> str | None:
    """The activation that was part of the Dense layer."""
    same = [
        reader for reader in network.readers[node.name] if isinstance(reader.op, Relu) and reader.layer == node.layer
    ]
    return "relu" if same else None
