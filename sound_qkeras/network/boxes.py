"""What a user may call a box, and what it becomes."""

# pyright: standard
# What users give as a box has no type.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval
from sound_qkeras.network.graph import Network
from sound_qkeras.network.ports import per_port
from sound_qkeras.support.decimals import at_most
from sound_qkeras.types import Reals

# Formats have no steps beyond these (see `MOST_FRACTIONAL_BITS` in network/grids.py), and squares of these are float64 numbers.
LEAST_EPS, LARGEST_EPS = 1e-90, 1e90


def network_box(network: Network, box: Any, margin: float = 0.0) -> Interval:
    """The box of a network's input, shape `input_shape`.

    Args:
        network: the network.
        box: as for `make_box`; where the model has several inputs also a box for each of them, as a list in Keras' order
            or as a mapping by name, or one pair of numbers for all.
        margin: see `make_box`.

    Raises:
        InputError: as `make_box`; or an input has no box.
    """
    if not network.inputs or not isinstance(box, list | Mapping):
        return make_box(box, network.input_shape, margin)
    names = [port.name for port in network.inputs]
    shapes = (network.shapes[port.node] for port in network.inputs)
    parts = [make_box(part, shape, margin) for part, shape in zip(per_port(box, names, "a box"), shapes, strict=True)]
    lower, upper = (
        [end.reshape(-1) for end in ends] for ends in zip(*((p.lower, p.upper) for p in parts), strict=True)
    )
    return Interval(np.concatenate(lower), np.concatenate(upper))


def make_box(box: Any, shape: tuple[int, ...], margin: float = 0.0) -> Interval:
    """The box of one input, shape `shape`.

    The ends are moved outward to float32 numbers, so that a member stays inside when Keras casts it to float32.

    Args:
        box: `(lower, upper)`, each a number or an array that broadcasts to `shape`; or an array of samples
            `(n, *shape)` whose smallest and largest values span the box.
        shape: shape of one input.
        margin: widens a box made from samples by this share of its width, on every side.

    Raises:
        InputError: wrong shape, no samples, NaN, infinity, or a lower end above the upper.
    """
    if not isinstance(margin, int | float | np.number) or not 0.0 <= margin < np.inf:
        raise InputError(f"margin is {margin!r}; accepted: a number >= 0, as a share of the box's width")
    lower, upper = _ends(box, shape)
    for name, end in (("lower", lower), ("upper", upper)):
        if not np.all(np.isfinite(end)):
            raise InputError(f"the box's {name} ends hold NaN or infinity; accepted: finite numbers")
    if np.any(lower > upper):
        at = tuple(int(i) for i in np.argwhere(lower > upper)[0])
        raise InputError(
            f"the box is empty: its lower end {lower[at]:g} exceeds its upper end {upper[at]:g}"
            f"{f' at input {at}' if at else ''}; accepted: lower ends that are at most the upper ones"
        )
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        width = margin * (upper - lower)
        found = Interval(_float32_below(lower - width), -_float32_below(-(upper + width)))
    if not (np.all(np.isfinite(found.lower)) and np.all(np.isfinite(found.upper))):
        largest = float(np.finfo(np.float32).max)
        raise InputError(
            "the box, widened by its margin, exceeds the float32 range, which is what Keras computes in; accepted: ends between "
            f"{-largest:.4g} and {largest:.4g}"
        )
    return found


def margin_for(box: Interval, samples: Reals) -> float | None:
    """A margin with which a box holds samples, in few digits; None where none does, for a feature that never varied.

    Args:
        box: without a margin, shape `input_shape`.
        samples: shape `(n, *input_shape)`.
    """
    width, beyond = box.upper - box.lower, np.maximum(box.lower - samples, samples - box.upper).max(axis=0)
    if np.any(beyond[width == 0.0] > 0.0):
        return None
    share = float(np.max(beyond[width > 0.0] / width[width > 0.0], initial=0.0))
    return float(at_most(share * (1.0 + 2.0**-20), 2))


