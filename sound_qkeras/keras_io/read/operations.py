"""What functions mean that are called on tensors without a layer: `relu(x)`, `2 * x + 1`, `x[..., :1]`.

Keras 3 keeps an operation in the graph for each, tf_keras a TFOpLambda layer. A reader gets the call and the shapes of its
tensors without the batch axis, and returns what it becomes, as the readers of merging layers do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError, UnsupportedLayerError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.keras_io.read.activations import named_piece, read_relu
from sound_qkeras.keras_io.read.merges import MERGES, Joined
from sound_qkeras.keras_io.read.pieces import Diagonal, Linear, Piece, Shape, quotient
from sound_qkeras.keras_io.session.editions import Call, as_array, is_operation
from sound_qkeras.network.ops import (
    AveragePool,
    Clip,
    Concatenate,
    Crop,
    Leaky,
    MatMul,
    MaxPool,
    Multiply,
    Pad,
    Permute,
    Relu,
    Reshape,
    Table,
)

OperationReader = Callable[[Call, Sequence[Shape]], Joined]
WAY_OUT = "write it with a layer, or cut the model before it"


def operation_name(layer: Any) -> str:
    """What a function is called: as the class of Keras 3, or by its place in TensorFlow."""
    return type(layer).__name__ if is_operation(layer) else str(layer.symbol)


def read_operation(call: Call, shapes: Sequence[Shape]) -> Joined:
    """What a function becomes that is called on tensors.

    Raises:
        UnsupportedLayerError: it is not supported, or called in such a way.
    """
    name = operation_name(call.layer)
    name = FUNCTIONS.get(name, name)
    if name not in OPERATIONS:
        raise unsupported_operation(call.layer.name, operation_name(call.layer))
    return OPERATIONS[name](call, shapes)


def unsupported_operation(layer_name: str, name: str) -> UnsupportedLayerError:
    """The error for a function that cannot be read."""
    return UnsupportedLayerError(layer_name, f"an operation of kind {name}", ACCEPTED, WAY_OUT)


def _refused(call: Call, received: str, accepted: str, way_out: str = WAY_OUT) -> UnsupportedLayerError:
    return UnsupportedLayerError(call.layer.name, f"{operation_name(call.layer)} {received}", accepted, way_out)


def _setting(call: Call, default: Any, *names: str) -> Any:
    """A setting by any of its names: of the call, or of the operation."""
    for name in names:
        if name in call.named:
            return call.named[name]
        if is_operation(call.layer) and hasattr(call.layer, name):
            return getattr(call.layer, name)
    return default


def _is_tensor(call: Call, thing: Any) -> bool:
    return any(thing is tensor for tensor in call.inputs)


def _number(call: Call, thing: Any, shape: Shape) -> Reals:
    """A constant in the type that the result has, repeated to a tensor's shape."""
    value = (
        None
        if hasattr(thing, "assign")
        else np.asarray(thing if isinstance(thing, list) else as_array(call.layer, thing))
    )
    if value is None or value.dtype.kind not in "fiu":
        raise _refused(
            call, f"with {type(thing).__name__}", "tensors and numbers", "write it with a layer that has weights"
        )
    kind = str(getattr(call.outputs[0].dtype, "name", call.outputs[0].dtype))
    if kind not in ("float32", "float64"):
        raise _refused(call, f"of type {kind}", "float32 or float64", "cast the model")
    value = value.astype(kind).astype(np.float64)
    if value.ndim == len(shape) + 1 and value.shape[0] == 1:
        value = value[0]
    if not np.all(np.isfinite(value)):
        raise _refused(call, "with a constant that is NaN or infinite", "finite numbers", "repair the model")
    if value.ndim > len(shape) or np.broadcast_shapes(value.shape, shape) != shape:
        raise _refused(call, f"of a tensor {shape} and numbers {value.shape}", "numbers that fit the tensor")
    return np.broadcast_to(value, shape)


