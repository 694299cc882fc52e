"""Folding of elementwise affine layers (BatchNormalization, Normalization, Rescaling) into neighbours with weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.keras_io.read.pieces import Diagonal, Linear, Step
from sound_qkeras.network.ops import Reshape


def fold(steps: list[Step]) -> tuple[list[Step], list[str]]:
    """Remove every diagonal step: into what precedes it, else into all that follow it, else as a layer of its own.

    Guarantee: the parameters that remain enclose those of exactly the same real function.

    Args:
        steps: in topological order, without heads.

    Returns:
        The steps that are left, in order, and one sentence per folded layer.

    Raises:
        ModelError: folded parameters overflow float64.
    """
    table = {step.name: step for step in steps}
    notes = [_fold_one(table, step.name) for step in steps if isinstance(step.op, Diagonal)]
    return list(table.values()), notes


def _fold_one(table: dict[str, Step], name: str) -> str:
    step = table[name]
    targets = _merged_before(table, step) or _merged_after(table, step)
    if targets is None:
        return (
            f"Layer '{step.layer}' ({step.kind}) has no layer beside it that takes it in; it scales and shifts alone."
        )
    for target in targets:
        table[target.name] = target
    _remove(table, step)
    names = " and ".join(f"'{target.layer}'" for target in targets)
    return f"Layer '{step.layer}' ({step.kind}) is folded into {names}."


def _readers(table: dict[str, Step], name: str) -> list[Step]:
    return [step for step in table.values() if name in step.inputs]


def _merged_before(table: dict[str, Step], step: Step) -> list[Step] | None:
    """The linear step that this one alone reads, through reshapes that it alone reads, with both applied."""
    source = table[step.inputs[0]]
    while isinstance(source.op, Reshape) and len(_readers(table, source.name)) == 1:
        source = table[source.inputs[0]]
    if not isinstance(source.op, Linear) or len(_readers(table, source.name)) != 1:
        return None
    merged = _merged(source, step, after=True)
    return None if merged is None else [merged]


def _merged_after(table: dict[str, Step], step: Step) -> list[Step] | None:
    """Every reader, through reshapes, with both applied; None if one cannot take the step in or there is none."""
    found = [_merged(reader, step, after=False) for reader in _absorbers(table, step.name)]
    targets = [target for target in found if target is not None]
    return targets if targets and len(targets) == len(found) else None


def _absorbers(table: dict[str, Step], name: str) -> list[Step]:
    """Every reader, through reshapes; a reshape that nothing reads counts itself."""
    found: list[Step] = []
    for reader in _readers(table, name):
        deeper = _absorbers(table, reader.name) if isinstance(reader.op, Reshape) else []
        found += deeper or [reader]
    return found


def _merged(target: Step, step: Step, *, after: bool) -> Step | None:
    """`target` with the parameters of both, the step's applied after or before its own; None where that is no layer."""
    op = target.op
    if not isinstance(step.op, Diagonal) or not isinstance(op, Linear | Diagonal):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        merged = op.then(step.op) if after and isinstance(op, Linear) else op.fed_by(step.op)
    if merged is not None and not merged.is_finite:
        raise ModelError(
            f"layer '{step.layer}' ({step.kind}): folded into '{target.layer}', its parameters exceed the float64 "
            "range; retrain or repair the model"
        )
    return None if merged is None else replace(target, op=merged)


def _remove(table: dict[str, Step], step: Step) -> None:
    del table[step.name]
    for reader in _readers(table, step.name):
        inputs = tuple(step.inputs[0] if name == step.name else name for name in reader.inputs)
        table[reader.name] = replace(reader, inputs=inputs)
