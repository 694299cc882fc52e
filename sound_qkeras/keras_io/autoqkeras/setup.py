"""What AutoQKeras 0.9.0 and keras-tuner need to run at all, and what their users should know.

Reference: Coelho et al., Automatic heterogeneous quantization of deep neural networks for low-latency inference on the edge
for particle detectors (Nature Machine Intelligence 2021).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from sound_qkeras.errors import DependencyError, InputError
from sound_qkeras.keras_io.session.environment import import_keras, import_qkeras, keras_2
from sound_qkeras.keras_io.write.quantizers import model_quantize

# What a study prints beside AutoQKeras' results. Cured here means: by this module, for AutoQKeras' benefit.
DEFECTS = (
    (
        "With its default limit=None nothing is quantised, and its default tune_filters_exceptions=None raises; here the limits "
        "of its authors' notebook are given."
    ),
    (
        "Its default space consists of binary, ternary, power-of-two and alpha=None quantizers; alpha=None on a kernel silently "
        "means auto_po2, whose scales are computed again on every call and count no bits."
    ),
    "Inline activations are not searched but set to 4 bits; cured here by giving each one a layer of its own.",
    "Every searched Activation layer becomes one of the rectifying quantizers, whatever it was before.",
    "SeparableConv layers are never quantised and count 0 bits.",
    "The input of a Sequential model is not counted; cured here by a Functional one.",
    "The input is never rounded, and counts 8 bits; results of a last linear layer count none, a softmax 8.",
    "Biases of layers without a bias quantizer stay floats and count 8 bits.",
    "All trials share one optimizer and its step counter; cured here by a new one for each trial.",
    "Trials are ranked by the batch-averaged val_score, accuracy times (1 + 8% for each halving of bits), not by accuracy.",
    "Unless told otherwise it stops early after epochs // 5 epochs without a lower val_loss: at once, below five epochs.",
    "get_best_model() returns untrained weights; here the best trials are trained again, as its authors do.",
    "history() drops the worst trial; here every trial is read from keras-tuner itself.",
    (
        "keras-tuner writes its state in place, so a kill may leave it unreadable, and it runs an interrupted trial again in "
        "another order; cured here by a copy of the last complete state."
    ),
)

SPLIT = ("Dense", "Conv1D", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose")


def import_autoqkeras() -> ModuleType:
    """`qkeras.autoqkeras.autoqkeras_internal`, on a keras_tuner that shares its Keras.

    Raises:
        DependencyError: a package is missing, or keras_tuner was imported with Keras 3 before.
    """
    import_qkeras()
    import_keras_tuner()
    return _imported("qkeras.autoqkeras.autoqkeras_internal")


def import_keras_tuner() -> ModuleType:
    """keras_tuner, on the Keras that QKeras needs: it tunes the one that `import keras` gives while it is imported.

    Raises:
        DependencyError: it is missing, or was imported with Keras 3 before.
    """
    tuner: Any = _imported("keras_tuner")
    if tuner.src.backend.config.multi_backend():
        raise DependencyError("keras_tuner was imported with Keras 3; search before importing it, or in a new process")
    return tuner


def _imported(name: str) -> ModuleType:
    try:
        with keras_2():  # keras_tuner decides by `keras` which Keras it tunes
            return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(f"a search needs '{error.name}': pip install 'sound-qkeras[study]'") from error


@contextmanager
def working_model_quantize(internal: Any) -> Iterator[None]:
    """Let AutoQKeras find QKeras' own layer classes, which its `model_quantize` cannot in current Keras."""
    before = internal.model_quantize

    def quantize(model: Any, config: Any, bits: int, custom_objects: Any = None, transfer_weights: bool = False) -> Any:
        return model_quantize(model, config, transfer_weights=transfer_weights)

    internal.model_quantize = quantize
    try:
        yield
    finally:
        internal.model_quantize = before


def searchable(model: Any, learning_rate: float) -> Any:
    """A copy of a compiled model that AutoQKeras can search: activations in layers of their own, a legacy optimizer.

    Args:
        model: a compiled tf_keras Sequential or Functional model.
        learning_rate: of the Adam optimizer every trial gets.

    Raises:
        InputError: the model was not compiled with a loss, or has several outputs.
    """
    if len(model.outputs) > 1:
        raise InputError(f"model '{model.name}' has {len(model.outputs)} outputs; AutoQKeras scores one")
    if not getattr(model, "loss", None):
        raise InputError(f"model '{model.name}' has no loss; compile it with one before searching")
    keras = import_keras()
    functional = keras.Model(model.inputs, model.outputs, name=model.name)
    copy = keras.Model.from_config(separate_activations(functional.get_config()))
    for layer in functional.layers:
        copy.get_layer(layer.name).set_weights(layer.get_weights())
    optimizer = keras.optimizers.legacy.Adam(learning_rate)
    copy.compile(optimizer=optimizer, loss=model.loss)
    return copy


def separate_activations(config: dict[str, Any]) -> dict[str, Any]:
    """A functional model's configuration with inline activations, and ReLU layers, as Activation layers.

    A softmax stays where it is: AutoQKeras leaves it alone. So does what is used more than once.
    """
    layers: list[dict[str, Any]] = []
    renamed: dict[str, str] = {}
    for layer in config["layers"]:
        nodes = [
            [[renamed.get(source[0], source[0]), *source[1:]] for source in node] for node in layer["inbound_nodes"]
        ]
        layers.append({**layer, "inbound_nodes": nodes})
        activation = layer["config"].get("activation")
        if layer["class_name"] == "ReLU" and not any(
            layer["config"].get(name) for name in ("max_value", "negative_slope", "threshold")
        ):
            layers[-1] = _activation(layer["name"], "relu", nodes)
        elif layer["class_name"] in SPLIT and activation not in (None, "linear", "softmax") and len(nodes) == 1:
            layers[-1] = {**layers[-1], "config": {**layer["config"], "activation": "linear"}}
            renamed[layer["name"]] = f"{layer['name']}_{activation}"
            layers.append(_activation(renamed[layer["name"]], activation, [[[layer["name"], 0, 0, {}]]]))
    outputs = [[renamed.get(name, name), *rest] for name, *rest in config["output_layers"]]
    return {**config, "layers": layers, "output_layers": outputs}


def _activation(name: str, activation: Any, nodes: Any) -> dict[str, Any]:
    settings = {"name": name, "trainable": True, "dtype": "float32", "activation": activation}
    return {"class_name": "Activation", "config": settings, "name": name, "inbound_nodes": nodes}
