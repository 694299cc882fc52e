"""Compiled convolutions, pooling and scaling give the simulator's integers; no tolerance anywhere."""

import numpy as np
import pytest

from sound_qkeras.backends import compile_and_run, estimate, export_hls
from sound_qkeras.errors import InputError
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import AveragePool, Conv, Input, Scale
from tests.geometries import network_of, random_twin
from tests.networks import box as box_of
from tests.networks import nearest, with_parameters

from .batch import run_together
from .test_verilog import needs_yosys, simulate_together

pytestmark = [pytest.mark.hls, pytest.mark.slow]


def twins(count, start=0):
    """Small random networks with one affine operation of each kind in turn, a rectifier, and a Dense layer."""
    return [random_twin(network_of(np.random.default_rng(seed), seed), seed) for seed in range(start, start + count)]


@pytest.mark.parametrize("start", [0, 16])
def test_random_networks_as_hls(tmp_path, start):
    exports = []
    for index, (quantized, box) in enumerate(twins(16, start)):
        style = ("loops", "loops", "loops", "unrolled")[index // 4]
        reuse = 1 if style == "unrolled" else (1, 3, 1000)[index % 3]
        folder = tmp_path / str(index)
        exports.append(export_hls(quantized, folder, box=box, style=style, reuse_factor=reuse, vectors=64))
    assert run_together(exports) == [0] * len(exports)


SANITIZED = ["-fsanitize=undefined,address", "-fno-sanitize-recover", "-w"]


@pytest.mark.parametrize("style", ["loops", "unrolled"])
def test_random_networks_as_c(tmp_path, style):
    for index, (quantized, box) in enumerate(twins(12, 100)):
        folder = export_hls(quantized, tmp_path / str(index), box=box, style=style, target="c", vectors=64)
        clean, sanitized = (compile_and_run(folder, flags=flags) for flags in (["-Werror"], SANITIZED))
        assert clean.passed, clean
        assert sanitized.passed, sanitized
        assert clean.warnings == ""


@needs_yosys
def test_random_networks_as_verilog(tmp_path):
    """Every operation is its matrix there."""
    found = simulate_together(twins(6, 200), tmp_path)
    assert len(found) == 6
    assert all(line.endswith(" 0 mismatches") for line in found), found


def large_convolution():
    """A convolution whose matrix would be far too large."""
    op = Conv(
        *(np.ones((3, 3, 4, 4)), np.zeros(4)),
        input_shape=(32, 32, 4),
        strides=(1, 1),
        dilation=(1, 1),
        padding=((1, 1), (1, 1)),
    )
    network = Network((Node("x", Input((32, 32, 4)), (), "x"), Node("c", op, ("x",), "c")))
    return random_twin(network, 0)


def test_a_large_convolution_needs_loops(tmp_path):
    quantized, box = large_convolution()
    with pytest.raises(InputError, match="style='loops'"):
        export_hls(quantized, tmp_path / "straight", box=box, style="unrolled")
    folder = export_hls(quantized, tmp_path / "loops", box=box, style="loops", vectors=32)
    assert compile_and_run(folder).passed


def test_a_wide_scaling_has_no_matrix(tmp_path):
    network = Network(
        (Node("x", Input((64, 64)), (), "x"), Node("s", Scale(np.ones(64), np.full(64, 2.0)), ("x",), "s"))
    )
    quantized, box = random_twin(network, 0)
    with pytest.raises(InputError, match="4096 by 4096"):
        export_hls(quantized, tmp_path / "net", box=box)


def test_costs_count_every_use_of_a_weight():
    """A 2x2 window over 3x3 in two groups, pooling over 2x2, and factors of two channels."""
    conv = Conv(
        *(np.ones((2, 2, 1, 2)), np.ones(2)),
        input_shape=(3, 3, 2),
        strides=(1, 1),
        dilation=(1, 1),
        padding=((0, 0), (0, 0)),
        groups=2,
    )
    nodes = [Node("x", Input((3, 3, 2)), (), "x"), Node("c", conv, ("x",), "c")]
    nodes.append(Node("p", AveragePool.of((2, 2, 2), (2, 2), (1, 1), ((0, 0), (0, 0))), ("c",), "p"))
    nodes.append(Node("s", Scale(np.full(2, 3.0), np.ones(2)), ("p",), "s"))
    network = Network(tuple(nodes))
    parameters = {node.name: nearest(op, 4, 4) for node, op in network.affine()}
    quantized = with_parameters(network, box_of(network), parameters, dict.fromkeys(network.rounding_points, 4))
    _, c, p, s = estimate(quantized).layers
    assert (c.products, c.sum_adders, c.constant_adders) == (4 * 8, 4 * 2 * 4, 0)
    assert (p.products, p.sum_adders) == (2, 2 * 3)
    assert (s.products, s.sum_adders, s.constant_adders) == (2, 2, 2)
