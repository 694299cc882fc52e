"""Roundings between multiplications by a power of two and back, as `to_qkeras` writes formats with negative integer bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sound_qkeras.keras_io.read.pieces import Diagonal, Rounded, Step
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.network.ops import Relu


def unscaled(steps: Sequence[Step]) -> list[Step]:
    """Steps without the multiplications around such a rounding, which has the step that all three together have."""
    made = {step.name: step for step in steps}
    for up in steps:
        inner = _alone(steps, up) if _exponent(up) else []
        if inner and isinstance(inner[0].op, Relu):
            inner = _alone(steps, inner[0])
        for rounding in inner:
            op, behind = rounding.op, _alone(steps, rounding)
            if isinstance(op, Rounded) and isinstance(op.rounding, FixedPoint) and behind:
                down, exponent = behind[0], _exponent(up)
                if _exponent(down) == -exponent:
                    grid = replace(op.rounding, fractional=op.rounding.fractional + exponent)
                    one = replace(
                        made.pop(rounding.name), name=down.name, op=Rounded(grid, f"{op.text} * 2**{-exponent}")
                    )
                    made[down.name] = one
                    before = made.pop(up.name).inputs
                    made = {
                        name: replace(step, inputs=before) if step.inputs == (up.name,) else step
                        for name, step in made.items()
                    }
    return list(made.values())


def _alone(steps: Sequence[Step], step: Step) -> list[Step]:
    """What reads a step's results, if that is one."""
    readers = [one for one in steps if step.name in one.inputs]
    return readers if len(readers) == 1 else []


def _exponent(step: Step) -> int:
    """The exponent of a multiplication by a power of two; 0 of everything else."""
    if not isinstance(step.op, Diagonal) or np.any(step.op.offset.magnitude):
        return 0
    scale = step.op.scale
    mantissa, exponent = np.frexp(scale.lower.flat[0])
    alike = mantissa == 0.5 and np.all(scale.lower == scale.lower.flat[0]) and np.all(scale.upper == scale.lower)
    return int(exponent) - 1 if alike else 0
