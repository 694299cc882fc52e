"""Dense layers: exact integer sums of products, one rounding after them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.hls.adders import AdderGraph, Term, constant, wire_of
from sound_qkeras.hls.options import Options
from sound_qkeras.hls.tensors import Layer, Tensor
from sound_qkeras.hls.writers.base import Constant, OpWriter
from sound_qkeras.network import Node, QuantizedNetwork
from sound_qkeras.network.ops import AffineCodes


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


def codes_of(layer: Layer) -> AffineCodes:
    """The integers of an affine layer."""
    return layer.quantized.parameters[layer.node.name]


def stored_format(codes: AffineCodes) -> Format:
    """The format that kernel codes are declared with.

    Where channels have formats it holds the codes of every one of them; the point is that of a channel without a shift.
    """
    if codes.channel_formats is None:
        return codes.kernel_format
    low, high = min(f.min_code for f in codes.own_formats), max(f.max_code for f in codes.own_formats)
    return Format.for_codes(low, high, codes.kernel_format.fractional_bits)


def _alignment(layer: Layer) -> Alignment:
    bits = layer.source.format.fractional_bits
    return Alignment.of(codes_of(layer), bits, layer.output.exact.fractional_bits)


def sum_shifts(layer: Layer) -> Codes:
    """How far the sum of each output's products is shifted left before the bias is added."""
    products = _alignment(layer).products
    return np.zeros(layer.output.size, np.int64) if products is None else codes_of(layer).channel_shifts + products


def accumulator_of(quantized: QuantizedNetwork, node: Node) -> Format:
    """The format of an affine node's exact sum.

    Raises:
        InputError: none was proved.
    """
    if node.name not in quantized.accumulators:
        raise InputError(
            f"layer '{node.layer}' ({node.op.kind}) has no accumulator format: its proved range decides how wide the "
            "exported sum is; export a network whose ranges were proved"
        )
    return quantized.accumulators[node.name]


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


class DenseWriter(OpWriter):
    """`y = x @ kernel + bias`."""

    kind: ClassVar[str] = "dense"
    sums: ClassVar[bool] = True

    def exact_format(self, quantized: QuantizedNetwork, node: Node, *inputs: Tensor) -> Format:
        """The accumulator, as wide as its proved final range."""
        return accumulator_of(quantized, node)

    def constants(self, layer: Layer, options: Options) -> tuple[Constant, ...]:
        """Kernel and bias; the kernel is `[input][output]` where the loop over outputs is the inner one."""
        codes = codes_of(layer)
        inner = options.target == "hls" and options.style == "loops"
        own = codes.channel_codes
        kernel: Codes = own if inner else np.ascontiguousarray(own.T)
        order = "[input][output]" if inner else "[output][input]"
        name = layer.identifier
        what = f"kernel of {layer.node.name} {order}"
        if codes.channel_formats is not None:
            what += " (each output with a step of its own: the finest one is named)"
        found = [Constant(f"{name}_w", kernel, stored_format(codes), what)]
        if codes.channel_formats is not None and options.style == "loops":
            shifts = sum_shifts(layer)
            held = Format.for_codes(0, int(shifts.max()), 0)
            found.append(Constant(f"{name}_s", shifts, held, f"left shifts of the sums of {layer.node.name} [output]"))
        if codes.bias.any():
            found.append(Constant(f"{name}_b", codes.bias, codes.bias_format, f"bias of {layer.node.name} [output]"))
        return tuple(found)

    def context(self, layer: Layer, options: Options) -> Mapping[str, Any]:
        """Alignment, the inputs each output uses (unrolled), and the unroll factors (loops)."""
        codes = codes_of(layer)
        kernel = codes.kernel.T
        straight = options.style == "unrolled"
        verilog = adder_layer(layer, codes, _alignment(layer)) if options.target == "verilog" else {}
        return {
            **verilog,
            "align": _alignment(layer),
            "channels": codes.own_formats if codes.channel_formats is not None else None,
            "shifts": sum_shifts(layer).tolist(),
            "kernel_format": stored_format(codes),
            "bias_format": codes.bias_format,
            "terms": [np.flatnonzero(row).tolist() for row in kernel] if straight else [],
            "biased": codes.bias.astype(bool).tolist() if straight else [],
            "nonzero": int(np.count_nonzero(kernel)),
            "weights": kernel.size,
            "factors": Factors.of(kernel.shape[1], kernel.shape[0], options.reuse_factor),
            "sum_bits": 32 if self.needed_bits(layer) <= 32 else 64,
        }

    def needed_bits(self, layer: Layer) -> int:
        """Bits of a signed integer that holds the exact results, and in which no aligning shift is out of range."""
        return max(super().needed_bits(layer), 1 + max(int(sum_shifts(layer).max()), _alignment(layer).bias or 0))

    def statements(self, layer: Layer) -> int:
        """One per weight that is not zero."""
        return int(np.count_nonzero(codes_of(layer).kernel))
