"""Roundings between multiplications by a power of two and back, as `to_qkeras` writes formats with negative integer bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sound_qkeras.keras_io.qkeras.reader import Steps
from sound_qkeras.keras_io.read.pieces import Diagonal, Rounded, Step
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.network.ops import Relu


def unscaled(model: Steps) -> Steps:
    """A model without the multiplications around such a rounding, which has the step that all three together have."""
    made = {step.name: step for step in model.steps}
    for up in model.steps:
        inner = _alone(model, up) if _exponent(up) > 0 else None
        if inner is not None and isinstance(inner.op, Relu):
            inner = _alone(model, inner)
        if inner is None or not isinstance(inner.op, Rounded) or not isinstance(inner.op.rounding, FixedPoint):
            continue
        down, exponent = _alone(model, inner), _exponent(up)
        if down is None or _exponent(down) != -exponent:
            continue
        grid = replace(inner.op.rounding, fractional=inner.op.rounding.fractional + exponent)
        rounded = Rounded(grid, f"{inner.op.text} * 2**{-exponent}")
        made[down.name] = replace(made.pop(inner.name), name=down.name, op=rounded)
        before = made.pop(up.name).inputs
        made = {
            name: replace(step, inputs=before) if step.inputs == (up.name,) else step for name, step in made.items()
        }
    return replace(model, steps=list(made.values()))


def _alone(model: Steps, step: Step) -> Step | None:
    """What reads a step's results, if that is all that does."""
    readers = [one for one in model.steps if step.name in one.inputs]
    return readers[0] if len(readers) == 1 and step.name not in model.outputs else None


def _exponent(step: Step) -> int:
    """The exponent of a multiplication by a power of two; 0 of everything else."""
    if not isinstance(step.op, Diagonal) or np.any(step.op.offset.magnitude):
        return 0
    scale = step.op.scale
    mantissa, exponent = np.frexp(scale.lower.flat[0])
    alike = mantissa == 0.5 and np.all(scale.lower == scale.lower.flat[0]) and np.all(scale.upper == scale.lower)
    return int(exponent) - 1 if alike else 0
