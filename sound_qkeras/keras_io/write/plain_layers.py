"""Operations without weights as plain Keras layers: they compute the same numbers in any floating-point type that holds them.

Keras crops, pads and repeats along the axes of an image but its channels. Other axes are brought there by reshapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sound_qkeras.errors import InputError
from sound_qkeras.keras_io.session.environment import import_keras
from sound_qkeras.keras_io.write.affine_layers import Names
from sound_qkeras.network.ops import (
    Add,
    Concatenate,
    Crop,
    LayerNorm,
    MatMul,
    MaxPool,
    Multiply,
    Op,
    Pad,
    Permute,
    Reshape,
    Upsample,
)
from sound_qkeras.network.ops.base import Shape

Apply = Callable[..., Any]


def plain_layers(op: Op, shapes: Sequence[Shape], names: Names) -> Apply:
    """What applies an operation to Keras tensors.

    Args:
        op: an operation without weights.
        shapes: of its inputs.
        names: for the layers.

    Raises:
        InputError: Keras has no layers for it.
    """
    if isinstance(op, Add):
        return _sum(op, names)
    if isinstance(op, Multiply):
        return lambda *x: _layer("Multiply", names)(list(x))
    if isinstance(op, MatMul) and len(shapes[0]) == 2:
        return lambda *x: _layer("Dot", names, axes=(2, 1))(list(x))
    if isinstance(op, Concatenate):
        return lambda *x: _layer("Concatenate", names, axis=op.axis + 1)(list(x))
    if isinstance(op, Reshape):
        return _layer("Reshape", names, target_shape=op.shape)
    if isinstance(op, Permute):
        return _layer("Permute", names, dims=tuple(axis + 1 for axis in op.axes))
    if isinstance(op, Crop | Pad | Upsample):
        return _along_axes(op, shapes[0], names)
    if isinstance(op, LayerNorm):
        return _layer("LayerNormalization", names, axis=-1, epsilon=op.epsilon, center=False, scale=False)
    if isinstance(op, MaxPool) and len(op.pool_size) <= 3:
        settings = {"pool_size": op.pool_size, "strides": op.strides, "padding": op.padding}
        return _layer(f"MaxPooling{len(op.pool_size)}D", names, **settings)
    raise InputError(
        f"layer '{names.main}': Keras has no layer for '{op.kind}' on {list(shapes)}; export C or C++ instead"
    )


def _layer(kind: str, names: Names, what: str = "", **settings: Any) -> Any:
    name = names.helper(what) if what else names.main
    return getattr(import_keras().layers, kind)(name=name, dtype=names.dtype, **settings)


def _sum(op: Add, names: Names) -> Apply:
    """Keras' own sums, differences and means; other signs and scales by factors of powers of two, which are exact."""
    count = len(op.minus)
    if op.minus == (False, True) and op.exponent == 0:
        return lambda *x: _layer("Subtract", names)(list(x))
    whole = "Average" if op.exponent and count == 2**-op.exponent else "Add"
    rest = 1.0 if whole == "Average" else 2.0**op.exponent

    def apply(*inputs: Any) -> Any:
        if count == 1:
            factor = -rest if op.minus[0] else rest
            return _layer("Rescaling", names, scale=factor)(inputs[0])
        parts = [
            _layer("Rescaling", names, f"negated{number}", scale=-1.0)(x) if minus else x
            for number, (x, minus) in enumerate(zip(inputs, op.minus, strict=True))
        ]
        total = _layer(whole, names, "sum" if rest != 1.0 else "")(parts)
        return _layer("Rescaling", names, scale=rest)(total) if rest != 1.0 else total

    return apply


def _along_axes(op: Crop | Pad | Upsample, shape: Shape, names: Names) -> Apply:
    changed = [_changes(op, axis) for axis in range(len(shape))]
    if len(shape) in (2, 3) and not changed[-1]:
        settings = [_setting(op, axis) for axis in range(len(shape) - 1)]
        return _native(op, names, "", settings if len(settings) > 1 else settings[0])
    axes = [axis for axis, one in enumerate(changed) if one]

    def apply(x: Any) -> Any:
        for number, axis in enumerate(axes):
            current = tuple(int(size) for size in x.shape[1:])
            image = (math.prod(current[:axis]), current[axis], math.prod(current[axis + 1 :]))
            x = _layer("Reshape", names, f"image{number}", target_shape=image)(x)
            x = _native(op, names, f"axis{number}", [_setting(op, None), _setting(op, axis)])(x)
            size = int(x.shape[2])
            target, what = (*current[:axis], size, *current[axis + 1 :]), "" if axis == axes[-1] else f"back{number}"
            x = _layer("Reshape", names, what, target_shape=target)(x)
        return x if axes else _layer("Reshape", names, target_shape=shape)(x)

    return apply


def _changes(op: Crop | Pad | Upsample, axis: int) -> bool:
    return op.repeats[axis] != 1 if isinstance(op, Upsample) else bool(op.before[axis] or op.after[axis])


def _setting(op: Crop | Pad | Upsample, axis: int | None) -> Any:
    """What Keras is told about an axis; None for one that stays as it is."""
    if isinstance(op, Upsample):
        return 1 if axis is None else op.repeats[axis]
    return (0, 0) if axis is None else (op.before[axis], op.after[axis])


def _native(op: Crop | Pad | Upsample, names: Names, what: str, setting: Any) -> Any:
    """The layer for a sequence (one setting) or an image (a list of two)."""
    kind, name = {Crop: ("Cropping", "cropping"), Pad: ("ZeroPadding", "padding"), Upsample: ("UpSampling", "size")}[
        type(op)
    ]
    two = isinstance(setting, list)
    value: Any = tuple(setting) if two else setting  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return _layer(f"{kind}{2 if two else 1}D", names, what, **{name: value})
