"""Convolutions, pooling and normalisations anywhere: the network is the model, and QKeras equals the simulator."""

import numpy as np
import pytest

from sound_qkeras.keras_io import float64, read_model, to_keras, to_qkeras
from sound_qkeras.network.simulate import simulate
from tests.geometries import random_twin
from tests.networks import samples

from .models import LAYERS, inputs, sequential

pytestmark = [
    pytest.mark.keras,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
]


def drawn(seed):
    """A layer of some kind and geometry, and the shape of its input."""
    rng = np.random.default_rng(seed)
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    stride, dilation = (int(rng.integers(1, 4)), 1) if rng.random() < 0.5 else (1, int(rng.integers(1, 3)))
    part = int(rng.integers(1, 3))
    sizes, channels = tuple(int(n) for n in rng.integers(5, 9, 2)), 2 * part
    moves = {"strides": stride, "dilation_rate": dilation}
    padding, padding_1d = str(rng.choice(["same", "valid"])), str(rng.choice(["same", "valid", "causal"]))
    bias = {"use_bias": bool(rng.integers(2)), "bias_initializer": "zeros"}
    line, plane = (sizes[0], channels), (*sizes, channels)
    makers = [
        lambda: (LAYERS.Conv2D(4, kernel, padding=padding, groups=part, **moves, **bias), plane),
        lambda: (LAYERS.Conv1D(4, kernel[0], padding=padding_1d, groups=part, **moves, **bias), line),
        lambda: (LAYERS.DepthwiseConv2D(kernel, padding=padding, depth_multiplier=part, **moves), plane),
        lambda: (LAYERS.DepthwiseConv1D(kernel[0], padding=padding, depth_multiplier=part, **moves), line),
        lambda: (LAYERS.SeparableConv2D(3, kernel, padding=padding, depth_multiplier=part, **moves), plane),
        lambda: (LAYERS.SeparableConv1D(3, kernel[0], padding=padding_1d, depth_multiplier=part, **moves), line),
        lambda: (LAYERS.AveragePooling2D(kernel, strides=stride, padding=padding), plane),
        lambda: (LAYERS.AveragePooling2D(kernel, strides=(1, 2), padding=padding), plane),
        lambda: (LAYERS.AveragePooling1D(kernel[0], strides=stride, padding=padding), line),
        lambda: (LAYERS.GlobalAveragePooling2D(keepdims=part > 1), plane),
        lambda: (LAYERS.GlobalAveragePooling1D(keepdims=part > 1), line),
        lambda: (LAYERS.Conv2D(3, kernel, strides=(1, 2), padding=padding), plane),
        lambda: (LAYERS.Dense(3), plane),
        lambda: (LAYERS.Dense(3), line),
        lambda: (LAYERS.BatchNormalization(), plane),
        lambda: (LAYERS.BatchNormalization(axis=1), plane),
        lambda: (LAYERS.BatchNormalization(), line),
        lambda: (LAYERS.BatchNormalization(), (7,)),
    ]
    return makers[seed % len(makers)]()


@pytest.mark.parametrize("seed", range(72))
def test_every_geometry(seed):
    """Read, and written with random formats: TensorFlow decides what a layer means, the simulator what it computes."""
    layer, shape = drawn(seed)
    model = sequential(layer, LAYERS.ReLU(), LAYERS.Flatten(), LAYERS.Dense(2), shape=shape, seed=seed)
    network, x = read_model(model), inputs(model, 8)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(network.evaluate(x), expected, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(expected).max()))
    plain = to_keras(network)
    np.testing.assert_allclose(plain(x), expected, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(expected).max()))

    twin, ranges = random_twin(network, seed)
    points = samples(np.random.default_rng(seed), ranges, 16)
    beyond = samples(np.random.default_rng(seed), ranges, 16, scale=10.0)
    with float64():
        fixed = to_qkeras(twin, dtype="float64")
        np.testing.assert_array_equal(np.asarray(fixed(points)), simulate(twin, points))
        np.testing.assert_array_equal(np.asarray(fixed(beyond)), simulate(twin, beyond))
