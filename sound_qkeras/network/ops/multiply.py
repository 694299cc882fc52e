"""The elementwise product of two tensors.

With `d` the difference of the two networks' values, a product obeys, exactly,

    a_q b_q - a b  =  a_q d_b + b d_a  =  a d_b + b_q d_a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, gamma, inflate, up
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape, charge
from sound_qkeras.network.ops.merge import facts_shape, joint_shape, reduced
from sound_qkeras.types import Array


@dataclass(frozen=True)
class Multiply(Op):
    """`a * b`, elementwise: gates, squeeze and excite."""

    kind: ClassVar[str] = "multiply"
    multiplies: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True
    relaxes: ClassVar[bool] = True

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """The joint shape of two tensors."""
        if len(input_shapes) != 2:
            raise ModelError(f"multiply takes two tensors, received {len(input_shapes)}")
        return joint_shape(self.kind, input_shapes)

    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value."""
        return inputs[0] * inputs[1]

    def interval(self, *inputs: Interval) -> Interval:
        """The image of both ranges."""
        return inputs[0] * inputs[1]

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The image of both ranges."""
        return inputs[0] * inputs[1]

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """What both identities allow."""
        (a, aq, da), (b, bq, db) = (facts.pair() for facts in inputs)
        return (aq * db + b * da).intersect(a * db + bq * da)

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Linearised at the centres `m`, which leaves `(a_q - m_a) d_b + (b - m_b) d_a`, and `(a - m_a)(b - m_b)`."""
        remainder.widen_for_underflow(*inputs)
        shapes = [facts_shape(facts) for facts in inputs]
        value: tuple[Reals | None, ...] = (None, None)
        difference: tuple[Reals | None, ...] = (None, None)
        if rows.value is not None:
            value = self._pull_value(rows.value, remainder, inputs[0].value, inputs[1].value, shapes)
        if rows.difference is not None:
            difference = self._pull_difference(rows.difference, remainder, inputs[0], inputs[1], shapes)
        return tuple(Rows(*parts) for parts in zip(value, difference, strict=True))

    def _pull_value(
        self, rows: Reals, remainder: Remainder, a: Interval, b: Interval, shapes: Sequence[Shape]
    ) -> tuple[Reals, Reals]:
        ma, mb = a.center, b.center
        terms = 2 * math.prod(rows.shape[2:]) + 8
        size = up(np.abs(ma) * b.magnitude) + up(np.abs(mb) * a.magnitude) + up(np.abs(ma) * np.abs(mb))
        left = inflate(a.radius * b.radius + gamma(terms) * size, 8)
        charge(remainder, rows, -(ma * mb), left)
        return reduced(rows * mb[:, None], shapes[0]), reduced(rows * ma[:, None], shapes[1])

    def _pull_difference(
        self, rows: Reals, remainder: Remainder, a: Facts, b: Facts, shapes: Sequence[Shape]
    ) -> tuple[Reals, Reals]:
        (_, aq, da), (b_value, _, db) = a.pair(), b.pair()
        ma, mb = aq.center, b_value.center
        terms = 2 * math.prod(rows.shape[2:]) + 8
        size = up(np.abs(ma) * db.magnitude) + up(np.abs(mb) * da.magnitude)
        left = inflate(aq.radius * db.magnitude + b_value.radius * da.magnitude + gamma(terms) * size, 8)
        charge(remainder, rows, np.zeros_like(left), left)
        return reduced(rows * mb[:, None], shapes[0]), reduced(rows * ma[:, None], shapes[1])

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Each factor's rows times the other factor."""
        a, b = inputs
        return reduced(rows * b[:, None], a.shape[1:]), reduced(rows * a[:, None], b.shape[1:])

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """The product rule."""
        return rows[0] * inputs[1][:, None] + rows[1] * inputs[0][:, None]

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: Array) -> Array:
        """The exact product."""
        return codes[0] * codes[1]

    def input_products(self, *input_shapes: Shape) -> int:
        """One a result."""
        return math.prod(self.output_shape(*input_shapes))

    def fractional_bits(self, parameters: Any, *inputs: int) -> int:
        """The sum of both."""
        return inputs[0] + inputs[1]

    def code_magnitude(self, parameters: Any, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """The product of both."""
        return up(magnitudes[0] * magnitudes[1])

    def absolute_terms(self, parameters: Any, *magnitudes: Reals) -> Reals:
        """The product of both."""
        return up(magnitudes[0] * magnitudes[1])

    def carried_error(self, parameters: Any, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """Each error times the other factor."""
        return inflate(errors[0] * magnitudes[1] + errors[1] * magnitudes[0], 2)
