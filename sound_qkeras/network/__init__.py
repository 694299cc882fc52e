"""The intermediate representation: graph, operations, the fixed-point twin, and files."""

from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.quantized import QuantizedNetwork

__all__ = ["Network", "Node", "QuantizedNetwork"]
