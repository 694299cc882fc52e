"""A fixed-point network as hls4ml's own layers, every type written down.

hls4ml's readers of Keras models guess types, and lose bits: weights and sums beyond 24 bits, unsigned activations beyond 24
bits, roundings behind the last layer. Here each layer gets the exact integers, an accumulator that holds the exact sum, and
a result type that rounds as the network does. What hls4ml has no layer for is composed of those it has, where that is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError, UnsupportedLayerError
from sound_qkeras.fixed_point import Format, from_codes
from sound_qkeras.hls.names import identifiers
from sound_qkeras.hls.tensors import Plan
from sound_qkeras.network import Node
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.ops import (
    Add,
    AveragePool,
    Clip,
    Concatenate,
    Conv,
    Crop,
    Dense,
    MaxPool,
    Multiply,
    Pad,
    Permute,
    Reshape,
    Scale,
    Upsample,
)
from sound_qkeras.network.ops.window import Padding, Window
from sound_qkeras.network.quantized import round_integers

Reals = npt.NDArray[np.float64]
Shape = tuple[int, ...]

WAY_OUT = "use export_hls, or export the part of the network before it"
# Files and the namespace of every hls4ml project.
RESERVED = ("defines", "myproject", "nnet", "parameters")
ONE = Format(1, 1, False)
_MOVES = frozenset(
    ("Reshape", "Transpose", *(f"{kind}{n}D" for kind in ("Cropping", "UpSampling", "ZeroPadding") for n in (1, 2)))
)
# hls4ml looks a table up by all bits of what is read.
TABLE_BITS = 16


@dataclass
class Hls4mlLayers:
    """What `ModelGraph.from_layer_list` takes.

    Args:
        layers: one dictionary a layer, in order.
        types: for each layer, the types of its result, sum and parameters.
        inputs: names of the input layers.
        outputs: names of the layers whose results are the model's.
        names: the layer that holds each node's result.
    """

    layers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    types: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    names: dict[str, str] = field(default_factory=dict[str, str])


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
    return _Builder(plan, version).build()


def ap_type(output: Format, *, rounds: bool = False, saturates: bool = False, least: int = 1) -> str:
    """The type of a format as hls4ml spells it, of `least` bits or more.

    >>> ap_type(Format(8, 3, False)), ap_type(Format(8, 3, True), rounds=True)
    ('ufixed<8,3>', 'fixed<8,4,RND_CONV,WRAP>')
    """
    bits = max(output.word_length, least)
    modes = f",RND_CONV,{'SAT' if saturates else 'WRAP'}" if rounds else ""
    return f"{'' if output.signed else 'u'}fixed<{bits},{bits - output.fractional_bits}{modes}>"


class _Builder:
    """Layers so far, with the format and the stored width of every result."""

    def __init__(self, plan: Plan, version: str) -> None:
        self.plan, self.version = plan, version
        self.network = plan.quantized.network
        self.result = Hls4mlLayers()
        self.shapes: dict[str, Shape] = {}
        self.widths: dict[str, int] = {}
        self.formats: dict[str, Format] = {}
        self._taken: set[str] = set()
        sizes = {node.name: size_of(self.network.shapes[node.name]) for node in self.network.nodes[1:]}
        self._stems = identifiers(sizes, plan.options.name)

    def build(self) -> Hls4mlLayers:
        """Inputs, one group of layers for each node, outputs."""
        skipped = self._inputs()
        for node in self.network.nodes[1:]:
            if node.name not in skipped:
                if node.op.kind not in _EMITTERS:
                    self.refuse(node, "an operation")
                _EMITTERS[node.op.kind](self, node)
        self._outputs()
        return self.result

    def refuse(self, node: Node, what: str, accepted: str = "") -> None:
        """One line for what hls4ml cannot do.

        Raises:
            UnsupportedLayerError: always.
        """
        accepted = accepted or f"with hls4ml {self.version}: {', '.join(sorted(_EMITTERS))}"
        received = f"{what} ('{node.op.kind}'), which hls4ml {self.version} cannot compute"
        raise UnsupportedLayerError(node.layer or node.name, received, accepted, WAY_OUT)

    def unused(self, name: str) -> str:
        """A name that no layer has, whatever the case: hls4ml looks types up in small letters."""
        attempt, found = 0, name
        while found.lower() in self._taken:
            attempt += 1
            found = f"{name}_{attempt}"
        self._taken.add(found.lower())
        return found

    def layer(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        shape: Shape,
        output: Format,
        *,
        rounds: bool = False,
        saturates: bool = False,
        types: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> str:
        """Append a layer; returns its name."""
        name = self.unused(name)
        entry = {"class_name": kind, "name": name, "data_format": "channels_last", **settings}
        if kind == "BatchNormalization":
            entry["n_in"] = size_of(shape)
        if inputs:
            entry["inputs"] = list(inputs)
        self.result.layers.append(entry)
        text = ap_type(output, rounds=rounds, saturates=saturates)
        if kind in _MOVES:  # in place, or between arrays of one type
            text = self.result.types[inputs[0]]["result"]
        self.result.types[name] = {"result": text, **(types or {})}
        self.shapes[name], self.formats[name], self.widths[name] = shape, output, output.word_length
        return name

    def helper(self, node: Node, what: str, kind: str, inputs: Sequence[str], output: Format, **settings: Any) -> str:
        """A layer beside the one that holds the node's result; it never rounds."""
        shape = settings.pop("shape", self.shapes[inputs[0]])
        return self.layer(kind, f"{self._stems[node.name]}_{what}", inputs, shape, output, **settings)

    def finish(self, node: Node, kind: str, inputs: Sequence[str], **settings: Any) -> None:
        """The layer that holds the node's result, in its shape and type."""
        tensor = self.plan.tensors[node.name]
        rounds, saturates = self._modes(node)
        shape = self.network.shapes[node.name]
        name = self.layer(
            kind,
            self._stems[node.name],
            inputs,
            shape,
            tensor.format,
            rounds=rounds,
            saturates=saturates,
            **settings,
        )
        self.result.names[node.name] = name

    def _modes(self, node: Node) -> tuple[bool, bool]:
        """Whether the node's own rounding rounds, and saturates; an alias has none."""
        tensor = self.plan.tensors[node.name]
        own = tensor.node is node
        return own and tensor.rounded, own and tensor.saturated

    def reads(self, node: Node) -> list[str]:
        """The layers a node reads, wide enough to be rounded from.

        Rounding drops bits of what is read; the public ap_types headers want two bits more than that.
        """
        bits = self.plan.tensors[node.name].format.fractional_bits
        return [self.wide(self.result.names[name], bits) for name in node.inputs]

    def wide(self, name: str, bits: int) -> str:
        """A result that can be rounded to `bits` fractional bits."""
        held = self.formats[name]
        least = held.fractional_bits - bits + 2
        if held.word_length >= least:
            return name
        return self.cast(name, Format(least, least - held.fractional_bits - held.signed, held.signed))

    def cast(self, name: str, output: Format) -> str:
        """The same values in another format that holds them."""
        if self.formats[name] == output:
            return name
        return self.layer("Activation", f"{name}_cast", [name], self.shapes[name], output, activation="linear")

    def reshape(self, name: str, shape: Shape) -> str:
        """The same values in another shape."""
        if self.shapes[name] == shape:
            return name
        held = self.formats[name]
        return self.layer("Reshape", f"{name}_shaped", [name], shape, held, target_shape=list(shape))

    def _inputs(self) -> set[str]:
        """Input layers; the nodes that take the network's one input apart are not needed."""
        first = self.network.nodes[0]
        slices, entry = self.plan.input_slices, self.plan.input.format
        nodes = [port.node for port in self.network.inputs] or [first.name]
        mended = identifiers({f"{number} {one.name}": 1 for number, one in enumerate(slices)}, self.plan.options.name)
        for one, stem, node in zip(slices, mended.values(), nodes, strict=True):
            label = stem.removeprefix("n").lstrip("0123456789_") or "x"
            name = self.layer(
                "InputLayer", f"{label}_input", (), one.shape, entry, rounds=True, saturates=True,
                input_shape=list(one.shape),
            )  # fmt: skip
            self.result.inputs.append(name)
            self.result.names[node] = name
        skipped: set[str] = set()
        for port in self.network.inputs:
            node = self.network.by_name[port.node]
            while node.inputs:
                skipped.add(node.name)
                node = self.network.by_name[node.inputs[0]]
        if self.network.outputs:
            skipped.add(self.network.output.name)
            skipped |= set(self.network.output.inputs)
        return skipped

    def _outputs(self) -> None:
        """The results; where there are several, each with the one rounding of the network's result."""
        if not self.network.outputs:
            self.result.outputs = [self.result.names[self.network.output.name]]
            return
        joined = self.network.output
        tensor = self.plan.tensors[joined.name]
        seen: list[str] = []
        for port in self.network.outputs:
            name, output = self.wide(self.result.names[port.node], tensor.format.fractional_bits), tensor.format
            if name in seen and not tensor.saturated:  # hls4ml drops a layer that changes no type, and needs two outputs
                wider = seen.count(name)
                output = Format(output.word_length + wider, output.integer_bits + wider, output.signed)
            seen.append(name)
            rounded = self.layer(
                "Activation", f"{name}_output", [name], self.shapes[name], output,
                rounds=tensor.rounded, saturates=tensor.saturated, activation="linear",
            )  # fmt: skip
            self.result.outputs.append(rounded)

    # Layers with parameters.

    def dense(self, node: Node) -> None:
        """A matrix product; of several positions a convolution of single ones."""
        codes = self.plan.quantized.parameters[node.name]
        (source,) = (self.result.names[name] for name in node.inputs)
        inputs, outputs = codes.kernel.shape
        if len(self.shapes[source]) == 1:
            settings = {"weight_data": codes.kernel_value, "bias_data": codes.bias_value}
            self.finish(node, "Dense", [source], n_in=inputs, n_out=outputs, types=self._sums(node), **settings)
            return
        positions = math.prod(self.shapes[source][:-1])
        window = Window((positions,), (1,), (1,), (1,), ((0, 0),))
        self._convolved(node, self.reshape(source, (positions, inputs)), window, codes.kernel_value[None])

    def conv(self, node: Node) -> None:
        """A convolution; groups and dilation become zeros in the kernel."""
        op = cast(Conv, node.op)
        if len(op.strides) > 2:
            self.refuse(node, f"a convolution over {len(op.strides)} axes", "one or two axes")
        kernel = _spread(self.plan.quantized.parameters[node.name].kernel_value, op.dilation)
        window = Window(op.window.sizes, kernel.shape[:-2], op.strides, (1,) * len(op.strides), op.padding)
        source = self.result.names[node.inputs[0]]
        depthwise = op.is_depthwise and kernel.shape[-1] == op.groups and len(op.strides) == 2
        self._convolved(node, source, window, kernel if depthwise else _ungrouped(kernel, op.groups), depthwise)

    def _convolved(self, node: Node, source: str, window: Window, kernel: Reals, depthwise: bool = False) -> None:
        bias = self.plan.quantized.parameters[node.name].bias_value
        channels, filters = self.shapes[source][-1], kernel.shape[-1]
        settings = {
            "n_chan": channels,
            "n_filt": filters,
            **_sizes("in", window.sizes),
            **_sizes("out", window.output_sizes),
            **_sizes("filt", window.kernel),
            **_sizes("stride", window.strides),
            **_ends("pad", window.padding),
        }
        axes = len(window.sizes)
        if depthwise:
            settings |= {"depth_multiplier": 1, "depthwise_data": kernel.reshape(*window.kernel, channels, 1)}
        else:
            settings["weight_data"] = kernel
        kind = f"{'Depthwise' if depthwise else ''}Conv{axes}D"
        shape = (*window.output_sizes, filters)
        settings |= {"bias_data": bias, "types": self._sums(node)}
        if shape == self.network.shapes[node.name]:
            self.finish(node, kind, [source], **settings)
            return
        rounds, saturates = self._modes(node)
        output = self.plan.tensors[node.name].format
        flat = self.layer(
            kind, f"{self._stems[node.name]}_flat", [source], shape, output,
            rounds=rounds, saturates=saturates, **settings,
        )  # fmt: skip
        self._moved(node, "Reshape", flat, target_shape=list(self.network.shapes[node.name]))

    def _sums(self, node: Node) -> dict[str, str]:
        """Types of a sum of products and of its parameters: the exact sum, with what rounding needs."""
        codes, tensor = self.plan.quantized.parameters[node.name], self.plan.tensors[node.name]
        least = tensor.exact.fractional_bits - tensor.format.fractional_bits + 2
        return {
            "accum": ap_type(tensor.exact, least=least),
            "weight": ap_type(codes.kernel_format),
            "bias": ap_type(codes.bias_format),
        }

    def scale(self, node: Node) -> None:
        """A factor and an offset for every value."""
        codes = self.plan.quantized.parameters[node.name]
        kind, settings = _factors(codes.kernel_value, codes.bias_value, codes.kernel_format, codes.bias_format)
        self.finish(node, kind, self.reads(node), **settings)

    def average_pool(self, node: Node) -> None:
        """Sums of windows, times the constant of each."""
        op = cast(AveragePool, node.op)
        codes = self.plan.quantized.parameters[node.name]
        source = self.result.names[node.inputs[0]]
        channels, axes = op.input_shape[-1], len(op.strides)
        if axes > 2:
            self.refuse(node, f"pooling over {axes} axes", "one or two axes")
        held = self.formats[source]
        grown = held.word_length + max(1, math.prod(op.sizes).bit_length()) + (not held.signed)
        exact = Format(grown, grown - held.fractional_bits - 1, True)
        ones = np.ones((*op.sizes, 1, channels))
        window, depthwise = op.window, axes == 2 and channels > 1
        settings: dict[str, Any] = {
            **_sizes("in", window.sizes),
            **_sizes("out", window.output_sizes),
            **_sizes("filt", window.kernel),
            **_sizes("stride", window.strides),
            **_ends("pad", window.padding),
        }
        if depthwise:
            settings |= {"depth_multiplier": 1, "depthwise_data": ones.reshape(*op.sizes, channels, 1)}
        else:
            settings["weight_data"] = _ungrouped(ones, channels)
        one = ap_type(ONE)
        sums = self.helper(
            node, "sums", f"{'Depthwise' if depthwise else ''}Conv{axes}D", [source], exact,
            shape=(*window.output_sizes, channels), n_chan=channels, n_filt=channels, bias_data=np.zeros(channels),
            types={"accum": ap_type(exact), "weight": one, "bias": one}, **settings,
        )  # fmt: skip
        shape = self.shapes[sums]
        factors = np.broadcast_to(codes.kernel_value[op.which][..., None], shape)
        offsets = np.broadcast_to(codes.bias_value, shape)
        sums = self.wide(sums, self.plan.tensors[node.name].format.fractional_bits)
        kind, scaled = _factors(factors, offsets, codes.kernel_format, codes.bias_format)
        self.finish(node, kind, [sums], **scaled)

    # Functions of one variable.

    def relu(self, node: Node) -> None:
        """hls4ml's own, its result rounded."""
        self.finish(node, "Activation", self.reads(node), activation="relu")

    def clip(self, node: Node) -> None:
        """`relu(x) - relu(x - m)`."""
        op = cast(Clip, node.op)
        (source,) = self.reads(node)
        held, bits = self.formats[source], self.plan.tensors[node.name].exact.fractional_bits
        bound = Format.for_codes(0, round(op.maximum * 2.0**op.maximum_bits), op.maximum_bits)
        grown = max(held.integer_bits, bound.integer_bits) + 1
        output = Format(grown + bits + 1, grown, True)
        offset = Format(bound.word_length + 1, bound.integer_bits, True)
        kind, settings = _factors(np.ones(1), np.array([-op.maximum]), ONE, offset)
        above = self.helper(node, "above", kind, [source], output, **settings)
        above = self.helper(node, "excess", "Activation", [above], output, activation="relu")
        below = self.helper(node, "positive", "Activation", [source], output, activation="relu")
        bits = self.plan.tensors[node.name].format.fractional_bits
        self.finish(node, "Merge", [self.wide(below, bits), self.wide(above, bits)], op="subtract")

    def leaky(self, node: Node) -> None:
        """A slope for every value."""
        pair = self.plan.quantized.pairs[node.name]
        shape = self.network.shapes[node.name]
        codes = np.broadcast_to(pair.codes, shape).reshape(-1)
        held = Format.for_codes(int(codes.min()), int(codes.max()), pair.bits)
        self.finish(
            node, "PReLU", self.reads(node), activation="prelu", param_data=from_codes(codes, pair.bits),
            types={"param": ap_type(held)},
        )  # fmt: skip

    def table(self, node: Node) -> None:
        """Every result, looked up by the bits of what is read."""
        pair, output = self.plan.quantized.tables[node.name], self.plan.tensors[node.name].format
        if pair.source.word_length > TABLE_BITS:
            self.refuse(
                node, f"{pair.function} of values of {pair.source.word_length} bits",
                f"at most {TABLE_BITS} (word_lengths=(2, {TABLE_BITS}), --word-lengths 2 {TABLE_BITS})",
            )  # fmt: skip
        raw = np.arange(2**pair.source.word_length)
        read = np.where(raw > pair.source.max_code, raw - 2**pair.source.word_length, raw)
        exact = np.asarray(node.op.integer(pair, [pair.source.fractional_bits], read), np.int64)
        codes = round_integers(exact, output.fractional_bits - pair.result_bits)
        codes = np.clip(codes.astype(np.int64), output.min_code, output.max_code)
        (source,) = (self.result.names[name] for name in node.inputs)
        self.finish(
            node, "UnaryLUT", [self.cast(source, pair.source)], activation="unary_lut",
            table_data=from_codes(codes, output.fractional_bits), types={"table": ap_type(output)},
        )  # fmt: skip

    # Operations that join tensors, two at a time.

    def add(self, node: Node) -> None:
        """Sums and differences; a factor of -1 where nothing is positive, and one of a power of two at the end."""
        op = cast(Add, node.op)
        signed = sorted(zip(op.minus, self._aligned(node), strict=True), key=lambda one: one[0])
        bits = max(self.formats[name].fractional_bits for _, name in signed)
        grown = max(self.formats[name].integer_bits for _, name in signed) + len(signed)
        exact = Format(max(1, grown + bits) + 1, grown, True)
        (minus, total), *others = signed
        bits = self.plan.tensors[node.name].format.fractional_bits
        if others and minus:
            kind, settings = _power_of_two(-1.0)
            total = self.helper(node, "negated", kind, [total], exact, **settings)
        last = others.pop() if others and not op.exponent else None
        for number, (minus, name) in enumerate(others):
            total = self.helper(
                node, f"sum{number}", "Merge", [total, name], exact, op="subtract" if minus else "add",
                shape=_larger(self.shapes[total], self.shapes[name]),
            )  # fmt: skip
        if last is not None:
            both = [self.wide(total, bits), self.wide(last[1], bits)]
            self.finish(node, "Merge", both, op="subtract" if last[0] else "add")
            return
        sign = -1.0 if len(signed) == 1 and minus else 1.0
        kind, settings = _power_of_two(sign * 2.0**op.exponent)
        self.finish(node, kind, [self.wide(total, bits - op.exponent)], **settings)

    def multiply(self, node: Node) -> None:
        """The product."""
        bits = self.plan.tensors[node.name].format.fractional_bits
        shared = sum(self.formats[name].fractional_bits for name in self._aligned(node))
        both = self._aligned(node)
        missing = shared - bits + 2 - sum(self.formats[name].word_length for name in both)
        if missing > 0:
            held = self.formats[both[0]]
            wide = Format(held.word_length + missing, held.integer_bits + missing, held.signed)
            both[0] = self.cast(both[0], wide)
        self.finish(node, "Merge", both, op="multiply")

    def _aligned(self, node: Node) -> list[str]:
        """What a node joins; hls4ml repeats a smaller tensor along leading axes only."""
        names = [self.result.names[name] for name in node.inputs]
        shape = self.network.shapes[node.name]
        for name in names:
            own = self.shapes[name]
            while own and own[0] == 1:
                own = own[1:]
            if own != shape[len(shape) - len(own) :]:
                self.refuse(node, f"tensors {[self.shapes[n] for n in names]} together", "equal last axes")
        return names

    def concatenate(self, node: Node) -> None:
        """One behind the other, two at a time."""
        op = cast(Concatenate, node.op)
        rank = len(self.network.shapes[node.name])
        if rank > 3:
            self.refuse(node, f"tensors of {rank} axes one behind the other", "up to three axes")
        total, *others = (self.result.names[name] for name in node.inputs)
        *others, last = others or [""]
        output = self.plan.tensors[node.name].exact
        for number, name in enumerate(others):
            shape = list(self.shapes[total])
            shape[op.axis] += self.shapes[name][op.axis]
            total = self.helper(
                node, f"part{number}", "Concatenate", [total, name], output, shape=tuple(shape),
                op=f"concatenate{rank}d", axis=op.axis + 1,
            )  # fmt: skip
        if not last:
            self._moved(node, "Activation", total, activation="linear")
            return
        bits = self.plan.tensors[node.name].format.fractional_bits
        both = [self.wide(total, bits), self.wide(last, bits)]
        self.finish(node, "Concatenate", both, op=f"concatenate{rank}d", axis=op.axis + 1)

    def max_pool(self, node: Node) -> None:
        """The largest of each window; hls4ml pads with the smallest number of a signed type."""
        op = cast(MaxPool, node.op)
        axes = len(op.strides)
        if axes > 2:
            self.refuse(node, f"pooling over {axes} axes", "one or two axes")
        (source,) = self.reads(node)
        shape = self.shapes[source]
        window = op.window_on(shape[:-1])
        held = self.formats[source]
        if any(map(sum, window.padding)) and not held.signed:
            source = self.cast(source, Format(held.word_length + 1, held.integer_bits, True))
        held = self.formats[source]
        settings: dict[str, Any] = {
            "n_filt": shape[-1],
            **_sizes("pool", window.kernel),
            **_sizes("stride", window.strides),
            **_ends("pad", window.padding),
        }
        if axes == 2:
            settings |= {**_sizes("in", window.sizes), **_sizes("out", window.output_sizes)}
        else:
            settings |= {"n_in": window.sizes[0], "n_out": window.output_sizes[0]}
        settings["types"] = {"accum": ap_type(held)}
        self.finish(node, f"MaxPooling{axes}D", [source], **settings)

    # Operations that only put values elsewhere.

    def _moved(self, node: Node, kind: str, source: str, **settings: Any) -> None:
        """The node's values from a layer that keeps their type; the node's rounding follows where it has one."""
        rounds, _ = self._modes(node)
        held = self.formats[source]
        shape = self.network.shapes[node.name]
        if not rounds or held == self.plan.tensors[node.name].format:
            name = self.layer(kind, self._stems[node.name], [source], shape, held, **settings)
            self.result.names[node.name] = name
            return
        moved = self.helper(node, "moved", kind, [source], held, shape=shape, **settings)
        moved = self.wide(moved, self.plan.tensors[node.name].format.fractional_bits)
        self.finish(node, "Activation", [moved], activation="linear")

    def reshape_node(self, node: Node) -> None:
        """Another shape."""
        op = cast(Reshape, node.op)
        self._moved(node, "Reshape", self.result.names[node.inputs[0]], target_shape=list(op.shape))

    def permute(self, node: Node) -> None:
        """Axes in another order."""
        source = self.result.names[node.inputs[0]]
        self._moved(node, "Transpose", source, perm=list(cast(Permute, node.op).axes))

    def crop(self, node: Node) -> None:
        """The inner part."""
        op = cast(Crop, node.op)
        self._along_axes(node, "Cropping", "crop", tuple(zip(op.before, op.after, strict=True)))

    def pad(self, node: Node) -> None:
        """Zeros around."""
        op = cast(Pad, node.op)
        self._along_axes(node, "ZeroPadding", "pad", tuple(zip(op.before, op.after, strict=True)))

    def _along_axes(self, node: Node, kind: str, what: str, ends: Padding) -> None:
        source = self.result.names[node.inputs[0]]
        shape, output = self.shapes[source], self.network.shapes[node.name]
        if len(shape) == 1:  # a vector is a sequence of single numbers
            source = self.reshape(source, (*shape, 1))
            settings = {"n_chan": 1, "in_width": shape[0], "out_width": output[0], **_ends(what, ends)}
            part = self.helper(
                node, "part", f"{kind}1D", [source], self.formats[source], shape=(*output, 1), **settings
            )
            self._moved(node, "Reshape", part, target_shape=list(output))
            return
        if len(shape) > 3 or any(ends[-1]):
            self.refuse(node, f"{ends} along the axes of {shape}", "one or two axes, and none along the channels")
        settings = {"n_chan": shape[-1], **_sizes("in", shape[:-1]), **_sizes("out", output[:-1])}
        self._moved(node, f"{kind}{len(shape) - 1}D", source, **settings, **_ends(what, ends[:-1]))

    def upsample(self, node: Node) -> None:
        """Every value several times."""
        repeats = cast(Upsample, node.op).repeats
        source = self.result.names[node.inputs[0]]
        shape, output = self.shapes[source], self.network.shapes[node.name]
        if len(shape) not in (2, 3) or repeats[-1] != 1:
            self.refuse(node, f"repeats {repeats} along the axes of {shape}", "one or two axes, and not the channels")
        lead = (1,) if len(shape) == 2 else ()
        settings = {"n_chan": shape[-1], "algorithm": "nearest"}
        settings |= {**_sizes("in", (*lead, *shape[:-1])), **_sizes("out", (*lead, *output[:-1]))}
        self._moved(node, f"UpSampling{len(shape) - 1}D", source, **settings)


