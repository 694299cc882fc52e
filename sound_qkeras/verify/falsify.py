"""A search for the worst error: what it finds is a lower limit of the true error, shown beside the proved bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.fixed_point import from_codes
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.quantized import QuantizedNetwork

BATCH_NUMBERS = 8_000_000


@dataclass(frozen=True)
class Counterexample:
    """The worst input found: its error (largest over outputs, relative to eps where given) and how many were tried."""

    error: float
    sample: Reals
    evaluations: int


def errors(quantized: QuantizedNetwork, samples: Reals) -> Reals:
    """`|f_q - f|` per sample and output, shape `(samples, outputs)`, in float64 throughout: to search with, not to claim."""
    network = quantized.network
    outputs = size_of(network.output_shape)
    widest = max(size_of(shape) for shape in quantized.trained.shapes.values())
    found: list[Reals] = []
    for part in np.array_split(samples, max(1, samples.shape[0] * widest // BATCH_NUMBERS)):
        codes = quantized.simulate_all(part, exact=False)[network.output.name]
        value = from_codes(codes, quantized.fractional_bits[network.output.name])
        found.append(np.abs(value - quantized.trained.evaluate(part)).reshape(len(part), outputs))
    return np.concatenate(found)


def falsify(quantized: QuantizedNetwork, box: Interval, *, evaluations: int = 30_000, seed: int = 0) -> Counterexample:
    """Corners, random points and hill climbing from the best of them.

    Args:
        quantized: the pair of networks.
        box: inputs, shape `input_shape`.
        evaluations: about how many inputs to try.
        seed: of the search; the same seed gives the same answer on one machine.

    Returns:
        The worst input found and its largest absolute output error.
    """
    rng = np.random.default_rng(seed)
    first = max(64, evaluations // 2)
    samples = box.lower + (box.upper - box.lower) * rng.random((first, *box.shape))
    corners = rng.random((first // 4, *box.shape)) < 0.5
    samples[: first // 4] = np.where(corners, box.lower, box.upper)
    worst = errors(quantized, samples).max(axis=1)
    top = np.argsort(-worst)[:32]
    points, best = samples[top], worst[top]
    tries = max(4, (evaluations - first) // (len(top) * 24))
    for _ in range(24):
        points, best = _climb(quantized, box, points, best, tries, rng)
    at = int(np.argmax(best))
    return Counterexample(float(best[at]), points[at], first + 24 * tries * len(top))


def _climb(
    quantized: QuantizedNetwork, box: Interval, points: Reals, best: Reals, tries: int, rng: np.random.Generator
) -> tuple[Reals, Reals]:
    """One round of random steps of mixed length, some along few axes, from each point."""
    shape = (len(points), tries, *box.shape)
    length = 10.0 ** rng.uniform(-5.0, -0.3, (len(points), tries) + (1,) * len(box.shape))
    chosen = rng.random(shape) < rng.choice([0.15, 1.0], (len(points), tries) + (1,) * len(box.shape))
    moved = points[:, None] + rng.normal(size=shape) * length * chosen * (box.upper - box.lower)
    moved = np.clip(moved, box.lower, box.upper)
    found = errors(quantized, moved.reshape(-1, *box.shape)).max(axis=1).reshape(len(points), tries)
    at = found.argmax(axis=1)
    better = found[np.arange(len(points)), at] > best
    points, best = points.copy(), best.copy()
    points[better] = moved[np.arange(len(points)), at][better]
    best[better] = found[np.arange(len(points)), at][better]
    return points, best
