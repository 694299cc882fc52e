"""Functions on tensors, layers as activations and layers that change sizes: from Keras to a certified program."""

from typing import Any

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.backends import compile_and_run
from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io import read_model

from . import models3
from .models import LAYERS, keras, sequential, tf
from .structures import build

pytestmark = pytest.mark.keras


def functions() -> Any:
    source = LAYERS.Input((3, 2))
    x = LAYERS.Dense(2)(source)
    ends = [tf.nn.leaky_relu(x, alpha=0.1), tf.tanh(x), tf.abs(x) * 2.0 + 0.5, tf.clip_by_value(x, -0.5, 0.7)]
    ends += [x[:, ::2], tf.reduce_mean(x, axis=1), 1.0 - x]
    return keras.Model(source, LAYERS.Dense(2)(LAYERS.Concatenate()([LAYERS.Flatten()(one) for one in ends])))


def objects() -> Any:
    return keras.Sequential(
        [
            LAYERS.Input((3, 2)),
            LAYERS.TimeDistributed(LAYERS.Dense(3, activation=LAYERS.PReLU())),
            LAYERS.Conv1DTranspose(2, 3, strides=2, activation=LAYERS.LeakyReLU(0.1)),
            LAYERS.Flatten(),
            LAYERS.Dense(2, activation=LAYERS.ELU(0.5)),
        ]
    )


def sizes() -> Any:
    return keras.Sequential(
        [
            LAYERS.Input((4, 4, 1)),
            LAYERS.Resizing(6, 3),
            LAYERS.Conv2D(2, 2, activation="relu"),
            LAYERS.Conv2DTranspose(2, 2, strides=2),
            LAYERS.Flatten(),
            LAYERS.Dense(2),
        ]
    )


BUILDERS = [(functions, build), (objects, build), (sizes, build), (models3.objects, lambda builder: builder())]


