"""The same function with its hidden units rescaled by powers of two.

`relu(s z) = s relu(z)` for `s > 0`: a hidden unit's incoming weights and bias may be multiplied by `2**e` and its outgoing
weights by `2**-e`. With powers of two every parameter stays exact, so the network computes the same real function.

Reference: Nagel et al., Data-free quantization through weight equalization and bias correction (ICCV 2019), section 4.1;
powers of two make it exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.ops import Affine, Conv, Dense, Op, Relu, Reshape
from sound_qkeras.types import Indices, Reals

Exponents = Mapping[str, Indices]

# Parameters stay far from the ends of float64, where scaling would not be exact.
SMALLEST, LARGEST = 2.0**-900, 2.0**900


def rescale(network: Network, exponents: Exponents) -> Network:
    """Multiply channel j of each named node by `2**exponents[name][j]`, and what reads it by the inverse.

    Guarantee: the same function in exact arithmetic; `rescale(rescale(n, e), -e)` has the parameters of `n`. Radii of enclosed
    parameters that would be too small to scale exactly become larger.

    Raises:
        ModelError: a node is not rescalable, or a parameter would leave the range in which scaling is exact.
    """
    readers = rescalable(network)
    unknown = sorted(set(exponents) - set(readers))
    if unknown:
        raise ModelError(f"nodes {unknown} cannot be rescaled; accepted: {sorted(readers)}")
    ops = {node.name: op for node, op in network.affine()}
    for name, shifts in exponents.items():
        if shifts.shape != ops[name].bias.shape:
            raise ModelError(f"node '{name}' has {ops[name].bias.size} units, received {shifts.shape} exponents")
        ops[name] = _scaled(ops[name], shifts, shifts)
        for reader in readers[name]:
            axis = input_axis(ops[reader])
            shape = [shifts.size if at == axis else 1 for at in range(ops[reader].kernel.ndim)]
            ops[reader] = _scaled(ops[reader], -shifts.reshape(shape), None)
    return replace(network, nodes=tuple(replace(node, op=ops.get(node.name, node.op)) for node in network.nodes))


def scaled_like(network: Network, other: Network) -> Network:
    """The same function with hidden units multiplied by the powers of two by which their weights in another network are larger.

    Guarantee: that of `rescale`. A layer's units keep their scale where another brings the weights around them no nearer to those
    of the other network.

    Args:
        network: what to rescale.
        other: a network of the same nodes with weights of the same shapes.
    """
    for name, readers in rescalable(network).items():
        shifts = _shifts(network, other, name)
        if np.any(shifts):
            try:
                found = rescale(network, {name: shifts})
            except ModelError:
                continue
            if _distance(found, other, (name, *readers)) < _distance(network, other, (name, *readers)):
                network = found
    return network


def _shifts(network: Network, other: Network, name: str) -> Indices:
    """For every output channel the power of two that is nearest to how much larger its weights are in the other network."""
    own, wanted = (_kernel(one, name).reshape(-1, _kernel(one, name).shape[-1]) for one in (network, other))
    along, square = np.sum(own * wanted, axis=0), np.sum(own**2, axis=0)
    known = (along > 0.0) & (square > 0.0)
    return np.rint(np.log2(np.where(known, along, 1.0) / np.where(known, square, 1.0))).astype(np.int64)


def _distance(network: Network, other: Network, names: Iterable[str]) -> float:
    """Sum over layers of the squared distance of their weights, relative to the other network's."""
    pairs = ((_kernel(network, name), _kernel(other, name)) for name in names)
    return sum(float(np.sum((own - wanted) ** 2) / max(np.sum(wanted**2), SMALLEST)) for own, wanted in pairs)


def _kernel(network: Network, name: str) -> Reals:
    return network.by_name[name].op.arrays()["kernel"]


def rescalable(network: Network) -> dict[str, tuple[str, ...]]:
    """Layers with weights whose result only passes ReLUs, and what changes nothing, into others, with the names of those.

    Weights that several nodes share stay as they are.
    """
    found: dict[str, tuple[str, ...]] = {}
    for node, op in network.affine():
        ends = _ends(network, node)
        fits = [isinstance(end.op, Affine) and input_axis(end.op) is not None for end in ends]
        alone = not {node.name, *(end.name for end in ends)} & network.shared
        if isinstance(op, Dense | Conv) and ends and all(fits) and alone:
            found[node.name] = tuple(end.name for end in ends)
    return found


def input_axis(op: Affine) -> int | None:
    """The axis of the kernel along which input channels lie, its last one being the output channels; None without one."""
    if isinstance(op, Dense):
        return 0
    if isinstance(op, Conv) and op.groups == 1:
        return op.kernel.ndim - 2
    # A depthwise convolution with one output for each input.
    each = isinstance(op, Conv) and op.kernel.shape[-2] == 1 and op.groups == op.kernel.shape[-1]
    return op.kernel.ndim - 1 if each else None


def _ends(network: Network, node: Node) -> list[Node]:
    """Where the result of a node ends up behind ReLUs and identities; the network's own end counts as the input node."""
    readers = network.readers[node.name]
    if not readers:
        return [network.nodes[0]]
    ends: list[Node] = []
    for reader in readers:
        ends += _ends(network, reader) if _commutes(reader.op) else [reader]
    return ends


def _commutes(op: Op) -> bool:
    """Whether it may come before or after a multiplication of a channel by a positive number."""
    return isinstance(op, Relu) or (isinstance(op, Reshape) and op.input_shape == op.shape)


def _scaled(op: Affine, kernel_shift: Indices, bias_shift: Indices | None) -> Affine:
    return replace(
        op,
        kernel=_shifted(op.kernel, kernel_shift),
        bias=op.bias if bias_shift is None else _shifted(op.bias, bias_shift),
        kernel_radius=None if op.kernel_radius is None else _shifted_radius(op.kernel_radius, kernel_shift),
        bias_radius=op.bias_radius
        if op.bias_radius is None or bias_shift is None
        else _shifted_radius(op.bias_radius, bias_shift),
    )


def _shifted(array: Reals, shift: Indices) -> Reals:
    result = np.ldexp(array, shift)
    magnitude = np.abs(result[array != 0.0])
    if magnitude.size and not (magnitude.min() >= SMALLEST and magnitude.max() <= LARGEST):
        raise ModelError("rescaling would leave the range in which powers of two scale exactly")
    return result


def _shifted_radius(radius: Reals, shift: Indices) -> Reals:
    """The same for a bound, which may be larger than what it bounds: ones that would fall below the range end at its limit."""
    return _shifted(np.maximum(radius, np.where(radius > 0.0, np.ldexp(SMALLEST, np.maximum(-shift, 0)), 0.0)), shift)
