"""The matrix product of two tensors, as in attention: `y = a b` over the last two axes, axes before them in parallel.

As for single products, with `d` the difference of the two networks' values, exactly,

    a_q b_q - a b  =  a_q d_b + d_a b  =  a d_b + d_a b_q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, gamma, inflate, matmul
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape, charge
from sound_qkeras.types import Array


@dataclass(frozen=True)
class MatMul(Op):
    """`a b` for a of shape `(..., rows, size)` and b of shape `(..., size, columns)`.

    Args:
        size: of the axis that is summed over.
    """

    kind: ClassVar[str] = "matmul"
    multiplies: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True
    relaxes: ClassVar[bool] = True
    size: int

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """`(..., rows, columns)`."""
        if len(input_shapes) != 2 or min(map(len, input_shapes)) < 2:
            raise ModelError(f"matmul takes two tensors of two axes or more, received {list(input_shapes)}")
        (*lead, rows, one), (*others, other, columns) = input_shapes
        if lead != others or one != self.size or other != self.size:
            raise ModelError(
                f"matmul over {self.size} values takes tensors (..., rows, {self.size}) and (..., {self.size}, columns) that "
                f"agree in all other axes; received {list(input_shapes)}"
            )
        return (*lead, rows, columns)

    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value."""
        return inputs[0] @ inputs[1]

    def interval(self, *inputs: Interval) -> Interval:
        """The image of both ranges."""
        return matmul(inputs[0], inputs[1])

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The image of both ranges."""
        return matmul(inputs[0], inputs[1])

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """What both identities allow."""
        (a, aq, da), (b, bq, db) = (facts.pair() for facts in inputs)
        return (matmul(aq, db) + matmul(da, b)).intersect(matmul(a, db) + matmul(da, bq))

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Linearised at the centres `m`, which leaves `(a_q - m_a) d_b + d_a (b - m_b)`, and `(a - m_a)(b - m_b)`."""
        remainder.widen_for_underflow(*inputs)
        a, b = inputs
        value: tuple[Reals | None, ...] = (None, None)
        difference: tuple[Reals | None, ...] = (None, None)
        if rows.value is not None:
            ma, mb = a.value.center, b.value.center
            size = np.abs(ma) @ b.value.magnitude + a.value.magnitude @ np.abs(mb) + np.abs(ma) @ np.abs(mb)
            self._charge(rows.value, remainder, -(ma @ mb), a.value.radius @ b.value.radius, size)
            value = _pulled(rows.value, ma, mb)
        if rows.difference is not None:
            (_, aq, da), (b_value, _, db) = a.pair(), b.pair()
            ma, mb = aq.center, b_value.center
            left = aq.radius @ db.magnitude + da.magnitude @ b_value.radius
            size = np.abs(ma) @ db.magnitude + da.magnitude @ np.abs(mb)
            self._charge(rows.difference, remainder, np.zeros_like(left), left, size)
            difference = _pulled(rows.difference, ma, mb)
        return tuple(Rows(*parts) for parts in zip(value, difference, strict=True))

    def _charge(self, rows: Reals, remainder: Remainder, constant: Reals, left: Reals, size: Reals) -> None:
        """What linearising leaves, and what rounding coefficients and the constant adds before values of that size."""
        terms = 2 * math.prod(rows.shape[2:]) + 2 * self.size + 8
        charge(remainder, rows, constant, inflate(left + gamma(terms) * size, 3 * self.size + 8))

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Each factor's rows times the other factor, transposed."""
        return _pulled(rows, *inputs)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """The product rule."""
        return rows[0] @ inputs[1][:, None] + inputs[0][:, None] @ rows[1]

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: Array) -> Array:
        """The exact product."""
        return codes[0] @ codes[1]

    def fractional_bits(self, parameters: Any, *inputs: int) -> int:
        """The sum of both."""
        return inputs[0] + inputs[1]

    def code_magnitude(self, parameters: Any, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """The product of both."""
        return inflate(magnitudes[0] @ magnitudes[1], self.size)

    def absolute_terms(self, parameters: Any, *magnitudes: Reals) -> Reals:
        """The product of both."""
        return inflate(magnitudes[0] @ magnitudes[1], self.size)

    def carried_error(self, parameters: Any, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """Each error times the other factor."""
        return inflate(errors[0] @ magnitudes[1] + magnitudes[0] @ errors[1], 2 * self.size)

    def input_products(self, *input_shapes: Shape) -> int:
        """As many a result as are summed."""
        return self.size * math.prod(self.output_shape(*input_shapes))

    @property
    def terms(self) -> int:
        """The axis that is summed over."""
        return self.size


def _pulled(rows: Reals, a: Reals, b: Reals) -> tuple[Reals, Reals]:
    """`rows b'` and `a' rows`, rows of shape `(boxes, rows, *shape)`."""
    return rows @ np.swapaxes(b, -1, -2)[:, None], np.swapaxes(a, -1, -2)[:, None] @ rows
