"""Keras 3 models of every layer that is read, on whatever backend this process has; and what a session of a user would do."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

keras: Any = importlib.import_module("keras")
LAYERS: Any = keras.layers
# Sigmoid and softmax are set aside where they are the last.
ACTIVATIONS = (
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "leaky_relu",
    "linear",
    "relu",
)
ACTIVATIONS += ("relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "swish", "tanh")


def randomised(model, seed=0):
    """The model with every weight random; variances stay positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = rng.normal(size=tuple(variable.shape)) * 0.7
        if "seed" not in variable.path and "count" not in variable.path:
            variable.assign(np.abs(values) + 0.05 if "variance" in variable.path else values)
    return model


def sequential(*layers, shape=(5,)):
    return randomised(keras.Sequential([LAYERS.Input(shape), *layers]))


def activations():
    """Every activation by name, as functions of `keras.activations` and of `keras.ops`, in one model."""
    source = keras.Input((5,))
    given = [*ACTIVATIONS, keras.activations.silu, keras.ops.hard_sigmoid, keras.ops.relu, None]
    ends = [LAYERS.Dense(3, activation=one)(source) for one in given]
    ends += [LAYERS.Activation(one)(ends[8]) for one in ("hard_silu", keras.activations.gelu)]
    made = (LAYERS.ReLU(3.0), LAYERS.ReLU(negative_slope=0.1), LAYERS.LeakyReLU(0.1), LAYERS.ELU(0.5), LAYERS.PReLU())
    ends += [layer(ends[8]) for layer in made]
    return randomised(keras.Model(source, LAYERS.Dense(2)(LAYERS.Concatenate()(ends))))


def image():
    source = keras.Input((8, 9, 2), name="image")
    x = LAYERS.Conv2D(4, 3, padding="same", strides=2, activation="relu")(source)
    x = LAYERS.BatchNormalization(epsilon=1e-2)(x)
    x = LAYERS.ReLU()(LAYERS.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x))
    x = LAYERS.SeparableConv2D(4, (2, 3), activation="silu")(LAYERS.ZeroPadding2D(((1, 0), (2, 1)))(x))
    x = LAYERS.SpatialDropout2D(0.3)(LAYERS.Conv2D(4, 2, dilation_rate=2, groups=2, use_bias=False)(x))
    pooled = [LAYERS.MaxPooling2D(2, padding="same")(x), LAYERS.AveragePooling2D(2, padding="same")(x)]
    ends = [
        LAYERS.Flatten()(LAYERS.Concatenate()(pooled)),
        LAYERS.GlobalAveragePooling2D()(x),
        LAYERS.GlobalMaxPooling2D()(x),
    ]
    ends.append(LAYERS.Flatten()(LAYERS.UpSampling2D(2)(LAYERS.Cropping2D((0, 1))(x))))
    ends.append(LAYERS.Flatten()(LAYERS.GlobalAveragePooling2D(keepdims=True)(x)))
    return randomised(keras.Model(source, LAYERS.Dense(3)(LAYERS.Concatenate()(ends))))


def sequence():
    return sequential(
        LAYERS.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="tanh"),
        LAYERS.BatchNormalization(axis=1, center=False),
        LAYERS.DepthwiseConv1D(2),
        LAYERS.SeparableConv1D(3, 2, padding="same"),
        LAYERS.MaxPooling1D(2),
        LAYERS.UpSampling1D(2),
        LAYERS.ZeroPadding1D(1),
        LAYERS.Permute((2, 1)),
        LAYERS.AveragePooling1D(2),
        LAYERS.Reshape((-1,)),
        LAYERS.RepeatVector(2),
        LAYERS.Cropping1D((1, 0)),
        LAYERS.Flatten(),
        LAYERS.Dense(2),
        shape=(9, 2),
    )


def scalings():
    adapted = LAYERS.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(2.0, 3.0, size=(40, 3)))
    model = keras.Sequential(
        [
            LAYERS.Input((3,)),
            adapted,
            LAYERS.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 0.0, 2.0], invert=True),
            LAYERS.Rescaling([0.1, 2.0, -3.0], offset=0.3),
            LAYERS.GaussianNoise(0.1),
            LAYERS.Dense(4, kernel_regularizer="l2", bias_constraint="non_neg"),
            LAYERS.BatchNormalization(scale=False),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(2, "softmax"),
        ]
    )
    randomised(model.layers[4])
    return model


def merges():
    a, b = keras.Input((4,), name="a"), keras.Input((2, 2), name="b")
    x, y = LAYERS.Dense(4, "relu")(a), LAYERS.Flatten()(b)
    z = LAYERS.Dense(4)(y)
    kinds = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
    joined = [getattr(LAYERS, kind)()([x, z]) for kind in kinds]
    joined += [LAYERS.Average()([x, y, z]), x + z, x - z, x * z, keras.ops.maximum(x, z), keras.ops.minimum(x, z)]
    return randomised(
        keras.Model([a, b], [LAYERS.Dense(2)(LAYERS.Concatenate()(joined)), LAYERS.Dense(1, name="end")(z)])
    )


