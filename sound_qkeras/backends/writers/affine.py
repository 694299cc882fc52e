"""Layers with weights: exact integer sums of products, one rounding after them.

In straight code every operation is its matrix, zeros left out. In loops a Dense layer of one position is two loops, pooling
sums before it multiplies, and everything else is a convolution of two spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.backends.adders import AdderGraph, Term, constant, wire_of
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.tensors import Layer, Shape, Tensor
from sound_qkeras.backends.writers.base import Constant, OpWriter, accumulator_of
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.network import Node, Pair, size_of
from sound_qkeras.network.ops import Affine, AffineCodes, Conv, Scale
from sound_qkeras.network.ops.window import Window
from sound_qkeras.network.staircases import Staircase

# Entries of a matrix that straight code is still made of.
MOST_ENTRIES = 1 << 20


@dataclass(frozen=True)
class Alignment:
    """How products and bias meet in the sum: both are shifted left to the sum's fractional bits, one of them by zero.

    A side that is all zero is left out (`None`), whatever its format says.
    """

    products: int | None
    bias: int | None

    @classmethod
    def of(cls, codes: AffineCodes, source_bits: int, sum_bits: int) -> Alignment:
        """For input codes with `source_bits` and a sum with `sum_bits` fractional bits."""
        products = sum_bits - source_bits - codes.kernel_format.fractional_bits
        bias = sum_bits - codes.bias_format.fractional_bits
        return cls(products if codes.kernel.any() else None, bias if codes.bias.any() else None)


@dataclass(frozen=True)
class Factors:
    """Multipliers working at once in the loops style: `outputs` of one input, and `inputs` of those."""

    inputs: int
    outputs: int

    @classmethod
    def of(cls, fan_in: int, outputs: int, reuse_factor: int) -> Factors:
        """Divisors of the loop bounds whose product is at least `fan_in * outputs / reuse_factor`.

        >>> Factors.of(4, 10, 1), Factors.of(4, 10, 8), Factors.of(4, 10, 1000)
        (Factors(inputs=4, outputs=10), Factors(inputs=1, outputs=5), Factors(inputs=1, outputs=1))
        """
        wanted = math.ceil(fan_in * outputs / reuse_factor)
        wide = _divisor(outputs, min(wanted, outputs))
        return cls(_divisor(fan_in, math.ceil(wanted / wide)), wide)


def _divisor(number: int, least: int) -> int:
    return next(divisor for divisor in range(max(1, least), number + 1) if number % divisor == 0)


@dataclass(frozen=True)
class Plane:
    """A convolution over two axes, as loops see it; each pair is (rows, columns).

    Args:
        sizes, outputs, kernel, strides, dilation: per axis.
        before: zeros before the first element.
        padded: whether windows may reach beyond the input.
        channels: of the input.
        groups: into how many parts the channels are divided.
    """

    sizes: tuple[int, int]
    outputs: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    padded: bool
    channels: int
    groups: int

    @classmethod
    def of(cls, op: Any, shape: Shape) -> Plane:
        """The loops of an affine operation on inputs of a shape; errors are those of `of_window`."""
        if isinstance(op, Scale):
            return cls.of_positions(size_of(shape) // op.kernel.size, op.kernel.size, op.kernel.size)
        window = getattr(op, "window", None)
        if window is None:
            return cls.of_positions(size_of(shape[:-1]), shape[-1], 1)
        return cls.of_window(window, shape[-1], op.groups if isinstance(op, Conv) else shape[-1])

    @classmethod
    def of_window(cls, window: Window, channels: int, groups: int) -> Plane:
        """The loops over all places of a window.

        Raises:
            InputError: it has more than two spatial axes.
        """
        if len(window.sizes) > 2:
            raise InputError(f"loops over {len(window.sizes)} spatial axes are not written; accepted: one or two")

        def pair(sizes: Shape, filler: int = 1) -> tuple[int, int]:
            return (sizes[0], sizes[1] if len(sizes) == 2 else filler)

        return cls(
            pair(window.sizes),
            pair(window.output_sizes),
            pair(window.kernel),
            pair(window.strides),
            pair(window.dilation),
            pair(tuple(before for before, _ in window.padding), 0),
            any(map(sum, window.padding)),
            channels,
            groups,
        )

    @classmethod
    def of_positions(cls, positions: int, channels: int, groups: int) -> Plane:
        """Single positions, none of which sees another."""
        one, line = (1, 1), (positions, 1)
        return cls(line, line, one, one, one, (0, 0), False, channels, groups)


def codes_of(layer: Layer) -> AffineCodes:
    """The integers of an affine layer."""
    return layer.pair.codes(layer.node.name)


def shape_of(layer: Layer) -> Shape:
    """The shape the operation reads; its source may be stored under another one."""
    return layer.pair.network.shapes[layer.node.inputs[0]]


def op_of(layer: Layer) -> Affine:
    """The operation of an affine layer.

    Raises:
        TypeError: it is no affine layer.
    """
    if not isinstance(layer.node.op, Affine):
        raise TypeError(f"{layer.node.op.kind} is no affine operation")
    return layer.node.op


def matrix_of(layer: Layer) -> AffineCodes:
    """The layer's integers as those of one Dense layer on the flattened input.

    Raises:
        InputError: the matrix is too large to be written down.
    """
    codes, source, result = codes_of(layer), layer.source, layer.output
    if source.size * result.size > max(MOST_ENTRIES, codes.kernel.size):
        raise InputError(
            f"style 'unrolled' would write layer '{layer.node.layer}' ({layer.node.op.kind}) as a matrix of "
            f"{source.size} by {result.size} numbers; accepted: at most {MOST_ENTRIES}; use style='loops'"
        )
    unit: Any = np.eye(source.size, dtype=np.int64).reshape(-1, *shape_of(layer))
    integers: Any = codes.kernel
    kernel: Any = op_of(layer).apply(integers, unit).reshape(source.size, result.size)
    bias = np.broadcast_to(codes.bias, result.shape).reshape(-1)
    channels = None if codes.channel_formats is None else codes.channel_formats * (result.size // codes.bias.size)
    return AffineCodes(kernel, codes.kernel_format, bias, codes.bias_format, channels)


def stored_format(codes: AffineCodes) -> Format:
    """The format that kernel codes are declared with.

    Where channels have formats it holds the codes of every one of them; the point is that of a channel without a shift.
    """
    if codes.channel_formats is None:
        return codes.kernel_format
    low, high = min(f.min_code for f in codes.own_formats), max(f.max_code for f in codes.own_formats)
    return Format.for_codes(low, high, codes.kernel_format.fractional_bits)


def with_exponents(codes: AffineCodes, options: Options) -> AffineCodes:
    """The same where loops multiply; where weights are powers of two, loops shift: exponents, and complements of negative ones'.

    Straight code has constants, of which a compiler or `AdderGraph` makes shifts.
    """
    grid, sizes = codes.kernel_grid, np.abs(codes.kernel)
    powers = (
        isinstance(grid, Staircase) and grid.levels > 2 and bool(np.all(sizes) and np.all(sizes & (sizes - 1) == 0))
    )
    if options.style != "loops" or not powers:
        return codes
    exponents = np.frexp(sizes.astype(np.float64))[1].astype(np.int64) - 1
    held = Format.for_codes(~int(exponents.max()), int(exponents.max()), codes.kernel_format.fractional_bits)
    return replace(
        codes, kernel=np.where(codes.kernel < 0, ~exponents, exponents), kernel_format=held, kernel_grid=None
    )


def sum_shifts(layer: Layer, codes: AffineCodes) -> Codes:
    """How far the sum of each output's products is shifted left before the bias is added."""
    products = _alignment(layer).products
    return np.zeros(codes.bias.size, np.int64) if products is None else codes.channel_shifts + products


