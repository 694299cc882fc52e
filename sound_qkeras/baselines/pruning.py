"""Magnitude pruning: the smallest weights become zero, alone or before or after quantisation.

Reference: Han et al., Learning both weights and connections for efficient neural networks (NeurIPS 2015), without its
retraining.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sound_qkeras.baselines.candidate import FLOAT_BITS, Candidate, from_quantized, from_weights, weight_nodes
from sound_qkeras.baselines.fixed import round_affine, with_word_length
from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network
from sound_qkeras.network.ops import AffineCodes

ORDERS = ("before", "after")
SCOPES = ("layer", "network")


def prune(values: Mapping[str, Reals], sparsity: float, scope: str = "layer") -> dict[str, Reals]:
    """Set the share `sparsity` of the weights, those of smallest magnitude, to zero; of equal ones the first.

    Args:
        values: kernels by node.
        sparsity: share of zeros, 0 to 1; rounded down to a whole number of weights.
        scope: whether the share is of every layer or of the whole network.

    Raises:
        InputError: an option is not usable.
    """
    if not 0.0 <= sparsity <= 1.0 or scope not in SCOPES:
        raise InputError(f"sparsity {sparsity}, scope '{scope}'; accepted: 0 to 1, and {' or '.join(SCOPES)}")
    if scope == "layer":
        return {name: _smallest_to_zero(kernel, sparsity) for name, kernel in values.items()}
    flat = _smallest_to_zero(np.concatenate([kernel.ravel() for kernel in values.values()]), sparsity)
    ends = np.cumsum([kernel.size for kernel in values.values()])
    parts = np.split(flat, ends[:-1])
    return {name: part.reshape(kernel.shape) for (name, kernel), part in zip(values.items(), parts, strict=True)}


def _smallest_to_zero(kernel: Reals, sparsity: float) -> Reals:
    found = kernel.ravel().copy()
    found[np.argsort(np.abs(found), kind="stable")[: int(sparsity * found.size)]] = 0.0
    return found.reshape(kernel.shape)


def pruned(network: Network, sparsity: float, *, scope: str = "layer") -> Candidate:
    """Pruning alone: floats, some of them zero.

    Raises:
        InputError: an option is not usable.
    """
    kernels = prune({node.name: op.kernel for node, op in weight_nodes(network)}, sparsity, scope)
    sizes = {name: FLOAT_BITS * kernel.size for name, kernel in kernels.items()}
    name = f"pruned {sparsity:.0%} of each {scope}" if scope == "layer" else f"pruned {sparsity:.0%} of the {scope}"
    return from_weights(name, network, kernels, sizes, _storage_note(kernels, FLOAT_BITS))


def pruned_uniform(
    network: Network, box: Interval, sparsity: float, word_length: int, *, order: str = "before", scope: str = "layer"
) -> Candidate:
    """Pruning and the plain uniform format.

    Pruned before, small weights are gone when formats are chosen; pruned after, the rounded values compete, so that weights
    rounded to zero already count as pruned.

    Guarantee: nothing overflows for any input in the box.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`.
        sparsity: share of zeros, as in `prune`.
        word_length: of every weight, bias and value.
        order: whether pruning comes "before" or "after" quantisation.
        scope: as in `prune`.

    Raises:
        InputError: an option is not usable.
    """
    if order not in ORDERS:
        raise InputError(f"order '{order}' is unknown; accepted: {' or '.join(ORDERS)}")
    kernels = {node.name: op.kernel for node, op in weight_nodes(network)}
    if order == "before":
        kernels = prune(kernels, sparsity, scope)
    parameters = {
        node.name: round_affine(kernels.get(node.name, op.kernel), op.bias, word_length, word_length)
        for node, op in network.owners()
    }
    rounded = {name: parameters[name].kernel_value for name in kernels}
    if order == "after":
        rounded = prune(rounded, sparsity, scope)
        parameters |= {name: _zeroed(parameters[name], kernel) for name, kernel in rounded.items()}
    pair = with_word_length(network, box, parameters, word_length)
    name = f"uniform {word_length} bits, pruned {sparsity:.0%} of the {scope} {order}"
    return from_quantized(name, pair, notes=_storage_note(rounded, word_length))


def _zeroed(codes: AffineCodes, kernel: Reals) -> AffineCodes:
    """The same codes where the kernel is not zero; the format stays."""
    return AffineCodes(np.where(kernel == 0.0, 0, codes.kernel), codes.kernel_format, codes.bias, codes.bias_format)


def _storage_note(kernels: Mapping[str, Reals], bits: int) -> tuple[str]:
    """What a bitmap of the non-zeros would save: the count itself is of dense storage, like everyone's."""
    total = sum(kernel.size for kernel in kernels.values())
    kept = sum(int(np.count_nonzero(kernel)) for kernel in kernels.values())
    return (f"{total - kept} of {total} weights are zero; stored with a bitmap they take {total + bits * kept} bits.",)
