"""Every kind of Keras layer and name through hls4ml: compiled, and exactly the simulator's integers."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from sound_qkeras.backends import to_hls4ml
from sound_qkeras.keras_io import read_model
from tests import units

from .models import LAYERS, keras
from .structures import build

pytestmark = [
    *(pytest.mark.keras, pytest.mark.hls, pytest.mark.slow),
    pytest.mark.skipif(importlib.util.find_spec("hls4ml") is None, reason="needs hls4ml"),
]


def dense(name: str | None = None, activation: Any = None, size: int = 3) -> Any:
    return LAYERS.Dense(size, activation, name=name)


def names() -> Any:
    """Names that are C++'s, hls4ml's, or no names there, two inputs, and an output twice."""
    x, state = LAYERS.Input((3,), name="input"), LAYERS.Input((2, 2), name="w2")
    y = LAYERS.Concatenate(name="float")([x, LAYERS.Flatten(name="3rd")(state)])
    for name in ("a-b", "a_b", "a/b", "Dense", "dense", "bias_net", "kernel", "output", "layer2_out", "result", "nnet"):
        y = dense(name, "relu")(y)
    return keras.Model([x, state], [dense("steer")(y), y, y])


def vectors() -> Any:
    """Functions of one variable, and what joins tensors, on one input."""
    x = LAYERS.Input((4,))
    y = LAYERS.Rescaling(1 / 3, 0.1)(x)
    a, b, c = dense("a", "tanh")(y), dense("b", "sigmoid")(y), dense("c", "relu6")(y)
    d, e = LAYERS.LeakyReLU(0.3)(dense("d")(y)), LAYERS.PReLU()(dense("e")(y))
    parts = [
        LAYERS.Add(name="three")([a, b, c]),
        LAYERS.Add(name="two")([d, e]),
        LAYERS.Subtract()([a, d]),
        LAYERS.Average(name="mean_of_two")([b, e]),
        LAYERS.Average(name="mean_of_three")([a, b, e]),
        LAYERS.Multiply()([c, d, e]),
        LAYERS.Maximum()([a, e]),
        LAYERS.Minimum()([b, c]),
    ]
    return keras.Model(x, LAYERS.ReLU(max_value=1.5)(dense("last")(LAYERS.Concatenate()(parts))))


def images() -> Any:
    """Operations on images, each on the same one."""
    x = LAYERS.Input((5, 4, 4))
    y = LAYERS.ReLU()(LAYERS.BatchNormalization()(x))
    parts = [
        LAYERS.Conv2D(2, 3, strides=2, padding="same")(y),
        LAYERS.Conv2D(2, 2, dilation_rate=2)(y),
        LAYERS.Conv2D(4, 2, groups=2, activation="relu")(y),
        LAYERS.DepthwiseConv2D(3)(y),
        LAYERS.DepthwiseConv2D((2, 3), depth_multiplier=2)(y),
        LAYERS.SeparableConv2D(2, 3, padding="same")(y),
        LAYERS.Conv2D(1, 2)(LAYERS.UpSampling2D((2, 1))(y)),
        LAYERS.Conv2D(1, 2)(LAYERS.ZeroPadding2D(((1, 0), (2, 1)))(y)),
        LAYERS.Cropping2D(((1, 2), (0, 1)))(y),
        LAYERS.MaxPooling2D(3, strides=2, padding="same")(y),
        LAYERS.AveragePooling2D(3, padding="same")(y),
        LAYERS.GlobalAveragePooling2D()(y),
        LAYERS.GlobalMaxPooling2D()(y),
        LAYERS.Permute((3, 1, 2))(LAYERS.MaxPooling2D(2)(y)),
        dense("everywhere", "relu", 1)(y),
    ]
    flat = [dense(f"end{number}", size=1)(LAYERS.Flatten()(part)) for number, part in enumerate(parts)]
    return keras.Model(x, LAYERS.Concatenate()(flat))


def sequences() -> Any:
    """Operations on sequences, and on a vector taken for one."""
    x = LAYERS.Input((6, 2))
    parts = [
        LAYERS.Conv1D(3, 3, padding="causal", activation="relu")(x),
        LAYERS.DepthwiseConv1D(3)(x),
        LAYERS.SeparableConv1D(3, 2)(x),
        LAYERS.UpSampling1D(2)(x),
        LAYERS.Cropping1D((2, 1))(LAYERS.ZeroPadding1D((1, 2))(x)),
        LAYERS.MaxPooling1D(2)(x),
        LAYERS.AveragePooling1D(3)(x),
        LAYERS.GlobalAveragePooling1D()(x),
        LAYERS.RepeatVector(2)(dense("row")(LAYERS.Flatten()(x))),
    ]
    flat = [dense(f"end{number}", size=1)(LAYERS.Flatten()(part)) for number, part in enumerate(parts)]
    return keras.Model(x, LAYERS.Add()(flat))


@pytest.mark.parametrize("builder", [names, vectors, images, sequences], ids=lambda b: b.__name__)
def test_every_shape_is_bit_exact(tmp_path, builder: Callable[[], Any]):
    quantized, box = units.twin(read_model(build(builder)), {}, 5)
    project = to_hls4ml(quantized, tmp_path / "project", box=box, samples=200)
    assert project.bit_exact, project.summary()
