"""Keras models become networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.files.files import is_saved, load_keras_model
from sound_qkeras.keras_io.read.activations import Parts
from sound_qkeras.keras_io.read.folding import fold
from sound_qkeras.keras_io.read.layers import TRAINING_ONLY
from sound_qkeras.keras_io.read.merges import MERGES, Joined
from sound_qkeras.keras_io.read.operations import read_operation
from sound_qkeras.keras_io.read.outputs import joined_outputs, output_ports, reachable, set_heads_aside
from sound_qkeras.keras_io.read.pieces import Diagonal, Gain, Head, Linear, Rounded, Shape, Step, sharing
from sound_qkeras.keras_io.read.precision import precision_notes
from sound_qkeras.keras_io.read.readers import OVER_TIME, READERS
from sound_qkeras.keras_io.read.structural import over_time
from sound_qkeras.keras_io.read.support import unsupported
from sound_qkeras.keras_io.read.tensor_sizes import Tally
from sound_qkeras.keras_io.session.editions import (
    KERAS_3,
    Call,
    calls,
    edition,
    input_names,
    is_function,
    is_graph,
    is_keras,
    is_model,
    output_names,
)
from sound_qkeras.keras_io.write.keras_names import name_notes
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Add, Affine, Concatenate, Crop, Input, Multiply, Op, Reshape
from sound_qkeras.network.ports import Port


def read_model(model: Any, box: Any = None, margin: float = 0.0) -> Network:
    """The network of a trained Keras model.

    Guarantee: the network is the model's inference function in exact real arithmetic over its stored parameters. Folded
    parameters are enclosed; `epsilon` of a normalisation counts as the float64 number in its configuration. Constants
    inside activation functions are the real ones (1/5 in hard_sigmoid), slopes and bounds the float32 ones. A final
    softmax or sigmoid is set aside in `head`, and `notes` says so.

    Args:
        model: a built Sequential or Functional model of tf_keras or Keras 3, or the path of one saved as `.h5`, `.keras` or
            SavedModel (tf_keras only), or a pair of paths, of the json of `to_json()` and the HDF5 file of `save_weights()`.
            Code in files is never run.
        box: the inputs, as for `sound_qkeras.quantize`, where they are known: for a model in half precision `notes` then says how
            far Keras' own results were seen to be on some of them.
        margin: widens the box.

    Returns:
        The network; nodes are named after their Keras layers. Several inputs or outputs of a model are parts of the
        network's one, flattened, one behind the other in Keras' order; see `network.inputs` and `network.outputs`.

    Raises:
        FileFormatError: the path is missing, empty, corrupt or no Keras model.
        UnsupportedLayerError: a layer is of a kind that is not supported, or used in such a way.
        ModelError: the model is not built or not finite.
        DependencyError: TensorFlow or tf_keras is missing or of the wrong kind.
    """
    if is_saved(model):
        model = load_keras_model(model)
    check_model(model)
    walk = Walk(model)
    steps = reachable(list(walk.steps.values()), walk.outputs)
    steps, outputs, heads = set_heads_aside(steps, walk.outputs)
    steps, ends = joined_outputs(steps, output_names(model), outputs)
    steps, notes = fold(steps)
    if notes:
        notes.append("Their epsilon counts as the float64 number Keras keeps in the configuration.")
    if walk.training_only:
        notes.append(f"Layers that only act in training were left out: {', '.join(walk.training_only)}.")
    for head in dict.fromkeys(head for head in heads if head is not None):
        notes.append(f"The final {head} is set aside: every guarantee is about its inputs.")
    (nodes,) = sharing({step.name: step.place for step in steps}, [_node(step) for step in steps])
    network = Network(nodes, None if ends else heads[0], (), walk.inputs, output_ports(nodes, ends, heads))
    notes += [*name_notes(network), *precision_notes(model, network, box, margin)]
    return replace(network, notes=tuple(notes))


def check_model(model: Any) -> None:
    """Refuse what is not a built Sequential or Functional model of either Keras.

    Raises:
        ModelError: says which, and the way out.
    """
    accepted = "a built Sequential or Functional model of tf_keras or Keras 3, or the path of one"
    if not is_model(model):
        raise ModelError(f"received {type(model).__name__}; accepted: {accepted}")
    name = f"model '{model.name}'"
    if not model.built or not model.layers:
        raise ModelError(f"{name} was never built; call it on data, fit it, or give its first layer an input shape")
    if not is_graph(model):
        raise ModelError(f"{name} is a subclassed model; accepted: {accepted}; rebuild it from layers")


class Walk:
    """One pass over the layers of a model, nested models included, in the order Keras calls them."""

    def __init__(self, model: Any) -> None:
        """Walk the model."""
        self.steps: dict[str, Step] = {}
        self.training_only: list[str] = []
        self.tally = Tally()
        self.inputs: tuple[Port, ...] = ()
        self.outputs = self._model(model, self._inputs(model))

    def _inputs(self, model: Any) -> list[str]:
        """The input; several are parts of one that holds them all."""
        called = input_names(model)
        shapes = [static_shape(x, name) for x, name in zip(model.inputs, called, strict=True)]
        if len(shapes) == 1:
            name = called[0]
            return [self._add(Step(name, Input(shapes[0]), (), name, "InputLayer"))]
        sizes = [math.prod(shape) for shape in shapes]
        whole = self._add(Step("inputs", Input((sum(sizes),)), (), "inputs", "InputLayer"))
        ports: list[Port] = []
        for number, (name, shape) in enumerate(zip(called, shapes, strict=True)):
            crop = Crop((sum(sizes[:number]),), (sum(sizes[number + 1 :]),))
            flat = name if len(shape) == 1 else f"{name}_flat"
            step = self._add(Step(flat, crop, (whole,), name, "InputLayer"))
            if len(shape) > 1:
                step = self._add(Step(name, Reshape((sizes[number],), shape), (step,), name, "InputLayer"))
            ports.append(Port(name, step))
        self.inputs = tuple(ports)
        return [port.node for port in ports]

    def _model(self, model: Any, sources: Sequence[str]) -> list[str]:
        """Walk a model whose inputs are the results of `sources`; returns the names of its outputs' steps."""
        names = {id(tensor): source for tensor, source in zip(model.inputs, sources, strict=True)}
        for call in calls(model):
            found = self._call(call, tuple(names[id(x)] for x in call.inputs))
            names |= {id(tensor): name for tensor, name in zip(call.outputs, found, strict=True)}
        return [names[id(tensor)] for tensor in model.outputs]

    def _call(self, call: Call, sources: tuple[str, ...]) -> list[str]:
        layer = call.layer
        _check_call(call)
        if is_model(layer):
            check_model(layer)
            return self._model(layer, sources)
        shapes = [static_shape(tensor, layer.name) for tensor in call.inputs]
        for tensor in call.outputs:
            _check_axes(tensor, layer.name)
            self.tally.add(layer.name, type(layer).__name__, tuple(tensor.shape)[1:])
        if is_function(layer):
            return [self._joined(call, read_operation(call, shapes), sources)]
        kind = type(layer).__name__
        if kind in MERGES and is_keras(layer):
            return [self._joined(call, MERGES[kind](layer, shapes), sources)]
        if kind == OVER_TIME and is_keras(layer) and self._over_time(layer, shapes[0]) is None:
            return [self._step_by_step(call, shapes[0], sources[0])]
        parts = self.parts(layer, shapes[0])
        _check_type(call, parts)
        return [self._chain(layer, parts, sources)]

    def parts(self, layer: Any, shape: Shape) -> Parts:
        """What a layer with one input becomes.

        Raises:
            UnsupportedLayerError: it is of a kind that is not supported, or used in such a way.
        """
        kind = type(layer).__name__
        if kind == OVER_TIME and is_keras(layer):
            parts = self._over_time(layer, shape)
            if parts is None:
                received, accepted = (
                    f"{type(layer.layer).__name__} in TimeDistributed in TimeDistributed",
                    "one around it",
                )
                raise UnsupportedLayerError(layer.name, received, accepted, "reshape, so that one will do")
            return parts
        if kind not in READERS or not is_keras(layer):
            raise unsupported(layer.name, kind)
        _check_layer(layer)
        return READERS[kind](layer, shape)

    def _over_time(self, layer: Any, shape: Shape) -> Parts | None:
        """What a TimeDistributed layer becomes for all its steps at once; None where each needs nodes of its own."""
        return None if is_model(layer.layer) else over_time(shape[0], self.parts(layer.layer, shape[1:]))

    def _step_by_step(self, call: Call, shape: Shape, source: str) -> str:
        """The layer or model inside, applied to every time step by itself; all of them share its parameters."""
        layer, inner = call.layer, call.layer.layer
        made, total, rest = static_shape(call.outputs[0], layer.name)[1:], shape[0], shape[1:]
        ends: list[str] = []

        def add(suffix: str, op: Op, *inputs: str) -> str:
            return self._add(Step(f"{layer.name}_{suffix}", op, inputs, layer.name, OVER_TIME))

        for time in range(total):
            zeros = (0,) * len(rest)
            step = add(f"step_{time}", Crop((time, *zeros), (total - time - 1, *zeros)), source)
            step = add(f"step_{time}_in", Reshape((1, *rest), rest), step)
            if is_model(inner):
                check_model(inner)
                (step,) = self._model(inner, [step])
            else:
                step = self._chain(inner, self.parts(inner, rest), (step,))
            ends.append(add(f"step_{time}_out", Reshape(made, (1, *made)), step))
        return add("steps", Concatenate(0), *ends)

    def _joined(self, call: Call, parts: Joined, sources: tuple[str, ...]) -> str:
        layer = call.layer
        _check_type(call, parts)
        names: dict[int | str, str] = dict(enumerate(sources))
        for suffix, op, read in parts:
            step = Step(layer.name + suffix, op, tuple(names[one] for one in read), layer.name, type(layer).__name__)
            names[suffix] = self._add(step)
        return names[parts[-1][0]] if parts else sources[0]

    def _chain(self, layer: Any, parts: Parts, sources: tuple[str, ...]) -> str:
        kind = type(layer).__name__
        left_out = f"'{layer.name}' ({kind})"
        if not parts and kind in TRAINING_ONLY and left_out not in self.training_only:
            self.training_only.append(left_out)
        held = layer.layer if kind == OVER_TIME else layer
        for suffix, op in parts:
            place = f"{id(held)}{suffix}" if isinstance(op, Linear | Diagonal) else ""
            sources = (self._add(Step(layer.name + suffix, op, sources, layer.name, kind, place)),)
        return sources[0]

    def _add(self, step: Step) -> str:
        name, count = step.name, 1
        while name in self.steps:
            name, count = f"{step.name}_{count}", count + 1
        self.steps[name] = replace(step, name=name)
        return name


