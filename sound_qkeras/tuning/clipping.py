"""Formats as narrow as some inputs need, which saturate where the whole box may ask for more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import Relu, Table
from sound_qkeras.network.pair import Pair
from sound_qkeras.verify.proof import ranges_of, ranges_over, with_margin


def clipped(quantized: Pair, ranges: Mapping[str, tuple[float, float]]) -> Pair:
    """With formats that just hold the given ranges; all but the input's saturate."""
    formats = {name: _holding(quantized, name, ranges[name]) for name in quantized.formats}
    return replace(quantized, formats=formats, saturating=frozenset(formats) - {quantized.network.nodes[0].name})


def narrow_in_box(quantized: Pair, box: Interval) -> Pair:
    """With formats no wider than what is proved over the box, and accumulators for it; what need not saturate does not."""
    recorded = {name: with_margin(*ends) for name, ends in ranges_of(quantized, box).items()}
    formats: dict[str, Format] = {}
    for name, output in quantized.formats.items():
        if name in quantized.saturating and not output.contains(*recorded[name]):
            formats[name] = output
        else:
            formats[name] = Format.for_range(*recorded[name], output.fractional_bits)
    accumulators = {
        node.name: Format.for_range(*recorded[node.name], quantized.exact_bits[node.name])
        for node in quantized.network.nodes
        if node.op.accumulates
    }
    saturating = frozenset(name for name in quantized.saturating if not formats[name].contains(*recorded[name]))
    return replace(quantized, formats=formats, saturating=saturating, accumulators=accumulators)


def widened(quantized: Pair, boxes: Interval) -> Pair:
    """With formats that saturate as wide as inputs in some boxes need, `(n, *input_shape)`."""
    near = ranges_over(quantized, boxes)
    formats = {name: _holding(quantized, name, with_margin(*near[name])) for name in quantized.saturating}
    return replace(quantized, formats={**quantized.formats, **formats})


def _holding(quantized: Pair, name: str, ends: tuple[float, float]) -> Format:
    """The narrowest format of a rounding point that holds a range and that QKeras can say.

    QKeras gets a wider one in place of negative integer bits, and saturates elsewhere then. Where it does not matter, because
    nothing saturates, the format may stay; a ReLU and a table are told their own ends.
    """
    found = Format.for_range(*ends, quantized.formats[name].fractional_bits)
    if found.integer_bits >= 0 or isinstance(quantized.network.by_name[name].op, Relu | Table):
        return found
    return Format(found.word_length - found.integer_bits, 0, found.signed)
