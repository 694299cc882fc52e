"""The end of a model: what is left out, what is set aside, and several outputs joined into one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.keras_io.read.pieces import Diagonal, Head, Linear, Shape, Step
from sound_qkeras.network import Node, Port
from sound_qkeras.network.ops import Concatenate, Reshape, Table


def reachable(steps: Sequence[Step], outputs: Sequence[str]) -> list[Step]:
    """The steps that outputs depend on, and the inputs: of nested models not every output need be used."""
    wanted = set(outputs)
    kept: list[Step] = []
    for step in reversed(steps):
        if step.name in wanted or step.kind == "InputLayer":
            wanted.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def set_heads_aside(steps: list[Step], outputs: Sequence[str]) -> tuple[list[Step], list[str], list[str | None]]:
    """The steps without softmaxes and sigmoids at the outputs, what the outputs are then, and what was set aside at each.

    A sigmoid elsewhere is an operation like any other. A softmax may be followed by reshapes that keep its last axis: they come
    before it as well as after it.

    Raises:
        UnsupportedLayerError: there is a softmax elsewhere.
    """
    read = {name for step in steps for name in step.inputs}
    steps = [_inner(step) if step.name in read or step.name not in outputs else step for step in steps]
    steps, outputs = _heads_last(steps, outputs)
    read = {name for step in steps for name in step.inputs}
    heads = {step.name: step for step in steps if isinstance(step.op, Head)}
    for name, step in heads.items():
        if name in read or name not in outputs:
            activation = step.op.activation  # type: ignore[union-attr]
            received = f"{step.kind} with {activation} before the end of the model"
            accepted = f"{activation} at the very end, or with reshapes behind it that keep its last axis"
            raise UnsupportedLayerError(step.layer, received, accepted, "cut the model behind it, or retrain with relu")
    kept = [step for step in steps if step.name not in heads]
    ends = [heads[name].inputs[0] if name in heads else name for name in outputs]
    return kept, ends, [heads[name].op.activation if name in heads else None for name in outputs]  # type: ignore[union-attr]


def _heads_last(steps: list[Step], outputs: Sequence[str]) -> tuple[list[Step], list[str]]:
    """The steps, and what the outputs are, with every softmax behind the reshape that alone reads it."""
    table: dict[str, Step] = {}
    moved: dict[str, str] = {}
    readers = Counter(name for step in steps for name in step.inputs) + Counter(outputs)
    for step in steps:
        source = step.inputs[0] if step.inputs else ""
        head = table.get(moved.get(source, source))
        alone = readers[source] == 1 and isinstance(step.op, Reshape) and step.op.input_shape[-1] == step.op.shape[-1]
        table[step.name] = step
        if head is not None and isinstance(head.op, Head) and alone:
            del table[head.name]
            moved[step.name] = f"{step.name}_{head.op.activation}"
            table[step.name] = replace(step, inputs=head.inputs)
            table[moved[step.name]] = replace(head, name=moved[step.name], inputs=(step.name,))
    return list(table.values()), [moved.get(name, name) for name in outputs]


def _inner(step: Step) -> Step:
    if isinstance(step.op, Head) and step.op.activation == "sigmoid":
        return replace(step, op=Table(step.op.activation))
    return step


def joined_outputs(
    steps: list[Step], names: Sequence[str], outputs: Sequence[str]
) -> tuple[list[Step], list[tuple[str, str]]]:
    """The steps with one output at the end; for each of several outputs, Keras' name and the flat step that holds it."""
    if len(outputs) == 1:
        return steps, []
    taken = {step.name for step in steps}
    shapes = step_shapes(steps)

    def unused(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    flat: list[Step] = []
    for name, output in zip(names, outputs, strict=True):
        size = math.prod(shapes[output])
        flat.append(
            Step(unused(f"{name}_flat"), Reshape(shapes[output], (size,)), (output,), f"{name}_flat", "Reshape")
        )
    joined = Step(
        unused("outputs"), Concatenate(0), tuple(step.name for step in flat), unused("outputs"), "Concatenate"
    )
    return [*steps, *flat, joined], [(name, step.name) for name, step in zip(names, flat, strict=True)]


def step_shapes(steps: Sequence[Step]) -> dict[str, Shape]:
    """The shape of every step's result."""
    shapes: dict[str, Shape] = {}
    for step in steps:
        op, sources = step.op, [shapes[name] for name in step.inputs]
        if isinstance(op, Diagonal | Head):
            shapes[step.name] = sources[0]
        else:
            shapes[step.name] = op.output_shape if isinstance(op, Linear) else op.output_shape(*sources)
    return shapes


def output_ports(
    nodes: Sequence[Node], ends: Sequence[tuple[str, str]], heads: Sequence[str | None]
) -> tuple[Port, ...]:
    """The several outputs of a model; none where there is one."""
    by_name = {node.name: node for node in nodes}
    pairs = zip(ends, heads, strict=True) if ends else ()
    return tuple(Port(name, by_name[flat].inputs[0], head) for (name, flat), head in pairs)
