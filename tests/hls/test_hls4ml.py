"""The route through hls4ml, where hls4ml and TensorFlow are installed."""

import importlib.util
import sys

import numpy as np
import pytest

from sound_qkeras.errors import InputError
from sound_qkeras.hls import to_hls4ml

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