def _two(call: Call, shapes: Sequence[Shape]) -> tuple[Any, Any]:
    """Both operands: None for a tensor, the numbers of a constant."""
    found = [*call.given, *(call.named[name] for name in ("x", "x1", "y", "x2") if name in call.named)][:2]
    if len(shapes) != 1 or len(found) != 2:
        raise _refused(call, f"of tensors {list(shapes)}", "two tensors, or a tensor and numbers")
    return tuple(None if _is_tensor(call, one) else _number(call, one, shapes[0]) for one in found)  # type: ignore[return-value]


def _affine(scale: Reals | Interval, offset: Reals) -> Diagonal:
    return Diagonal(scale if isinstance(scale, Interval) else Interval.point(scale), Interval.point(offset))


def _arithmetic(kind: str, call: Call, shapes: Sequence[Shape]) -> Joined:
    """Of two tensors as the layer of that name does it, or of one and numbers: a factor and an offset."""
    if len(shapes) == 2:
        if len(shapes[0]) != len(shapes[1]) or kind.endswith("Divide"):
            raise _refused(call, f"of tensors {list(shapes)}", "sums and products of tensors with as many axes")
        return MERGES[kind](call.layer, shapes)
    first, second = _two(call, shapes)
    number, one, zero = second if first is None else first, np.ones(shapes[0]), np.zeros(shapes[0])
    if kind == "Add":
        found = _affine(one, number)
    elif kind == "Subtract":
        found = _affine(one, -number) if first is None else _affine(-one, number)
    elif kind == "Multiply":
        found = _affine(number, zero)
    elif first is not None or np.any(number == 0.0):
        raise _refused(call, "by a tensor or by zero", "divisions by numbers")
    else:
        found = _affine(quotient(Interval.point(np.sign(number)), Interval.point(np.abs(number))), zero)
    return [("", found, (0,))]


def _same(call: Call, shapes: Sequence[Shape]) -> Joined:
    """Nothing: the numbers are the same."""
    kind = str(getattr(call.outputs[0].dtype, "name", call.outputs[0].dtype))
    if kind not in ("float32", "float64"):
        raise _refused(call, f"to {kind}", "float32 or float64", "leave it out, or retrain without it")
    return []


def _square(call: Call, shapes: Sequence[Shape]) -> Joined:
    return [("", Multiply(), (0, 0))]


def _matmul(call: Call, shapes: Sequence[Shape]) -> Joined:
    """Of two tensors with the same leading axes, either of them transposed where TensorFlow is told so."""
    given = [*call.given, *(call.named[name] for name in ("a", "b", "x1", "x2") if name in call.named)][:2]
    flags = {
        name: bool(_setting(call, False, name)) for name in ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")
    }
    others = [_setting(call, None, name) for name in ("a_is_sparse", "b_is_sparse", "output_type", "grad_a", "grad_b")]
    numbers = [next((n for n, x in enumerate(call.inputs) if one is x), None) for one in given]
    ranks = {len(shapes[number]) for number in numbers if number is not None}
    if None in numbers or any(others) or len(call.given) > 2 or len(ranks) != 1 or min(ranks) < 2:
        raise _refused(call, f"of {list(shapes)}", "two tensors of equally many axes, two or more of one sample")
    parts: Joined = []
    sources: list[int | str] = []
    found: list[Shape] = []
    for letter, number in zip("ab", numbers, strict=True):
        shape = shapes[number or 0]
        turned = flags[f"transpose_{letter}"] != flags[f"adjoint_{letter}"]
        if turned:
            *lead, last, end = range(len(shape))
            parts.append((f"_{letter}", Permute((*lead, end, last)), (number or 0,)))
            shape = (*shape[:-2], shape[-1], shape[-2])
        sources.append(f"_{letter}" if turned else number or 0)
        found.append(shape)
    op = MatMul(found[0][-1])
    try:
        op.output_shape(*found)
    except ModelError as error:
        raise _refused(call, f"of {found}", "tensors with the same leading axes", "repeat the smaller") from error
    return [*parts, ("", op, tuple(sources))]


