"""A fixed-point network as hls4ml's own layers, every type written down.

hls4ml's readers of Keras models guess types, and lose bits: weights and sums beyond 24 bits, unsigned activations beyond 24
bits, roundings behind the last layer. Here each layer gets the exact integers, an accumulator that holds the exact sum, and
a result type that rounds as the network does. What hls4ml has no layer for is composed of those it has, where that is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from sound_qkeras.backends.hls4ml_affine import average_pool, conv, dense, scale
from sound_qkeras.backends.hls4ml_graph import (
    ONE,
    Builder,
    Emitter,
    Hls4mlLayers,
    Shape,
    ap_type,
    ends_of,
    factors,
    power_of_two,
    sizes_of,
)
from sound_qkeras.backends.tensors import Plan
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format, from_codes, round_integers
from sound_qkeras.network import Node, size_of
from sound_qkeras.network.ops import Add, Clip, Concatenate, Crop, MaxPool, Pad, Permute, Reshape, Upsample
from sound_qkeras.network.ops.window import Padding

# Files and the namespace of every hls4ml project.
RESERVED = ("defines", "myproject", "nnet", "parameters")
# hls4ml looks a table up by all bits of what is read.
TABLE_BITS = 16


def hls4ml_layers(plan: Plan, version: str) -> Hls4mlLayers:
    """The layers of a plan.

    Args:
        plan: names and types of every tensor.
        version: of hls4ml, for messages.

    Raises:
        UnsupportedLayerError: hls4ml has no layer for an operation, and none it could be composed of.
        InputError: the top function has a name that hls4ml keeps for itself.
    """
    if plan.options.name in RESERVED:
        raise InputError(
            f"name '{plan.options.name}' is a file or namespace of every hls4ml project; accepted: any other name"
        )
    return Builder(plan, version).build(EMITTERS)


# Functions of one variable.


def relu(build: Builder, node: Node) -> None:
    """hls4ml's own, its result rounded."""
    build.finish(node, "Activation", build.reads(node), activation="relu")


def clip(build: Builder, node: Node) -> None:
    """`relu(x) - relu(x - m)`."""
    op = cast(Clip, node.op)
    (source,) = build.reads(node)
    held, bits = build.formats[source], build.plan.tensors[node.name].exact.fractional_bits
    bound = Format.for_codes(0, round(op.maximum * 2.0**op.maximum_bits), op.maximum_bits)
    grown = max(held.integer_bits, bound.integer_bits) + 1
    output = Format(grown + bits + 1, grown, True)
    offset = Format(bound.word_length + 1, bound.integer_bits, True)
    kind, settings = factors(np.ones(1), np.array([-op.maximum]), ONE, offset)
    above = build.helper(node, "above", kind, [source], output, **settings)
    above = build.helper(node, "excess", "Activation", [above], output, activation="relu")
    below = build.helper(node, "positive", "Activation", [source], output, activation="relu")
    bits = build.format_of(node).fractional_bits
    build.finish(node, "Merge", [build.wide(below, bits), build.wide(above, bits)], op="subtract")


def leaky(build: Builder, node: Node) -> None:
    """A slope for every value."""
    pair = build.plan.pair.pairs[node.name]
    shape = build.network.shapes[node.name]
    codes = np.broadcast_to(pair.codes, shape).reshape(-1)
    held = Format.for_codes(int(codes.min()), int(codes.max()), pair.bits)
    build.finish(
        node, "PReLU", build.reads(node), activation="prelu", param_data=from_codes(codes, pair.bits),
        types={"param": ap_type(held)},
    )  # fmt: skip


def table(build: Builder, node: Node) -> None:
    """Every result, looked up by the bits of what is read."""
    pair, output = build.plan.pair.pairs[node.name], build.format_of(node)
    if pair.source.word_length > TABLE_BITS:
        build.refuse(
            node, f"{pair.function} of values of {pair.source.word_length} bits",
            f"at most {TABLE_BITS} (word_lengths=(2, {TABLE_BITS}))",
        )  # fmt: skip
    raw = np.arange(2**pair.source.word_length)
    read = np.where(raw > pair.source.max_code, raw - 2**pair.source.word_length, raw)
    exact = np.asarray(node.op.integer(pair, [pair.source.fractional_bits], read), np.int64)
    codes = round_integers(exact, output.fractional_bits - pair.result_bits)
    codes = np.clip(codes.astype(np.int64), output.min_code, output.max_code)
    (source,) = (build.result.names[name] for name in node.inputs)
    build.finish(
        node, "UnaryLUT", [build.cast(source, pair.source)], activation="unary_lut",
        table_data=from_codes(codes, output.fractional_bits), types={"table": ap_type(output)},
    )  # fmt: skip


