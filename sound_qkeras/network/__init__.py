"""The intermediate representation: graph, operations, pairs of networks, and files."""

from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.pair import Pair

__all__ = ["Network", "Node", "Pair"]
