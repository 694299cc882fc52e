"""Keras models become networks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.environment import import_keras
from sound_qkeras.keras_io.files import load_keras_model
from sound_qkeras.keras_io.folding import fold
from sound_qkeras.keras_io.pieces import Diagonal, Head, Linear, Shape, Step
from sound_qkeras.keras_io.readers import READERS
from sound_qkeras.keras_io.support import unsupported
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Input


def read_model(model: Any) -> Network:
    """The network of a trained Keras model.

    Guarantee: the network is the model's inference function in exact real arithmetic over its stored parameters. Folded
    parameters are enclosed; `epsilon` of a normalisation counts as the float64 number in its configuration. A final
    softmax or sigmoid is set aside in `head`, and `notes` says so.

    Args:
        model: a built tf_keras Sequential or Functional model with one input and one output, or the path of one saved
            as `.h5`, `.keras` or SavedModel. Code in files is never run.

    Returns:
        The network; nodes are named after their Keras layers.

    Raises:
        FileFormatError: the path is missing, empty, corrupt or no Keras model.
        UnsupportedLayerError: a layer is of a kind that is not supported, or used in such a way.
        ModelError: the model is not built, not finite, or has several inputs or outputs.
        DependencyError: TensorFlow or tf_keras is missing or of the wrong kind.
    """
    if isinstance(model, str | os.PathLike):
        model = load_keras_model(Path(model))
    check_model(model)
    steps, training_only = Walk(model).result()
    steps, head = _set_head_aside(steps)
    steps, notes = fold(steps)
    if notes:
        notes.append("Their epsilon counts as the float64 number Keras keeps in the configuration.")
    if training_only:
        notes.append(f"Layers that only act in training were left out: {', '.join(training_only)}.")
    if head is not None:
        notes.append(f"The final {head} is set aside: every guarantee is about its inputs.")
    return Network(tuple(_node(step) for step in steps), head, tuple(notes))


def check_model(model: Any) -> None:
    """Refuse what is not a built Sequential or Functional tf_keras model with one input and one output.

    Raises:
        ModelError: says which, and the way out.
    """
    accepted = "a built tf_keras Sequential or Functional model, or the path of one"
    kinds = [base.__module__.split(".")[0] for base in type(model).__mro__]
    if "keras" in kinds and "tf_keras" not in kinds:
        raise ModelError(f"received a Keras 3 object; accepted: {accepted}; build it with tf_keras, which QKeras needs")
    if not isinstance(model, import_keras().Model):
        raise ModelError(f"received {type(model).__name__}; accepted: {accepted}")
    name = f"model '{model.name}'"
    if not model.built or (isinstance(model, import_keras().Sequential) and not model.layers):
        raise ModelError(f"{name} was never built; call it on data, fit it, or give its first layer an input shape")
    owner = next(base for base in type(model).__mro__ if "call" in vars(base))
    if not model._is_graph_network or not owner.__module__.startswith("tf_keras."):
        raise ModelError(f"{name} is a subclassed model; accepted: {accepted}; rebuild it from layers")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"{name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; accepted: one of each; split it"
        )


class Walk:
    """One pass over the layers of a model, nested models included, in the order Keras calls them."""

    def __init__(self, model: Any) -> None:
        """Walk the model."""
        self.steps: dict[str, Step] = {}
        self.training_only: list[str] = []
        self.with_weights: set[int] = set()
        self.output = self._model(model, self._input(model))

    def result(self) -> tuple[list[Step], list[str]]:
        """The steps in topological order, the last one being the output, and the layers left out."""
        return list(self.steps.values()), self.training_only

    def _input(self, model: Any) -> str:
        shape = static_shape(model.inputs[0], model.input_names[0])
        return self._add(Step(model.input_names[0], Input(shape), (), model.input_names[0], "InputLayer"))

    def _model(self, model: Any, source: str) -> str:
        """Walk a model whose input is the result of `source`; returns the name of its output's step."""
        names = {id(model.inputs[0]): source}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    names[id(node.outputs)] = self._layer(node, tuple(names[id(x)] for x in node.keras_inputs))
        return names[id(model.outputs[0])]

    def _layer(self, node: Any, sources: tuple[str, ...]) -> str:
        layer = node.layer
        if isinstance(layer, import_keras().Model):
            check_model(layer)
            _check_call(node)
            return self._model(layer, sources[0])
        if type(layer).__name__ not in READERS or not type(layer).__module__.startswith("tf_keras."):
            raise unsupported(layer.name, type(layer).__name__)
        _check_call(node)
        return self._parts(layer, static_shape(node.keras_inputs[0], layer.name), sources)

    def _parts(self, layer: Any, shape: Shape, sources: tuple[str, ...]) -> str:
        kind, parts = type(layer).__name__, READERS[type(layer).__name__](layer, shape)
        if not parts and kind != "Activation" and f"'{layer.name}' ({kind})" not in self.training_only:
            self.training_only.append(f"'{layer.name}' ({kind})")
        if any(isinstance(op, Linear | Diagonal) for _, op in parts):
            self._use_once(layer)
        for suffix, op in parts:
            sources = (self._add(Step(layer.name + suffix, op, sources, layer.name, kind)),)
        return sources[0]

    def _use_once(self, layer: Any) -> None:
        if id(layer) in self.with_weights:
            received, accepted = f"{type(layer).__name__} used more than once", "every layer with parameters used once"
            raise UnsupportedLayerError(layer.name, received, accepted, "give each place a layer of its own")
        self.with_weights.add(id(layer))

    def _add(self, step: Step) -> str:
        name, count = step.name, 1
        while name in self.steps:
            name, count = f"{step.name}_{count}", count + 1
        self.steps[name] = Step(name, step.op, step.inputs, step.layer, step.kind)
        return name


def static_shape(tensor: Any, layer_name: str) -> Shape:
    """A Keras tensor's shape without the batch axis.

    Raises:
        ModelError: a size is unknown.
    """
    shape = tuple(tensor.shape)[1:]
    if any(size is None for size in shape):
        raise ModelError(f"layer '{layer_name}' has inputs of shape {shape}; accepted: known sizes; build it with them")
    return tuple(int(size) for size in shape)


def _check_call(node: Any) -> None:
    """Refuse calls that force training behaviour: such a model is random, or depends on its batch."""
    if node.call_kwargs.get("training") or any(argument is True for argument in node.call_args[1:]):
        raise UnsupportedLayerError(
            node.layer.name, "a call with training=True", "layers in inference mode", "call it without training="
        )


def _set_head_aside(steps: list[Step]) -> tuple[list[Step], str | None]:
    for step in steps[:-1]:
        if isinstance(step.op, Head):
            received = f"{step.kind} with {step.op.activation} before the end of the model"
            raise UnsupportedLayerError(
                step.layer, received, f"{step.op.activation} at the very end", "retrain with relu"
            )
    last = steps[-1].op
    return (steps[:-1], last.activation) if isinstance(last, Head) else (steps, None)


def _node(step: Step) -> Node:
    op = step.op
    if isinstance(op, Linear | Diagonal):
        op = op.to_op()
    if isinstance(op, Head):
        raise TypeError(f"step '{step.name}' was not set aside")
    return Node(step.name, op, step.inputs, step.layer)