def check_box(box: Any, margin: float = 0.0) -> None:
    """Refuse what is a box for no network, before there is one.

    Raises:
        InputError: as `make_box`, but for shapes.
    """
    parts = _several(box)
    try:
        for part in parts or ():
            check_box(part, margin)
    except InputError:
        if not isinstance(box, list) or len(cast("list[Any]", box)) != 2:
            raise
        parts = None  # two ends, perhaps
    if parts is not None:
        return
    if not (isinstance(box, tuple | list) and len(box) == 2):
        make_box(box, _numbers(box, "box").shape[1:], margin)
        return
    lower, upper = _numbers(box[0], "box lower end").shape, _numbers(box[1], "box upper end").shape
    try:
        shape = np.broadcast_shapes(lower, upper)
    except ValueError as error:
        raise InputError(f"the box's ends have shapes {lower} and {upper}; accepted: one shape, or numbers") from error
    make_box(box, shape, margin)


def _several(box: Any) -> list[Any] | None:
    """The boxes of several inputs, where that is what was given: by name, or a list of pairs or arrays."""
    if isinstance(box, Mapping):
        return list(cast("Mapping[Any, Any]", box).values())
    if isinstance(box, list):
        items = cast("list[Any]", box)
        return items if any(isinstance(item, tuple) for item in items) else None
    return None


def _ends(box: Any, shape: tuple[int, ...]) -> tuple[Reals, Reals]:
    if isinstance(box, Interval):
        box = box.lower, box.upper
    if isinstance(box, tuple | list) and len(box) == 2:
        return _end(box[0], shape, "lower"), _end(box[1], shape, "upper")
    samples = _numbers(box, "box")
    if samples.ndim != len(shape) + 1 or samples.shape[1:] != shape:
        raise InputError(
            f"the box has shape {samples.shape}; accepted: a pair (lower, upper) of numbers or arrays {shape}, or "
            f"samples (n, {', '.join(map(str, shape))})"
        )
    if len(samples) == 0:
        raise InputError("the box is to span samples, but there are none")
    return samples.min(axis=0), samples.max(axis=0)


def _end(value: Any, shape: tuple[int, ...], name: str) -> Reals:
    array = _numbers(value, f"box {name} end")
    try:
        return np.array(np.broadcast_to(array, shape))
    except ValueError as error:
        raise InputError(
            f"the box's {name} end has shape {array.shape}; accepted: a number or an array {shape}"
        ) from error


def _numbers(value: Any, name: str) -> Reals:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {name} is not made of numbers: received {type(value).__name__}") from error


def _float32_below(x: Reals) -> Reals:
    near = x.astype(np.float32)
    return np.where(near.astype(np.float64) > x, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)


def make_tolerance(eps: Any, outputs: int) -> Reals:
    """The tolerance of every output, shape `(outputs,)`.

    Raises:
        InputError: not a positive finite number, or not one per output.
    """
    values = np.atleast_1d(_numbers(eps, "tolerance eps")).reshape(-1)
    if values.size not in (1, outputs):
        raise InputError(
            f"eps has {values.size} numbers; accepted: one, or one for each of the {outputs} outputs; for several tolerances in "
            "one run there is sound_qkeras.sweep, and on the command line --eps 1e-1 1e-2 1e-3"
        )
    if not np.all(np.isfinite(values)) or np.any(values <= 0.0):
        raise InputError(f"eps is {eps}; accepted: positive finite numbers, in units of the output")
    if np.any((values < LEAST_EPS) | (values > LARGEST_EPS)):
        raise InputError(
            f"eps is {eps}; accepted: numbers from {LEAST_EPS:g} to {LARGEST_EPS:g}, in units of the output"
        )
    return np.array(np.broadcast_to(values, (outputs,)))


def describe_box(source: str, margin: float) -> str:
    """Where a box came from, for its certificate."""
    return f"{source}, widened by {margin:g} of its width on every side" if margin else source
