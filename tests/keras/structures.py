"""Keras models with residuals, gates, concatenations, pooling and several inputs and outputs; weights are random."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .models import LAYERS, keras, randomise, tf


def residual() -> Any:
    x = LAYERS.Input((6, 5, 2), name="image")
    y = LAYERS.Conv2D(3, 3, padding="same", activation="relu")(x)
    z = LAYERS.Conv2D(3, 3, padding="same")(y)
    z = LAYERS.ReLU()(LAYERS.Add()([z, y]))
    z = LAYERS.MaxPooling2D(2)(z)
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Flatten()(z)))


def squeeze_and_excite() -> Any:
    x = LAYERS.Input((4, 4, 3))
    y = LAYERS.Conv2D(4, 1, activation="relu")(x)
    gate = LAYERS.GlobalAveragePooling2D(keepdims=True)(y)
    gate = LAYERS.Conv2D(2, 1, activation="relu")(gate)
    gate = LAYERS.Conv2D(4, 1, activation="relu")(gate)
    y = LAYERS.Multiply()([y, gate])
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.GlobalMaxPooling2D()(y)))


def concatenated() -> Any:
    x = LAYERS.Input((8, 3))
    a = LAYERS.Conv1D(2, 3, padding="same", activation="relu")(x)
    b = LAYERS.MaxPooling1D(3, strides=1, padding="same")(x)
    y = LAYERS.Concatenate()([a, b, x])
    y = LAYERS.ZeroPadding1D((1, 2))(LAYERS.Cropping1D((2, 1))(y))
    y = LAYERS.Permute((2, 1))(LAYERS.UpSampling1D(2)(y))
    return keras.Model(x, LAYERS.Dense(3)(LAYERS.Flatten()(y)))


def image_moves() -> Any:
    x = LAYERS.Input((5, 4, 2))
    y = LAYERS.ZeroPadding2D(((1, 0), (2, 1)))(x)
    y = LAYERS.Conv2D(2, 2, activation="relu")(y)
    y = LAYERS.UpSampling2D((2, 1))(LAYERS.Cropping2D(((1, 1), (0, 2)))(y))
    y = LAYERS.MaxPooling2D((3, 2), strides=(2, 1), padding="same")(y)
    y = LAYERS.Concatenate(axis=1)([y, LAYERS.ReLU()(y)])
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Flatten()(LAYERS.Permute((3, 1, 2))(y))))


def arithmetic() -> Any:
    x = LAYERS.Input((6,))
    a, b, c = (LAYERS.Dense(4, activation=one)(x) for one in ("relu", None, "relu"))
    parts = [
        LAYERS.Subtract()([a, b]),
        LAYERS.Average()([a, b]),
        LAYERS.Average()([a, b, c]),
        LAYERS.Maximum()([a, b, c]),
        LAYERS.Minimum()([a, b]),
        LAYERS.Multiply()([a, b, c]),
        LAYERS.Add()([b, b]),
    ]
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Concatenate()(parts)))


def broadcast() -> Any:
    x = LAYERS.Input((3, 4))
    row = LAYERS.Dense(4)(LAYERS.Flatten()(x))
    y = LAYERS.Add()([x, row])
    y = LAYERS.Subtract()([y, LAYERS.RepeatVector(3)(row)])
    y = LAYERS.Multiply()([y, LAYERS.Reshape((3, 1))(LAYERS.Dense(3, activation="relu")(row))])
    y = LAYERS.GlobalMaxPooling1D()(y)
    return keras.Model(x, LAYERS.Dense(2)(y))


def attention() -> Any:
    x = LAYERS.Input((3, 4))
    queries, keys, values = (LAYERS.Dense(2)(x) for _ in range(3))
    scores = LAYERS.ReLU()(LAYERS.Dot(axes=2)([queries, keys]))
    y = LAYERS.Add()([tf.matmul(scores, values), values])
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Flatten()(y)))


def several_ends() -> Any:
    image, state = LAYERS.Input((4, 3, 1), name="image"), LAYERS.Input((3,), name="state")
    y = LAYERS.Flatten()(LAYERS.MaxPooling2D(2)(LAYERS.Conv2D(2, 2, activation="relu")(image)))
    y = LAYERS.Concatenate()([y, LAYERS.BatchNormalization()(state)])
    y = LAYERS.SpatialDropout1D(0.5)(LAYERS.Reshape((1, -1))(LAYERS.GaussianNoise(0.1)(y)))
    y = LAYERS.Dense(4, activation="relu", name="trunk")(LAYERS.Flatten()(y))
    steer = LAYERS.Dense(2, name="steer")(y)
    kind = LAYERS.Dense(3, activation="softmax", name="kind")(y)
    grid = LAYERS.Reshape((2, 2), name="grid")(LAYERS.Add()([y, LAYERS.Dense(4)(state)]))
    return keras.Model([image, state], [steer, kind, grid])


def nested() -> Any:
    a, b = LAYERS.Input((3,)), LAYERS.Input((3,))
    inner = keras.Model([a, b], [LAYERS.Dense(2)(LAYERS.Add()([a, b])), LAYERS.Subtract()([a, b]), LAYERS.Dense(9)(b)])
    x = LAYERS.Input((3,))
    first, second, _ = inner([LAYERS.Dense(3, activation="relu")(x), x])
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Concatenate()([first, second])))


def transposed() -> Any:
    x = LAYERS.Input((3, 4, 2))
    y = LAYERS.Conv2DTranspose(2, 3, strides=2, padding="same", activation="relu")(x)
    y = LAYERS.BatchNormalization()(LAYERS.Conv2DTranspose(3, (2, 3), strides=(3, 1), output_padding=(1, 0))(y))
    z = LAYERS.Reshape((12, 2))(x)
    z = LAYERS.Conv1DTranspose(2, 2, strides=3)(LAYERS.Conv1DTranspose(2, 3, dilation_rate=2)(z))
    ends = [LAYERS.Flatten()(LAYERS.MaxPooling2D(5)(y)), LAYERS.Flatten()(LAYERS.MaxPooling1D(8)(z))]
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Concatenate()(ends)))


def resized() -> Any:
    x = LAYERS.Input((6, 5, 2))
    ends = [
        LAYERS.Resizing(3, 10, interpolation="nearest")(x),
        LAYERS.Resizing(4, 3, interpolation="nearest")(x),
        LAYERS.Resizing(4, 7)(LAYERS.CenterCrop(4, 4)(x)),
        LAYERS.UpSampling2D((1, 2), interpolation="bilinear")(x),
    ]
    pooled = [LAYERS.Flatten()(LAYERS.MaxPooling2D(2)(one)) for one in ends]
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Concatenate()(pooled)))


def with_objects() -> Any:
    """Layers as activations, layers around layers, and layers that do nothing."""
    x = LAYERS.Input((4, 3, 2))
    y = LAYERS.RandomZoom(0.1)(LAYERS.RandomRotation(0.1)(LAYERS.RandomFlip()(x)))
    y = LAYERS.Conv2D(2, 2, activation=LAYERS.ReLU())(y)
    y = LAYERS.Activation(LAYERS.ReLU(3.0))(LAYERS.Identity()(y))
    y = LAYERS.TimeDistributed(LAYERS.BatchNormalization())(LAYERS.TimeDistributed(LAYERS.Dense(3, "relu"))(y))
    y = LAYERS.TimeDistributed(LAYERS.Flatten())(LAYERS.TimeDistributed(LAYERS.Dropout(0.5))(y))
    y = LAYERS.TimeDistributed(LAYERS.Dense(2, activation=LAYERS.ReLU(6.0)))(y)
    y = LAYERS.Dense(2, activation=LAYERS.Softmax())(LAYERS.Flatten()(y))
    return keras.Model(x, LAYERS.Flatten()(LAYERS.Reshape((1, 2))(y)))


def functions() -> Any:
    """TensorFlow's functions on tensors, with numbers before and behind."""
    source = LAYERS.Input((4, 3, 2))
    x = LAYERS.Dense(2)(source)
    numbers = np.array([1.5, -2.0], np.float32)
    ends = [tf.nn.relu(x), tf.maximum(x, 0.3), tf.minimum(0.2, x)]
    ends += [x * 2.0 + 1.0, 3.0 - x, -x / numbers, x * x, tf.clip_by_value(x, -0.5, numbers + 4.0)]
    ends += [x[:, 1], x[:, :, ::2, -1:], tf.reduce_mean(x, axis=[1, 2]), tf.reduce_max(x, axis=-1, keepdims=True)]
    ends += [tf.transpose(x, [0, 3, 1, 2]), tf.concat([x, tf.nn.relu6(x)], axis=2), tf.expand_dims(x, 1)]
    return keras.Model(source, LAYERS.Dense(2)(LAYERS.Concatenate()([LAYERS.Flatten()(one) for one in ends])))