def _power(call: Call, shapes: Sequence[Shape]) -> Joined:
    first, exponent = _two(call, shapes)
    if first is not None or np.any(exponent != 2.0):
        raise _refused(call, "with another exponent or of numbers", "the exponent 2")
    return _square(call, shapes)


def _negative(call: Call, shapes: Sequence[Shape]) -> Joined:
    return [("", _affine(-np.ones(shapes[0]), np.zeros(shapes[0])), (0,))]


def _extreme(kind: str, call: Call, shapes: Sequence[Shape]) -> Joined:
    """Of two tensors, or of one and numbers: `max(x, c) = relu(x - c) + c` and `min(x, c) = c - relu(c - x)`."""
    if len(shapes) == 2:
        return _arithmetic(kind, call, shapes)
    first, second = _two(call, shapes)
    return _bounded(kind, second if first is None else first, "", 0)


def _bounded(kind: str, number: Reals, prefix: str, source: int | str) -> Joined:
    if kind == "Maximum" and not np.any(number):
        return [(prefix, Relu(), (source,))]
    sign = np.ones(number.shape) if kind == "Maximum" else -np.ones(number.shape)
    before, after = _affine(sign, -sign * number), _affine(sign, number)
    shifted, positive = f"{prefix}_shifted", f"{prefix}_positive"
    return [(shifted, before, (source,)), (positive, Relu(), (shifted,)), (prefix, after, (positive,))]


def _clip(call: Call, shapes: Sequence[Shape]) -> Joined:
    """Between two numbers."""
    if len(shapes) != 1:
        raise _refused(call, "between tensors", "a tensor between numbers")
    given = [*call.given[1:], None, None]
    low = _setting(call, given[0], "clip_value_min", "x_min")
    high = _setting(call, given[1], "clip_value_max", "x_max")
    lower, upper = (_number(call, one, shapes[0]) for one in (low, high))
    if not np.all(lower < upper):
        raise _refused(call, f"to {low}, {high}", "a lower bound below the upper one")
    if not np.any(lower) and upper.size and np.all(upper == upper.flat[0]):
        try:
            return [("", Clip(float(upper.flat[0])), (0,))]
        except ModelError:  # a bound of too many bits
            pass
    return [*_bounded("Maximum", lower, "_above", 0), *_bounded("Minimum", upper, "", "_above")]


def _function(name: str, call: Call, shapes: Sequence[Shape]) -> Joined:
    """A function of single elements, as it is without settings."""
    others = [one for one in call.given[1:] if one is not None and not isinstance(one, str)]
    changed = others or _setting(call, 1.0, "alpha", "beta") != 1.0
    if changed or (name == "gelu" and _setting(call, False, "approximate")):
        raise _refused(
            call, "with a setting of its own", "alpha=1, beta=1 and approximate=False", "use these and retrain"
        )
    piece = named_piece(name)
    if piece is None:
        raise TypeError(f"no function '{name}'")
    return [("", piece, (0,))]


def _leaky(call: Call, shapes: Sequence[Shape]) -> Joined:
    given = call.given[1] if len(call.given) > 1 else 0.2
    slope = float(np.float32(_setting(call, given, "negative_slope", "alpha")))
    return [("", Leaky(np.array([slope])) if slope else Relu(), (0,))]


def _absolute(call: Call, shapes: Sequence[Shape]) -> Joined:
    return [("", Leaky(np.array([-1.0])), (0,))]


def _elu(call: Call, shapes: Sequence[Shape]) -> Joined:
    return [("", Table("elu", float(np.float32(_setting(call, 1.0, "alpha")))), (0,))]


def _rectifier(call: Call, shapes: Sequence[Shape]) -> Joined:
    return [(suffix, piece, (0,)) for suffix, piece in read_relu(call.layer, shapes[0])]


