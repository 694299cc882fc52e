"""Folding of elementwise affine layers (BatchNormalization, Normalization, Rescaling) into Dense neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.pieces import Diagonal, Linear, Step
from sound_qkeras.network.ops import Reshape

# A layer with no Dense beside it becomes a Dense with a diagonal kernel, up to this many values.
MAX_DIAGONAL = 256


def fold(steps: list[Step]) -> tuple[list[Step], list[str]]:
    """Remove every diagonal step: into what precedes it, else into all that follow it, else as a layer of its own.

    Guarantee: the parameters that remain enclose those of exactly the same real function.

    Args:
        steps: in topological order, without heads.

    Returns:
        The steps that are left, in order, and one sentence per folded layer.

    Raises:
        UnsupportedLayerError: a layer has no Dense beside it and is too large to become one.
        ModelError: folded parameters overflow float64.
    """
    table = {step.name: step for step in steps}
    notes = [_fold_one(table, step.name) for step in steps if isinstance(step.op, Diagonal)]
    return list(table.values()), notes


def _fold_one(table: dict[str, Step], name: str) -> str:
    step, before = table[name], _dense_before(table, name)
    after = _absorbers(table, name) if before is None else None
    if before is None and after is None:
        return _stand_alone(table, step)
    for target in after or ():
        _merge(table, target, step, after=False)
    if before is not None:
        _merge(table, before, step, after=True)
    _remove(table, step)
    targets = " and ".join(f"'{target.layer}'" for target in (after or [before]) if target)
    return f"Layer '{step.layer}' ({step.kind}) is folded into {targets}."


def _readers(table: dict[str, Step], name: str) -> list[Step]:
    return [step for step in table.values() if name in step.inputs]


def _dense_before(table: dict[str, Step], name: str) -> Step | None:
    """The linear step that this one alone reads, through reshapes that it alone reads."""
    source = table[table[name].inputs[0]]
    while isinstance(source.op, Reshape) and len(_readers(table, source.name)) == 1:
        source = table[source.inputs[0]]
    return source if isinstance(source.op, Linear) and len(_readers(table, source.name)) == 1 else None


def _absorbers(table: dict[str, Step], name: str) -> list[Step] | None:
    """Every reader, through reshapes; None if one cannot absorb the step or there is none."""
    found: list[Step] = []
    for reader in _readers(table, name):
        if isinstance(reader.op, Reshape):
            deeper = _absorbers(table, reader.name)
        else:
            deeper = [reader] if isinstance(reader.op, Linear | Diagonal) else None
        if deeper is None:
            return None
        found += deeper
    return found or None


def _merge(table: dict[str, Step], target: Step, step: Step, *, after: bool) -> None:
    """Give `target` the parameters of both, the step's applied after or before its own."""
    op = target.op
    if not isinstance(step.op, Diagonal) or not isinstance(op, Linear | Diagonal):
        raise TypeError(f"cannot fold {type(step.op).__name__} into {type(op).__name__}")
    with np.errstate(over="ignore", invalid="ignore"):
        merged = op.then(step.op) if after and isinstance(op, Linear) else op.fed_by(step.op)
    if not merged.is_finite:
        raise ModelError(
            f"layer '{step.layer}' ({step.kind}): folded into '{target.layer}', its parameters exceed the float64 "
            "range; retrain or repair the model"
        )
    table[target.name] = replace(target, op=merged)


def _remove(table: dict[str, Step], step: Step) -> None:
    del table[step.name]
    for reader in _readers(table, step.name):
        inputs = tuple(step.inputs[0] if name == step.name else name for name in reader.inputs)
        table[reader.name] = replace(reader, inputs=inputs)


def _stand_alone(table: dict[str, Step], step: Step) -> str:
    if not isinstance(step.op, Diagonal):
        raise TypeError(f"cannot fold {type(step.op).__name__}")
    shape = step.op.shape
    if len(shape) != 1 or shape[0] > MAX_DIAGONAL:
        raise UnsupportedLayerError(
            step.layer,
            f"{step.kind} on values of shape {shape} with no Dense layer directly before or after it",
            f"{step.kind} next to a Dense layer, or anywhere on up to {MAX_DIAGONAL} values of one axis",
            "move it next to a Dense layer and retrain",
        )
    table[step.name] = replace(step, op=step.op.to_linear())
    return f"Layer '{step.layer}' ({step.kind}) has no Dense layer beside it; it became one with a diagonal kernel."
