"""Small networks with units other than the ReLU, and their fixed-point twins."""

from __future__ import annotations

import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Clip, Dense, Elementwise, Input, LayerNorm, Leaky, Op, Relu, Table
from sound_qkeras.network.smooth import NAMES
from sound_qkeras.verify.proof import bound_leaves

from .networks import float32, nearest

Box = tuple[np.ndarray, np.ndarray]
CLIPS: dict[str, Elementwise] = {"relu6": Clip(6.0), "narrow": Clip(0.375), "odd": Clip(float(np.float32(1.1)))}
LEAKIES: dict[str, Elementwise] = {
    "power": Leaky(np.array([0.25])),
    "tenth": Leaky(np.array([float(np.float32(0.1))])),
    "prelu": Leaky(float32(np.array([0.3, -0.2, 1.5, 0.0]))),
}
TABLES: dict[str, Elementwise] = {name: Table(name, 0.7 if name == "elu" else 1.0) for name in NAMES}
NORMS: dict[str, Op] = {"norm": LayerNorm(4, 1e-3), "small epsilon": LayerNorm(4, 1e-7)}
UNITS: dict[str, Op] = {**CLIPS, **LEAKIES, **TABLES, **NORMS}


def network(op: Op, seed: int = 0, scale: float = 2.0, *, after: bool = True) -> Network:
    """3 -> 4 units -> 2, or ending with the units."""
    rng = np.random.default_rng(seed)
    nodes = [
        Node("x", Input((3,)), (), "x"),
        Node("first", Dense(float32(scale * rng.normal(size=(3, 4))), float32(rng.normal(size=4))), ("x",), "first"),
        Node("unit", op, ("first",), "unit"),
    ]
    if after:
        last = Dense(float32(rng.normal(size=(4, 2))), float32(rng.normal(size=2)))
        nodes.append(Node("last", last, ("unit",), "last"))
    return Network(tuple(nodes))


def twin(network: Network, bits: dict[str, int], weight_bits: int = 8, reach: float = 1.0) -> tuple[Pair, Box]:
    """The fixed-point network on `[-reach, reach]`, `bits` for its rounding points, formats as narrow as proved."""
    box = np.full(network.input_shape, -reach), np.full(network.input_shape, reach)
    codes: dict[str, AffineCodes] = {
        node.name: nearest(op, weight_bits, weight_bits + 4) for node, op in network.affine()
    }
    chosen = {name: bits.get(name, 8) for name in network.rounding_points}
    wide = {name: Format(53, 52 - value, True) for name, value in chosen.items()}
    provisional = Pair(network, codes, wide, {})
    ranges = bound_leaves(provisional, Interval(*box)).ranges
    formats = {name: Format.for_range(*ranges[name], value) for name, value in chosen.items()}
    sums = {
        node.name: Format.for_range(*ranges[node.name], provisional.exact_bits[node.name])
        for node in network.nodes
        if node.op.accumulates
    }
    return Pair(network, codes, formats, sums), box


def relu_network() -> Network:
    """The same with ReLUs."""
    return network(Relu())