def _alignment(layer: Layer) -> Alignment:
    bits = layer.source.format.fractional_bits
    return Alignment.of(codes_of(layer), bits, layer.output.exact.fractional_bits)


def adder_layer(layer: Layer, codes: AffineCodes, align: Alignment) -> dict[str, Any]:
    """The adders of a layer, and the text of each output's sum modulo the accumulator's width."""
    graph = AdderGraph(f"{layer.identifier}_s", layer.output.exact.word_length)
    source = layer.source
    inputs = [wire_of(f"{source.identifier}_y{i}", source.format) for i in range(source.size)]
    totals: list[str] = []
    for weights, bias in zip(codes.kernel.T.tolist(), codes.bias.tolist(), strict=True):
        terms = [graph.product(x, w).shifted(align.products or 0) for x, w in zip(inputs, weights, strict=True) if w]
        terms += [Term(constant(bias), align.bias or 0, 1)] if bias else []
        totals.append(str(graph.sum(terms) or 0))
    return {"adders": graph.adders, "totals": totals}


class AffineWriter(OpWriter):
    """`y = A(kernel) x + bias`."""

    sums: ClassVar[bool] = True
    weighted: ClassVar[bool] = True

    def exact_format(self, quantized: Pair, node: Node, *inputs: Tensor) -> Format:
        """The accumulator, as wide as its proved final range."""
        return accumulator_of(quantized, node)

    def template(self, layer: Layer, options: Options) -> str:
        """Straight code is that of a matrix; loops are those of a convolution."""
        return "dense" if options.style == "unrolled" else "conv"

    def constants(self, layer: Layer, options: Options) -> tuple[Constant, ...]:
        """Kernel and bias, their axes in the order in which the code reads them."""
        multiplied = matrix_of(layer) if options.style == "unrolled" else codes_of(layer)
        codes = with_exponents(multiplied, options)
        kernel, order = self.stored(layer, codes, options)
        name, what = layer.identifier, layer.node.name
        order += (
            " (exponents of two of so many steps, of negative weights their complements)"
            if codes is not multiplied
            else ""
        )
        order += " (each output with a step of its own: the finest one is named)" if codes.channel_formats else ""
        found = [Constant(f"{name}_w", kernel, stored_format(codes), f"kernel of {what} {order}")]
        if codes.channel_formats is not None and options.style == "loops":
            shifts = sum_shifts(layer, codes)
            held = Format.for_codes(0, int(shifts.max()), 0)
            found.append(Constant(f"{name}_s", shifts, held, f"left shifts of the sums of {what} [output]"))
        if codes.bias.any():
            found.append(Constant(f"{name}_b", codes.bias.reshape(-1), codes.bias_format, f"bias of {what} [output]"))
        return tuple(found)

    def stored(self, layer: Layer, codes: AffineCodes, options: Options) -> tuple[Codes, str]:
        """The kernel as it is declared, and its axes; where the loop over outputs is the inner one they come last."""
        if options.style == "unrolled":
            return np.ascontiguousarray(codes.channel_codes.T), "[output][input]"
        plane = Plane.of(layer.node.op, shape_of(layer))
        kernel = codes.channel_codes.reshape(*plane.kernel, plane.channels // plane.groups, codes.bias.size)
        if options.target == "hls":
            return kernel, "[row][column][input][output]"
        return np.ascontiguousarray(np.moveaxis(kernel, -1, 0)), "[output][row][column][input]"

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Alignment and widths; the inputs each output uses (unrolled), or the bounds of the loops (loops)."""
        codes = codes_of(layer)
        held = with_exponents(codes, options)
        shared: dict[str, Any] = {
            "align": _alignment(layer),
            "own_formats": codes.channel_formats,
            "kernel_format": stored_format(held),
            "powers": held is not codes,
            "bias_format": codes.bias_format,
            "sum_bits": self.sum_bits(layer),
            "nonzero": int(np.count_nonzero(codes.kernel)),
            "weights": codes.kernel.size,
            **self.bounds(layer, options),
        }
        if options.style == "loops":
            return shared
        matrix = matrix_of(layer)
        verilog = adder_layer(layer, matrix, shared["align"]) if options.target == "verilog" else {}
        straight = {
            "terms": [np.flatnonzero(row).tolist() for row in matrix.kernel.T],
            "biased": matrix.bias.astype(bool).tolist(),
            "own_formats": matrix.channel_formats,
            "shifts": sum_shifts(layer, matrix).tolist(),
            "nonzero": int(np.count_nonzero(matrix.kernel)),
            "weights": matrix.kernel.size,
        }
        return {**shared, **straight, **verilog}

    def bounds(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Bounds and unroll factors of the loops, and the axes of the outputs."""
        if options.style == "unrolled":
            return {"factors": Factors(1, 1)}
        plane, outputs = Plane.of(layer.node.op, shape_of(layer)), codes_of(layer).bias.size
        factors = Factors.of(plane.channels // plane.groups, outputs, options.reuse_factor)
        return {"plane": plane, "channels": outputs, "factors": factors}

    def needed_bits(self, layer: Layer) -> int:
        """Bits of a signed integer that holds the exact results, and in which no aligning shift is out of range."""
        shifts = sum_shifts(layer, codes_of(layer))
        return max(super().needed_bits(layer), 1 + max(int(shifts.max()), _alignment(layer).bias or 0))

    def statements(self, layer: Layer) -> int:
        """One per product, those with padding included."""
        return layer.output.size * op_of(layer).fan_in


class ConvWriter(AffineWriter):
    """Convolutions, depthwise ones too."""

    kind: ClassVar[str] = "conv"


class ScaleWriter(AffineWriter):
    """Elementwise factors: a convolution of single positions, each channel by itself."""

    kind: ClassVar[str] = "scale"


class DenseWriter(AffineWriter):
    """`y = x @ kernel + bias`."""

    kind: ClassVar[str] = "dense"

    def template(self, layer: Layer, options: Options) -> str:
        """Two loops where there is one position, else a convolution of single ones."""
        return "dense" if _one_position(layer) else super().template(layer, options)

    def stored(self, layer: Layer, codes: AffineCodes, options: Options) -> tuple[Codes, str]:
        """The kernel is `[input][output]` where the loop over outputs is the inner one."""
        if options.style == "unrolled" or not _one_position(layer):
            return super().stored(layer, codes, options)
        if options.target == "hls":
            return codes.channel_codes, "[input][output]"
        return np.ascontiguousarray(codes.channel_codes.T), "[output][input]"

    def bounds(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Of the two loops."""
        if _one_position(layer):
            inputs, outputs = codes_of(layer).kernel.shape
            return {"factors": Factors.of(inputs, outputs, options.reuse_factor)}
        return super().bounds(layer, options)

    def statements(self, layer: Layer) -> int:
        """One per weight that is not zero, and position."""
        codes = codes_of(layer)
        return int(np.count_nonzero(codes.kernel)) * (layer.output.size // codes.bias.size)


def _one_position(layer: Layer) -> bool:
    return layer.output.size == codes_of(layer).bias.size


class AveragePoolWriter(AffineWriter):
    """Sums of windows, each multiplied with the constant of its number of elements."""

    kind: ClassVar[str] = "average_pool"

    def template(self, layer: Layer, options: Options) -> str:
        """A matrix in straight code, else its own loops."""
        return super().template(layer, options) if options.style == "unrolled" else "average_pool"

    def stored(self, layer: Layer, codes: AffineCodes, options: Options) -> tuple[Codes, str]:
        """The constants in ascending order of the number of elements."""
        if options.style == "unrolled":
            return super().stored(layer, codes, options)
        return codes.kernel, "[number of elements, ascending]"

    def constants(self, layer: Layer, options: Options) -> tuple[Constant, ...]:
        """The constants, which of them each window takes, and the bias."""
        found = super().constants(layer, options)
        which = np.asarray(getattr(layer.node.op, "which"), np.int64).reshape(-1)  # noqa: B009
        if options.style == "unrolled" or not which.any():
            return found
        output = Format.for_codes(0, int(which.max()), 0)
        return (
            *found,
            Constant(f"{layer.identifier}_which", which, output, f"constant of each window of {layer.node.name}"),
        )

    def bounds(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Bounds of the loops; one channel at a time."""
        if options.style == "unrolled":
            return super().bounds(layer, options)
        plane = Plane.of(layer.node.op, shape_of(layer))
        several = codes_of(layer).kernel.size > 1
        return {"plane": plane, "channels": plane.channels, "several": several, "factors": Factors(1, 1)}
