"""Activation functions: what Keras' own become, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.read.activation_names import activation_name
from sound_qkeras.keras_io.read.pieces import Head, Piece, Shape
from sound_qkeras.keras_io.session.editions import KERAS_2, as_array, edition, is_keras
from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow
from sound_qkeras.network.ops import Clip, Elementwise, Leaky, Op, Relu, Table

Parts = tuple[tuple[str, Piece], ...]
# Table functions that `tf_keras.activations` has under the same name.
NAMED = ("elu", "exponential", "gelu", "hard_sigmoid", "selu", "softplus", "softsign", "swish", "tanh")
# Those that only Keras 3 has: `hard_silu`, and `hard_sigmoid` with other slopes.
NEWER = ("hard_sigmoid_6", "hard_swish")
ACCEPTED = (
    f"linear, relu, relu6, leaky_relu, sigmoid, {', '.join(NAMED)}, hard_swish, layers such as ReLU(6.0), and softmax at the "
    "very end"
)


def read_activation(layer: Any, shape: Shape) -> Parts:
    """The activation of an Activation layer."""
    return activation(layer, "")


def read_relu(layer: Any, shape: Shape) -> Parts:
    """A rectifier: plain, bounded, or with a slope below zero."""
    slope, maximum = float(np.float32(layer.negative_slope or 0.0)), layer.max_value
    if layer.threshold or maximum == 0 or (slope and maximum is not None):
        settings = {"max_value": maximum, "negative_slope": layer.negative_slope, "threshold": layer.threshold}
        raise UnsupportedLayerError(
            layer.name,
            f"ReLU with {', '.join(f'{name}={value}' for name, value in settings.items() if value is not None)}",
            "ReLU with threshold=0 (with another it jumps, and no bound holds across a jump), and either a positive "
            "max_value or a negative_slope",
            "retrain with such a ReLU",
        )
    if slope:
        return (("", _made(layer, lambda: _leaky(slope))),)
    return (("", Relu() if maximum is None else _made(layer, lambda: Clip(float(np.float32(maximum))))),)


def read_thresholded(layer: Any, shape: Shape) -> Parts:
    """A rectifier, if it does not jump."""
    theta = float(layer.theta)
    if theta:
        raise UnsupportedLayerError(
            layer.name,
            f"ThresholdedReLU with theta={theta:g}",
            "theta=0",
            f"retrain with ReLU: this one jumps by {abs(theta):g}, and no smaller bound holds across the jump",
        )
    return (("", Relu()),)


def read_leaky_relu(layer: Any, shape: Shape) -> Parts:
    """One slope below zero."""
    slope = float(np.float32(layer.alpha if edition(layer) == KERAS_2 else layer.negative_slope))
    return (("", _made(layer, lambda: _leaky(slope))),)


def read_prelu(layer: Any, shape: Shape) -> Parts:
    """Trained slopes below zero, one for each element or shared along axes."""
    if not layer.built:
        raise ModelError(f"layer '{layer.name}' (PReLU) was never built; call the model on data")
    slopes = as_array(layer, layer.alpha).astype(np.float64)
    return (("", _made(layer, lambda: Leaky(slopes))),)


def read_elu(layer: Any, shape: Shape) -> Parts:
    """`alpha (e**x - 1)` below zero."""
    alpha = float(np.float32(layer.alpha))
    return (("", _made(layer, lambda: Table("elu", alpha))),)


def read_softmax(layer: Any, shape: Shape) -> Parts:
    """A softmax over the last axis, to be set aside."""
    if layer.axis not in (-1, len(shape) or -1):
        raise UnsupportedLayerError(
            layer.name,
            f"Softmax over axis {layer.axis}",
            "Softmax over the last axis, as the last layer",
            "use axis=-1",
        )
    return (("", Head("softmax")),)


def activation(layer: Any, separator: str) -> Parts:
    """What a layer's activation becomes; its name is the node's suffix when the layer is more than it."""
    return function_parts(layer, layer.activation, separator)


def function_parts(layer: Any, given: Any, separator: str) -> Parts:
    """What an activation function becomes.

    Args:
        layer: the layer it belongs to.
        given: the function.
        separator: "_" where the layer is more than its activation.

    Raises:
        UnsupportedLayerError: the function is not supported.
    """
    if type(given).__name__ in OBJECTS and is_keras(given):
        return _object_parts(layer, given, separator)
    name = activation_name(layer, given)
    piece = named_piece(name)
    if piece is None and name != "linear":
        received = f"{type(layer).__name__} with activation {name}"
        raise UnsupportedLayerError(layer.name, received, ACCEPTED, "retrain with one of these")
    return () if piece is None else ((f"{separator}{name}" if separator else "", piece),)


def _object_parts(layer: Any, given: Any, separator: str) -> Parts:
    """What a layer becomes that is another's activation."""
    kind = type(given).__name__
    try:
        ((_, piece),) = ACTIVATIONS[kind](given, ())
    except UnsupportedLayerError as error:
        received = f"{type(layer).__name__} with activation {error.received}"
        raise UnsupportedLayerError(layer.name, received, error.accepted, error.way_out) from error
    return ((f"{separator}{kind.lower()}" if separator else "", piece),)