def _factors(kernel: Reals, bias: Reals, kernel_format: Format, bias_format: Format) -> tuple[str, dict[str, Any]]:
    """A factor and an offset for each of the last values: kind and settings of the layer.

    hls4ml drops a normalisation that changes nothing, and with it the type of its result.
    """
    if np.all(kernel == 1.0) and not np.any(bias):
        return "Activation", {"activation": "linear"}
    count = max(kernel.size, bias.size)
    return "BatchNormalization", {
        "n_filt": count,
        "scale_data": np.broadcast_to(kernel.reshape(-1), count),
        "bias_data": np.broadcast_to(bias.reshape(-1), count),
        "types": {"scale": ap_type(kernel_format), "bias": ap_type(bias_format)},
    }


def _power_of_two(factor: float) -> tuple[str, dict[str, Any]]:
    """One factor for everything."""
    held = Format(2, round(math.log2(abs(factor))) + 1, True)
    return _factors(np.array([factor]), np.zeros(1), held, ONE)


def _spread(kernel: Reals, dilation: Shape) -> Reals:
    """The kernel with its zeros written out."""
    sizes = [(size - 1) * step + 1 for size, step in zip(kernel.shape, dilation, strict=False)]
    spread = np.zeros((*sizes, *kernel.shape[-2:]))
    spread[tuple(slice(None, None, step) for step in dilation)] = kernel
    return spread


