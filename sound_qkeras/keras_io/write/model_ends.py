"""Where Keras models begin and end: their own inputs and outputs, of which a network has one each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sound_qkeras.keras_io.session.environment import import_keras
from sound_qkeras.network import Network, Node, Port


def model_inputs(network: Network, dtype: str) -> dict[str, Any]:
    """A Keras input for every input of the model, by the node that holds it."""
    keras, first = import_keras(), network.nodes[0].name
    ports = network.inputs or (Port(first, first),)
    return {port.node: keras.Input(network.shapes[port.node], name=port.name, dtype=dtype) for port in ports}


def inner_nodes(network: Network) -> list[Node]:
    """The nodes that are neither inputs of the model, nor take those apart, nor join its outputs."""
    outside = {network.nodes[0].name}
    for port in network.inputs:
        node = network.by_name[port.node]
        while node.inputs:
            outside.add(node.name)
            node = network.by_name[node.inputs[0]]
    if network.outputs:
        outside.add(network.output.name)
    return [node for node in network.nodes if node.name not in outside]


def output_ports(network: Network) -> tuple[Port, ...]:
    """The outputs of the model."""
    return network.outputs or (Port(network.output.name, network.output.name, network.head),)


def with_head(network: Network, port: Port, output: Any, dtype: str, wanted: bool) -> Any:
    """An output behind the softmax or sigmoid that was set aside, where there was one and it is wanted."""
    if not wanted or port.head is None:
        return output
    name = unused(network, f"{port.name}_{port.head}" if network.outputs else port.head)
    return import_keras().layers.Activation(port.head, name=name, dtype=dtype)(output)


def unused(network: Network, name: str) -> str:
    """A name that no node has."""
    while name in network.by_name:
        name += "_"
    return name


def as_model(network: Network, sources: Mapping[str, Any], outputs: Sequence[Any]) -> Any:
    """The Keras model; lists of tensors only where there are several."""
    inputs = list(sources.values()) if network.inputs else next(iter(sources.values()))
    return import_keras().Model(inputs, list(outputs) if network.outputs else outputs[0])
