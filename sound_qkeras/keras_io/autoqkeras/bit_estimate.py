"""What the weights of a float Keras model will cost in bits, roughly, as a differentiable function of them.

The tuner pays for each weight `log2` of the largest one in its layer (the integer bits) plus `log2` of what rounding the layer
costs at the output, over the tolerance (the fractional bits); and for each unit that is neither proved dead nor proved active
on the box, as many weights as it has. Interval arithmetic that is neither rigorous nor tight is enough to push both down.
Imports TensorFlow: import it inside functions only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.keras_io.read.layers import TRAINING_ONLY
from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow

tf, keras = import_tensorflow(), import_keras()

TINY = 1e-9
ACCEPTED = "Dense layers with ReLUs one after the other, Normalization, Rescaling, Flatten and training-only layers"
WAY_OUT = "leave out fewer_bits"


@dataclass(frozen=True)
class _Row:
    """One Dense layer: its kernel, how large each input may be, centre and radius of its sums, and whether a ReLU clips them."""

    kernel: Any
    magnitude: Any
    centre: Any
    radius: Any
    clips: bool = False


def check_estimable(model: Any) -> None:
    """Refuse a model whose bits cannot be estimated.

    Raises:
        UnsupportedLayerError: names the layer.
    """
    layers, outputs = _layers(model), model.outputs or ()
    if len(outputs) != 1 or len(model.inputs) != 1 or any(len(nodes) != 1 for nodes in model._nodes_by_depth.values()):
        raise UnsupportedLayerError(model.name, "a model that branches, in fewer_bits", ACCEPTED, WAY_OUT)
    dense = [number for number, layer in enumerate(layers) if _kind(layer) == "dense"]
    for number, layer in enumerate(layers[: max(dense, default=0) + 1]):
        hidden = _kind(layer) == "dense" and number < dense[-1]
        curved = hidden and layer.activation not in (keras.activations.relu, keras.activations.linear)
        several = _kind(layer) == "dense" and len(layer.input_shape) != 2
        if _kind(layer) is None or curved or several or not dense:
            raise UnsupportedLayerError(layer.name, f"{type(layer).__name__} in fewer_bits", ACCEPTED, WAY_OUT)


def bit_estimate(model: Any, lower: Any, upper: Any) -> Any:
    """Natural logarithms that grow with a model's bits: of the bits of a mean weight, and of the units of each hidden layer.

    Args:
        model: one that `check_estimable` accepts.
        lower: smallest inputs, a tensor of the input shape.
        upper: largest inputs.
    """
    rows = _propagated(model, lower, upper)
    units = [tf.math.log(1.0 + tf.reduce_sum(_unstable(row))) for row in rows if row.clips]
    weights = sum(int(row.kernel.shape[0] * row.kernel.shape[1]) for row in rows)
    bits = sum(
        int(row.kernel.shape[0] * row.kernel.shape[1]) / weights * (_log(tf.reduce_max(tf.abs(row.kernel))) + _log(s))
        for row, s in zip(rows, _sensitivities(rows), strict=True)
    )
    return tf.add_n([bits, *units])


def _propagated(model: Any, lower: Any, upper: Any) -> list[_Row]:
    """Centre and radius through the layers, from the first to the last Dense one."""
    centre, radius = (lower + upper)[None] / 2.0, (upper - lower)[None] / 2.0
    rows: list[_Row] = []
    layers = _layers(model)
    last = max(number for number, layer in enumerate(layers) if _kind(layer) == "dense")
    for number, layer in enumerate(layers[: last + 1]):
        kind = _kind(layer)
        if kind == "scale":
            ends = layer(centre + radius), layer(centre - radius)
            centre, radius = (ends[0] + ends[1]) / 2.0, tf.abs(ends[0] - ends[1]) / 2.0
        if kind == "flat":
            centre, radius = layer(centre), layer(radius)
        if kind == "dense":
            magnitude, bias = tf.abs(centre) + radius, layer.bias if layer.use_bias else 0.0
            centre, radius = centre @ layer.kernel + bias, radius @ tf.abs(layer.kernel)
            rows.append(_Row(layer.kernel, magnitude, centre, radius))
        if kind == "relu" or (kind == "dense" and number < last and layer.activation is keras.activations.relu):
            rows[-1:] = [replace(row, clips=True) for row in rows[-1:]]
            ends = tf.nn.relu(centre + radius), tf.nn.relu(centre - radius)
            centre, radius = (ends[0] + ends[1]) / 2.0, (ends[0] - ends[1]) / 2.0
    return rows


def _unstable(row: _Row) -> Any:
    """For each unit, 0 where its ReLU never or always clips, 1 where it clips as often as not."""
    return tf.nn.relu(1.0 - tf.abs(row.centre) / (row.radius + TINY))


def _sensitivities(rows: list[_Row]) -> list[Any]:
    """For each layer, how much the outputs may change per change of all of its weights: carried back, half-open ReLUs by half."""
    slopes, found = tf.ones_like(rows[-1].centre), list[Any]()
    for number in reversed(range(len(rows))):
        row = rows[number]
        found.append(tf.reduce_sum(slopes) * tf.reduce_sum(row.magnitude))
        slopes = slopes @ tf.transpose(tf.abs(row.kernel))
        before = rows[number - 1]
        if number and before.clips:
            active = (before.centre + before.radius) / (2.0 * before.radius + TINY)
            slopes = slopes * tf.clip_by_value(active, 0.0, 1.0)
    return found[::-1]


def _log(x: Any) -> Any:
    return tf.math.log(x + TINY)


def _layers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def _kind(layer: Any) -> str | None:
    """What a layer does to a box; None where that is not known."""
    layers = keras.layers
    if isinstance(layer, layers.Dense):
        return "dense"
    if isinstance(layer, layers.Normalization | layers.Rescaling):
        return "scale"
    if isinstance(layer, layers.ReLU) or (
        isinstance(layer, layers.Activation) and layer.activation is keras.activations.relu
    ):
        return "relu"
    if isinstance(layer, layers.Flatten):
        return "flat"
    return "same" if type(layer).__name__ in TRAINING_ONLY else None
