"""What each supported Keras layer means: one function a layer kind, in the table `READERS`.

A function gets the built layer and the shapes of its inputs without the batch axis, and returns what the layer becomes,
in order, as `(suffix, operation)`; nothing for a layer that only acts in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.interval import Interval, Reals, down, up
from sound_qkeras.keras_io.read.activations import Parts, activation
from sound_qkeras.keras_io.read.pieces import Diagonal, Linear, Shape, quotient, square_root
from sound_qkeras.keras_io.session.editions import as_array, as_cast, smallest_divisor
from sound_qkeras.network.ops import LayerNorm, Reshape

Reader = Callable[[Any, Shape], Parts]


def read_dense(layer: Any, shape: Shape) -> Parts:
    """Kernel and bias, then the inline activation."""
    kernel = stored(layer, "kernel", layer.kernel)
    bias = stored(layer, "bias", layer.bias) if layer.use_bias else np.zeros(kernel.shape[1])
    output = (*shape[:-1], kernel.shape[1])
    return (("", Linear(Interval.point(kernel), Interval.point(bias), shape, output)), *activation(layer, "_"))


def read_flatten(layer: Any, shape: Shape) -> Parts:
    """A row-major reshape to one axis."""
    if layer.data_format == "channels_first" and len(shape) > 1:
        raise UnsupportedLayerError(
            layer.name,
            "Flatten with data_format='channels_first'",
            "channels_last",
            "rebuild the model with channels_last",
        )
    return (("", Reshape(shape, (math.prod(shape),))),)


def read_reshape(layer: Any, shape: Shape) -> Parts:
    """A row-major reshape; one axis of the target may be -1."""
    target = tuple(int(size) for size in layer.target_shape)
    known = math.prod(size for size in target if size != -1)
    return (("", Reshape(shape, tuple(math.prod(shape) // max(known, 1) if size == -1 else size for size in target))),)


def read_training_only(layer: Any, shape: Shape) -> Parts:
    """Nothing: the layer is the identity outside training."""
    return ()


def read_batch_normalization(layer: Any, shape: Shape) -> Parts:
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` with the moving statistics.

    `epsilon` counts as the float64 number in the layer's configuration.
    """
    return batch_normalization(layer, shape, lambda name: stored(layer, name, getattr(layer, name)))


def batch_normalization(layer: Any, shape: Shape, read: Callable[[str], Reals]) -> Parts:
    """A batch normalisation with the parameters that `read` finds by name; those the layer has."""
    axes = {int(axis) % (len(shape) + 1) for axis in np.atleast_1d(layer.axis)}
    kept = [shape[axis - 1] if axis in axes else 1 for axis in range(1, len(shape) + 1)]

    def spread(name: str, default: float) -> Interval:
        values = np.full(kept, default) if getattr(layer, name) is None else read(name).reshape(kept)
        return Interval.point(np.broadcast_to(values, shape))

    variance = spread("moving_variance", 1.0)
    root = _root(layer, variance.lower, float(layer.epsilon))
    if np.any(root.lower <= 0.0):
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}): its variance and epsilon are zero; retrain with epsilon > 0"
        )
    scale, beta = quotient(spread("gamma", 1.0), root), spread("beta", 0.0)
    shift = scale * spread("moving_mean", 0.0)
    return (("", Diagonal(scale, beta - shift, up(beta.magnitude + shift.magnitude))),)


def read_layer_normalization(layer: Any, shape: Shape) -> Parts:
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta`, mean and variance of the last axis.

    `epsilon` counts as the float64 number in the layer's configuration.
    """
    axes = [int(axis) % (len(shape) + 1) for axis in np.atleast_1d(layer.axis)]
    if axes != [len(shape)]:
        raise UnsupportedLayerError(
            layer.name,
            f"LayerNormalization over axes {axes}",
            "axis=-1",
            "move that axis last with Permute, and back behind it",
        )
    if getattr(layer, "rms_scaling", False):
        raise UnsupportedLayerError(
            layer.name, "LayerNormalization with rms_scaling=True", "rms_scaling=False", "retrain without it"
        )
    try:
        op = LayerNorm(shape[-1], float(layer.epsilon))
    except ModelError as error:
        raise ModelError(f"layer '{layer.name}': {error}") from error
    if layer.gamma is None and layer.beta is None:
        return (("", op),)

    def spread(name: str, default: float) -> Interval:
        variable = getattr(layer, name)
        return Interval.point(np.broadcast_to(default if variable is None else stored(layer, name, variable), shape))

    scale, offset = spread("gamma", 1.0), spread("beta", 0.0)
    return (("_normalized", op), ("", Diagonal(scale, offset)))


def read_normalization(layer: Any, shape: Shape) -> Parts:
    """`(x - mean) / max(sqrt(variance), epsilon)`, or its inverse; Keras' global epsilon as a float64 number."""
    mean = Interval.point(np.broadcast_to(stored(layer, "mean", layer.mean), (1, *shape))[0])
    variance = np.broadcast_to(stored(layer, "variance", layer.variance), (1, *shape))[0]
    floor = smallest_divisor(layer)
    root = _root(layer, variance, 0.0).mapped(lambda end: np.maximum(end, floor))
    if layer.invert:
        return (("", Diagonal(root, mean)),)
    return (("", Diagonal(quotient(Interval.point(np.ones(shape)), root), quotient(-mean, root))),)


def read_rescaling(layer: Any, shape: Shape) -> Parts:
    """`x * scale + offset`, both cast to the layer's float type first, as Keras does."""

    def cast(name: str) -> Interval:
        values = stored(layer, name, as_cast(layer, getattr(layer, name)))
        return Interval.point(np.broadcast_to(values, shape))

    return (("", Diagonal(cast("scale"), cast("offset"))),)


def stored(layer: Any, name: str, variable: Any) -> Reals:
    """A layer's parameter as float64, exactly.

    Raises:
        ModelError: it holds NaN or infinity.
    """
    values = (variable if isinstance(variable, np.ndarray) else as_array(layer, variable)).astype(np.float64)
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}): {name} holds {bad} values that are NaN or infinite; "
            "retrain or repair the model"
        )
    return values


def _root(layer: Any, variance: Reals, epsilon: float) -> Interval:
    """An enclosure of `sqrt(variance + epsilon)`."""
    total = Interval(down(variance + epsilon), up(variance + epsilon)) if epsilon else Interval.point(variance)
    if np.any(total.lower < 0.0):
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}): variance plus epsilon is as low as "
            f"{np.min(total.lower):.3g}, expected a positive number; retrain or repair the model"
        )
    return square_root(total)


TRAINING_ONLY = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
)

READERS: dict[str, Reader] = {
    "BatchNormalization": read_batch_normalization,
    "Dense": read_dense,
    "Flatten": read_flatten,
    "Identity": read_training_only,
    "LayerNormalization": read_layer_normalization,
    "Normalization": read_normalization,
    "Rescaling": read_rescaling,
    "Reshape": read_reshape,
    **dict.fromkeys(TRAINING_ONLY, read_training_only),
}
