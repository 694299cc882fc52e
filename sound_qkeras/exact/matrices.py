"""Affine operations as matrices, from definitions of their own: loops over positions, nothing shared with the operations.

A matrix has a row per flattened result and a column per flattened input; its entries say which element of the flattened
kernel is the coefficient, `NONE` where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from sound_qkeras.network.graph import Node
from sound_qkeras.network.ops import AveragePool, Conv, Dense, Op, Scale
from sound_qkeras.types import Indices, Shape

# The coefficient of an input that a result does not read.
NONE = -1


def coefficients(node: Node, inputs: Shape, outputs: Shape) -> Indices:
    """Which element of the kernel multiplies which input in which result, shape `(results, inputs)`."""
    found = np.full((_size(outputs), _size(inputs)), NONE, np.int64)
    result, source, element = entries(node, inputs, outputs)
    found[result, source] = element
    return found


def entries(node: Node, inputs: Shape, outputs: Shape) -> tuple[Indices, Indices, Indices]:
    """The same without what is `NONE`: results, the inputs they read, and the elements they multiply these with."""
    flat = (index for entry in ENTRIES[type(node.op)](node, inputs, outputs) for index in entry)
    found = np.fromiter(flat, np.int64).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]


def _dense(node: Node, inputs: Shape, outputs: Shape) -> Iterator[tuple[int, int, int]]:
    width, units = inputs[-1], outputs[-1]
    for position in range(_size(inputs[:-1])):
        for i, o in product(range(width), range(units)):
            yield position * units + o, position * width + i, i * units + o


def _scale(node: Node, inputs: Shape, outputs: Shape) -> Iterator[tuple[int, int, int]]:
    count = _size(node.op.arrays()["kernel"].shape)
    for at in range(_size(inputs)):
        yield at, at, at % count


def _conv(node: Node, inputs: Shape, outputs: Shape) -> Iterator[tuple[int, int, int]]:
    settings, shape = node.op.settings(), node.op.arrays()["kernel"].shape
    each, channels, groups = shape[-2], outputs[-1], int(settings["groups"])
    for position in product(*map(range, outputs[:-1])):
        for offset in product(*map(range, shape[:-2])):
            place = _place(settings, position, offset, inputs)
            if place is None:
                continue
            result, source, element = (
                _flat((*position, 0), outputs),
                _flat((*place, 0), inputs),
                _flat((*offset, 0, 0), shape),
            )
            for o in range(channels):
                group = o * groups // channels
                for i in range(each):
                    yield result + o, source + group * each + i, element + i * channels + o


def _average_pool(node: Node, inputs: Shape, outputs: Shape) -> Iterator[tuple[int, int, int]]:
    settings = node.op.settings()
    windows: dict[Shape, list[Shape]] = {}
    for position in product(*map(range, outputs[:-1])):
        places = (_place(settings, position, offset, inputs) for offset in product(*map(range, settings["sizes"])))
        windows[position] = [place for place in places if place is not None]
    counts = sorted({len(places) for places in windows.values()})
    for position, places in windows.items():
        for place, channel in product(places, range(inputs[-1])):
            result, source = _flat((*position, channel), outputs), _flat((*place, channel), inputs)
            yield result, source, counts.index(len(places))


def _place(settings: Any, position: Shape, offset: Shape, inputs: Shape) -> Shape | None:
    """Where in the input a window reads, or None in the padding."""
    place: list[int] = []
    for axis, (at, by) in enumerate(zip(position, offset, strict=True)):
        dilation = int(settings["dilation"][axis]) if "dilation" in settings else 1
        place.append(at * int(settings["strides"][axis]) + by * dilation - int(settings["padding"][axis][0]))
    return tuple(place) if all(0 <= at < size for at, size in zip(place, inputs, strict=False)) else None


def _flat(index: Sequence[int], shape: Shape) -> int:
    flat = 0
    for at, size in zip(index, shape, strict=True):
        flat = flat * size + at
    return flat


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


Entries = Callable[[Node, Shape, Shape], Iterator[tuple[int, int, int]]]
ENTRIES: dict[type[Op], Entries] = {AveragePool: _average_pool, Conv: _conv, Dense: _dense, Scale: _scale}