def _softmax(call: Call, shapes: Sequence[Shape]) -> Joined:
    axis = _setting(call, call.given[1] if len(call.given) > 1 else -1, "axis")
    unset = () if is_operation(call.layer) else (None,)  # TensorFlow's default, the last one; all axes in Keras 3
    if axis not in (-1, len(shapes[0]), *unset):
        raise _refused(call, f"over axis {axis}", "the last axis, at the end of the model", "use axis=-1")
    return _function("softmax", call, shapes)


def _reshape(call: Call, shapes: Sequence[Shape]) -> Joined:
    """To the shape that Keras says."""
    target = tuple(call.outputs[0].shape)[1:]
    if None in target or math.prod(target) != math.prod(shapes[0]):
        raise _refused(call, f"of {shapes[0]} to {target}", "other shapes of one sample", "leave the batch axis alone")
    return [("", Reshape(shapes[0], tuple(int(size) for size in target)), (0,))]


def _transpose(call: Call, shapes: Sequence[Shape]) -> Joined:
    axes = _setting(call, call.given[1] if len(call.given) > 1 else None, "perm", "axes")
    if axes is None or int(axes[0]) != 0:
        raise _refused(call, f"with axes {axes}", "axes whose first is the batch's, 0", "leave the batch axis alone")
    rank = len(shapes[0]) + 1
    return [("", Permute(tuple(int(axis) % rank - 1 for axis in axes[1:])), (0,))]


def _concatenate(call: Call, shapes: Sequence[Shape]) -> Joined:
    axis = _setting(call, call.given[1] if len(call.given) > 1 else None, "axis")
    rank, given = len(shapes[0]) + 1, call.given[0] if call.given else call.named.get("values", ())
    if not all(_is_tensor(call, one) for one in given):
        raise _refused(call, "of tensors and numbers", "tensors alone")
    if axis is None or int(axis) % rank == 0 or any(len(shape) != rank - 1 for shape in shapes):
        raise _refused(call, f"along axis {axis}", "tensors, and an axis of one sample")
    return [("", Concatenate(int(axis) % rank - 1), tuple(range(len(shapes))))]


def _reduced(kind: str, call: Call, shapes: Sequence[Shape]) -> Joined:
    """The mean or the largest along axes: one window over all of them; the sum: a kernel of ones."""
    if _setting(call, None, "initial") is not None:
        raise _refused(call, "with initial=", "initial=None", "use maximum() for it")
    (shape,), axis = shapes, _setting(call, call.given[1] if len(call.given) > 1 else None, "axis")
    axes = sorted({int(one) % (len(shape) + 1) - 1 for one in np.atleast_1d([] if axis is None else axis)})
    if not axes or axes[0] < 0:
        raise _refused(call, f"over axis {axis}", "axes of one sample", "leave the batch axis alone")
    kept = [one for one in range(len(shape)) if one not in axes]
    count, many = (math.prod(shape[one] for one in some) for some in (axes, kept))
    order, rows = ((*kept, *axes), (many, count)) if kind == "Sum" else ((*axes, *kept), (count, many))
    target = tuple(int(size) for size in tuple(call.outputs[0].shape)[1:])
    if kind == "Sum":
        ones, zero = Interval.point(np.ones((count, 1))), Interval.point(np.zeros(1))
        pool: Piece = Linear(ones, zero, rows, (many, 1))
    else:
        pool = AveragePool.of(rows, (count,), (1,), ((0, 0),)) if kind == "Mean" else MaxPool((count,), (count,))
    parts: list[tuple[str, Piece]] = [
        ("_turned", Permute(order)),
        ("_rows", Reshape(tuple(shape[one] for one in order), rows)),
        ("_pool", pool),
        ("", Reshape((many, 1) if kind == "Sum" else (1, many), target)),
    ]
    return _chain(parts)


