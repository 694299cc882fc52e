"""Operations that join several tensors, in exact rational arithmetic."""

from __future__ import annotations

import numpy as np

from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.ops import Meaning, no_rest
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.network import Node, Pair
from sound_qkeras.types import Indices


class _Broadcast:
    """For each result, the number of the value of an input that it reads; inputs may have sizes of one."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        shapes, result = quantized.network.shapes, quantized.network.shapes[node.name]
        self.sizes = [int(np.prod(shapes[name])) for name in node.inputs]
        self.read: list[Indices] = [
            np.broadcast_to(np.arange(size).reshape(shapes[name]), result).reshape(-1)
            for size, name in zip(self.sizes, node.inputs, strict=True)
        ]

    def spread(self, *inputs: Range) -> list[Range]:
        """The inputs' ranges, one element per result."""
        return [x[read] for x, read in zip(inputs, self.read, strict=True)]

    def collected(self, number: int, rows: Dyadic) -> Dyadic:
        """Coefficients of results, added up for the values of one input."""
        found = np.zeros((rows.shape[0], self.sizes[number]), dtype=object)
        for column, source in enumerate(self.read[number]):
            found[:, source] += rows.numbers[:, column]
        return Dyadic(found, rows.bits)


class ExactAdd(Meaning):
    """A sum of tensors with signs, divided by a power of two."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Signs and places."""
        super().__init__(node, quantized)
        settings = node.op.settings()
        self.places, self.exponent = _Broadcast(node, quantized), int(settings["exponent"])
        self.factors = [
            -Dyadic.power(self.exponent) if minus else Dyadic.power(self.exponent) for minus in settings["minus"]
        ]

    def real(self, *inputs: Range) -> Range:
        """The sum."""
        parts = [x * Range.point(f) for f, x in zip(self.factors, self.places.spread(*inputs), strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def fixed(self, *inputs: Range) -> Range:
        """The sum."""
        return self.real(*inputs)

    def difference(self, *inputs: ExactFacts) -> Range:
        """The sum of differences."""
        return self.real(*(facts.difference for facts in inputs))

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """The rows of every input."""
        pulled = [
            ExactRows(*(self.places.collected(number, part * factor) for part in (rows.value, rows.difference)))
            for number, factor in enumerate(self.factors)
        ]
        return tuple(pulled), no_rest(rows)

    def grid(self, *grids: int) -> int:
        """The finest, divided."""
        return max(grids) - self.exponent


class ExactProducts(Meaning):
    """Sums of products of an element of one tensor and an element of another.

    Attributes:
        read: for both tensors the places of the factors, shape `(results, terms)`.
    """

    read: tuple[Indices, Indices]
    sizes: tuple[int, int]

    def real(self, *inputs: Range) -> Range:
        """The image of both ranges."""
        a, b = (x[read] for x, read in zip(inputs, self.read, strict=True))
        return _summed(a * b)

    def fixed(self, *inputs: Range) -> Range:
        """The image of both ranges."""
        return self.real(*inputs)

    def _known(self, *inputs: ExactFacts) -> tuple[tuple[Range, Range, Range], ...]:
        """Of each tensor the values, fixed-point values and differences of the factors."""
        return tuple(
            (facts.value[read], facts.fixed[read], facts.difference[read])
            for facts, read in zip(inputs, self.read, strict=True)
        )

    def difference(self, *inputs: ExactFacts) -> Range:
        """`a_q d_b + b d_a`, which is `a d_b + b_q d_a`."""
        (a, aq, da), (b, bq, db) = self._known(*inputs)
        return _summed((aq * db + b * da).intersect(a * db + bq * da))

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Linear at the middles; what that leaves is a product of distances from them."""
        (a, aq, da), (b, _, db) = self._known(*inputs)
        ma, mb, mq = a.middle, b.middle, aq.middle
        offset = Range.point(-(ma * mb)) + (a - Range.point(ma)) * (b - Range.point(mb))
        left = (aq - Range.point(mq)) * db + (b - Range.point(mb)) * da
        first = ExactRows(self._collected(0, rows.value, mb), self._collected(0, rows.difference, mb))
        second = ExactRows(self._collected(1, rows.value, ma), self._collected(1, rows.difference, mq))
        return (first, second), _summed(offset).under(rows.value) + _summed(left).under(rows.difference)

    def _collected(self, number: int, rows: Dyadic, factors: Dyadic) -> Dyadic:
        """Coefficients of results times factors `(results, terms)`, added up for the elements of one tensor."""
        found = np.zeros((rows.shape[0], self.sizes[number]), dtype=object)
        for result, sources in enumerate(self.read[number]):
            for source, factor in zip(sources, factors.numbers[result], strict=True):
                found[:, source] += rows.numbers[:, result] * factor
        return Dyadic(found, rows.bits + factors.bits)

    def grid(self, *grids: int) -> int:
        """Both together."""
        return sum(grids)


class ExactMultiply(ExactProducts):
    """The elementwise product of two tensors."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Places."""
        super().__init__(node, quantized)
        places = _Broadcast(node, quantized)
        (first, second), (one, other) = places.read, places.sizes
        self.read, self.sizes = (first[:, None], second[:, None]), (one, other)


class ExactMatMul(ExactProducts):
    """Rows of one tensor times columns of another."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """Places."""
        super().__init__(node, quantized)
        a, b = (
            np.arange(int(np.prod(shape))).reshape(-1, *shape[-2:])
            for shape in (quantized.network.shapes[name] for name in node.inputs)
        )
        shape = (len(a), a.shape[1], b.shape[2], a.shape[2])
        first = np.broadcast_to(a[:, :, None, :], shape)
        second = np.broadcast_to(np.swapaxes(b, 1, 2)[:, None, :, :], shape)
        self.read = first.reshape(-1, shape[3]), second.reshape(-1, shape[3])
        self.sizes = a.size, b.size


def _summed(x: Range) -> Range:
    """The sum over the last axis."""
    return Range(*(Dyadic(np.asarray(end.numbers.sum(axis=-1), dtype=object), end.bits) for end in (x.lower, x.upper)))


class ExactConcatenate(Meaning):
    """Tensors one behind the other."""

    def __init__(self, node: Node, quantized: Pair) -> None:
        """For each result, its number in all inputs taken together."""
        super().__init__(node, quantized)
        shapes = [quantized.network.shapes[name] for name in node.inputs]
        self.ends: list[int] = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)]).tolist()
        numbers: list[Indices] = [
            np.arange(first, first + int(np.prod(shape))).reshape(shape)
            for first, shape in zip(self.ends, shapes, strict=False)
        ]
        self.order: Indices = np.concatenate(numbers, node.op.settings()["axis"]).reshape(-1)

    def _joined(self, parts: list[Dyadic]) -> Dyadic:
        bits = max(part.bits for part in parts)
        return Dyadic(np.concatenate([part.at(bits) for part in parts]), bits)[self.order]

    def real(self, *inputs: Range) -> Range:
        """The joined ranges."""
        return Range(self._joined([x.lower for x in inputs]), self._joined([x.upper for x in inputs]))

    def fixed(self, *inputs: Range) -> Range:
        """The joined ranges."""
        return self.real(*inputs)

    def difference(self, *inputs: ExactFacts) -> Range:
        """The joined differences."""
        return self.real(*(facts.difference for facts in inputs))

    def pull(self, rows: ExactRows, policy: int, *inputs: ExactFacts) -> tuple[tuple[ExactRows, ...], Range]:
        """Each input's own coefficients."""
        back = np.argsort(self.order)
        value, difference = rows.value[:, back], rows.difference[:, back]
        parts = [slice(first, last) for first, last in zip(self.ends[:-1], self.ends[1:], strict=True)]
        return tuple(ExactRows(value[:, part], difference[:, part]) for part in parts), no_rest(rows)