# Operations that join tensors, two at a time.


def add(build: Builder, node: Node) -> None:
    """Sums and differences; a factor of -1 where nothing is positive, and one of a power of two at the end."""
    op = cast(Add, node.op)
    signed = sorted(zip(op.minus, _aligned(build, node), strict=True), key=lambda one: one[0])
    bits = max(build.formats[name].fractional_bits for _, name in signed)
    grown = max(build.formats[name].integer_bits for _, name in signed) + len(signed)
    exact = Format(max(1, grown + bits) + 1, grown, True)
    (minus, total), *others = signed
    bits = build.format_of(node).fractional_bits
    if others and minus:
        kind, settings = power_of_two(-1.0)
        total = build.helper(node, "negated", kind, [total], exact, **settings)
    last = others.pop() if others and not op.exponent else None
    for number, (minus, name) in enumerate(others):
        total = build.helper(
            node, f"sum{number}", "Merge", [total, name], exact, op="subtract" if minus else "add",
            shape=_larger(build.shapes[total], build.shapes[name]),
        )  # fmt: skip
    if last is not None:
        both = [build.wide(total, bits), build.wide(last[1], bits)]
        build.finish(node, "Merge", both, op="subtract" if last[0] else "add")
        return
    sign = -1.0 if len(signed) == 1 and minus else 1.0
    kind, settings = power_of_two(sign * 2.0**op.exponent)
    build.finish(node, kind, [build.wide(total, bits - op.exponent)], **settings)


def multiply(build: Builder, node: Node) -> None:
    """The product."""
    both = _aligned(build, node)
    formats = [build.formats[name] for name in both]
    dropped = sum(one.fractional_bits for one in formats) - build.format_of(node).fractional_bits
    missing = dropped + 2 - sum(one.word_length for one in formats)
    if missing > 0:
        held = formats[0]
        wide = Format(held.word_length + missing, held.integer_bits + missing, held.signed)
        both[0] = build.cast(both[0], wide)
    build.finish(node, "Merge", both, op="multiply")


def _aligned(build: Builder, node: Node) -> list[str]:
    """What a node joins; hls4ml repeats a smaller tensor along leading axes only."""
    names = [build.result.names[name] for name in node.inputs]
    shape = build.network.shapes[node.name]
    for name in names:
        own = build.shapes[name]
        while own and own[0] == 1:
            own = own[1:]
        if own != shape[len(shape) - len(own) :]:
            build.refuse(node, f"tensors {[build.shapes[n] for n in names]} together", "equal last axes")
    return names


def concatenate(build: Builder, node: Node) -> None:
    """One behind the other, two at a time."""
    op = cast(Concatenate, node.op)
    rank = len(build.network.shapes[node.name])
    if rank > 3:
        build.refuse(node, f"tensors of {rank} axes one behind the other", "up to three axes")
    total, *others = (build.result.names[name] for name in node.inputs)
    *others, last = others or [""]
    output = build.plan.tensors[node.name].exact
    for number, name in enumerate(others):
        shape = list(build.shapes[total])
        shape[op.axis] += build.shapes[name][op.axis]
        total = build.helper(
            node, f"part{number}", "Concatenate", [total, name], output, shape=tuple(shape),
            op=f"concatenate{rank}d", axis=op.axis + 1,
        )  # fmt: skip
    if not last:
        build.moved(node, "Activation", total, activation="linear")
        return
    bits = build.format_of(node).fractional_bits
    both = [build.wide(total, bits), build.wide(last, bits)]
    build.finish(node, "Concatenate", both, op=f"concatenate{rank}d", axis=op.axis + 1)


