"""Powers of two per hidden unit that let a layer's weights share one format with fewer bits.

To keep a layer's share of the error, its weights need about `log2(range) + log2(S)` bits, where S is the size of what a
rounding error is multiplied with: the root mean square of the layer's inputs times that of the output's gradient. Scaling
unit j by `2**e` moves both: its incoming weights grow and their errors matter less, its outgoing weights shrink and their
errors matter more. One outlier unit that doubles a layer's range costs every weight a bit; halving that unit alone gives
it back. The exponents are chosen boundary by boundary, for every pair of ranges near the present ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.ops import Affine
from sound_qkeras.network.rewrite.rescale import Indices, input_axis, rescalable
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.rounding import mean_squares

SWEEPS = 6
# Beyond, the gradients at the samples would take too long.
MOST_PARAMETERS = 300_000
# Ranges tried beside the present one, in powers of two.
RANGE_MOVES = range(-3, 2)
TINIEST = 1e-30


@dataclass
class _Layer:
    """A layer with weights during scaling.

    Args:
        kernel: largest magnitude per input and output channel, or per channel where each is by itself (depthwise).
        count: how many weights there are.
        inputs, gradients: root mean squares of what each input channel holds, and of the gradients in each output channel.
    """

    kernel: Reals
    count: int
    inputs: Reals
    gradients: Reals

    @classmethod
    def of(cls, op: Affine, inputs: Reals, gradients: Reals) -> _Layer:
        """Of an operation and mean squares."""
        kernel = np.abs(op.kernel)
        kernel = kernel.reshape(-1, *kernel.shape[-2:]).max(axis=0)
        depthwise = input_axis(op) == op.kernel.ndim - 1
        return cls(kernel.reshape(-1) if depthwise else kernel, op.kernel.size, np.sqrt(inputs), np.sqrt(gradients))

    @property
    def incoming(self) -> Reals:
        """Largest magnitude per output channel."""
        return self.kernel if self.kernel.ndim == 1 else self.kernel.max(axis=0)

    @property
    def outgoing(self) -> Reals:
        """Largest magnitude per input channel."""
        return self.kernel if self.kernel.ndim == 1 else self.kernel.max(axis=1)

    def bits(self) -> float:
        """Bits all its weights need together for a fixed share of the error, up to a constant."""
        largest = max(float(self.kernel.max()), TINIEST)
        if self.kernel.ndim == 1:
            spread = np.linalg.norm(self.inputs * self.gradients)
        else:
            spread = np.linalg.norm(self.inputs) * np.linalg.norm(self.gradients)
        return self.count * float(np.ceil(np.log2(largest) - 1e-9) + np.log2(max(spread, TINIEST)))

    def with_outputs(self, shifts: Indices) -> _Layer:
        """Its output channels times powers of two."""
        return replace(self, kernel=np.ldexp(self.kernel, shifts), gradients=np.ldexp(self.gradients, -shifts))

    def with_inputs(self, shifts: Indices) -> _Layer:
        """What it reads times powers of two."""
        back = -shifts if self.kernel.ndim == 1 else -shifts[:, None]
        return replace(self, kernel=np.ldexp(self.kernel, back), inputs=np.ldexp(self.inputs, shifts))


def scaling(network: Network, samples: Reals, eps: Reals, deadline: Deadline | None = None) -> dict[str, Indices]:
    """Exponents that save bits for inputs like the samples, without the layers that need none.

    When the deadline passes, fewer samples have to do.
    """
    if network.parameter_count > MOST_PARAMETERS:
        return {}
    paths = rescalable(network)
    squares = mean_squares(network, samples, eps, {*paths, *sum(paths.values(), ())}, deadline)
    found = choose_exponents(network, squares)
    return {name: shifts for name, shifts in found.items() if np.any(shifts)}


def choose_exponents(network: Network, squares: Mapping[str, tuple[Reals, Reals]]) -> dict[str, Indices]:
    """Exponents for every rescalable layer; zeros where nothing is gained.

    Args:
        network: the network.
        squares: mean squares of inputs and gradients per channel of the layers on both sides, as `mean_squares` finds them.
    """
    readers = {name: ends[0] for name, ends in rescalable(network).items() if len(ends) == 1}
    layers = {node.name: _Layer.of(op, *squares[node.name]) for node, op in network.affine() if node.name in squares}
    exponents = {name: np.zeros(layers[name].gradients.size, np.int64) for name in readers}
    for _ in range(SWEEPS):
        moved = False
        for name, reader in readers.items():
            shifts = _best_shifts(layers[name], layers[reader])
            if np.any(shifts):
                layers[name], layers[reader] = layers[name].with_outputs(shifts), layers[reader].with_inputs(shifts)
                exponents[name] = exponents[name] + shifts
                moved = True
        if not moved:
            break
    return exponents


def _best_shifts(before: _Layer, after: _Layer) -> Indices:
    """The shifts of the units between two layers that save most bits, over all pairs of ranges near the present."""
    incoming = np.log2(np.maximum(before.incoming, TINIEST))
    outgoing = np.log2(np.maximum(after.outgoing, TINIEST))
    wanted = _balance(before, after)
    now = before.bits() + after.bits()
    best, shifts = now - 0.01 * (before.count + after.count), np.zeros(incoming.size, np.int64)
    for move_in in RANGE_MOVES:
        highest = np.floor(np.ceil(incoming.max() - 1e-9) + move_in - incoming + 1e-9)
        for move_out in RANGE_MOVES:
            lowest = np.ceil(outgoing - np.ceil(outgoing.max() - 1e-9) - move_out - 1e-9)
            if np.any(lowest > highest):
                continue
            for target in (wanted, np.zeros_like(wanted)):
                tried = np.clip(target, lowest, highest).astype(np.int64)
                bits = before.with_outputs(tried).bits() + after.with_inputs(tried).bits()
                if bits < best:
                    best, shifts = bits, tried
    return shifts


def _balance(before: _Layer, after: _Layer) -> Reals:
    """Exponents at which a unit's share of both layers' errors is the same, weighted by their numbers of weights."""
    gradients = before.gradients**2 / max(np.sum(before.gradients**2), TINIEST)
    inputs = after.inputs**2 / max(np.sum(after.inputs**2), TINIEST)
    ratio = (before.count * gradients + TINIEST) / (after.count * inputs + TINIEST)
    return np.clip(np.rint(0.25 * np.log2(ratio)), -8, 8)
