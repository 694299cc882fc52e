"""Operations whose results are values of their input, in exact rational arithmetic: which of them each result is."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.ops import Meaning, no_rest
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.network import Node, Pair
from sound_qkeras.types import Indices

# The source of a result that is always zero.
ZERO = -1


class ExactMove(Meaning):
    """Each result is one value of the input, or zero."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Number the input's values and see where they end up."""
        super().__init__(node, quantized)
        shape = quantized.network.shapes[node.inputs[0]]
        numbers = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        self.size, self.sources = numbers.size, moved(node, numbers).reshape(-1)

    def _taken(self, x: Dyadic) -> Dyadic:
        padded = Dyadic(np.append(x.numbers, [0]), x.bits)  # the last one is what `ZERO` indexes
        return padded[self.sources]

    def real(self, *inputs: Range) -> Range:
        """The values in their new places."""
        return Range(self._taken(inputs[0].lower), self._taken(inputs[0].upper))

    def fixed(self, *inputs: Range) -> Range:
        """The values in their new places."""
        return self.real(*inputs)

    def difference(self, *inputs: ExactFacts) -> Range:
        """The differences in their new places."""
        return self.real(inputs[0].difference)

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Each coefficient goes to where its value came from."""
        return (ExactRows(self._returned(rows.value), self._returned(rows.difference)),), no_rest(rows)

    def _returned(self, rows: Dyadic) -> Dyadic:
        found = np.zeros((rows.shape[0], self.size + 1), dtype=object)
        for column, source in enumerate(self.sources):
            found[:, source] += rows.numbers[:, column]
        return Dyadic(found[:, : self.size], rows.bits)


def moved(node: Node, numbers: Indices) -> Indices:
    """The input's numbers as the node's result shows them, `ZERO` where it puts zeros."""
    settings = node.op.settings()
    if node.op.kind == "reshape":
        return numbers.reshape(settings["shape"])
    if node.op.kind == "permute":
        return numbers.transpose(settings["axes"])
    read = [_positions(node, axis, size) for axis, size in enumerate(numbers.shape)]
    inside = [(line >= 0) & (line < size) for line, size in zip(read, numbers.shape, strict=True)]
    clipped = [np.where(valid, line, 0) for valid, line in zip(inside, read, strict=True)]
    known = np.logical_and.reduce(np.meshgrid(*inside, indexing="ij"))
    return np.where(known, numbers[np.ix_(*clipped)], ZERO)


def _positions(node: Node, axis: int, size: int) -> Indices:
    """Where along an axis the results lie in the input; outside of it where they are zeros."""
    settings = node.op.settings()
    if node.op.kind == "upsample":
        repeats = int(settings["repeats"][axis])
        return np.arange(size * repeats) // repeats
    before, after = int(settings["before"][axis]), int(settings["after"][axis])
    return np.arange(before, size - after) if node.op.kind == "crop" else np.arange(-before, size + after)


class ExactMaxPool(Meaning):
    """The largest of the values of each window."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """List what each window holds."""
        super().__init__(node, quantized)
        self.shape = quantized.network.shapes[node.inputs[0]]
        self.windows = windows(node, self.shape)
        self.size = int(np.prod(self.shape))

    def _largest(self, x: Dyadic) -> Dyadic:
        return Dyadic(_objects([max(x.numbers[window]) for window in self.windows]), x.bits)

    def real(self, *inputs: Range) -> Range:
        """The image."""
        return Range(self._largest(inputs[0].lower), self._largest(inputs[0].upper))

    def fixed(self, *inputs: Range) -> Range:
        """The image."""
        return self.real(*inputs)

    def _winners(self, x: Range) -> list[Indices]:
        """Of each window, the values that may be its largest."""
        bits = max(x.lower.bits, x.upper.bits)
        lower, upper = x.lower.at(bits), x.upper.at(bits)
        return [window[upper[window] >= max(lower[window])] for window in self.windows]

    def difference(self, *inputs: ExactFacts) -> Range:
        """From the least of a winner in the trained network to the largest of one in the fixed-point network."""
        facts = inputs[0]
        low, high = facts.difference.lower, facts.difference.upper
        lower = [min(low.numbers[window]) for window in self._winners(facts.value)]
        upper = [max(high.numbers[window]) for window in self._winners(facts.fixed)]
        return Range(Dyadic(_objects(lower), low.bits), Dyadic(_objects(upper), high.bits))

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """To the only possible winner; where there are several, difference rows end, value rows go to one of them."""
        value, rest = self._pull_value(rows.value, inputs[0].value)
        difference, left = self._pull_difference(rows.difference, inputs[0])
        return (ExactRows(value, difference),), rest + left

    def _pull_value(self, rows: Dyadic, x: Range) -> tuple[Dyadic, Range]:
        """`y - x_l` is not negative, and at most the others' largest upper end less the lower end of `x_l`."""
        bits = max(x.lower.bits, x.upper.bits)
        lower, upper = x.lower.at(bits), x.upper.at(bits)
        found = np.zeros((rows.shape[0], self.size), dtype=object)
        gaps: list[Any] = []
        for column, window in enumerate(self.windows):
            best = window[int(np.argmax(lower[window]))]
            others = window[window != best]
            gaps.append(max(0, max(upper[others]) - lower[best]) if others.size else 0)
            found[:, best] += rows.numbers[:, column]
        gap = Dyadic(_objects(gaps), bits)
        return Dyadic(found, rows.bits), Range(gap - gap, gap).under(rows)

    def _pull_difference(self, rows: Dyadic, facts: ExactFacts) -> tuple[Dyadic, Range]:
        found = np.zeros((rows.shape[0], self.size), dtype=object)
        pairs = zip(self._winners(facts.value), self._winners(facts.fixed), strict=True)
        open_windows = np.ones(len(self.windows), dtype=np.bool_)
        for column, (real, subject) in enumerate(pairs):
            if real.size == subject.size == 1 and real[0] == subject[0]:
                found[:, real[0]] += rows.numbers[:, column]
                open_windows[column] = False
        rest, none = self.difference(facts), Dyadic.zeros(len(self.windows))
        return Dyadic(found, rows.bits), rest.where(open_windows, Range.point(none)).under(rows)


def windows(node: Node, shape: tuple[int, ...]) -> list[Indices]:
    """For each result of a pooling, the flat numbers of the values in its window; what lies outside is left out."""
    settings, numbers = node.op.settings(), np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    spans: list[list[Indices]] = []
    for size, pool, stride in zip(shape, settings["pool_size"], settings["strides"], strict=False):
        first, count = 0, (size - pool) // stride + 1
        if settings["padding"] == "same":
            count = (size + stride - 1) // stride
            first = -(max(0, (count - 1) * stride + pool - size) // 2)
        starts = [first + index * stride for index in range(count)]
        spans.append([np.arange(max(0, start), min(size, start + pool)) for start in starts])
    found: list[Indices] = []
    for places in product(*spans):
        found += list(numbers[np.ix_(*places)].reshape(-1, shape[-1]).T)
    return found


def _objects(numbers: list[Any]) -> npt.NDArray[Any]:
    array = np.empty(len(numbers), dtype=object)
    array[:] = numbers
    return array
