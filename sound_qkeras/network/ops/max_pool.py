"""Max pooling over windows of the leading axes.

Whatever wins in the trained network bounds the difference from below, whatever wins in the fixed-point network from above:

    y = x_i for some i, so  y_q - y >= x_q,i - x_i = d_i;   y_q = x_q,j for some j, so  y_q - y <= d_j.

Only values whose range reaches the largest lower end of their window can win. With `same` padding windows overhang; what
lies outside never wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, gamma, inflate, up
from sound_qkeras.network.ops.base import Facts, Op, Reals, Remainder, Rows, Shape, charge, charge_sums
from sound_qkeras.network.ops.moves import one_tensor
from sound_qkeras.network.ops.window import Window, same_padding
from sound_qkeras.types import Array

PADDINGS = ("valid", "same")


@dataclass(frozen=True)
class MaxPool(Op):
    """The largest value of every window, channel by channel (the last axis).

    Args:
        pool_size: size of the window along every axis but the last.
        strides: distance between windows, likewise.
        padding: "valid", or "same" as Keras pads: ceil(size / stride) windows.
    """

    kind: ClassVar[str] = "max_pool"
    moves: ClassVar[bool] = True
    relaxes: ClassVar[bool] = True
    pool_size: Shape
    strides: Shape
    padding: str = "valid"

    def output_shape(self, *input_shapes: Shape) -> Shape:
        """One value per window and channel."""
        if len(self.strides) != len(self.pool_size) or min(*self.pool_size, *self.strides, 1) < 1:
            raise ModelError(
                f"max_pool has the windows {self.pool_size} and strides {self.strides}, expected sizes >= 1"
            )
        if self.padding not in PADDINGS:
            raise ModelError(f"max_pool has the padding {self.padding!r}, accepted: {PADDINGS}")
        (shape,) = one_tensor(self.kind, input_shapes, len(self.pool_size) + 1)
        return (*self.window_on(shape[:-1]).output_sizes, shape[-1])

    def window_on(self, sizes: Shape) -> Window:
        """The windows over an input of these sizes."""
        ones = (1,) * len(self.pool_size)
        padding = ((0, 0),) * len(self.pool_size)
        if self.padding == "same":
            padding = same_padding(sizes, self.pool_size, self.strides, ones)
        return Window(sizes, self.pool_size, self.strides, ones, padding)

    def comparisons(self, shape: Shape) -> int:
        """Comparisons of two values for one input of a shape: one less than the values inside each window."""
        views = self._views(np.ones((1, *shape[:-1], 1)), 0.0)
        return int(sum(view.sum() for view in views) - views[0].size) * shape[-1]

    def _views(self, x: Array, fill: Any) -> list[Array]:
        """For each place in the window, the values all windows have there; `fill` outside the tensor."""
        lead = x.ndim - len(self.pool_size) - 1
        window = self.window_on(x.shape[lead:-1])
        if any(map(any, window.padding)):
            x = np.pad(x, [(0, 0)] * lead + [*window.padding, (0, 0)], constant_values=fill)
        return [x[(slice(None),) * lead + where] for _, where in window.positions()]

    def _scattered(self, parts: Sequence[Reals], lead: int, shape: Shape) -> Reals:
        """The transposed of `_views`: coefficients at each place of all windows, added up where they belong."""
        window = self.window_on(shape[:-1])
        total = np.zeros((*parts[0].shape[:lead], *window.padded_sizes, shape[-1]))
        for part, (_, where) in zip(parts, window.positions(), strict=True):
            total[(slice(None),) * lead + where] += part
        ends = zip(window.padding, window.sizes, strict=True)
        return total[(slice(None),) * lead + tuple(slice(before, before + size) for (before, _), size in ends)]

    @property
    def overlap(self) -> int:
        """Windows a value may be in."""
        return int(np.prod([-(-pool // step) for pool, step in zip(self.pool_size, self.strides, strict=True)]))

    def evaluate(self, *inputs: Reals) -> Reals:
        """The largest values."""
        return self._largest(inputs[0])

    def _largest(self, x: Array) -> Array:
        fill = np.iinfo(np.int64).min if x.dtype == np.int64 else -np.inf
        return np.maximum.reduce(self._views(x, fill))

    def interval(self, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(self._largest)

    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """The image; exact."""
        return inputs[0].mapped(self._largest)

    def _winners(self, x: Interval) -> npt.NDArray[np.bool_]:
        """Which values may be the largest of their window, places first."""
        upper = np.stack(self._views(x.upper, -np.inf))
        return upper >= self._largest(x.lower)

    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """Between the least difference of a possible winner and the largest of one in the fixed-point network."""
        value, fixed, d = inputs[0].pair()
        return self._difference(d, self._winners(value), self._winners(fixed))

    def _difference(self, d: Interval, real: npt.NDArray[np.bool_], subject: npt.NDArray[np.bool_]) -> Interval:
        lower, upper = np.stack(self._views(d.lower, 0.0)), np.stack(self._views(d.upper, 0.0))
        return Interval(np.where(real, lower, np.inf).min(axis=0), np.where(subject, upper, -np.inf).max(axis=0))

    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Through the one winner where it is certain.

        Else difference rows stop here; value rows go to the value with the largest lower end, `l`, as
        `y - x_l` lies between 0 and the largest upper end of the others minus that lower end.
        """
        value, difference, shape = None, None, inputs[0].value.shape[1:]
        if rows.value is not None:
            value = self._pull_value(rows.value, remainder, inputs[0].value, shape)
        if rows.difference is not None:
            difference = self._pull_difference(rows.difference, remainder, inputs[0], shape)
        if self.overlap > 1:
            moved = None if rows.difference is None else self._largest(inputs[0].pair()[2].magnitude)
            charge_sums(remainder, rows, self.overlap, self._largest(inputs[0].value.magnitude), moved)
        return (Rows(value, difference),)

    def _pull_value(self, rows: Reals, remainder: Remainder, x: Interval, shape: Shape) -> Reals:
        lower, upper = np.stack(self._views(x.lower, -np.inf)), np.stack(self._views(x.upper, -np.inf))
        best = lower.argmax(axis=0)
        chosen = np.arange(len(lower)).reshape(-1, *(1,) * best.ndim) == best
        others = np.where(chosen, -np.inf, upper).max(axis=0)
        excess = np.maximum(others - lower.max(axis=0), 0.0)
        gap = np.where(excess > 0.0, up(excess), 0.0)
        self._charge_rest(remainder, rows, Interval(np.zeros_like(gap), gap))
        return self._scattered([rows * part[:, None] for part in chosen], 2, shape)

    def _pull_difference(self, rows: Reals, remainder: Remainder, facts: Facts, shape: Shape) -> Reals:
        value, fixed, d = facts.pair()
        real, subject = self._winners(value), self._winners(fixed)
        either = real | subject
        certain = either.sum(axis=0) == 1
        rest = self._difference(d, real, subject)
        rest = Interval(np.where(certain, 0.0, rest.lower), np.where(certain, 0.0, rest.upper))
        self._charge_rest(remainder, rows, rest)
        return self._scattered([rows * (part & certain)[:, None] for part in either], 2, shape)

    def _charge_rest(self, remainder: Remainder, rows: Reals, rest: Interval) -> None:
        center = rest.center
        terms = int(np.prod(rest.shape[1:]))
        charge(remainder, rows, center, inflate(rest.radius + gamma(terms) * np.abs(center), 4))

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """To the first of the largest values."""
        first = self._first(inputs[0])
        return (self._scattered([rows * part[:, None] for part in first], 2, inputs[0].shape[1:]),)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """From the first of the largest values."""
        views = self._views(rows[0], 0.0)
        return sum(
            (view * part[:, None] for view, part in zip(views, self._first(inputs[0]), strict=True)), np.zeros(())
        )

    def ahead(self, directions: Sequence[Reals], *inputs: Reals) -> Reals:
        """To where another value of the window overtakes the largest."""
        views, ways = np.stack(self._views(inputs[0], -np.inf)), np.stack(self._views(directions[0], 0.0))
        best = views.argmax(axis=0)[None]
        largest, along = np.take_along_axis(views, best, 0), np.take_along_axis(ways, best, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (largest - views) / (ways - along)
        return np.where(distance > 0.0, distance, np.inf).min(axis=0).reshape(len(inputs[0]), -1)

    def _first(self, x: Reals) -> npt.NDArray[np.bool_]:
        views = np.stack(self._views(x, -np.inf))
        best = views.argmax(axis=0)
        return np.arange(len(views)).reshape(-1, *(1,) * best.ndim) == best

    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: Array) -> Array:
        """The largest codes."""
        return self._largest(codes[0])
