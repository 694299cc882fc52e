"""The route through hls4ml, where hls4ml and TensorFlow are installed."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras.errors import InputError
from sound_qkeras.hls import to_hls4ml
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Relu
from tests.networks import box as networks_box
from tests.networks import nearest, random_network, with_parameters

from .networks import dense, steering

needs_hls4ml = pytest.mark.skipif(importlib.util.find_spec("hls4ml") is None, reason="needs hls4ml")
pytestmark = [pytest.mark.keras, pytest.mark.hls, pytest.mark.slow, needs_hls4ml]


def test_the_project_is_bit_exact(tmp_path):
    quantized, box = dense((5, 8, 3))
    before = sys.modules.get("keras")
    project = to_hls4ml(quantized, tmp_path / "project", box=box, name="flight")
    assert project.bit_exact
    assert project.samples > 2000
    assert project.worst_difference == 0.0
    assert project.summary() == f"hls4ml: bit-exact on {project.samples} samples"
    assert (project.directory / "firmware" / "flight.cpp").is_file()
    assert sys.modules.get("keras") is before
    with pytest.raises(InputError, match="overwrite=True"):
        to_hls4ml(quantized, tmp_path / "project", box=box)


@pytest.mark.parametrize(("last", "bits"), [("dense", 3), ("positive", 1), ("relu", 3), ("small", 2), ("dense", 0)])
def test_a_rounded_output_is_bit_exact(tmp_path, last, bits):
    """hls4ml drops or renames the last rounding where it can; here the layer before has to take it over.

    Rounding to whole numbers becomes a truncation there; the comparison has to say so.
    """
    plain = random_network(np.random.default_rng(1), (5, 6, 2))
    nodes = list(plain.nodes)
    if last == "positive":
        nodes[-1] = replace(nodes[-1], op=replace(nodes[-1].op, bias=np.array([40.0, 37.3])))
    if last == "relu":
        nodes.append(Node("end", Relu(), (nodes[-1].name,), "end"))
    if last == "small":
        op = nodes[-1].op
        nodes[-1] = replace(nodes[-1], op=replace(op, kernel=op.kernel / 64, bias=op.bias / 64))
    network, offset = Network(tuple(nodes)), 6 if last == "small" else 0
    parameters = {n.name: nearest(op, 7 + offset, 9 + offset) for n, op in network.affine()}
    points = {**dict.fromkeys(network.rounding_points, 6), network.output.name: bits + offset}
    quantized = with_parameters(network, networks_box(network), parameters, points)
    project = to_hls4ml(quantized, tmp_path / "project", box=networks_box(network), samples=500)
    assert project.bit_exact == (bits > 0), project.summary()
    assert project.first_layer == (None if bits else "dense_1")


def test_a_difference_is_placed(tmp_path, monkeypatch):
    """With a weight changed behind its back, the layer is named."""
    quantized, box = steering()
    from sound_qkeras import keras_io

    original = keras_io.to_qkeras

    def changed(network):
        model = original(network)
        layer = model.get_layer("steer")
        kernel, bias = layer.get_weights()
        kernel[np.argwhere(kernel > 0)[0][0]] *= 0.5
        layer.set_weights([kernel, bias])
        return model

    monkeypatch.setattr(keras_io, "to_qkeras", changed)
    project = to_hls4ml(quantized, tmp_path / "project", box=box, samples=100)
    assert not project.bit_exact
    assert 0 < project.mismatches <= project.samples
    assert project.first_layer == "steer"
    assert "first in layer 'steer'" in project.summary()