@pytest.mark.hls
@pytest.mark.slow
@pytest.mark.solver
@pytest.mark.parametrize(("builder", "make"), BUILDERS, ids=["functions", "objects", "sizes", "objects of Keras 3"])
def test_from_keras_to_a_certified_program(tmp_path, builder, make):
    model = make(builder)
    result = sq.quantize(model, 0.5, (-0.1, 0.1), effort="fast")
    assert result.certificate.bound <= 0.5
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (20, *model.input_shape[1:]))
    with sq.float64():
        assert np.array_equal(result.to_qkeras(dtype="float64").predict(x, verbose=0), result.simulate(x))
    assert compile_and_run(result.export_hls(tmp_path / "c", target="c")).passed


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "setting",
    [{"strides": 3}, {"strides": 2, "output_padding": 1}, {"dilation_rate": 2}, {"kernel_size": 1, "strides": 2}],
)
def test_transposed_convolutions_are_keras_own(padding, setting):
    setting = {"kernel_size": 4, "padding": padding, **setting}
    model = sequential(LAYERS.Conv1DTranspose(3, **setting), shape=(5, 2))
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(read_model(model).evaluate(x), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [1, 3, 4, 9, 10, 15, 20])
def test_every_size_is_keras_own(interpolation, size):
    model = sequential(LAYERS.Resizing(size, 10, interpolation), LAYERS.Dense(1), shape=(10, 10, 1))
    x = np.random.default_rng(0).normal(size=(4, 10, 10, 1)).astype(np.float32)
    np.testing.assert_allclose(read_model(model).evaluate(x), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


def test_whole_factors_are_repetitions_of_any_size():
    network = read_model(sequential(LAYERS.UpSampling2D(2), LAYERS.Dense(1), shape=(1024, 2048, 1)))
    assert [node.op.kind for node in network.nodes] == ["input", "upsample", "upsample", "dense"]


def with_function(function, kind=keras, dtype="float32"):
    source = kind.Input((3, 2), dtype=dtype)
    return kind.Model(source, kind.layers.Dense(1)(kind.layers.Flatten()(function(source))))


SAME = {
    "tf.cast": (lambda x: tf.cast(x, tf.float32), keras, "uint8"),
    "tf.cast to float64": (lambda x: tf.cast(x, tf.float64), keras, "float32"),
    "tf.identity": (tf.identity, keras, "float32"),
    "tf.stop_gradient": (tf.stop_gradient, keras, "float32"),
    "tf.reduce_sum": (lambda x: tf.reduce_sum(x, axis=1), keras, "float32"),
    "tf.reduce_sum of all": (lambda x: tf.reduce_sum(x, axis=[1, 2], keepdims=True), keras, "float32"),
    "tf.square": (tf.square, keras, "float32"),
    "tf.pow": (lambda x: x**2, keras, "float32"),
    "ops.cast": (lambda x: models3.keras.ops.cast(x, "float32"), models3.keras, "uint8"),
    "ops.stop_gradient": (models3.keras.ops.stop_gradient, models3.keras, "float32"),
    "ops.sum": (lambda x: models3.keras.ops.sum(x, axis=-1), models3.keras, "float32"),
    "ops.square": (models3.keras.ops.square, models3.keras, "float32"),
    "ops.power": (lambda x: x**2, models3.keras, "float32"),
}


@pytest.mark.filterwarnings("ignore:.*HDF5:UserWarning")
@pytest.mark.parametrize(("function", "kind", "dtype"), SAME.values(), ids=SAME)
def test_simple_functions_are_keras_own(tmp_path, function, kind, dtype):
    model = with_function(function, kind, dtype)
    x = np.random.default_rng(0).uniform(-5, 5, (4, 3, 2)) if dtype == "float32" else np.arange(24).reshape(4, 3, 2)
    x = x.astype(dtype)
    np.testing.assert_allclose(read_model(model).evaluate(x.astype(float)), np.asarray(model(x)), rtol=1e-4, atol=1e-5)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        assert read_model(tmp_path / name).weight_hash == read_model(model).weight_hash


REFUSED = {
    "divided by a tensor": (lambda: with_function(lambda x: 1.0 / x), "math.truediv by a tensor or by zero"),
    "divided by zero": (lambda: with_function(lambda x: x / [1.0, 0.0]), "by a tensor or by zero"),
    "tensors and numbers": (lambda: with_function(lambda x: tf.concat([x, tf.zeros((1, 3, 2))], 0)), "tensors alone"),
    "bounds of tensors": (lambda: with_function(lambda x: tf.clip_by_value(x, x - 1.0, x)), "between numbers"),
    "a tensor as an index": (lambda: with_function(lambda x: x[:, tf.constant(1)]), "slices and numbers"),
    "backwards": (lambda: with_function(lambda x: x[:, ::-1]), "steps forward"),
    "of the batch": (lambda: with_function(lambda x: x[1:]), "the batch axis"),
    "mean of the batch": (lambda: with_function(lambda x: x - tf.reduce_mean(x, keepdims=True)), "the batch axis"),
    "a variable": (lambda: with_function(lambda x: x * tf.Variable(2.0)), "math.multiply with .*Variable"),
    "half a float": (lambda: with_function(lambda x: tf.cast(x, "float16")), "cast to float16; accepted: float32"),
    "whole numbers": (lambda: with_function(lambda x: tf.cast(x, "int32")), "cast to int32"),
    "numbers that wrap": (
        lambda: with_function(lambda x: tf.cast(LAYERS.Add()([x, x]), "float32"), dtype="uint8"),
        "Add of numbers of type uint8.*cast",
    ),
    "a cube": (lambda: with_function(lambda x: x**3), "math.pow with .*the exponent 2"),
    "gelu's approximation": (lambda: with_function(lambda x: tf.nn.gelu(x, approximate=True)), "approximate=False"),
    "a matrix of numbers": (
        lambda: with_function(lambda x: tf.matmul(x, tf.ones((2, 2)))),
        "linalg.matmul of .*two tensors",
    ),
    "cosines": (lambda: with_function(lambda x: LAYERS.Dot(2, normalize=True)([x, x])), "normalised; accepted"),
    "silu's slope": (lambda: with_function(lambda x: tf.nn.silu(x, 2.0)), "beta=1"),
    "cropped": (
        lambda: sequential(LAYERS.Resizing(2, 2, crop_to_aspect_ratio=True), shape=(4, 6, 1)),
        "crop_to_aspect_ratio",
    ),
    "a huge matrix": (lambda: sequential(LAYERS.Resizing(6000, 1), shape=(5000, 1, 1)), "30000000 numbers on the way"),
    "of odd ratio": (
        lambda: sequential(LAYERS.Resizing(251, 257, "nearest"), shape=(256, 256, 1)),
        "numbers on the way.*ratio of sizes",
    ),
    "bicubic": (lambda: sequential(LAYERS.Resizing(2, 2, "bicubic"), shape=(4, 6, 1)), "'nearest' or 'bilinear'"),
    "enlarged": (lambda: sequential(LAYERS.CenterCrop(9, 2), shape=(4, 6, 1)), "use Resizing"),
    "convolution over time and time": (
        lambda: sequential(LAYERS.TimeDistributed(LAYERS.TimeDistributed(LAYERS.Conv1D(2, 2))), shape=(2, 3, 4, 1)),
        "Conv1D in TimeDistributed in TimeDistributed",
    ),
    "softmax spread": (
        lambda: sequential(LAYERS.Dense(4, "softmax"), LAYERS.Reshape((2, 2))),
        "softmax before the end.*keep its last axis",
    ),
}


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_refusals(make, match):
    with pytest.raises(UnsupportedLayerError, match=match):
        read_model(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequential(LAYERS.Reshape((1,)), LAYERS.Dense(1), shape=()),
        lambda: models3.sequential(models3.LAYERS.Reshape((1,)), models3.LAYERS.Dense(1), shape=()),
        lambda: with_function(lambda x: x[:, 0, 0]),
    ],
)
def test_tensors_without_axes_are_refused(make):
    with pytest.raises(ModelError, match=r"layer '\w.*' has numbers of shape \(\).*give them the shape \(1,\)"):
        read_model(make())


def test_a_prelu_that_was_never_built_is_refused():
    model = models3.keras.Sequential(
        [models3.LAYERS.Input((3,)), models3.LAYERS.Dense(2, activation=models3.LAYERS.PReLU())]
    )
    with pytest.raises(ModelError, match="never built; call the model on data"):
        read_model(model)
