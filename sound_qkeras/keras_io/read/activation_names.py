"""Which activation function it is, by identity: a function that only has the name of one is not believed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sound_qkeras.keras_io.session.editions import KERAS_2, edition

# Functions that are the same in Keras 2, Keras 3, `keras.ops` and `tensorflow.nn`, under the same name.
SHARED = ("elu", "relu", "relu6", "leaky_relu", "selu", "sigmoid", "softmax", "softplus", "softsign", "tanh")
# What functions are called here: Keras 3's hard sigmoid has other slopes, and its GELU's default differs in `keras.ops`.
IN_KERAS_2 = {name: name for name in (*SHARED, "exponential", "gelu", "hard_sigmoid", "linear", "swish")}
IN_OPS = {name: name for name in SHARED} | {
    "celu": "elu",
    "exp": "exponential",
    "hard_sigmoid": "hard_sigmoid_6",
    "hard_silu": "hard_swish",
    "silu": "swish",
}
IN_KERAS_3 = {name: called for name, called in IN_OPS.items() if name != "exp"} | {
    "exponential": "exponential",
    "gelu": "gelu",
    "linear": "linear",
}
IN_TENSORFLOW = {name: name for name in (*SHARED, "gelu")} | {"silu": "swish"}


def activation_name(layer: Any, given: Any) -> str:
    """The name of a supported activation, or a description in quotes.

    The names are those of `network.smooth`, and linear, relu, relu6, leaky_relu, sigmoid and softmax.

    Args:
        layer: the layer it belongs to.
        given: the function.
    """
    if given is None:
        return "linear"
    for module, names in _tables(layer):
        for name, called in names.items():
            if getattr(module, name, _missing) is given:
                return called
    if given is getattr(sys.modules.get("tensorflow"), "exp", _missing):
        return "exponential"
    return f"'{getattr(given, '__module__', '?')}.{getattr(given, '__name__', type(given).__name__)}'"


def _tables(layer: Any) -> Iterator[tuple[Any, Mapping[str, str]]]:
    """Modules that have activation functions, and what those are called here."""
    if edition(layer) == KERAS_2:
        yield importlib.import_module("tf_keras.activations"), IN_KERAS_2
    else:
        yield importlib.import_module("keras.activations"), IN_KERAS_3
        yield importlib.import_module("keras.ops"), IN_OPS
    if "tensorflow" in sys.modules:
        yield sys.modules["tensorflow"].nn, IN_TENSORFLOW


_missing: Callable[[], None] = lambda: None  # noqa: E731