def _item(call: Call, shapes: Sequence[Shape]) -> Joined:
    """Parts along axes, every so many of them, and single places, whose axes are dropped."""
    given = _setting(call, call.given[1] if len(call.given) > 1 else None, "slice_spec", "key")
    keys = [_slice(one) for one in (given if isinstance(given, list | tuple) else [given])]
    shape = shapes[0]
    known = [one for one in keys if one is not Ellipsis and one is not None]
    if not all(_is_fixed(one) for one in keys):
        raise _refused(call, f"with {given}", "slices and numbers", "cut the model before it")
    whole = [slice(None)] * (len(shape) + 1 - len(known))
    at = next((number for number, one in enumerate(keys) if one is Ellipsis), len(keys))
    spread: list[Any] = [one for one in (*keys[:at], *whole, *keys[at + 1 :]) if one is not None]
    if spread[0] != slice(None) or (None in keys and keys.index(None) == 0):
        raise _refused(call, f"with {given}", "a full slice `:` of the batch axis", "leave the batch axis alone")
    target = tuple(int(size) for size in tuple(call.outputs[0].shape)[1:])
    parts, current = list[tuple[str, Piece]](), shape
    for axis, key in enumerate(spread[1:]):
        first, last, step = _range(key, shape[axis])
        if step < 1 or last <= first:
            raise _refused(call, f"with {given}", "steps forward, and something left", "cut the model before it")
        parts += _every(current, axis, first, last, step)
        current = (*current[:axis], len(range(first, last, step)), *current[axis + 1 :])
    return _chain([*parts, ("", Reshape(current, target))])


def _slice(key: Any) -> Any:
    """A slice as Python has it: tf_keras writes down its parts."""
    if isinstance(key, Mapping):
        return Ellipsis if "class_name" in key else slice(key["start"], key["stop"], key["step"])  # pyright: ignore
    return int(key) if isinstance(key, np.integer) else key  # pyright: ignore[reportUnknownArgumentType]


def _is_fixed(key: Any) -> bool:
    parts = (key.start, key.stop, key.step) if isinstance(key, slice) else (key,)
    return key is Ellipsis or all(
        part is None or (isinstance(part, int) and not isinstance(part, bool)) for part in parts
    )


def _range(key: int | slice, size: int) -> tuple[int, int, int]:
    if isinstance(key, slice):
        return key.indices(size)
    first = key + size if key < 0 else key
    return first, first + 1, 1


def _every(shape: Shape, axis: int, first: int, last: int, step: int) -> list[tuple[str, Piece]]:
    """What is left along one axis."""
    count = len(range(first, last, step))
    end = first + count * step
    behind = max(end - shape[axis], 0)
    parts: list[tuple[str, Piece]] = []

    def along(number: int, place: int = axis, rank: int = len(shape)) -> Shape:
        return tuple(number if one == place else 0 for one in range(rank))

    if behind:
        parts.append((f"_filled{axis}", Pad(along(0), along(behind))))
    if first or end < shape[axis]:
        parts.append((f"_part{axis}", Crop(along(first), along(max(shape[axis] - end, 0)))))
    if step > 1:
        before, after = shape[:axis], shape[axis + 1 :]
        split = (*before, count, step, *after)
        parts += [
            (f"_groups{axis}", Reshape((*before, count * step, *after), split)),
            (f"_firsts{axis}", Crop(along(0, rank=len(split)), along(step - 1, axis + 1, len(split)))),
            (f"_axis{axis}", Reshape((*before, count, 1, *after), (*before, count, *after))),
        ]
    return parts


def _chain(parts: Sequence[tuple[str, Piece]]) -> Joined:
    """One behind the other, without what changes nothing; the last has the name."""
    *before, (_, last) = [part for part in parts if not _is_idle(part[1])] or parts[-1:]
    found: Joined = []
    for suffix, piece in (*before, ("", last)):
        found.append((suffix, piece, (found[-1][0] if found else 0,)))
    return found


def _is_idle(piece: Piece) -> bool:
    if isinstance(piece, Reshape):
        return piece.input_shape == piece.shape
    return isinstance(piece, Permute) and piece.axes == tuple(range(len(piece.axes)))


