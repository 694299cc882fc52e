"""Training block by block towards the float network's inner tensors. Imports TensorFlow: import it inside functions only.

A block is a layer with weights and what follows up to the next rounding. Each is trained on what the blocks before it, trained
already, make of the inputs (Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020; Li et al.,
"BRECQ", 2021, who take larger blocks), so that few inputs are enough, and no more than one block is differentiated at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sound_qkeras.keras_io.session.environment import import_keras
from sound_qkeras.keras_io.train.latent import Latent
from sound_qkeras.keras_io.train.student import Student, teaching
from sound_qkeras.keras_io.write.float_model import to_keras
from sound_qkeras.keras_io.write.keras_names import keras_names, with_keras_names
from sound_qkeras.keras_io.write.writer import ROUNDED
from sound_qkeras.network import Network, Pair

keras = import_keras()


def students(pair: Pair, emitted: Any, latents: Mapping[str, tuple[Latent, ...]]) -> Iterator[Any]:
    """A student for every block, in the order of the network; the others' weights are not trained until the next is asked for.

    Args:
        pair: the network.
        emitted: its QKeras model.
        latents: its latent weights, by node.
    """
    names, named = keras_names(pair.reference, pair.network), with_keras_names(pair)
    floats = _layer_by_layer(named.network)
    layers = {name: emitted.get_layer(names[name]) for name in latents}
    for name, own in latents.items():
        for other, layer in layers.items():
            layer.trainable = other == name
        end = _end(named, names[name])
        student = Student(emitted.input, _tensor(emitted, end))
        student.latents = own
        student.teacher = teaching(keras.Model(floats.input, floats.get_layer(end).get_output_at(0)))
        yield student
    for layer in layers.values():
        layer.trainable = True


def _end(pair: Pair, name: str) -> str:
    """The node that ends the block of one with weights: the next that is rounded, or that several read, or the last."""
    readers = pair.network.readers
    while name not in pair.formats and len(readers[name]) == 1:
        (reader,) = readers[name]
        if pair.network.outputs and reader is pair.network.output:
            break
        name = reader.name
    return name


def _tensor(model: Any, name: str) -> Any:
    """What a node of a QKeras model makes, rounded."""
    known = {layer.name: layer for layer in model.layers}
    return known.get(f"{name}{ROUNDED}", known[name]).get_output_at(0)


def _layer_by_layer(network: Network) -> Any:
    """The float model with a layer for every node, called as it is."""
    return to_keras(replace(network, nodes=tuple(replace(node, layer=node.name) for node in network.nodes)))
