"""Operations that join tensors without multiplying them: Add (and subtract, and average), and Concatenate.

Tensors have equally many axes; sizes of one are broadcast in sums. With `d` the difference of the two networks' values,
a sum obeys `d = sum of +-d_i` exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, inflate, up
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape, charge_sums, shift_codes
from sound_qkeras.types import Array


def facts_shape(facts: Facts) -> Shape:
    """The tensor's shape, without boxes."""
    return facts.value.shape[1:]


def joint_shape(kind: str, shapes: Sequence[Shape]) -> Shape:
    """The shape several tensors have together, axes of size one broadcast.

    Raises:
        ModelError: numbers of axes differ, or sizes do not fit.
    """
    try:
        found = np.broadcast_shapes(*shapes)
    except ValueError:
        found = ()
    if not found or len({len(shape) for shape in shapes}) != 1:
        raise ModelError(f"{kind} takes tensors of one shape, or of sizes 1 where they differ; received {list(shapes)}")
    return tuple(int(size) for size in found)


def reduced(rows: Reals, shape: Shape) -> Reals:
    """The sum of coefficients over the axes along which a tensor of `shape` was broadcast."""
    lead = rows.ndim - len(shape)
    axes = tuple(lead + axis for axis, size in enumerate(shape) if size == 1 and rows.shape[lead + axis] != 1)
    return rows.sum(axis=axes, keepdims=True) if axes else rows


def charge_broadcast(remainder: Remainder, rows: Rows, facts: Facts, factor: float | Reals = 1.0) -> None:
    """Charge the rounding of summing the coefficients of an input that is broadcast; nothing where it is not."""
    some = rows.value if rows.value is not None else rows.difference
    if some is None:
        return
    output = some.shape[2:]
    copies = math.prod(output) // max(1, math.prod(facts_shape(facts)))
    if copies > 1:
        target = (facts.value.shape[0], *output)
        value = np.broadcast_to(up(factor * facts.value.magnitude), target)
        difference = None
        if facts.difference is not None:
            difference = np.broadcast_to(up(factor * facts.difference.magnitude), target)
        charge_sums(remainder, rows, copies, value, difference)