def max_pool(build: Builder, node: Node) -> None:
    """The largest of each window; hls4ml pads with the smallest number of a signed type."""
    op = cast(MaxPool, node.op)
    axes = len(op.strides)
    if axes > 2:
        build.refuse(node, f"pooling over {axes} axes", "one or two axes")
    (source,) = build.reads(node)
    shape = build.shapes[source]
    window = op.window_on(shape[:-1])
    held = build.formats[source]
    if any(map(sum, window.padding)) and not held.signed:
        source = build.cast(source, Format(held.word_length + 1, held.integer_bits, True))
    held = build.formats[source]
    settings: dict[str, Any] = {
        "n_filt": shape[-1],
        **sizes_of("pool", window.kernel),
        **sizes_of("stride", window.strides),
        **ends_of("pad", window.padding),
    }
    if axes == 2:
        settings |= {**sizes_of("in", window.sizes), **sizes_of("out", window.output_sizes)}
    else:
        settings |= {"n_in": window.sizes[0], "n_out": window.output_sizes[0]}
    settings["types"] = {"accum": ap_type(held)}
    build.finish(node, f"MaxPooling{axes}D", [source], **settings)


# Operations that only put values elsewhere.


def reshape_node(build: Builder, node: Node) -> None:
    """Another shape."""
    op = cast(Reshape, node.op)
    build.moved(node, "Reshape", build.result.names[node.inputs[0]], target_shape=list(op.shape))


def permute(build: Builder, node: Node) -> None:
    """Axes in another order."""
    source = build.result.names[node.inputs[0]]
    build.moved(node, "Transpose", source, perm=list(cast(Permute, node.op).axes))


def crop(build: Builder, node: Node) -> None:
    """The inner part."""
    op = cast(Crop, node.op)
    _along_axes(build, node, "Cropping", "crop", tuple(zip(op.before, op.after, strict=True)))


def pad(build: Builder, node: Node) -> None:
    """Zeros around."""
    op = cast(Pad, node.op)
    _along_axes(build, node, "ZeroPadding", "pad", tuple(zip(op.before, op.after, strict=True)))


def _along_axes(build: Builder, node: Node, kind: str, what: str, ends: Padding) -> None:
    source = build.result.names[node.inputs[0]]
    shape, output = build.shapes[source], build.network.shapes[node.name]
    axes = len(shape)
    if axes == 1:  # a vector is a sequence of single numbers
        source = build.reshape(source, (*shape, 1))
        settings = {"n_chan": 1, "in_width": shape[0], "out_width": output[0], **ends_of(what, ends)}
        part = build.helper(node, "part", f"{kind}1D", [source], build.formats[source], shape=(*output, 1), **settings)
        build.moved(node, "Reshape", part, target_shape=list(output))
        return
    if axes > 3 or any(ends[-1]):
        build.refuse(node, f"{ends} along the axes of {shape}", "one or two axes, and none along the channels")
    settings = {"n_chan": shape[-1], **sizes_of("in", shape[:-1]), **sizes_of("out", output[:-1])}
    build.moved(node, f"{kind}{axes - 1}D", source, **settings, **ends_of(what, ends[:-1]))


def upsample(build: Builder, node: Node) -> None:
    """Every value several times."""
    repeats = cast(Upsample, node.op).repeats
    source = build.result.names[node.inputs[0]]
    shape, output = build.shapes[source], build.network.shapes[node.name]
    if len(shape) not in (2, 3) or repeats[-1] != 1:
        build.refuse(node, f"repeats {repeats} along the axes of {shape}", "one or two axes, and not the channels")
    lead = (1,) if len(shape) == 2 else ()
    settings = {"n_chan": shape[-1], "algorithm": "nearest"}
    settings |= {**sizes_of("in", (*lead, *shape[:-1])), **sizes_of("out", (*lead, *output[:-1]))}
    build.moved(node, f"UpSampling{len(shape) - 1}D", source, **settings)


def _larger(one: Shape, other: Shape) -> Shape:
    return one if size_of(one) >= size_of(other) else other


EMITTERS: Mapping[str, Emitter] = {
    "add": add,
    "average_pool": average_pool,
    "clip": clip,
    "concatenate": concatenate,
    "conv": conv,
    "crop": crop,
    "dense": dense,
    "leaky": leaky,
    "max_pool": max_pool,
    "multiply": multiply,
    "pad": pad,
    "permute": permute,
    "relu": relu,
    "reshape": reshape_node,
    "scale": scale,
    "table": table,
    "upsample": upsample,
}
