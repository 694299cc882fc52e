"""Keras models with residuals, gates and several ends, compiled: exactly the simulator's integers."""

from typing import Any

import numpy as np
import pytest

from sound_qkeras import quantize
from sound_qkeras.backends import compile_and_run, estimate, export_hls
from sound_qkeras.cli import BAD_INPUT, OK, main
from sound_qkeras.keras_io import read_model
from tests.hls.batch import run_together
from tests.networks import quantized

from .models import LAYERS, keras, randomise
from .structures import BUILDERS, build, residual, squeeze_and_excite
from .test_structures import twin

pytestmark = [pytest.mark.keras, pytest.mark.hls, pytest.mark.slow]


def test_every_structure_as_hls(tmp_path):
    exports = []
    for builder in BUILDERS:
        quantized, box = twin(read_model(build(builder)))
        assert estimate(quantized).total("products") > 0
        folder = tmp_path / builder.__name__
        exports.append(export_hls(quantized, folder, box=box, style="loops", reuse_factor=4, vectors=64))
    assert run_together(exports) == [0] * len(exports)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_every_structure_as_c(tmp_path, builder):
    quantized, box = twin(read_model(build(builder)), seed=1)
    for style in ("loops", "unrolled"):
        result = compile_and_run(export_hls(quantized, tmp_path / style, box=box, style=style, target="c", vectors=64))
        assert result.passed, result
        assert result.warnings == ""


def inverted_residual() -> Any:
    """A block as in MobileNetV3: clipped units, a gate with a sigmoid, a sum."""
    x = LAYERS.Input((4, 4, 3))
    y = LAYERS.Conv2D(6, 1, activation="relu6")(x)
    y = LAYERS.DepthwiseConv2D(3, padding="same", activation="swish")(y)
    gate = LAYERS.Dense(6, activation="sigmoid")(LAYERS.GlobalAveragePooling2D()(y))
    y = LAYERS.Multiply()([y, LAYERS.Reshape((1, 1, 6))(gate)])
    y = LAYERS.Add()([LAYERS.Conv2D(3, 1)(y), x])
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.GlobalMaxPooling2D()(y)))


@pytest.mark.parametrize("builder", [residual, squeeze_and_excite, inverted_residual], ids=lambda b: b.__name__)
def test_from_keras_to_a_certified_program(tmp_path, capsys, builder):
    model = build(builder)
    centre = np.random.default_rng(2).uniform(-1, 1, model.input_shape[1:])
    result = quantize(model, 0.5, (centre - 0.02, centre + 0.02), effort="fast")
    assert result.certificate.bound <= 0.5
    assert result.cost.bit_operations > 0
    for target in ("c", "hls"):
        bench = compile_and_run(result.export_hls(tmp_path / target, style="loops", target=target))
        assert bench.passed, bench
    saved = str(result.save(tmp_path / "saved"))
    assert main(["cost", saved]) == OK
    assert f"{result.estimate_hardware().total('products'):,}" in capsys.readouterr().out
    assert main(["cost", saved, "--measure"]) == BAD_INPUT
    assert "for target 'verilog'" in capsys.readouterr().err


def resnet() -> Any:
    """The shape of ResNet-8 for 32x32 images, with fewer channels."""
    x = y = LAYERS.Input((32, 32, 3))
    y = LAYERS.Conv2D(8, 3, padding="same")(y)
    y = LAYERS.ReLU()(LAYERS.BatchNormalization()(y))
    for channels, stride in ((8, 1), (16, 2), (32, 2)):
        z = LAYERS.Conv2D(channels, 3, strides=stride, padding="same")(y)
        z = LAYERS.ReLU()(LAYERS.BatchNormalization()(z))
        z = LAYERS.BatchNormalization()(LAYERS.Conv2D(channels, 3, padding="same")(z))
        if stride > 1:
            y = LAYERS.Conv2D(channels, 1, strides=stride, padding="same")(y)
        y = LAYERS.ReLU()(LAYERS.Add()([y, z]))
    y = LAYERS.Flatten()(LAYERS.AveragePooling2D(8)(y))
    return keras.Model(x, LAYERS.Dense(10, activation="softmax")(y))


@pytest.mark.parametrize("target", ["c", "hls"])
def test_a_residual_network_compiles_in_reasonable_time(tmp_path, target):
    keras.backend.clear_session()
    model = resnet()
    randomise(model, 0)
    quantized, box = twin(read_model(model))
    folder = export_hls(quantized, tmp_path / "net", box=box, style="loops", target=target, vectors=2)
    assert compile_and_run(folder, timeout_s=300).passed
    code = sum(len(file.read_text(encoding="utf-8")) for file in (folder / "src").glob("net.c*"))
    assert code < 60_000


def test_a_published_residual_network(tmp_path, shared_nets):
    network = read_model(shared_nets / "keras" / "resnet8_cifar10.h5")
    box = np.zeros(network.input_shape), np.full(network.input_shape, 255.0)
    for target in ("c", "hls"):
        folder = export_hls(
            quantized(network, box, 8, 4), tmp_path / target, box=box, style="loops", target=target, vectors=4
        )
        assert compile_and_run(folder, timeout_s=300).passed
