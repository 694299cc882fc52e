"""Operations of a subject that are no integers: beside those of the reference, and what is known of their results."""

from __future__ import annotations

from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, down, exact_difference, up
from sound_qkeras.network.graph import Node
from sound_qkeras.network.grids import fractional_bits_of
from sound_qkeras.network.ops import Affine, AffineComparison, Leaky, Op, Table
from sound_qkeras.network.ops.function_pair import FunctionPair
from sound_qkeras.network.ops.rectifiers import SlopeComparison


def compare(op: Op, other: Op) -> Any:
    """What `other` has in place of the parameters of `op`, an operation of the same kind; None where there are none."""
    if isinstance(op, Affine) and isinstance(other, Affine):
        return AffineComparison(op, (other.kernel, other.bias), (other.kernel_radius, other.bias_radius))
    if isinstance(op, Leaky) and isinstance(other, Leaky):
        residual, lost = exact_difference(other.slope, op.slope)
        return SlopeComparison(other.slope, Interval(down(residual - lost), up(residual + lost)))
    if isinstance(op, Table) and isinstance(other, Table):
        return FunctionPair(op.function, op.alpha, other.function, other.alpha)
    return None


def check_alike(node: Node, other: Op) -> None:
    """Refuse an operation that is not the reference's with other parameters."""
    op = node.op
    alike = type(op) is type(other) and (isinstance(op, Leaky | Table) or op.settings() == other.settings())
    shapes = [
        {name: array.shape for name, array in one.arrays().items() if not name.endswith("_radius")}
        for one in (op, other)
    ]
    alike = alike and shapes[0] == shapes[1]
    if not alike:
        raise ModelError(
            f"node '{node.name}' is {op.kind} in one network, {other.kind} in the other, or of another shape"
        )


def why_real(op: Op) -> str:
    """Why an operation of the subject is none of integers, behind its layer's name."""
    if not isinstance(op, Affine):
        return "is computed in real numbers"
    if op.kernel_radius is not None:
        return "has a normalisation or a scale folded into its kernel, which is no fixed-point tensor then"
    bits = fractional_bits_of(op.kernel)
    return f"has a {'kernel' if bits is None else 'bias'} that is no fixed-point tensor"


def grid_of(op: Op, inputs: list[int]) -> int | None:
    """Fractional bits of the result of an operation without integers on inputs with grids."""
    if isinstance(op, Affine):
        exact = op.kernel_radius is None and op.bias_radius is None
        kernel, bias = fractional_bits_of(op.kernel), fractional_bits_of(op.bias)
        if not exact or kernel is None or bias is None:
            return None
        return max(inputs[0] + kernel, bias) if np.any(op.bias) else inputs[0] + kernel
    if isinstance(op, Table):
        hard = {"hard_tanh": 0, "half_sigmoid": 1}.get(op.function)
        return None if hard is None else max(inputs[0], 0) + hard
    if isinstance(op, Leaky):
        slope = fractional_bits_of(op.slope)
        return None if slope is None else inputs[0] + max(slope, 0)
    return None