def named_piece(name: str) -> Piece | None:
    """What a function becomes that `activation_name` knows; None for `linear` and for others."""
    if name in ("softmax", "sigmoid"):
        return Head(name)
    if name in (*NAMED, *NEWER):
        return Table(name)
    simple: dict[str, Callable[[], Op]] = {
        "relu": Relu,
        "relu6": lambda: Clip(6.0),
        "leaky_relu": lambda: _leaky(float(np.float32(0.2))),
    }
    return simple[name]() if name in simple else None


def _leaky(slope: float) -> Relu | Leaky:
    return Leaky(np.array([slope])) if slope else Relu()


def _made(layer: Any, make: Callable[[], Op]) -> Op:
    """An operation, or the layer's name with what is wrong about it."""
    try:
        return make()
    except ModelError as error:
        raise ModelError(f"layer '{layer.name}' ({type(layer).__name__}): {error}") from error


def keras_function(op: Elementwise) -> Callable[[Any], Any] | None:
    """The function an operation is in Keras, where a layer can have it as its activation."""
    keras, tf = import_keras().activations, import_tensorflow()
    if isinstance(op, Relu):
        return keras.relu
    if isinstance(op, Clip) and op.maximum == 6.0:
        return tf.nn.relu6
    if isinstance(op, Table) and op.function in (*NAMED, "sigmoid") and op.alpha == 1.0:
        return getattr(keras, op.function)
    return None


def keras_layer(op: Elementwise, name: str, dtype: str | None = None) -> Any:
    """The layer an operation is in Keras.

    Raises:
        UnsupportedLayerError: there is none.
    """
    layers = import_keras().layers
    if isinstance(op, Relu):
        return layers.ReLU(name=name, dtype=dtype)
    if isinstance(op, Clip):
        return layers.ReLU(max_value=op.maximum, name=name, dtype=dtype)
    if isinstance(op, Leaky):
        return leaky_layer(op.slope, name, dtype)
    if isinstance(op, Table) and op.function == "elu":
        return layers.ELU(op.alpha, name=name, dtype=dtype)
    function = _newer_function(op) or keras_function(op)
    if function is None:
        raise UnsupportedLayerError(name, f"'{op.kind}' {dict(op.settings())}", ACCEPTED, "evaluate the network itself")
    return layers.Activation(function, name=name, dtype=dtype)


def _newer_function(op: Elementwise) -> Callable[[Any], Any] | None:
    """A function of Keras 3 that Keras 2 has not got."""
    if not isinstance(op, Table) or op.function not in NEWER:
        return None
    from sound_qkeras.keras_io.session import newer_functions

    return getattr(newer_functions, op.function)


def leaky_layer(slope: Any, name: str, dtype: str | None) -> Any:
    """LeakyReLU for one slope, PReLU with the slopes set for several."""
    layers = import_keras().layers
    if slope.size == 1:
        return layers.LeakyReLU(float(slope.reshape(-1)[0]), name=name, dtype=dtype)
    shared = [axis + 1 for axis, size in enumerate(slope.shape) if size == 1]
    values = import_keras().initializers.Constant(0.0)
    layer = layers.PReLU(alpha_initializer=values, shared_axes=shared or None, name=name, dtype=dtype)
    layer.build((None, *slope.shape))
    layer.set_weights([slope])
    return layer


ACTIVATIONS = {
    "Activation": read_activation,
    "ELU": read_elu,
    "LeakyReLU": read_leaky_relu,
    "PReLU": read_prelu,
    "ReLU": read_relu,
    "Softmax": read_softmax,
    "ThresholdedReLU": read_thresholded,
}
# Layers that may be another's activation.
OBJECTS = frozenset(ACTIVATIONS) - {"Activation"}