def _ungrouped(kernel: Reals, groups: int) -> Reals:
    """A kernel that reads all channels, those of other groups with zeros."""
    if groups == 1:
        return kernel
    inputs, outputs = kernel.shape[-2:]
    whole = np.zeros((*kernel.shape[:-2], inputs * groups, outputs))
    width = outputs // groups
    for group in range(groups):
        columns = slice(group * width, (group + 1) * width)
        whole[..., group * inputs : (group + 1) * inputs, columns] = kernel[..., columns]
    return whole


def _sizes(what: str, sizes: Shape) -> dict[str, int]:
    """Sizes along height and width, or along the width alone."""
    return {f"{what}_{axis}": int(size) for axis, size in zip(("height", "width")[-len(sizes) :], sizes, strict=True)}


def _ends(what: str, ends: Padding) -> dict[str, int]:
    """Counts at both ends of height and width, or of the width alone."""
    names = (("top", "bottom"), ("left", "right"))[-len(ends) :]
    both = zip(names, ends, strict=True)
    return {f"{what}_{end}": int(n) for pair, counts in both for end, n in zip(pair, counts, strict=True)}


def _larger(one: Shape, other: Shape) -> Shape:
    return one if size_of(one) >= size_of(other) else other


_EMITTERS: dict[str, Callable[[_Builder, Node], None]] = {
    Add.kind: _Builder.add,
    AveragePool.kind: _Builder.average_pool,
    Clip.kind: _Builder.clip,
    Concatenate.kind: _Builder.concatenate,
    Conv.kind: _Builder.conv,
    Crop.kind: _Builder.crop,
    Dense.kind: _Builder.dense,
    "leaky": _Builder.leaky,
    MaxPool.kind: _Builder.max_pool,
    Multiply.kind: _Builder.multiply,
    Pad.kind: _Builder.pad,
    Permute.kind: _Builder.permute,
    "relu": _Builder.relu,
    Reshape.kind: _Builder.reshape_node,
    Scale.kind: _Builder.scale,
    "table": _Builder.table,
    Upsample.kind: _Builder.upsample,
}
