"""The intermediate representation: graph, operations, pairs of networks, and files."""

from sound_qkeras.network.graph import Network, Node, size_of
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.ports import Port

__all__ = ["Network", "Node", "Pair", "Port", "size_of"]
