"""Small Keras models with every parameter random, and exact square roots to judge folding by."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import tensorflow
import tf_keras

from sound_qkeras.keras_io.session.environment import import_qkeras

# Without their type hints, which are few and wrong.
tf: Any = tensorflow
keras: Any = tf_keras
qk: Any = import_qkeras()
LAYERS: Any = keras.layers


class WithStep(keras.Sequential):
    """A model with a training step of its own."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return {"loss": loss}


def sequential(*layers, shape=(5,), seed=0):
    """A Sequential model with random weights; variances stay positive."""
    model = keras.Sequential([LAYERS.Input(shape), *layers])
    randomise(model, seed)
    return model


def randomise(model, seed=0):
    """Set every weight at random; what has to be positive or counts is kept so."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.dtype.is_integer:
            continue
        values = rng.normal(size=variable.shape) * 0.7
        variable.assign(np.abs(values) + 0.05 if "variance" in variable.name else values)
    for layer in model.submodules:
        if isinstance(layer, LAYERS.Normalization):
            layer.finalize_state()


def inputs(model, count=50, seed=1):
    """Random float32 samples of the model's input shape."""
    return np.random.default_rng(seed).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


def root(x):
    """The square root of a fraction, rounded down to 200 bits after the point, or more."""
    scale = 4**200
    return Fraction(math.isqrt(math.floor(x * scale)), 2**200)
