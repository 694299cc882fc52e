"""The intermediate representation: graph, operations, the fixed-point twin, and files."""

from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.pair import Pair as QuantizedNetwork

__all__ = ["Network", "Node", "QuantizedNetwork"]
