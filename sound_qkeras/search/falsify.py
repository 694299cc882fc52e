"""A search for the worst error: what it finds is a lower limit of the true error, shown beside the proved bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sound_qkeras.fixed_point import from_codes
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Pair, size_of
from sound_qkeras.search.breakpoints import SearchSpace
from sound_qkeras.search.moves import Indices, propose
from sound_qkeras.search.starts import every_input, spread, starts
from sound_qkeras.support.deadline import Deadline

# Inputs that are tried unless something else is said.
EVALUATIONS = 30_000
# Numbers in the arrays one batch makes, and multiplications by weights that it takes.
BATCH_NUMBERS, BATCH_PRODUCTS = 8_000_000, 1_000_000_000
# Share of the evaluations that go to the starting points.
FIRST = 0.2
# Points that climb: at least, one for so many evaluations, and at most. Late rounds look harder, from the best few.
FEWEST_POINTS, EVALUATIONS_A_POINT, MOST_POINTS = 96, 2_000, 512
LAST_POINTS = 8
# Rounds of moves: at least, one for so many evaluations, and at most unless their batches become too large.
FEWEST_ROUNDS, EVALUATIONS_A_ROUND, MOST_ROUNDS = 24, 15_000, 64
LEAST_MOVES = 8
# Under a budget in seconds a batch has at most so many inputs: how long they take is not known before.
TIMED_TRIES = 1024
# What trying an input counts as, per product.
TRIED_PRODUCTS = 6.0


@dataclass(frozen=True)
class Counterexample:
    """The worst input found: its error (largest over outputs) and how many were tried."""

    error: float
    sample: Reals
    evaluations: int


def errors(pair: Pair, samples: Reals) -> Reals:
    """`f_q - f` per sample and output, shape `(samples, outputs)`, in float64 throughout: to search with, not to claim."""
    network = pair.network
    outputs = size_of(network.output_shape)
    found: list[Reals] = []
    for part in pair.reference.tiles(samples):
        if pair.has_integers:
            codes = pair.simulate_all(part, exact=False)[network.output.name]
            value = from_codes(codes, pair.fractional_bits[network.output.name])
        else:
            value = pair.evaluate_all(part)[network.output.name]
        found.append((value - pair.reference.evaluate(part)).reshape(len(part), outputs))
    return np.concatenate(found)


def falsify(
    pair: Pair,
    box: Interval,
    *,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
    deadline: Deadline | None = None,
) -> Counterexample:
    """The worst error of a fixed-point network on a box that `search` finds.

    Args:
        pair: the pair of networks.
        box: inputs, shape `input_shape`.
        evaluations: about how many inputs to try, and not fewer unless the deadline passes, or there are fewer.
        seed: of the search; the same seed gives the same answer on one machine, where the clock had no say.
        deadline: when it passes, what was found so far has to do.

    Returns:
        The worst input found and its largest absolute output error.
    """
    space = SearchSpace.of(pair, box)
    return search(lambda samples: errors(pair, samples), space, evaluations, seed, deadline)


def search(
    errors_at: Callable[[Reals], Reals],
    space: SearchSpace,
    evaluations: int,
    seed: int,
    deadline: Deadline | None = None,
) -> Counterexample:
    """Corners, faces, random points and a grid of few inputs, then moves from the best, guided by gradients, breakpoints and ties.

    Where there are no more inputs than are to be tried, all of them, and nothing else.

    Args:
        errors_at: signed errors of samples `(n, *input_shape)`, shape `(n, outputs)`.
        space: what the moves follow.
        evaluations: about how many inputs to try, and not fewer unless the deadline passes, or there are fewer.
        seed: of the search.
        deadline: when it passes, what was found so far has to do.

    Returns:
        The worst input found and its largest absolute output error.

    Reference: Madry et al., Towards deep learning models resistant to adversarial attacks (ICLR 2018), for projected sign
    ascent; Storn and Price, Differential evolution (1997), for steps along differences of points.
    """
    deadline = deadline or Deadline()
    climb = _Climb(errors_at, space, np.random.default_rng(seed), deadline)
    everything = every_input(space, evaluations)
    if everything is None:
        _look(climb, evaluations)
    else:
        climb.try_all(everything)
    best = int(np.argmax(climb.size))
    shape = space.network.input_shape
    return Counterexample(float(climb.size[best]), climb.points[best].reshape(shape), climb.evaluations)


def _look(climb: _Climb, evaluations: int) -> None:
    """Start, and move until so many inputs were tried; fewer and fewer points go on."""
    points = int(np.clip(evaluations // EVALUATIONS_A_POINT, FEWEST_POINTS, MOST_POINTS))
    climb.start(max(LAST_POINTS, int(FIRST * evaluations)), points)
    rounds = int(np.clip(evaluations // EVALUATIONS_A_ROUND, FEWEST_ROUNDS, MOST_ROUNDS))
    started, halved, stages = climb.evaluations, 0, 1 + max(0, round(np.log2(climb.count / LAST_POINTS)))
    while climb.evaluations < evaluations and not climb.deadline.passed:
        if stages * (climb.evaluations - started) >= (halved + 1) * (evaluations - started):
            climb.keep(max(LAST_POINTS, climb.count // 2))
            halved += 1
        climb.move(min((evaluations - started) // rounds + 1, evaluations - climb.evaluations))


class _Climb:
    """Points that climb, shape `(points, inputs)`, and their errors `(points, outputs)`."""

    def __init__(
        self, errors_at: Callable[[Reals], Reals], space: SearchSpace, rng: np.random.Generator, deadline: Deadline
    ) -> None:
        self.errors_at, self.space, self.rng, self.deadline = errors_at, space, rng, deadline
        network = space.network
        self.points = np.empty((0, space.lower.size))
        self.errors = np.empty((0, size_of(network.output_shape)))
        self.evaluations = 0
        tries = min(BATCH_NUMBERS // space.lower.size, BATCH_PRODUCTS // max(1, network.products))
        tries = min(tries, TIMED_TRIES) if deadline.timed else tries
        self.most_tries, self.most_points = max(1, tries), max(1, BATCH_NUMBERS // network.value_count)

    @property
    def count(self) -> int:
        return len(self.points)

    @property
    def size(self) -> Reals:
        """The largest error of each point over the outputs."""
        return np.abs(self.errors).max(axis=1)

    def measure(self, points: Reals) -> Reals:
        """Errors of points with any leading axes."""
        flat = points.reshape(-1, *self.space.network.input_shape)
        self.evaluations += len(flat)
        self.deadline.count(TRIED_PRODUCTS * self.space.network.products * len(flat))
        return self.errors_at(flat).reshape(*points.shape[:-1], -1)

    def try_all(self, points: Reals) -> None:
        """All of these; the worst stays."""
        for start in range(0, len(points), self.most_tries):
            if self.count and self.deadline.passed:
                break
            self._add(points[start : start + self.most_tries])
            self.keep(1)

    def start(self, tries: int, keep: int) -> None:
        """The best of many points, and the best of random groups of them, so that not all lie together."""
        keep = min(keep, self.most_points)
        while tries > 0 and not (self.count and self.deadline.passed):
            now = min(tries, self.most_tries)
            self._add(
                spread(self.rng, self.space, now, corners=False) if self.count else starts(self.rng, self.space, now)
            )
            size, groups = self.size, np.array_split(self.rng.permutation(self.count), max(1, keep // 2))
            best = [int(group[np.argmax(size[group])]) for group in groups if group.size]
            self._choose(np.union1d(best, np.argsort(-size, kind="stable")[: keep - keep // 2]).astype(np.int64))
            tries -= now

    def move(self, tries: int) -> None:
        """Spread about so many tries over the points; each goes to the best it found where that is better."""
        count = max(LEAST_MOVES, min(tries, self.most_tries) // self.count)
        at, worst = np.arange(self.count), np.abs(self.errors).argmax(axis=1)
        rows = np.zeros_like(self.errors)
        rows[at, worst] = np.where(self.errors[at, worst] < 0.0, -1.0, 1.0)
        moved = propose(self.rng, self.space, self.points, rows, count)
        found = self.measure(moved)
        best = np.abs(found).max(axis=2).argmax(axis=1)
        better = (np.abs(found[at, best]).max(axis=1) > self.size)[:, None]
        self.points = np.where(better, moved[at, best], self.points)
        self.errors = np.where(better, found[at, best], self.errors)

    def keep(self, count: int) -> None:
        """Only the best points go on."""
        self._choose(np.argsort(-self.size, kind="stable")[:count])

    def _add(self, points: Reals) -> None:
        self.points = np.concatenate([self.points, points])
        self.errors = np.concatenate([self.errors, self.measure(points)])

    def _choose(self, chosen: Indices) -> None:
        self.points, self.errors = self.points[chosen], self.errors[chosen]