def nested():
    """Models in models, one of them by several inputs, a rectifier that is used twice."""
    source, core, one, two = (keras.Input((size,)) for size in (4, 3, 3, 3))
    rectifier = LAYERS.ReLU()
    inner = keras.Sequential([LAYERS.Dense(3), rectifier, LAYERS.Dense(3)], name="inner")
    outer = keras.Model(core, LAYERS.Dense(3, "silu")(LAYERS.BatchNormalization()(core)), name="outer")
    both = keras.Model([one, two], one + LAYERS.Dense(3)(two), name="both")
    found = inner(source)
    model = keras.Sequential([LAYERS.Input((3,)), keras.Sequential([LAYERS.Dense(2)])])
    return randomised(keras.Model(source, model(rectifier(both([outer(found), found])))))


def functions():
    """Functions on tensors without a layer, with numbers before and behind."""
    ops, source = keras.ops, keras.Input((4, 3, 2))
    x, numbers = LAYERS.Dense(2)(source), np.array([1.5, -2.0], np.float32)
    ends = [ops.relu(x), ops.relu6(x), ops.leaky_relu(x, 0.1), keras.activations.relu(x, negative_slope=0.1)]
    ends += [ops.silu(x), ops.gelu(x, approximate=False), ops.elu(x, 0.5), ops.tanh(x), ops.sigmoid(x), ops.abs(x)]
    ends += [ops.maximum(x, 0.3), ops.minimum(0.2, x), ops.clip(x, -0.5, 4), x * 2.0 + 1.0, 3.0 - x, -x / numbers]
    ends += [x * x, x[..., :1], x[:, 1], x[:, 1:3, ::2], x[:, -1], x[:, None, :, 1], ops.reshape(x, (-1, 6, 4))]
    ends += [ops.mean(x, axis=(1, 2)), ops.max(x, axis=-1, keepdims=True), ops.transpose(x, (0, 3, 1, 2))]
    ends += [ops.concatenate([x, ops.relu(x)], axis=2), ops.expand_dims(x, 1), ops.squeeze(x[..., :1], -1)]
    return randomised(
        keras.Model(source, LAYERS.Dense(2)(LAYERS.Concatenate()([LAYERS.Flatten()(one) for one in ends])))
    )


def sizes():
    """Images made larger, smaller and turned about; what only acts in training."""
    source = keras.Input((6, 5, 2))
    x = LAYERS.RandomContrast(0.1)(LAYERS.RandomRotation(0.1)(LAYERS.RandomFlip()(source)))
    transposed = LAYERS.Conv2DTranspose(2, 3, strides=2, padding="same", activation="relu")(x)
    sequence = LAYERS.Conv1DTranspose(2, 2, strides=3)(LAYERS.Reshape((30, 2))(x))
    ends = [transposed, sequence, LAYERS.CenterCrop(3, 4)(x), LAYERS.Identity()(x)]
    ends += [LAYERS.Resizing(4, 10, interpolation="nearest")(x), LAYERS.Resizing(4, 7)(x)]
    ends += [LAYERS.UpSampling2D(2, interpolation="bilinear")(x)]
    return randomised(
        keras.Model(source, LAYERS.Dense(2)(LAYERS.Concatenate()([LAYERS.Flatten()(one) for one in ends])))
    )


def objects():
    """Layers as activations, and layers around layers."""
    return sequential(
        LAYERS.Dense(4, activation=LAYERS.LeakyReLU(0.1)),
        LAYERS.Activation(LAYERS.ReLU(3.0)),
        LAYERS.TimeDistributed(LAYERS.Dense(3, activation=LAYERS.ELU(0.5))),
        LAYERS.TimeDistributed(LAYERS.BatchNormalization()),
        LAYERS.LayerNormalization(),
        LAYERS.Flatten(),
        LAYERS.Dense(2, activation=LAYERS.Softmax()),
        LAYERS.Reshape((1, 2)),
        LAYERS.Flatten(),
        shape=(3, 2),
    )


def built_late():
    model = keras.Sequential([LAYERS.Dense(3, "hard_silu"), LAYERS.Dense(2)])
    model.build((None, 4))
    return randomised(model)


BUILDERS = (activations, image, sequence, scalings, merges, nested, functions, sizes, objects, built_late)
MODELS = {one.__name__: one for one in BUILDERS}


def samples(model, count=30):
    """Random inputs: for the model, and for its network."""
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(count, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
    flat = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
    return (parts, flat) if len(parts) > 1 else (parts[0], parts[0])


def outputs(model, given, head=None):
    """What Keras computes, joined; a softmax at the end is undone but for a constant."""
    found = model.predict(given, verbose=0)
    found = np.concatenate(found, axis=1) if isinstance(found, list) else found
    return np.log(found) if head == "softmax" else found


def difference(model, network):
    """How far the network is from the model, in units of the largest output."""
    given, flat = samples(model)
    expected, found = outputs(model, given, network.head), network.evaluate(flat)
    if network.head is not None:
        expected, found = (array - array[:, :1] for array in (expected, found))
    return float(np.max(np.abs(found - expected)) / max(1.0, np.max(np.abs(expected))))
