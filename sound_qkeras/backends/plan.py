"""Names, types and the order of the layers, decided before a character of code is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sound_qkeras.backends.names import identifiers
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.targets import target_named
from sound_qkeras.backends.tensors import Layer, Plan, Tensor
from sound_qkeras.backends.writers import WRITERS
from sound_qkeras.errors import InputError
from sound_qkeras.network import Pair, size_of
from sound_qkeras.network.grids import FixedPoint


def make_plan(pair: Pair, options: Options, ranges: Mapping[str, Any] | None = None) -> Plan:
    """Choose a name and a type for every tensor.

    Args:
        pair: the network; every affine node has its accumulator's format.
        options: the user's choices.
        ranges: proved `(lower, upper)` by node name, numbers or arrays.

    Raises:
        InputError: an accumulator is missing, or a range is about no node.
        UnsupportedLayerError: there is no code for a kind of operation.
    """
    pair.check_integers()
    network = pair.network
    target = target_named(options.target)
    target.check(options)
    target.check_saturation(pair)
    target.check_grids(pair, options)
    proved = _proved(pair, ranges or {})
    names = identifiers({node.name: size_of(network.shapes[node.name]) for node in network.nodes[1:]}, options.name)
    first = network.nodes[0]
    entry, grid = pair.code_formats[first.name], pair.grids.get(first.name)
    guarded = options.input_guard is not None or first.name in pair.saturating
    tensors = {
        first.name: Tensor(
            first, "input", network.input_shape, entry, entry, True, guarded, proved.get(first.name), grid
        )
    }
    layers: list[Layer] = []
    for node in network.nodes[1:]:
        inputs = tuple(tensors[name] for name in node.inputs)
        target.check_operation(node)
        writer = WRITERS[node.op.kind]
        exact = writer.exact_format(pair, node, *inputs)
        output, grid = pair.code_formats.get(node.name), pair.grids.get(node.name)
        if writer.alias and output is None:
            tensors[node.name] = inputs[0]
            continue
        rounded = grid is not None or (output is not None and output != exact)
        shape, name = network.shapes[node.name], names[node.name]
        saturated = isinstance(grid, FixedPoint) or (rounded and node.name in pair.saturating)
        if saturated and grid is None and output is not None and not output.saturation and not target.any_ends:
            raise InputError(
                f"layer '{node.layer}': its results end at {output.minimum:g} and {output.maximum:g}, where no hardware type ends; "
                "accepted: target='c'"
            )
        tensors[node.name] = Tensor(
            node, name, shape, exact, output or exact, rounded, saturated, proved.get(node.name), grid
        )
        layers.append(Layer(node, inputs, tensors[node.name], pair))
    return Plan(options, pair, tensors, tuple(layers))


def _proved(pair: Pair, ranges: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    known = pair.network.by_name
    unknown = sorted(set(ranges) - set(known))
    if unknown:
        raise InputError(f"ranges are given for {unknown}, which are no nodes; accepted: {list(known)}")
    proved = {name: (float(np.min(lower)), float(np.max(upper))) for name, (lower, upper) in ranges.items()}
    for name, (lower, upper) in proved.items():
        if not (math.isfinite(lower) and math.isfinite(upper) and lower <= upper):
            raise InputError(f"the range of '{name}' is [{lower}, {upper}], expected two finite numbers in order")
    return proved
