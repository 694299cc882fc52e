"""Small fixed networks for the tests of the exporter."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sound_qkeras.backends.options import Style, TargetName
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Relu
from tests import networks

Box = tuple[np.ndarray, np.ndarray]
BOTH: tuple[Style, Style] = ("unrolled", "loops")
STYLES: list[tuple[Style, TargetName]] = [(style, target) for target in ("hls", "c") for style in BOTH]


def steering() -> tuple[Pair, Box]:
    """3 -> 4 -> 2 with every number written down: zero weights, a dead neuron, a coarse output bias."""
    nodes = [
        Node("x", Input((3,)), (), "x"),
        Node("dense", Dense(np.zeros((3, 4)), np.zeros(4)), ("x",), "dense"),
        Node("dense_relu", Relu(), ("dense",), "dense"),
        Node("steer", Dense(np.zeros((4, 2)), np.zeros(2)), ("dense_relu",), "steer"),
    ]
    kernel = np.array([[12, -7, 0, 0], [0, 31, -32, 0], [5, 0, 17, 0]])
    parameters = {
        "dense": AffineCodes(kernel, Format(6, 0, True), np.array([-90, 11, 40, -3]), Format(8, -3, True)),
        "steer": AffineCodes(
            np.array([[3, -9], [0, 14], [-16, 1], [7, 7]]), Format(5, 1, True), np.array([5, -6]), Format(4, 1, True)
        ),
    }
    formats = {"x": Format(8, 1, True), "dense_relu": Format(6, 1, False)}
    accumulators = {"dense": Format(13, 1, True), "steer": Format(10, 1, True)}
    lower, upper = np.array([-1.0, -0.75, -0.5]), np.array([1.0, 0.75, 0.6])
    return Pair(Network(tuple(nodes)), parameters, formats, accumulators), (lower, upper)


def dense(sizes: Sequence[int], bits: int = 6, seed: int = 0) -> tuple[Pair, Box]:
    """A random network with ReLUs, of any size."""
    network = networks.random_network(np.random.default_rng(seed), sizes)
    box = networks.box(network)
    return networks.quantized(network, box, bits, bits), box


def controller(file: Path, bits: int = 10) -> tuple[Pair, Box]:
    """A published controller with its own box, `bits` fractional bits everywhere."""
    data = np.load(file)
    layers = len([key for key in data if key.startswith("W")])
    nodes = [Node("x", Input(data["lo"].shape), (), "x")]
    for index in range(1, layers + 1):
        op = Dense(data[f"W{index}"].T.astype(np.float64), data[f"b{index}"].astype(np.float64))
        nodes.append(Node(f"dense_{index}", op, (nodes[-1].name,), f"dense_{index}"))
        if data["activations"][index - 1] == "relu":
            nodes.append(Node(f"relu_{index}", Relu(), (nodes[-1].name,), f"dense_{index}"))
    box = (data["lo"], data["hi"])
    return networks.quantized(Network(tuple(nodes)), box, bits, bits), box


def channelled(round_output: bool = True) -> tuple[Pair, Box]:
    """`steering` with formats of its own for each channel, one of them unsigned, and a rounded result."""
    quantized, box = steering()
    dense_kernel = np.array([[12, -6, 0, 0], [0, 30, -32, 0], [5, 0, 16, 0]])
    steer_kernel = np.array([[3, -8], [0, 12], [-16, 0], [7, 4]])
    codes, last = quantized.parameters["dense"], quantized.parameters["steer"]
    own = (Format(5, 0, False), Format(6, 1, True), Format(3, 1, True), Format(1, 0, False))
    steer = (Format(5, 1, True), Format(4, 2, True))
    parameters = {
        "dense": replace(codes, kernel=dense_kernel, channel_formats=own),
        "steer": replace(last, kernel=steer_kernel, channel_formats=steer),
    }
    formats = {**quantized.formats, "steer": Format(6, 1, True)} if round_output else quantized.formats
    return replace(quantized, parameters=parameters, formats=formats), box
