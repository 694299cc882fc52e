"""Formats as narrow as some inputs need, which saturate where the whole box may ask for more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import Relu
from sound_qkeras.network.pair import Pair
from sound_qkeras.verify.proof import ranges_of, ranges_over, with_margin


def clipped(pair: Pair, ranges: Mapping[str, tuple[float, float]]) -> Pair:
    """With formats that just hold the given ranges; all but the input's saturate."""
    formats = {name: _holding(pair, name, ranges[name]) for name in pair.formats}
    return replace(pair, formats=formats, saturating=frozenset(formats) - {pair.network.nodes[0].name})


def narrow_in_box(pair: Pair, box: Interval) -> Pair:
    """With formats no wider than what is proved over the box, and accumulators for it; what need not saturate does not."""
    recorded = _ranges(pair, box)
    formats: dict[str, Format] = {}
    for name, output in pair.formats.items():
        if name in pair.saturating and not output.contains(*recorded[name]):
            formats[name] = output
        else:
            formats[name] = Format.for_range(*recorded[name], output.fractional_bits)
    saturating = frozenset(name for name in pair.saturating if not formats[name].contains(*recorded[name]))
    found = replace(pair, formats=formats, saturating=saturating, accumulators={})
    # A result that does not saturate is bounded before its rounding, so that what reads it may be wider than it was.
    for _ in pair.network.nodes:
        recorded = _ranges(found, box)
        wider = {
            name: Format.for_range(*recorded[name], output.fractional_bits)
            for name, output in found.formats.items()
            if name not in saturating and not output.contains(*recorded[name])
        }
        if not wider:
            break
        found = replace(found, formats={**found.formats, **wider})
    accumulators = {
        node.name: Format.for_range(*recorded[node.name], found.exact_bits[node.name])
        for node in pair.network.nodes
        if node.op.accumulates
    }
    return replace(found, accumulators=accumulators)


def _ranges(pair: Pair, box: Interval) -> dict[str, tuple[float, float]]:
    return {name: with_margin(*ends) for name, ends in ranges_of(pair, box).items()}


def widened(pair: Pair, boxes: Interval) -> Pair:
    """With formats that saturate as wide as inputs in some boxes need, `(n, *input_shape)`."""
    near = ranges_over(pair, boxes)
    formats = {name: _holding(pair, name, with_margin(*near[name])) for name in pair.saturating}
    return replace(pair, formats={**pair.formats, **formats})


def _holding(pair: Pair, name: str, ends: tuple[float, float]) -> Format:
    """The narrowest format of a rounding point that holds a range and that QKeras can say.

    QKeras gets a wider one in place of negative integer bits, and saturates elsewhere then. Where it does not matter, because
    nothing saturates, the format may stay; a ReLU and what looks results up are told their own ends.
    """
    found = Format.for_range(*ends, pair.formats[name].fractional_bits)
    op = pair.network.by_name[name].op
    if found.integer_bits >= 0 or op.rounds or isinstance(op, Relu):
        return found
    return Format(found.word_length - found.integer_bits, 0, found.signed)
