"""Keras 2 and Keras 3: which of them a model is made with, and what they say in different words.

Keras 2 is the package `tf_keras`, Keras 3 the package `keras` with whatever backend it runs on. Readers ask here for what
differs; nothing is imported that the model's own Keras has not imported.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

KERAS_2, KERAS_3 = "tf_keras", "keras"
# Where Keras' own layers are, and the functions of Keras 3 that may stand in a graph as they are.
LAYERS = (f"{KERAS_2}.", f"{KERAS_3}.src.layers.")
OPERATIONS = (f"{KERAS_3}.src.ops.", f"{KERAS_3}.src.activations.")
# The layers that tf_keras makes of TensorFlow's functions.
FUNCTION_LAYERS = ("SlicingOpLambda", "TFOpLambda")


@dataclass(frozen=True)
class Call:
    """One call of a layer, or of an operation, in a model's graph.

    Args:
        layer: what is called.
        inputs, outputs: tensors of the graph.
        settings: what else it is called with.
        given, named: all it is called with, by place and by name.
    """

    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    settings: tuple[Any, ...]
    given: tuple[Any, ...]
    named: Mapping[str, Any]

    @property
    def trains(self) -> bool:
        """Whether it is forced to behave as in training."""
        return any(setting is True for setting in self.settings)


def edition(thing: Any) -> str | None:
    """`KERAS_2` or `KERAS_3`, whichever an object's class comes from or is derived from; None for others."""
    packages = [base.__module__.split(".")[0] for base in type(thing).__mro__]
    return next((name for name in packages if name in (KERAS_2, KERAS_3)), None)


def is_model(thing: Any) -> bool:
    """Whether it is a model of either Keras."""
    return any(
        base.__name__ == "Model" and base.__module__.startswith((f"{KERAS_2}.", f"{KERAS_3}."))
        for base in type(thing).__mro__
    )


def is_keras(layer: Any) -> bool:
    """Whether a layer is one of Keras' own, not another one of the same name."""
    return type(layer).__module__.startswith(LAYERS)


def is_operation(layer: Any) -> bool:
    """Whether it is a function of Keras 3 that stands in the graph without a layer, as `x + y` does."""
    return type(layer).__module__.startswith(OPERATIONS)


def is_function(layer: Any) -> bool:
    """Whether it is a function that is called on tensors, of Keras 3 or in a layer that tf_keras made for it."""
    return is_operation(layer) or (type(layer).__name__ in FUNCTION_LAYERS and is_keras(layer))


def is_graph(model: Any) -> bool:
    """Whether a built model computes what its graph says, and nothing of its own."""
    owner = next(base for base in type(model).__mro__ if "call" in vars(base))
    if not owner.__module__.startswith((f"{KERAS_2}.", f"{KERAS_3}.src.models.")):
        return False
    return bool(model._is_graph_network) if edition(model) == KERAS_2 else hasattr(_graph(model), "_nodes_by_depth")


def input_names(model: Any) -> list[str]:
    """Keras' names of the inputs: of their layers, which are saved with a model, as those of tensors are not."""
    if edition(model) == KERAS_2:
        return list(model.input_names)
    return [tensor._keras_history.operation.name for tensor in model.inputs]


def output_names(model: Any) -> list[str]:
    """Keras' names of the outputs; Keras 3 names two outputs of one layer alike."""
    names = [str(name) for name in _graph(model).output_names]
    return [f"{name}_{names[:at].count(name)}" if name in names[:at] else name for at, name in enumerate(names)]


def calls(model: Any) -> Iterator[Call]:
    """Every call of the graph, in an order in which it can be computed."""
    graph = _graph(model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                yield _call_2(node) if edition(model) == KERAS_2 else _call_3(node)


def as_array(layer: Any, variable: Any) -> npt.NDArray[Any]:
    """The value of a layer's variable or tensor."""
    if edition(layer) == KERAS_2:
        return np.asarray(variable)
    return np.asarray(importlib.import_module("keras.ops").convert_to_numpy(variable))


def as_cast(layer: Any, setting: Any) -> npt.NDArray[Any]:
    """A number or list in a layer's configuration, rounded to the type that the layer computes in."""
    cast = importlib.import_module("tensorflow" if edition(layer) == KERAS_2 else "keras.ops").cast
    value = cast(setting, layer.compute_dtype)
    # One number in bfloat16 is no array for numpy.
    return as_array(layer, cast(value, "float32") if "16" in layer.compute_dtype else value)


def evaluated(layer: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What a built layer makes of a batch at inference."""
    return as_array(layer, layer(x))


def smallest_divisor(layer: Any) -> float:
    """What Keras calls its epsilon, and does not divide by less."""
    module = "tf_keras.backend" if edition(layer) == KERAS_2 else "keras.config"
    return float(importlib.import_module(module).epsilon())


def _graph(model: Any) -> Any:
    """What holds the graph: in Keras 3 a Sequential model has one inside, once it is built."""
    sequential = edition(model) == KERAS_3 and hasattr(model, "_functional")
    return model._functional if sequential else model


def _call_2(node: Any) -> Call:
    outputs = node.outputs if isinstance(node.outputs, list | tuple) else [node.outputs]
    forced = (True,) if node.call_kwargs.get("training") else ()
    settings = (*forced, *node.call_args[1:])
    return Call(node.layer, tuple(node.keras_inputs), tuple(outputs), settings, node.call_args, node.call_kwargs)


def _call_3(node: Any) -> Call:
    given = (*node.arguments.args, *node.arguments.kwargs.values())
    # Layers that change images train unless they are told not to, which the model does.
    forced = not _trains_by_default(node.operation)
    given = given if forced else tuple(one for one in given if one is not True)
    flat = [one for many in given for one in (many if isinstance(many, list | tuple) else [many])]
    settings = [one for one in flat if one is not None and not any(one is tensor for tensor in node.input_tensors)]
    tensors = tuple(node.input_tensors), tuple(node.output_tensors)
    return Call(node.operation, *tensors, tuple(settings), node.arguments.args, node.arguments.kwargs)


def _trains_by_default(layer: Any) -> bool:
    training = inspect.signature(layer.call).parameters.get("training")
    return training is not None and training.default is True
