"""Layers for hls4ml, one after the other, with the format and the type of every result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from sound_qkeras.backends.names import identifiers
from sound_qkeras.backends.tensors import Plan
from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node, size_of
from sound_qkeras.network.ops.window import Padding
from sound_qkeras.types import Reals, Shape

Emitter = Callable[["Builder", Node], None]

WAY_OUT = "use export_hls, or export the part of the network before it"
ONE = Format(1, 1, False)
_MOVES = frozenset(
    ("Reshape", "Transpose", *(f"{kind}{n}D" for kind in ("Cropping", "UpSampling", "ZeroPadding") for n in (1, 2)))
)


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


def ap_type(output: Format, *, rounds: bool = False, saturates: bool = False, least: int = 1) -> str:
    """The type of a format as hls4ml spells it, of `least` bits or more.

    >>> ap_type(Format(8, 3, False)), ap_type(Format(8, 3, True), rounds=True)
    ('ufixed<8,3>', 'fixed<8,4,RND_CONV,WRAP>')
    """
    bits = max(output.word_length, least)
    modes = f",RND_CONV,{output.saturation if saturates else 'WRAP'}" if rounds else ""
    return f"{'' if output.signed else 'u'}fixed<{bits},{bits - output.fractional_bits}{modes}>"


def factors(kernel: Reals, bias: Reals, kernel_format: Format, bias_format: Format) -> tuple[str, dict[str, Any]]:
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


def power_of_two(factor: float) -> tuple[str, dict[str, Any]]:
    """One factor for everything."""
    held = Format(2, round(math.log2(abs(factor))) + 1, True)
    return factors(np.array([factor]), np.zeros(1), held, ONE)


def sizes_of(what: str, sizes: Shape) -> dict[str, int]:
    """Sizes along height and width, or along the width alone."""
    return {f"{what}_{axis}": int(size) for axis, size in zip(("height", "width")[-len(sizes) :], sizes, strict=True)}


def ends_of(what: str, ends: Padding) -> dict[str, int]:
    """Counts at both ends of height and width, or of the width alone."""
    names = (("top", "bottom"), ("left", "right"))[-len(ends) :]
    both = zip(names, ends, strict=True)
    return {f"{what}_{end}": int(n) for pair, counts in both for end, n in zip(pair, counts, strict=True)}


class Builder:
    """Layers so far, with the shape and the format of every result."""

    def __init__(self, plan: Plan, version: str) -> None:
        """Nothing yet; `version` is hls4ml's, for messages."""
        self.plan, self.version = plan, version
        self.network = plan.pair.network
        self.result = Hls4mlLayers()
        self.shapes: dict[str, Shape] = {}
        self.formats: dict[str, Format] = {}
        self._taken: set[str] = set()
        sizes = {node.name: size_of(self.network.shapes[node.name]) for node in self.network.nodes[1:]}
        self.stems = identifiers(sizes, plan.options.name)

    def build(self, emitters: Mapping[str, Emitter]) -> Hls4mlLayers:
        """Inputs, what the emitter of its kind adds for each node, outputs.

        Raises:
            UnsupportedLayerError: hls4ml cannot do an operation.
        """
        skipped = self._inputs()
        for node in self.network.nodes[1:]:
            if node.name not in skipped:
                emitters[node.op.kind](self, node)
        self._outputs()
        return self.result

    def refuse(self, node: Node, what: str, accepted: str) -> NoReturn:
        """One line for what hls4ml cannot do.

        Raises:
            UnsupportedLayerError: always.
        """
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
        self.shapes[name], self.formats[name] = shape, output
        return name

    def helper(self, node: Node, what: str, kind: str, inputs: Sequence[str], output: Format, **settings: Any) -> str:
        """A layer beside the one that holds the node's result; it never rounds."""
        shape = settings.pop("shape", self.shapes[inputs[0]])
        return self.layer(kind, f"{self.stems[node.name]}_{what}", inputs, shape, output, **settings)

    def finish(self, node: Node, kind: str, inputs: Sequence[str], **settings: Any) -> None:
        """The layer that holds the node's result, in its shape and type."""
        tensor = self.plan.tensors[node.name]
        rounds, saturates = self.modes(node)
        shape = self.network.shapes[node.name]
        name = self.layer(
            kind, self.stems[node.name], inputs, shape, tensor.format, rounds=rounds, saturates=saturates, **settings
        )
        self.result.names[node.name] = name

    def modes(self, node: Node) -> tuple[bool, bool]:
        """Whether the node's own rounding rounds, and saturates; an alias has none."""
        tensor = self.plan.tensors[node.name]
        own = tensor.node is node
        return own and tensor.rounded, own and tensor.saturated

    def reads(self, node: Node) -> list[str]:
        """The layers a node reads, wide enough to be rounded from.

        Rounding drops bits of what is read; the public ap_types headers want two bits more than that.
        """
        bits = self.format_of(node).fractional_bits
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
            if name in seen and not tensor.saturated:
                wider = seen.count(name)  # or hls4ml would drop a layer that changes no type, and miss an output
                output = Format(output.word_length + wider, output.integer_bits + wider, output.signed)
            seen.append(name)
            rounded = self.layer(
                "Activation", f"{name}_output", [name], self.shapes[name], output,
                rounds=tensor.rounded, saturates=tensor.saturated, activation="linear",
            )  # fmt: skip
            self.result.outputs.append(rounded)

    def moved(self, node: Node, kind: str, source: str, **settings: Any) -> None:
        """The node's values from a layer that keeps their type; the node's rounding follows where it has one."""
        rounds, _ = self.modes(node)
        held = self.formats[source]
        shape = self.network.shapes[node.name]
        if not rounds or held == self.format_of(node):
            name = self.layer(kind, self.stems[node.name], [source], shape, held, **settings)
            self.result.names[node.name] = name
            return
        moved = self.helper(node, "moved", kind, [source], held, shape=shape, **settings)
        moved = self.wide(moved, self.format_of(node).fractional_bits)
        self.finish(node, "Activation", [moved], activation="linear")

    def format_of(self, node: Node) -> Format:
        """The format of the node's result."""
        return self.plan.tensors[node.name].format
