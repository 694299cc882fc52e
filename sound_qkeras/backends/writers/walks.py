"""Loops over tensors kept as flat arrays, in which every index is a sum of multiples of the loop variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sound_qkeras.backends.tensors import Shape


@dataclass(frozen=True)
class Index:
    """The place `offset + sum of i_k * strides[k]` in a flat array; its text is C.

    >>> str(Index((12, 0, 1), 4)), str(Index((0,)))
    ('4 + i0 * 12 + i2', '0')
    """

    strides: Shape
    offset: int = 0

    def __str__(self) -> str:
        terms = [str(self.offset)] if self.offset else []
        terms += [f"i{k}" if step == 1 else f"i{k} * {step}" for k, step in enumerate(self.strides) if step]
        return " + ".join(terms) or "0"


@dataclass(frozen=True)
class Walk:
    """One loop nest.

    Args:
        sizes: bounds of the loops, the outermost first.
        target: where each pass writes.
        sources: where it reads, one place per operand.
    """

    sizes: Shape
    target: Index
    sources: tuple[Index, ...]

    @classmethod
    def of(cls, sizes: Shape, target: Index, *sources: Index) -> Walk:
        """The same passes in as few loops as possible: neighbours that every index runs through in one go are one loop."""
        indices = (target, *sources)
        kept: list[tuple[int, Shape]] = []
        for axis, size in enumerate(sizes):
            steps = tuple(index.strides[axis] for index in indices)
            if kept and all(outer == size * step for outer, step in zip(kept[-1][1], steps, strict=True)):
                kept[-1] = (kept[-1][0] * size, steps)
            elif size > 1:
                kept.append((size, steps))
        kept = kept or [(1, (0,) * len(indices))]
        strides = zip(*(steps for _, steps in kept), strict=True)
        found = [Index(tuple(steps), index.offset) for steps, index in zip(strides, indices, strict=True)]
        return cls(tuple(size for size, _ in kept), found[0], tuple(found[1:]))


def row_major(shape: Shape) -> Shape:
    """Distances between neighbours along each axis.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(accumulate(reversed(shape[1:]), lambda step, size: step * size, initial=1))[::-1]


def broadcast(shape: Shape, sizes: Shape) -> Index:
    """The place of an element of a tensor whose axes of size one stand for all of `sizes`."""
    steps = zip(row_major(shape), shape, sizes, strict=True)
    return Index(tuple(step if size == wanted else 0 for step, size, wanted in steps))


def corner(shape: Shape, before: Sequence[int]) -> Index:
    """The places of a part of a tensor that starts `before` elements in along each axis."""
    strides = row_major(shape)
    return Index(strides, sum(step * first for step, first in zip(strides, before, strict=True)))
