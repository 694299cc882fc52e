"""Affine operations `y = A(kernel) x + bias`: all that is the same for Dense, convolutions, average pooling and scaling.

With `dW = W_q - W`, `db = b_q - b` and `d = x_q - x` the difference of the two networks obeys, exactly,

    y_q - y = A(W_q) d + A(dW) x + db,

so all that is needed of a concrete layer is its linear operator and the operator's transpose, both linear in the kernel too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import Codes, Format, from_codes, scaled
from sound_qkeras.interval import DOUBLE, Interval, Precision, exact_difference, gamma, inflate, nonzero, read_only
from sound_qkeras.network.grids import Grid
from sound_qkeras.network.ops.base import Facts, Op, Reals, Rows, Shape, shift_codes
from sound_qkeras.network.ops.linear import About, Linear, LinearOp, precision_of
from sound_qkeras.network.pickling import Rebuilt


@dataclass(frozen=True)
class AffineCodes(Rebuilt):
    """The integers of one affine operation: codes and formats of kernel and bias.

    `channel_formats` are narrower formats of the same kernel values, one for each output channel (the kernel's last axis),
    for backends that can have them. They change no value: `kernel` holds codes of `kernel_format`, and the codes of a
    channel with fewer fractional bits are multiples of a power of two.

    `kernel_grid` says how the same values are stored where that is neither: a format for every element, or few values
    (binary, ternary, powers of two).
    """

    kernel: Codes
    kernel_format: Format
    bias: Codes
    bias_format: Format
    channel_formats: tuple[Format, ...] | None = None
    kernel_grid: Grid | None = None

    def __post_init__(self) -> None:
        """Keep copies that cannot change under a proof."""
        object.__setattr__(self, "kernel", read_only(self.kernel))
        object.__setattr__(self, "bias", read_only(self.bias))

    @property
    def own_formats(self) -> tuple[Format, ...]:
        """The format of each output channel: its own, or the kernel's."""
        return self.channel_formats or (self.kernel_format,) * self.kernel.shape[-1]

    @property
    def kernel_bits(self) -> int:
        """Bits of all weights, zeros included."""
        if self.kernel_grid is not None:
            return self.kernel_grid.bits(self.kernel.shape)
        return self.kernel.size // len(self.own_formats) * sum(output.word_length for output in self.own_formats)

    @cached_property
    def channel_shifts(self) -> Codes:
        """Fractional bits of `kernel_format` that each output channel does without."""
        finest = self.kernel_format.fractional_bits
        shifts = [finest - output.fractional_bits for output in self.own_formats]
        return read_only(np.array(shifts, dtype=np.int64))

    @cached_property
    def channel_codes(self) -> Codes:
        """The kernel in codes of each channel's own format."""
        return read_only(self.kernel >> self.channel_shifts)

    @cached_property
    def kernel_value(self) -> Reals:
        """The kernel the fixed-point network multiplies with, exactly."""
        return read_only(from_codes(self.kernel, self.kernel_format.fractional_bits))

    @cached_property
    def bias_value(self) -> Reals:
        """The bias the fixed-point network adds, exactly."""
        return read_only(from_codes(self.bias, self.bias_format.fractional_bits))


class Kernels:
    """Kernels that coefficients are multiplied with, in their precisions."""

    def __init__(self, double: tuple[Reals, ...]) -> None:
        """Of float64 kernels."""
        self.double = double

    def fit(self, precision: Precision) -> bool:
        """Whether every entry is zero, or so large and small that it loses no more than what rounding is charged for."""
        return precision is DOUBLE or self._fit_single

    def cast(self, precision: Precision) -> tuple[npt.NDArray[Any], ...]:
        """In a precision."""
        return self.double if precision is DOUBLE else self._single

    def rows(self, precision: Precision) -> tuple[npt.NDArray[Any], ...]:
        """Transposed matrices, their rows one behind the other."""
        return self._double_rows if precision is DOUBLE else self._single_rows

    @cached_property
    def _fit_single(self) -> bool:
        return all(
            bool(np.all((size == 0.0) | ((size >= 2.0**-100) & (size <= 2.0**100))))
            for size in (np.abs(kernel) for kernel in self.double)
        )

    @cached_property
    def _single(self) -> tuple[npt.NDArray[Any], ...]:
        return tuple(kernel.astype(np.float32) for kernel in self.double)

    @cached_property
    def _double_rows(self) -> tuple[npt.NDArray[Any], ...]:
        return tuple(np.ascontiguousarray(kernel.T) for kernel in self.double)

    @cached_property
    def _single_rows(self) -> tuple[npt.NDArray[Any], ...]:
        return tuple(np.ascontiguousarray(kernel.T) for kernel in self._single)


class AffineComparison:
    """A float affine operation beside the parameters that another network has: the residuals `dW`, `db` and their slack."""

    def __init__(
        self, op: Affine, values: tuple[Reals, Reals], radii: tuple[Reals | None, Reals | None] = (None, None)
    ) -> None:
        """Compute the residuals; exact for float32 parameters, enclosed for folded ones.

        Args:
            op: the operation.
            values: centres of the other network's kernel and bias.
            radii: how far those may be from the centres; None where they are exact.
        """
        self.kernel, self.bias = values
        self.kernel_radius, self.bias_radius = radii
        self.kernel_residual, lost = exact_difference(self.kernel, op.kernel)
        self.kernel_slack = _total_slack(lost, op.kernel_radius, self.kernel_radius)
        self.bias_residual, lost = exact_difference(self.bias, op.bias)
        self.bias_slack = _total_slack(lost, op.bias_radius, self.bias_radius)
        self.kernel_magnitude = np.abs(self.kernel)
        self.kernel_residual_magnitude = np.abs(self.kernel_residual)
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    @cached_property
    def kernels(self) -> Kernels:
        """The kernel and the residual in other precisions."""
        return Kernels((self.kernel, self.kernel_residual))


class AffinePair(AffineComparison):
    """A float affine operation beside its integers."""

    def __init__(self, op: Affine, codes: AffineCodes) -> None:
        """Compute the residuals of what the integers stand for."""
        super().__init__(op, (codes.kernel_value, codes.bias_value))
        self.codes = codes


def _total_slack(lost: Reals, *radii: Reals | None) -> Reals | None:
    known = [radius for radius in radii if radius is not None]
    total = inflate(sum(known, lost), 1 + len(known)) if known else lost
    return total if np.any(total) else None


@dataclass(frozen=True, eq=False)
class Affine(LinearOp):
    """Base of the affine operations.

    Args:
        kernel: float64 centre of the kernel in Keras' own layout.
        bias: float64 centre of the bias, broadcast against the result: one entry per output channel, its last axis.
        kernel_radius, bias_radius: how far the exact parameters may lie from the centres, elementwise; None where the
            centres are exact, which they are for float32 parameters nothing was folded into.
    """

    multiplies: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True
    kernel: Reals
    bias: Reals
    kernel_radius: Reals | None = None
    bias_radius: Reals | None = None

    def __post_init__(self) -> None:
        """Keep copies that cannot change; refuse parameters that are not finite or do not fit together."""
        for name, array in self.arrays().items():
            object.__setattr__(self, name, read_only(array))
            if array.dtype != np.float64:
                raise ModelError(f"{name} has dtype {array.dtype}, expected float64")
            if not np.all(np.isfinite(array)):
                count = int(np.sum(~np.isfinite(array)))
                raise ModelError(f"{name} holds {count} values that are NaN or infinite; retrain or repair the model")
            if name.startswith("kernel") and array.shape != self.kernel.shape:
                raise ModelError(f"{name} has shape {array.shape}, expected {self.kernel.shape}")
            if name.startswith("bias") and array.shape != self.bias_shape:
                raise ModelError(f"{name} has shape {array.shape}, expected {self.bias_shape}")

    @property
    def bias_shape(self) -> Shape:
        """Shape of the bias: one number per output channel, the last axis of the kernel and of the result."""
        return self.kernel.shape[-1:]

    def has_parameters_of(self, other: Op) -> bool:
        """Whether another operation is of this kind and has the same kernel and bias, radii included."""
        own, others = self.arrays(), other.arrays()
        return (
            type(self) is type(other)
            and own.keys() == others.keys()
            and all(own[name] is others[name] or np.array_equal(own[name], others[name]) for name in own)
        )

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """Products summed into one output, or more."""

    @property
    @abstractmethod
    def fan_out(self) -> int:
        """Outputs one input reaches, or more."""

    @property
    def multiplications(self) -> int:
        """Multiplications for one output, those with padding included."""
        return self.fan_in

    @abstractmethod
    def apply(self, kernel: Reals, x: Reals) -> Reals:
        """The linear operator of `kernel` on `x`, any leading axes."""

    @abstractmethod
    def transpose(self, kernel: Reals, y: Reals) -> Reals:
        """The transposed operator of `kernel` on `y`, any leading axes."""

    @cached_property
    def kernel_magnitude(self) -> Reals:
        """Elementwise absolute value of the kernel."""
        return read_only(np.abs(self.kernel))

    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value."""
        return self.apply(self.kernel, inputs[0]) + self.bias

    def interval(self, *inputs: Interval) -> Interval:
        """Centre and radius form, with the rounding of the centre charged to the radius."""
        return self._enclose(
            inputs[0], self.kernel, self.kernel_magnitude, self.bias, self.kernel_radius, self.bias_radius
        )

    def fixed_interval(self, parameters: AffineComparison, *inputs: Interval) -> Interval:
        """The same with the other network's parameters; the integers' values are exact."""
        return self._enclose(
            inputs[0],
            parameters.kernel,
            parameters.kernel_magnitude,
            parameters.bias,
            parameters.kernel_radius,
            parameters.bias_radius,
        )

    def _enclose(
        self,
        x: Interval,
        kernel: Reals,
        magnitude: Reals,
        bias: Reals,
        kernel_slack: Reals | None,
        bias_slack: Reals | None,
    ) -> Interval:
        center = x.center
        middle = self.apply(kernel, center) + bias
        rounding = self.apply(magnitude, np.abs(center)) + np.abs(bias)
        radius = self.apply(magnitude, x.radius) + gamma(self.fan_in + 1) * rounding
        if kernel_slack is not None:
            radius = radius + self.apply(kernel_slack, x.magnitude)
        if bias_slack is not None:
            radius = radius + bias_slack
        found = Interval.around(middle, inflate(radius, self.fan_in + 8))
        if np.all(radius):
            return found
        reaching = self.apply(
            nonzero(magnitude + (0.0 if kernel_slack is None else kernel_slack)), nonzero(x.magnitude)
        )
        added = nonzero(np.abs(bias) + (0.0 if bias_slack is None else bias_slack))
        return found.zero_where(reaching + added == 0.0)

    def difference(self, parameters: AffineComparison, *inputs: Facts) -> Interval:
        """`A(W_q) d + A(dW) x + db` in centre and radius form."""
        x, _, d = inputs[0].pair()
        xc, dc = x.center, d.center
        middle = (
            self.apply(parameters.kernel, dc) + self.apply(parameters.kernel_residual, xc) + parameters.bias_residual
        )
        rounding = (
            self.apply(parameters.kernel_magnitude, np.abs(dc))
            + self.apply(parameters.kernel_residual_magnitude, np.abs(xc))
            + np.abs(parameters.bias_residual)
        )
        radius = (
            self.apply(parameters.kernel_magnitude, d.radius)
            + self.apply(parameters.kernel_residual_magnitude, x.radius)
            + gamma(2 * self.fan_in + 2) * rounding
            + self._slack(parameters, x, d)
        )
        return Interval.around(middle, inflate(radius, 2 * self.fan_in + 8))

    def _slack(self, parameters: AffineComparison, x: Interval, d: Interval) -> Reals | float:
        """What `A(W_q) d + A(dW) x + db` may be off by because parameters are only enclosed."""
        slack: Reals | float = 0.0
        if parameters.kernel_slack is not None:
            slack = slack + self.apply(parameters.kernel_slack, x.magnitude)
        if parameters.bias_slack is not None:
            slack = slack + parameters.bias_slack
        if parameters.kernel_radius is not None:
            slack = slack + self.apply(parameters.kernel_radius, d.magnitude)
        return slack

    def _written(
        self, point: Reals, at_point: Reals, at_size: Reals, slack: Reals | float, precision: Precision
    ) -> Linear:
        """With what the rounding of the point, and of coefficients on the way back, adds.

        Args:
            point: of the result.
            at_point: the sum of the absolute terms in it.
            at_size: the same of what the coefficients multiply.
            slack: what parameters may be off by.
            precision: of the coefficients.
        """
        radius = gamma(2 * self.fan_in + 8) * at_point + gamma(self.fan_out + 8, precision) * at_size + slack
        return Linear(point, inflate(radius, 2 * self.fan_in + 8))

    def linear_value(self, x: Interval, about: About, precision: Precision) -> Linear:
        """`y = A(W) x + b`."""
        point = self.apply(self.kernel, about.point) + self.bias
        at_point = self.apply(self.kernel_magnitude, np.abs(about.point)) + np.abs(self.bias)
        slack: Reals | float = 0.0
        if self.kernel_radius is not None:
            slack = slack + self.apply(self.kernel_radius, x.magnitude)
        if self.bias_radius is not None:
            slack = slack + self.bias_radius
        return self._written(point, at_point, self.apply(self.kernel_magnitude, about.size), slack, precision)

    def linear_difference(
        self, parameters: AffineComparison, facts: Facts, value: About, difference: About, precision: Precision
    ) -> Linear:
        """`y_q - y = A(W_q) d + A(dW) x + db`."""
        x, _, d = facts.pair()
        point = (
            self.apply(parameters.kernel, difference.point)
            + self.apply(parameters.kernel_residual, value.point)
            + parameters.bias_residual
        )
        at_point, at_size = (
            self.apply(parameters.kernel_magnitude, on_difference)
            + self.apply(parameters.kernel_residual_magnitude, on_value)
            for on_difference, on_value in (
                (np.abs(difference.point), np.abs(value.point)),
                (difference.size, value.size),
            )
        )
        at_point = at_point + np.abs(parameters.bias_residual)
        return self._written(point, at_point, at_size, self._slack(parameters, x, d), precision)

    def fits(self, parameters: AffineComparison | None, precision: Precision) -> bool:
        """Whether all kernels do."""
        return self.kernels.fit(precision) and (parameters is None or parameters.kernels.fit(precision))

    @cached_property
    def kernels(self) -> Kernels:
        """The kernel in other precisions."""
        return Kernels((self.kernel,))

    def pull(
        self, parameters: AffineComparison | None, rows: Rows, value: Reals | None, difference: Reals | None
    ) -> Rows:
        """`a.(y_q - y) + p.y` is `(A(W_q)' a).d + (A(dW)' a + A(W)' p).x` and constants."""
        precision = precision_of(rows)
        on_value = None if rows.value is None else self.transpose(self.kernels.cast(precision)[0], rows.value)
        if rows.difference is None:
            return Rows(on_value, None)
        if parameters is None:
            raise TypeError("difference rows need a pair of networks")
        kernel, residual_kernel = parameters.kernels.cast(precision)
        residual = self.transpose(residual_kernel, rows.difference)
        on_value = residual if on_value is None else residual + on_value
        return Rows(on_value, self.transpose(kernel, rows.difference))

    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """The transposed operator."""
        return (self.transpose(self.kernel, rows),)

    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """The linear operator."""
        return self.apply(self.kernel, rows[0])

    def integer(
        self, parameters: AffinePair, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """The accumulator, exactly: in float64 while every partial sum stays within 2**53, else in Python integers."""
        integers = parameters.codes
        product_bits = fractional_bits[0] + integers.kernel_format.fractional_bits
        sum_bits = self.fractional_bits(parameters, *fractional_bits)
        shifts = sum_bits - product_bits, sum_bits - integers.bias_format.fractional_bits
        if codes[0].dtype != np.float64:
            kind = codes[0].dtype
            total = self.apply(integers.kernel.astype(kind), codes[0])
            return shift_codes(total, shifts[0]) + shift_codes(integers.bias.astype(kind), shifts[1])
        kernel = scaled(integers.kernel.astype(np.float64), shifts[0])
        return self.apply(kernel, codes[0]) + scaled(integers.bias.astype(np.float64), shifts[1])

    def fractional_bits(self, parameters: AffinePair, *inputs: int) -> int:
        """Those of a product or of the bias, whichever are more."""
        integers = parameters.codes
        return max(inputs[0] + integers.kernel_format.fractional_bits, integers.bias_format.fractional_bits)

    def code_magnitude(self, parameters: AffinePair, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """Products of magnitudes, and the bias."""
        integers = parameters.codes
        sum_bits = self.fractional_bits(parameters, *fractional_bits)
        products = self.apply(np.abs(integers.kernel).astype(np.float64), magnitudes[0])
        scaled = np.ldexp(products, sum_bits - fractional_bits[0] - integers.kernel_format.fractional_bits)
        bias = np.ldexp(np.abs(integers.bias).astype(np.float64), sum_bits - integers.bias_format.fractional_bits)
        return inflate(scaled + bias, self.fan_in)

    def absolute_terms(self, parameters: AffineComparison, *magnitudes: Reals) -> Reals:
        """Products of magnitudes, and the bias."""
        return inflate(
            self.apply(parameters.kernel_magnitude, magnitudes[0]) + np.abs(parameters.bias), self.fan_in + 2
        )

    def carried_error(self, parameters: AffineComparison, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """Errors times weights."""
        return inflate(self.apply(parameters.kernel_magnitude, errors[0]), self.fan_in)

    @property
    def terms(self) -> int:
        """Products summed into one output."""
        return self.fan_in
