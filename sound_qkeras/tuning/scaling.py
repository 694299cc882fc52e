"""Powers of two per hidden unit that let a layer's weights share one format with fewer bits.

To keep a layer's share of the error, its weights need about `log2(range) + log2(S)` bits, where S is the size of what a
rounding error is multiplied with: the root mean square of the layer's inputs times that of the output's gradient. Scaling
unit j by `2**e` moves both: its incoming weights grow and their errors matter less, its outgoing weights shrink and their
errors matter more. One outlier unit that doubles a layer's range costs every weight a bit; halving that unit alone gives
it back. The exponents are chosen boundary by boundary, for every pair of ranges near the present ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.rescale import Indices, rescalable
from sound_qkeras.tuning.rounding import Linearisation, linearise, sample_box

SWEEPS = 6
SAMPLES = 256
# Beyond, the gradients at the samples would take too long.
MOST_PARAMETERS = 300_000
# Ranges tried beside the present one, in powers of two.
RANGE_MOVES = range(-3, 2)
TINIEST = 1e-30


@dataclass
class _Layer:
    """A Dense layer during scaling: magnitudes of its weights, inputs and output gradients, and how many weights."""

    kernel: Reals
    inputs: Reals
    gradients: Reals

    def bits(self) -> float:
        """Bits all its weights need together for a fixed share of the error, up to a constant."""
        largest = max(float(self.kernel.max()), TINIEST)
        spread = np.linalg.norm(self.inputs) * np.linalg.norm(self.gradients)
        return self.kernel.size * float(np.ceil(np.log2(largest) - 1e-9) + np.log2(max(spread, TINIEST)))


def scaling(network: Network, box: Interval, eps: Reals) -> dict[str, Indices]:
    """Exponents that save bits for inputs in the box, without the layers that need none."""
    if network.parameter_count > MOST_PARAMETERS:
        return {}
    paths = rescalable(network)
    names = {*paths, *(end for ends in paths.values() for end in ends)}
    found = choose_exponents(network, linearise(network, sample_box(box, SAMPLES), eps, names))
    return {name: shifts for name, shifts in found.items() if np.any(shifts)}


def choose_exponents(network: Network, linearisation: Linearisation) -> dict[str, Indices]:
    """Exponents for every rescalable hidden layer; zeros where nothing is gained."""
    readers = {name: ends[0] for name, ends in rescalable(network).items() if len(ends) == 1}
    layers = {
        node.name: _Layer(
            np.abs(op.kernel),
            _root_mean_square(linearisation.inputs[node.name]),
            _root_mean_square(linearisation.gradients[node.name])
            * np.sqrt(linearisation.gradients[node.name].shape[1]),
        )
        for node, op in network.affine()
        if node.name in linearisation.inputs
    }
    exponents = {name: np.zeros(layers[name].kernel.shape[1], np.int64) for name in readers}
    for _ in range(SWEEPS):
        moved = False
        for name, reader in readers.items():
            shifts = _best_shifts(layers[name], layers[reader])
            if np.any(shifts):
                layers[name], layers[reader] = _shift(layers[name], layers[reader], shifts)
                exponents[name] = exponents[name] + shifts
                moved = True
        if not moved:
            break
    return exponents


def _root_mean_square(x: Reals) -> Reals:
    """Per channel, over samples, outputs and positions."""
    return np.sqrt(np.mean(x.reshape(-1, x.shape[-1]) ** 2, axis=0))


def _shift(before: _Layer, after: _Layer, shifts: Indices) -> tuple[_Layer, _Layer]:
    return (
        _Layer(np.ldexp(before.kernel, shifts), before.inputs, np.ldexp(before.gradients, -shifts)),
        _Layer(np.ldexp(after.kernel, -shifts[:, None]), np.ldexp(after.inputs, shifts), after.gradients),
    )


def _best_shifts(before: _Layer, after: _Layer) -> Indices:
    """The shifts of the units between two layers that save most bits, over all pairs of ranges near the present."""
    incoming = np.log2(np.maximum(before.kernel.max(axis=0), TINIEST))
    outgoing = np.log2(np.maximum(after.kernel.max(axis=1), TINIEST))
    wanted = _balance(before, after)
    now = before.bits() + after.bits()
    best, shifts = now - 0.01 * (before.kernel.size + after.kernel.size), np.zeros(incoming.size, np.int64)
    for move_in in RANGE_MOVES:
        highest = np.floor(np.ceil(incoming.max() - 1e-9) + move_in - incoming + 1e-9)
        for move_out in RANGE_MOVES:
            lowest = np.ceil(outgoing - np.ceil(outgoing.max() - 1e-9) - move_out - 1e-9)
            if np.any(lowest > highest):
                continue
            for target in (wanted, np.zeros_like(wanted)):
                tried = np.clip(target, lowest, highest).astype(np.int64)
                bits = sum(layer.bits() for layer in _shift(before, after, tried))
                if bits < best:
                    best, shifts = bits, tried
    return shifts


def _balance(before: _Layer, after: _Layer) -> Reals:
    """Exponents at which a unit's share of both layers' errors is the same, weighted by their numbers of weights."""
    gradients = before.gradients**2 / max(np.sum(before.gradients**2), TINIEST)
    inputs = after.inputs**2 / max(np.sum(after.inputs**2), TINIEST)
    ratio = (before.kernel.size * gradients + TINIEST) / (after.kernel.size * inputs + TINIEST)
    return np.clip(np.rint(0.25 * np.log2(ratio)), -8, 8)
