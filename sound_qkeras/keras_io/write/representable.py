"""Which fixed-point networks QKeras 0.9.0 represents exactly, as measured.

`quantized_bits(bits, integer, keep_negative, alpha=1.0)` equals rounding half to even with saturation, except:

* one signed bit is read as `sign(x)`;
* `integer` above 30 overflows: `2**integer` is an int32 there;
* `integer` below 0 is refused, so a wider format on the same grid stands in; its range ends later;
* it returns `x + (rounded - x)`, which is exact only while `|x|` is at most 2**53 steps (2**24 in float32).
"""

from __future__ import annotations

from collections.abc import Iterator

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, Pair

MAX_INTEGER_BITS = 30
# 2**bits is formed as a number of the model's own type.
MAX_EXPONENT = {"float32": 127, "float64": 1023}


def check_one_format_each(pair: Pair) -> None:
    """Refuse results that are rounded to several formats, or to few values.

    Raises:
        InputError: names the layer.
    """
    for name, grid in pair.grids.items():
        layer = pair.network.by_name[name].layer or name
        raise InputError(
            f"layer '{layer}' rounds its result to {grid}, for which no QKeras layer is written; accepted: results of one format "
            "each; keep the model that was certified"
        )


def check_representable(pair: Pair, dtype: str) -> None:
    """Refuse formats that QKeras misreads.

    Whether the sums are exact in `dtype` is another matter, which `verify.floating` proves layer by layer.

    Args:
        pair: the fixed-point network.
        dtype: "float32" or "float64".

    Raises:
        InputError: names the layer, the format and the way out.
    """
    check_one_format_each(pair)
    for node, kind, output in _formats(pair):
        problem = _problem(output, dtype)
        if problem:
            raise InputError(f"layer '{node.layer}' {kind}: {output}: {problem}")


def _formats(pair: Pair) -> Iterator[tuple[Node, str, Format]]:
    for node in pair.network.nodes:
        if node.name in pair.formats:
            yield node, "activation", pair.formats[node.name]
        if node.name in pair.parameters:
            codes = pair.parameters[node.name]
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
