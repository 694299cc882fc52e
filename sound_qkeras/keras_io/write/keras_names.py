"""Names in emitted models: Keras 3 allows any, TensorFlow's scopes, which tf_keras opens for its layers, do not."""

from __future__ import annotations

import re
from dataclasses import replace

from sound_qkeras.network import Network, Pair
from sound_qkeras.network.rewrite.rewrite import Rewrite

# Parts between slashes, which are groups in HDF5 files: none is empty, and none starts with a dot.
_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\\>-]*(/[A-Za-z0-9_\\>-][A-Za-z0-9_.\\>-]*)*")
# HDF5 keeps all names of a model's layers in attributes of 64 KiB.
LONGEST = 200
# Names in a note.
SHOWN = 4


def keras_names(*networks: Network) -> dict[str, str]:
    """What each node, layer, input and output is called in emitted models: its own name, wherever tf_keras allows it.

    In others every run of characters beyond letters of ASCII, digits and underscores becomes an underscore, and a number tells
    apart what would be called alike.

    Args:
        networks: the trained one, then what became of it.

    >>> from sound_qkeras.network.ops import Dense, Input
    >>> from sound_qkeras.network import Node
    >>> import numpy as np
    >>> dense = Dense(np.ones((1, 1)), np.zeros(1))
    >>> keras_names(Network((Node("hey:)", Input((1,))), Node("_a b", dense, ("hey:)",)))))
    {'hey:)': 'hey', '_a b': 'a_b'}
    """
    given = [name for network in networks for name in _names(network)]
    found = {name: name for name in given if _is_allowed(name)}
    taken = {name.lower() for name in found}
    for name in given:
        if name not in found:
            found[name] = _unused(re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST] or "layer", taken)
            taken.add(found[name].lower())
    return found


def changed_names(*networks: Network) -> dict[str, str]:
    """Those of `keras_names` that differ."""
    return {name: other for name, other in keras_names(*networks).items() if other != name}


def name_notes(network: Network) -> list[str]:
    """What a user should know about names that differ in emitted models; nothing where none does."""
    changed = changed_names(network)
    layers = [(name, changed[name]) for name in dict.fromkeys(node.layer for node in network.nodes) if name in changed]
    if not layers:
        return []
    shown = ", ".join(f"'{name}' is called '{other}'" for name, other in layers[:SHOWN])
    more = f" and {len(layers) - SHOWN} more; result.keras_names has all" if len(layers) > SHOWN else ""
    return [f"Names that tf_keras does not allow are mended in QKeras models: {shown}{more}."]


def with_keras_names(pair: Pair) -> Pair:
    """The same integers and formats on the rewritten network, its names as in emitted models; itself where all are allowed."""
    networks = pair.reference, pair.network
    if not changed_names(*networks):
        return pair
    names = keras_names(*networks)
    parameters, formats, accumulators = (
        {names[name]: value for name, value in getattr(pair, part).items()}
        for part in ("parameters", "formats", "accumulators")
    )
    saturating = frozenset(names[name] for name in pair.saturating)
    return Pair(renamed(pair.network, names), parameters, formats, accumulators, Rewrite(), saturating)


def renamed(network: Network, names: dict[str, str]) -> Network:
    """The network with other names for nodes, layers, inputs and outputs."""
    nodes = tuple(
        replace(
            node,
            name=names[node.name],
            inputs=tuple(names[name] for name in node.inputs),
            layer=names.get(node.layer, ""),
            shares=names[node.shares] if node.shares is not None else None,
        )
        for node in network.nodes
    )
    inputs, outputs = (
        tuple(replace(port, name=names[port.name], node=names[port.node]) for port in ports)
        for ports in (network.inputs, network.outputs)
    )
    return replace(network, nodes=nodes, inputs=inputs, outputs=outputs)


def _names(network: Network) -> list[str]:
    found = [node.name for node in network.nodes]
    found += [node.layer for node in network.nodes if node.layer]
    return [*found, *(port.name for port in (*network.inputs, *network.outputs))]


def _is_allowed(name: str) -> bool:
    return len(name) <= LONGEST and _ALLOWED.fullmatch(name) is not None


def _unused(name: str, taken: set[str]) -> str:
    unused, count = name, 1
    while unused.lower() in taken:
        unused, count = f"{name}_{count}", count + 1
    return unused