@dataclass(frozen=True)
class Add(Op):
    """`2**exponent * sum of +-x_i`: a residual connection, a difference, a mean of 2, 4, ... tensors.

    Args:
        minus: for each input, whether it is subtracted.
        exponent: zero, or below it for a mean.
    """

    kind: ClassVar[str] = "add"
    accumulates: ClassVar[bool] = True
    minus: tuple[bool, ...]
    exponent: int = 0

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The joint shape."""
        if len(input_shapes) != len(self.minus) or {type(one) for one in self.minus} != {bool}:
            raise ModelError(
                f"add has the signs {self.minus}, expected one truth value for each of {len(input_shapes)}"
            )
        if not -64 <= self.exponent <= 0:
            raise ModelError(f"add has the exponent {self.exponent}, expected -64 to 0")
        return joint_shape(self.kind, input_shapes)

    def _sum(self, parts: Sequence[Array]) -> Array:
        total = -parts[0] if self.minus[0] else parts[0]
        for minus, part in zip(self.minus[1:], parts[1:], strict=True):
            total = total - part if minus else total + part
        return total

    @property
    def _scale(self) -> float:
        return 2.0**self.exponent

    @property
    def _factors(self) -> list[float]:
        return [-self._scale if minus else self._scale for minus in self.minus]

    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value."""
        return self._scale * self._sum(inputs)

    def interval(self, *inputs: Interval) -> Interval:
        """Sums of the ends."""
        total = -inputs[0] if self.minus[0] else inputs[0]
        for minus, part in zip(self.minus[1:], inputs[1:], strict=True):
            total = total - part if minus else total + part
        return total.scaled(self._scale) if self.exponent else total

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """Sums of the ends."""
        return self.interval(*inputs)

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """Differences add."""
        return self.interval(*(facts.pair()[2] for facts in inputs))

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """The rows of every input, summed where it was broadcast."""
        remainder.widen_for_underflow(*inputs)
        found: list[Rows] = []
        for factor, facts in zip(self._factors, inputs, strict=True):
            shape = facts_shape(facts)
            charge_broadcast(remainder, rows, facts, self._scale)
            value, difference = (
                None if part is None else factor * reduced(part, shape) for part in (rows.value, rows.difference)
            )
            found.append(Rows(value, difference))
        return tuple(found)

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """The rows of every input."""
        return tuple(f * reduced(rows, x.shape[1:]) for f, x in zip(self._factors, inputs, strict=True))

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """Directions add."""
        return self.evaluate(*rows)

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: Array) -> Array:
        """The exact sum at the finest of the inputs' steps; a mean only moves the point."""
        finest = max(fractional_bits)
        return self._sum([shift_codes(x, finest - bits) for x, bits in zip(codes, fractional_bits, strict=True)])

    def fractional_bits(self, parameters: Any, *inputs: int) -> int:
        """Those of the finest input, and what a mean adds."""
        return max(inputs) - self.exponent

    def code_magnitude(self, parameters: Any, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """Magnitudes add."""
        finest = max(fractional_bits)
        parts = [np.ldexp(x, finest - bits) for x, bits in zip(magnitudes, fractional_bits, strict=True)]
        return inflate(sum(parts[1:], parts[0]), self.terms)

    def absolute_terms(self, parameters: Any, *magnitudes: Reals) -> Reals:
        """Magnitudes add."""
        return inflate(self._scale * sum(magnitudes[1:], magnitudes[0]), self.terms)

    def carried_error(self, parameters: Any, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """Errors add."""
        return self.absolute_terms(parameters, *errors)

    @property
    def terms(self) -> int:
        """The number of inputs."""
        return len(self.minus)


@dataclass(frozen=True)
class Concatenate(Op):
    """Tensors one behind the other along `axis`, counted from zero without the batch."""

    kind: ClassVar[str] = "concatenate"
    moves: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True
    axis: int

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The first shape, sizes along the axis added."""
        first = input_shapes[0] if input_shapes else ()
        if not 0 <= self.axis < len(first):
            raise ModelError(f"concatenate along axis {self.axis} takes tensors that have it, received {input_shapes}")
        others = {(*shape[: self.axis], *shape[self.axis + 1 :]) for shape in input_shapes}
        if len(others) != 1 or len({len(shape) for shape in input_shapes}) != 1:
            raise ModelError(
                f"concatenate along axis {self.axis} received {list(input_shapes)}, which differ elsewhere"
            )
        total = sum(shape[self.axis] for shape in input_shapes)
        return (*first[: self.axis], total, *first[self.axis + 1 :])

    def _joined(self, parts: Sequence[Array], rank: int) -> Array:
        return np.concatenate(list(parts), axis=self.axis - rank)

    def _split(self, rows: Reals, shapes: Sequence[Shape]) -> list[Reals]:
        ends = np.cumsum([shape[self.axis] for shape in shapes])[:-1]
        return np.split(rows, ends, axis=self.axis - len(shapes[0]))

    def evaluate(self, *inputs: Reals) -> Reals:
        """The joined values."""
        return self._joined(inputs, inputs[0].ndim - 1)

    def interval(self, *inputs: Interval) -> Interval:
        """The joined enclosures."""
        rank = len(inputs[0].shape) - 1
        return Interval(self._joined([x.lower for x in inputs], rank), self._joined([x.upper for x in inputs], rank))

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The joined enclosures."""
        return self.interval(*inputs)

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """The joined differences."""
        return self.interval(*(facts.pair()[2] for facts in inputs))

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Each input's own coefficients."""
        shapes = [facts_shape(facts) for facts in inputs]
        nothing: list[Reals | None] = [None] * len(shapes)
        value = nothing if rows.value is None else self._split(rows.value, shapes)
        difference = nothing if rows.difference is None else self._split(rows.difference, shapes)
        return tuple(Rows(*parts) for parts in zip(value, difference, strict=True))

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Each input's own coefficients."""
        return tuple(self._split(rows, [x.shape[1:] for x in inputs]))

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """The joined directions."""
        return self._joined(rows, inputs[0].ndim - 1)

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: Array) -> Array:
        """The joined codes, all at the finest of the inputs' steps."""
        finest = max(fractional_bits)
        parts = [shift_codes(x, finest - bits) for x, bits in zip(codes, fractional_bits, strict=True)]
        return self._joined(parts, codes[0].ndim - 1)

    def fractional_bits(self, parameters: Any, *inputs: int) -> int:
        """Those of the finest input."""
        return max(inputs)

    def code_magnitude(self, parameters: Any, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """The joined magnitudes, at the finest step."""
        finest = max(fractional_bits)
        parts = [np.ldexp(x, finest - bits) for x, bits in zip(magnitudes, fractional_bits, strict=True)]
        return self._joined(parts, magnitudes[0].ndim - 1)
