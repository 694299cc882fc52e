"""Error-aware rounding: up or down per weight so that the errors cancel instead of each being smallest.

At a sample x the first-order error of output k is `r_k(x) = sum over weights of g_kj(x) x_i dW_ij` plus the biases' part,
with g the gradient of the output. Nearest rounding makes every dW smallest; here weights are flipped to their other
neighbour on the grid, best first, as long as the sum of squares of r over samples and outputs falls. Only the choice is
made here: the verifier reads the integers that come out.

Reference: Nagel et al., Up or down? Adaptive rounding for post-training quantization (ICML 2020), for the objective;
discrepancy minimisation by greedy flips is our own, simpler than its relaxation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sound_qkeras.fixed_point import from_codes
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network, size_of
from sound_qkeras.network.ops import Dense
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.support.scratch import at_once
from sound_qkeras.tuning.build import Parameters, round_parameters
from sound_qkeras.tuning.groups import Bits

# Samples, and the widest gradients of one tile of them, take at most one of so many parts of the scratch memory; the inputs and
# gradients that are kept of all samples take one of fewer parts, and so does everything together that a tile leads to.
PARTS, KEPT_PARTS, TILE_PARTS = 8, 4, 2
# Flips tried, best first, between two evaluations of all gains.
FLIPS_PER_SWEEP = 64
MOST_SWEEPS = 60
# A sweep ends when so many flips in a row help no more, after those before them.
MOST_FAILURES = 12
# A sweep that lowers the sum of squares by less than this share is the last.
LEAST_GAIN = 0.01
# Layers whose error is below this share of the tolerance have nothing worth cancelling.
LEAST_ERROR = 1e-3
# Share of a budget in seconds that the gradients may take, and one call.
LINEAR_SHARE, CALL_SHARE = 1.0 / 16, 1.0 / 64


@dataclass(frozen=True)
class Linearisation:
    """The network's values and output gradients at samples of the box, for some of its affine nodes.

    Args:
        inputs: what each node reads, shape `(samples, *shape)`.
        gradients: gradient of every output in each node's result over its tolerance, `(samples, outputs, *shape)`.
    """

    inputs: Mapping[str, Reals]
    gradients: Mapping[str, Reals]


def linearise(network: Network, samples: Reals, eps: Reals, deadline: Deadline | None = None) -> Linearisation:
    """Values and gradients at the nodes whose errors can be cancelled, at samples of shape `(n, *input_shape)`.

    Where all of them take too much memory, it is every second of the samples, every third, and so on.

    Args:
        network: the network.
        samples: where.
        eps: tolerance of every output.
        deadline: when it passes, fewer samples have to do.
    """
    names = [use for name in flippable(network) for use in network.uses(name)]
    if not names:
        return Linearisation({}, {})
    nodes = network.by_name
    kept = sum(
        size_of(network.shapes[nodes[name].inputs[0]]) + eps.size * size_of(network.shapes[name]) for name in names
    )
    samples = samples[:: -(-len(samples) // at_once(kept, KEPT_PARTS))]
    parts = list(_tiles(network, samples, eps, names, deadline))

    def joined(which: str) -> dict[str, Reals]:
        return {name: np.concatenate([getattr(part, which)[name] for part in parts]) for name in names}

    return Linearisation(joined("inputs"), joined("gradients"))


def mean_squares(
    network: Network, samples: Reals, eps: Reals, names: Collection[str], deadline: Deadline | None = None
) -> dict[str, tuple[Reals, Reals]]:
    """Of what some affine nodes read and of the gradients in their results: per channel, over samples, positions, outputs.

    When the deadline passes, fewer samples have to do.
    """
    sums = dict.fromkeys(names, (np.zeros(1), np.zeros(1)))
    tiles, seen = _tiles(network, samples, eps, names, deadline) if names else (), 0
    for part in tiles:
        seen += len(next(iter(part.inputs.values())))
        for name, (inputs, gradients) in sums.items():
            sums[name] = (
                inputs + _sum_of_means(part.inputs[name]),
                gradients + eps.size * _sum_of_means(part.gradients[name]),
            )
    return {name: (inputs / seen, gradients / seen) for name, (inputs, gradients) in sums.items()}


def _sum_of_means(x: Reals) -> Reals:
    """Sum over samples of the mean square per channel."""
    return len(x) * np.mean(x.reshape(-1, x.shape[-1]) ** 2, axis=0)


def _tiles(
    network: Network, samples: Reals, eps: Reals, names: Collection[str], deadline: Deadline | None
) -> Iterator[Linearisation]:
    """As `linearise`, for so many samples at a time as fit memory; for the first at least when the deadline passes."""
    first = min(index for index, node in enumerate(network.nodes) if node.name in names)
    widest = max(size_of(network.shapes[node.name]) for node in network.nodes)
    count = min(at_once(widest * eps.size, PARTS), at_once(network.value_count * (1 + eps.size), TILE_PARTS))
    for at in range(0, len(samples), count):
        if at and deadline is not None and deadline.passed:
            break
        if deadline is not None:
            deadline.count(2.0 * (1 + eps.size) * network.products * len(samples[at : at + count]))
        yield _at_tile(network, samples[at : at + count], eps, names, first)


def _at_tile(network: Network, samples: Reals, eps: Reals, names: Collection[str], first: int) -> Linearisation:
    """At samples that fit memory together; no gradient is taken before node number `first`, where none is asked for."""
    values = network.evaluate_all(samples)
    seed = (np.eye(eps.size) / eps[:, None]).reshape(1, eps.size, *network.output_shape)
    live = {network.output.name: np.broadcast_to(seed, (len(samples), *seed.shape[1:]))}
    inputs: dict[str, Reals] = {}
    gradients: dict[str, Reals] = {}
    for node in reversed(network.nodes[first:]):
        here = live.pop(node.name, None)
        if here is None:
            continue
        if node.name in names:
            inputs[node.name], gradients[node.name] = values[node.inputs[0]], here
        pulled = node.op.gradient(here, *(values[name] for name in node.inputs))
        for source, part in zip(node.inputs, pulled, strict=True):
            live[source] = live[source] + part if source in live else part
    return Linearisation(inputs, gradients)


def flippable(network: Network) -> list[str]:
    """Dense nodes with weights of their own and one position, wherever those are used; others stay at their nearest codes."""
    dense = (node.name for node, op in network.owners() if isinstance(op, Dense))
    return [name for name in dense if all(len(network.shapes[use]) == 1 for use in network.uses(name))]


def sample_box(box: Interval, count: int, seed: int = 0) -> Reals:
    """Uniform samples of a box, a quarter of them at its corners, shape `(count, *box.shape)`; fewer where memory is short."""
    rng, count = np.random.default_rng(seed), min(count, at_once(box.lower.size, PARTS))
    samples = rng.random((count, *box.shape))
    samples *= box.upper - box.lower
    samples += box.lower
    corners = rng.random((count // 4, *box.shape)) < 0.5
    samples[: count // 4] = np.where(corners, box.lower, box.upper)
    return samples


def cancel_errors(
    network: Network, rounded: Mapping[str, Parameters], linearisation: Linearisation, deadline: Deadline | None = None
) -> dict[str, Parameters]:
    """Flip roundings of Dense weights while the first-order errors at the samples shrink.

    Each weight ends at one of the two grid points beside its float value. When the deadline passes, no more is flipped.
    """
    names = set(flippable(network)) & set(linearisation.inputs)
    layers = [
        _Layer(rounded[node.name], op.kernel, op.bias, linearisation, network.uses(node.name))
        for node, op in network.owners()
        if node.name in names
    ]
    parts = [layer.error() for layer in layers]
    residual = sum(parts, np.zeros(1))
    layers = [layer for layer, part in zip(layers, parts, strict=True) if np.max(np.abs(part)) > LEAST_ERROR]
    square = np.sum(residual**2)
    for _ in range(MOST_SWEEPS if layers else 0):
        if deadline is not None and deadline.passed:
            break
        residual = _sweep(layers, residual)
        before, square = square, np.sum(residual**2)
        if square > before * (1.0 - LEAST_GAIN):
            break
    return {**rounded, **{layer.name: layer.result() for layer in layers}}


def _sweep(layers: list[_Layer], residual: Reals) -> Reals:
    """Try the best flips of all layers, best first; returns the errors that are left."""
    candidates = sorted((gain, number, at) for number, layer in enumerate(layers) for gain, at in layer.best(residual))
    square, failures = float(np.vdot(residual, residual)), 0
    for _, number, at in candidates[:FLIPS_PER_SWEEP]:
        changed = residual + layers[number].change(at)
        now = float(np.vdot(changed, changed))
        failures = 0 if now < square else failures + 1
        if now < square:
            residual, square = changed, now
            layers[number].flip(at)
        elif failures == MOST_FAILURES:
            break
    return residual


class CancellingRounding:
    """Rounds all weights of a network for a choice of bits: to nearest, and then so that errors cancel at samples."""

    def __init__(
        self,
        network: Network,
        centers: Mapping[str, Reals],
        samples: Reals | None,
        eps: Reals,
        deadline: Deadline | None = None,
    ) -> None:
        """Take gradients.

        Args:
            network: the network.
            centers: for each affine node the input at which biases make up for weight errors.
            samples: where errors are to cancel; none for nearest rounding.
            eps: tolerance per output.
            deadline: when it passes, fewer samples have to do, and fewer flips.
        """
        self.network, self.centers, self.deadline = network, centers, deadline or Deadline()
        limit = self.deadline.share(LINEAR_SHARE)
        self.linearisation = None if samples is None else linearise(network, samples, eps, limit)

    def __call__(self, bits: Bits, offsets: Mapping[str, Indices]) -> dict[str, Parameters]:
        """Integers of every affine node."""
        rounded = round_parameters(self.network, bits, self.centers, offsets)
        if self.linearisation is None:
            return rounded
        return cancel_errors(self.network, rounded, self.linearisation, self.deadline.share(CALL_SHARE))


class _Layer:
    """One Dense layer during flipping, in all its uses: residuals, and how each flip would change the errors."""

    def __init__(
        self, rounded: Parameters, kernel: Reals, bias: Reals, linearisation: Linearisation, uses: Sequence[str]
    ) -> None:
        self.name, self.rounded = uses[0], rounded
        self.residual: Reals = rounded.value - kernel
        self.bias_residual: Reals = from_codes(rounded.bias, rounded.bias_bits) - bias
        self.codes = rounded.kernel.copy()
        # The code on the other side of every weight, and the way there: none beyond the ends of a word.
        self.others = rounded.words.beside(rounded.kernel, self.residual <= 0.0)
        self.moves = rounded.words.value(self.others) - rounded.value
        self.uses = [(linearisation.inputs[use], linearisation.gradients[use]) for use in uses]
        # Of several uses, at most: between them, errors may add up.
        self.curvature = len(uses) * sum((x**2).T @ (g**2).sum(axis=1) for x, g in self.uses)

    def error(self) -> Reals:
        """This layer's part of the first-order error, `(samples, outputs)`."""
        changes = ((x @ self.residual + self.bias_residual, g) for x, g in self.uses)
        return sum((np.einsum("skj,sj->sk", g, change) for change, g in changes), np.zeros(1))

    def best(self, residual: Reals) -> list[tuple[float, int]]:
        """The flips that lower the sum of squares most, as (gain, flat index), all gains negative."""
        slope = sum(x.T @ (residual[:, None, :] @ g)[:, 0] for x, g in self.uses)
        gain = (2.0 * self.moves * slope + self.moves**2 * self.curvature).ravel()
        found = np.argsort(gain, kind="stable")[:FLIPS_PER_SWEEP]
        return [(float(gain[at]), int(at)) for at in found if gain[at] < 0.0]

    def change(self, at: int) -> Reals:
        """Change of the error if the weight is flipped, `(samples, outputs)`."""
        i, j = divmod(at, self.residual.shape[1])
        return self.moves[i, j] * sum((x[:, i, None] * g[:, :, j] for x, g in self.uses), np.zeros(1))

    def flip(self, at: int) -> None:
        here = divmod(at, self.residual.shape[1])
        self.residual[here] += self.moves[here]
        self.moves[here] *= -1.0
        self.codes[here], self.others[here] = self.others[here], self.codes[here]

    def result(self) -> Parameters:
        return replace(self.rounded, kernel=self.codes)