def used_twice() -> Any:
    """Layers with weights in several places: alike, on inputs of other sizes, with another normalisation behind."""
    one, other = LAYERS.Input((6, 2)), LAYERS.Input((4, 2))
    conv = LAYERS.Conv1D(3, 3, strides=2, padding="same", activation="relu", name="conv")
    dense, norm = LAYERS.Dense(2, name="twice"), LAYERS.BatchNormalization(name="norm")
    y, z = conv(one), conv(other)
    ends = [norm(dense(y)), norm(dense(z)), dense(LAYERS.Dense(3)(y)), LAYERS.BatchNormalization()(dense(z))]
    ends += [conv(LAYERS.Dense(2)(z))]
    return keras.Model([one, other], LAYERS.Dense(2)(LAYERS.Concatenate()([LAYERS.Flatten()(end) for end in ends])))


def over_time() -> Any:
    """A model and a convolution, with one set of weights for every time step."""
    x = LAYERS.Input((3, 5, 2))
    inner = [LAYERS.Conv1D(3, 3, name="inner"), LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.Flatten()]
    model = keras.Sequential([LAYERS.Input((5, 2)), *inner, LAYERS.Dense(2, "relu", name="last")], name="model")
    y = LAYERS.TimeDistributed(LAYERS.MaxPooling1D(2))(LAYERS.TimeDistributed(LAYERS.Conv1D(2, 2))(x))
    ends = [
        LAYERS.TimeDistributed(model)(x),
        LAYERS.TimeDistributed(LAYERS.Flatten())(y),
    ]
    return keras.Model(x, LAYERS.Dense(2)(LAYERS.Concatenate()([LAYERS.Flatten()(end) for end in ends])))


BUILDERS: tuple[Callable[[], Any], ...] = (
    residual, squeeze_and_excite, concatenated, image_moves, arithmetic, broadcast, attention, several_ends, nested,
    transposed, resized, with_objects, functions, used_twice, over_time,
)  # fmt: skip


def build(builder: Callable[[], Any], seed: int = 3) -> Any:
    """The model with every weight random."""
    keras.backend.clear_session()
    model = builder()
    randomise(model, seed)
    return model


def samples(model: Any, count: int = 40, seed: int = 5) -> list[np.ndarray]:
    """Random float32 samples from -1 to 1 for every input of a model."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, (count, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
