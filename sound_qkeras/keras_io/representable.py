"""Which fixed-point networks QKeras 0.9.0 represents exactly, as measured.

`quantized_bits(bits, integer, keep_negative, alpha=1.0)` equals rounding half to even with saturation, except:

* one signed bit is read as `sign(x)`;
* `integer` above 30 overflows: `2**integer` is an int32 there;
* `integer` below 0 is refused, so a wider format on the same grid stands in; its range ends later;
* it returns `x + (rounded - x)`, which is exact only while `|x|` is at most 2**53 steps (2**24 in float32).
"""

from __future__ import annotations

from collections.abc import Iterator

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, QuantizedNetwork
from sound_qkeras.network.ops import Affine, Input
from sound_qkeras.network.quantized import EXACT_LIMIT

MAX_INTEGER_BITS = 30
# 2**bits is formed as a number of the model's own type.
MAX_EXPONENT = {"float32": 127, "float64": 1023}


def check_representable(quantized: QuantizedNetwork, dtype: str) -> None:
    """Refuse formats that QKeras misreads, and for float64 any network it would not evaluate exactly.

    Args:
        quantized: the fixed-point network.
        dtype: "float32" or "float64".

    Raises:
        InputError: names the layer, the format and the way out.
        VerificationError: float64 only: an accumulator may need more than 53 bits.
    """
    for node, kind, output in _formats(quantized):
        problem = _problem(output, dtype)
        if problem:
            raise InputError(f"layer '{node.layer}' {kind}: {output}: {problem}")
    if dtype == "float64":
        _check_sums(quantized)
        _check_saturation(quantized)


def _check_sums(quantized: QuantizedNetwork) -> None:
    for name in quantized.wide_layers:
        layer = quantized.network.by_name[name].layer
        raise VerificationError(
            f"layer '{layer}': its exact sum may need more than the 53 bits QKeras has in float64; use the simulator, "
            "or a larger eps",
            layer_name=layer,
        )


def _formats(quantized: QuantizedNetwork) -> Iterator[tuple[Node, str, Format]]:
    for node in quantized.network.nodes:
        if node.name in quantized.formats:
            yield node, "activation", quantized.formats[node.name]
        if node.name in quantized.parameters:
            codes = quantized.parameters[node.name]
            yield node, "kernel", codes.kernel_format
            yield node, "bias", codes.bias_format


def _problem(output: Format, dtype: str) -> str:
    if output.signed and output.word_length == 1:
        return "QKeras reads one signed bit as sign(x); accepted: two bits or more; use a wider word"
    if output.integer_bits > MAX_INTEGER_BITS:
        return f"QKeras overflows there; accepted: integer_bits up to {MAX_INTEGER_BITS}; scale the layer down"
    width = output.word_length + max(0, -output.integer_bits)
    if width > MAX_EXPONENT[dtype]:
        return f"QKeras needs {width} bits for it; accepted: {MAX_EXPONENT[dtype]} in {dtype}; scale the layer up"
    return ""


def _check_saturation(quantized: QuantizedNetwork) -> None:
    """A format that saturates and is finer than the sum it rounds must see at most 2**53 of its own steps."""
    magnitudes = quantized.accumulator_magnitudes()
    for name, output in quantized.formats.items():
        source = _affine_before(quantized, quantized.network.by_name[name])
        if source is None:
            continue
        largest = magnitudes[source.name] * 2.0 ** -quantized.exact_bits[source.name]
        if largest > output.maximum and largest > EXACT_LIMIT * output.step:
            layer = quantized.network.by_name[name].layer
            raise InputError(
                f"layer '{layer}' activation: {output}: QKeras cannot saturate sums of up to {largest:.3g} exactly; "
                f"accepted: up to 2**53 steps of {output.step:.3g}; use fewer fractional bits"
            )


def _affine_before(quantized: QuantizedNetwork, node: Node) -> Node | None:
    while not isinstance(node.op, Affine | Input):
        node = quantized.network.by_name[node.inputs[0]]
    return node if isinstance(node.op, Affine) else None