OPERATIONS: dict[str, OperationReader] = {
    **{kind: partial(_arithmetic, kind) for kind in ("Add", "Divide", "Multiply", "Subtract", "TrueDivide")},
    **{kind: partial(_extreme, kind) for kind in ("Maximum", "Minimum")},
    **{kind: partial(_reduced, kind) for kind in ("Max", "Mean", "Sum")},
    **{
        kind: partial(_function, name)
        for kind, name in {
            "Celu": "elu",
            "Exp": "exponential",
            "Gelu": "gelu",
            "HardSigmoid": "hard_sigmoid_6",
            "HardSilu": "hard_swish",
            "Relu": "relu",
            "Relu6": "relu6",
            "Selu": "selu",
            "Sigmoid": "sigmoid",
            "Silu": "swish",
            "Softplus": "softplus",
            "Softsign": "softsign",
            "Tanh": "tanh",
        }.items()
    },
    "Absolute": _absolute,
    "Cast": _same,
    "Clip": _clip,
    "Concatenate": _concatenate,
    "Elu": _elu,
    "ExpandDims": _reshape,
    "GetItem": _item,
    "LeakyRelu": _leaky,
    "Matmul": _matmul,
    "Negative": _negative,
    "Power": _power,
    "ReLU": _rectifier,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Square": _square,
    "Squeeze": _reshape,
    "StopGradient": _same,
    "Transpose": _transpose,
}
# TensorFlow's functions that tf_keras keeps in a graph, and the operations they are.
FUNCTIONS = {
    "__operators__.add": "Add",
    "__operators__.getitem": "GetItem",
    "cast": "Cast",
    "clip_by_value": "Clip",
    "compat.v1.squeeze": "Squeeze",
    "compat.v1.transpose": "Transpose",
    "concat": "Concatenate",
    "expand_dims": "ExpandDims",
    "identity": "StopGradient",
    "linalg.matmul": "Matmul",
    "math.abs": "Absolute",
    "math.add": "Add",
    "math.divide": "TrueDivide",
    "math.exp": "Exp",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "math.multiply": "Multiply",
    "math.negative": "Negative",
    "math.pow": "Power",
    "math.reduce_max": "Max",
    "math.reduce_mean": "Mean",
    "math.reduce_sum": "Sum",
    "math.sigmoid": "Sigmoid",
    "math.softplus": "Softplus",
    "math.square": "Square",
    "math.subtract": "Subtract",
    "math.tanh": "Tanh",
    "math.truediv": "TrueDivide",
    "nn.elu": "Elu",
    "nn.gelu": "Gelu",
    "nn.leaky_relu": "LeakyRelu",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.selu": "Selu",
    "nn.sigmoid": "Sigmoid",
    "nn.silu": "Silu",
    "nn.softmax": "Softmax",
    "nn.softplus": "Softplus",
    "nn.softsign": "Softsign",
    "nn.tanh": "Tanh",
    "reshape": "Reshape",
    "squeeze": "Squeeze",
    "stop_gradient": "StopGradient",
    "transpose": "Transpose",
}
ACCEPTED = f"{', '.join(sorted(OPERATIONS))}, of tensors and of numbers (in tf_keras: {', '.join(sorted(FUNCTIONS))}), or layers"
# Where Keras 3 has them: it looks nowhere else for those in a file.
NEURAL = (
    *("Celu", "Elu", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu", "Relu", "Relu6", "Selu", "Sigmoid", "Silu"),
    *("Softmax", "Softplus", "Softsign"),
)


def module_of(kind: str) -> str:
    """The module of Keras 3 that has an operation."""
    if kind == "ReLU":
        return "keras.src.activations.activations"
    if kind in ("Cast", "StopGradient"):
        return "keras.src.ops.core"
    return "keras.src.ops.nn" if kind in NEURAL else "keras.src.ops.numpy"