def static_shape(tensor: Any, layer_name: str) -> Shape:
    """A Keras tensor's shape without the batch axis.

    Raises:
        ModelError: a size is unknown, or there is none.
    """
    _check_axes(tensor, layer_name)
    shape = tuple(tensor.shape)[1:]
    if any(size is None for size in shape):
        raise ModelError(f"layer '{layer_name}' has inputs of shape {shape}; accepted: known sizes; build it with them")
    return tuple(int(size) for size in shape)


def _check_axes(tensor: Any, layer_name: str) -> None:
    """Refuse single numbers: every tensor of a network has an axis."""
    if len(tensor.shape) == 1:
        raise ModelError(
            f"layer '{layer_name}' has numbers of shape (); accepted: at least one axis beside the batch's; give them the shape "
            "(1,), with Input((1,)), x[:, :1] or keepdims=True"
        )


def _check_call(call: Call) -> None:
    """Refuse calls that force training behaviour: such a model is random, or depends on its batch."""
    if call.trains:
        raise UnsupportedLayerError(
            call.layer.name, "a call with training=True", "layers in inference mode", "call it without training="
        )


def _check_type(call: Call, parts: Sequence[tuple[Any, ...]]) -> None:
    """Refuse to compute in whole numbers, which wrap around and are divided without a rest."""
    kind = str(getattr(call.outputs[0].dtype, "name", call.outputs[0].dtype))
    if "int" in kind and any(isinstance(part[1], Linear | Diagonal | Affine | Add | Multiply) for part in parts):
        received = f"{type(call.layer).__name__} of numbers of type {kind}"
        raise UnsupportedLayerError(call.layer.name, received, "float types", "cast the input to float32 before it")


def _check_layer(layer: Any) -> None:
    """Refuse what Keras 3 computes with other numbers than those it would seem to: integers, or a moving deviation."""
    mode = getattr(layer, "quantization_mode", None)
    if mode is not None:
        received, way_out = f"a layer that Keras quantised ('{mode}')", "give the model as it was before quantize()"
        raise UnsupportedLayerError(layer.name, received, "float layers", way_out)
    if edition(layer) == KERAS_3 and getattr(layer, "renorm", False):
        raise UnsupportedLayerError(
            layer.name, "BatchNormalization with renorm=True", "renorm=False", "retrain without renorm"
        )


def _node(step: Step) -> Node:
    op = step.op
    if isinstance(op, Linear | Diagonal):
        op = op.to_op()
    if isinstance(op, Head | Rounded | Gain):
        raise TypeError(f"step '{step.name}' is no operation")
    return Node(step.name, op, step.inputs, step.layer)
