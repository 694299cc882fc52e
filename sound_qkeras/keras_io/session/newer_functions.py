"""Activation functions of Keras 3 for Keras 2, known to it by name. Imports TensorFlow: import it inside functions only."""

from __future__ import annotations

from typing import Any

from sound_qkeras.keras_io.session.environment import import_keras, import_tensorflow

keras, tf = import_keras(), import_tensorflow()


@keras.saving.register_keras_serializable(package="sound_qkeras")
def hard_sigmoid_6(x: Any) -> Any:
    """`min(max(x / 6 + 1/2, 0), 1)`."""
    return tf.nn.relu6(x + 3.0) / 6.0


@keras.saving.register_keras_serializable(package="sound_qkeras")
def hard_swish(x: Any) -> Any:
    """`x min(max(x / 6 + 1/2, 0), 1)`."""
    return x * hard_sigmoid_6(x)
