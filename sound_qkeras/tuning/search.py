"""The solve-verify loop: the MILP proposes formats, the proof engine judges the integers that follow from them.

Each round measures what every group contributes on the worst leaves (the proof with only that group quantised), scales the
error tables to it, and solves for several right-hand sides: a bound above the tolerance asks for less, slack asks for
more. At the end single bits are shaved while the proof holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sound_qkeras.analysis.splitting import Splitting, refine, settle
from sound_qkeras.errors import InfeasibleError, SolverError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.network.rescale import Indices
from sound_qkeras.tuning.build import narrow, nearest, provisional, round_parameters
from sound_qkeras.tuning.channels import spread_bits
from sound_qkeras.tuning.costs import Objective
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.tuning.gap import Solved, optimality
from sound_qkeras.tuning.groups import Bits, Group, candidate_bits, extent, groups_of, output_group, sources_of
from sound_qkeras.tuning.milp import Choices, Joint, solve
from sound_qkeras.tuning.optimality import Optimality
from sound_qkeras.tuning.output import coarsen_output, output_candidates
from sound_qkeras.tuning.rounding import cancel_errors, linearise, sample_box
from sound_qkeras.verify.certificate import BudgetRow
from sound_qkeras.verify.proof import MARGIN, bound_leaves
from sound_qkeras.verify.propagation import output_difference, propagate
from sound_qkeras.verify.split_tree import SplitTree

# Extra fractional bits that make a group's own error vanish beside the others'.
FINE = 16
# Least relative error a group is said to contribute.
NEGLIGIBLE = 1e-9
# Relative bound to reach: the certificate records bounds with a margin and must still meet the tolerance.
TARGET = 1.0 - 2.0 * MARGIN
# Widest integer sums, tried in turn: exact in float64 and so in QKeras; in int64; in nothing but wide integers.
ACCUMULATOR_BITS = (53, 63, 120)
# Longest word a user may allow.
LONGEST_WORD = 52
# Fewer and more fractional bits than the base that the MILP may choose.
WINDOW = (12, 8)
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Attempt:
    """One choice of formats and what was proved about it; `relative` is the bound over the tolerance."""

    bits: Mapping[Group, int]
    quantized: QuantizedNetwork
    splitting: Splitting
    relative: float
    cost: float
    sum_bits: float
    offsets: Mapping[str, Indices]


@dataclass(frozen=True)
class Outcome:
    """The tuned network, the leaves to prove it on, where its error comes from, and how good the MILP's answer was."""

    quantized: QuantizedNetwork
    tree: SplitTree
    error_budget: tuple[BudgetRow, ...]
    optimality: Optimality | None


class Search:
    """State of one tuning run."""

    def __init__(
        self,
        network: Network,
        box: Interval,
        eps: Reals,
        goal: Objective,
        effort: Effort,
        word_lengths: tuple[int, int],
        solver: str,
        report: Report,
        *,
        round_output: bool = False,
        per_channel: bool = False,
    ) -> None:
        """Prepare ranges, groups and candidates.

        Args:
            network: the trained network.
            box: the inputs, shape `input_shape`.
            eps: tolerance per output, shape `(outputs,)`.
            goal: what to minimise.
            effort: budgets.
            word_lengths: fewest and most bits of a word.
            solver: MILP solver by name.
            report: called with a stage's name and the fraction of it that is done.
            round_output: round the output too, to few bits.
            per_channel: give every output channel's weights fractional bits of their own in the end.
        """
        self.network, self.box, self.eps, self.goal, self.effort = network, box, eps, goal, effort
        self.solver, self.report = solver, report
        self.started = time.monotonic()
        self.deadline = self.started + effort.seconds
        facts = propagate(network, box[None]).facts
        self.ranges = {name: found.value for name, found in facts.items()}
        self.centers = {node.name: self.ranges[node.inputs[0]].center[0] for node, _ in network.affine()}
        self.per_channel = per_channel
        self.output = output_group(network) if round_output else None
        self.groups = groups_of(network, round_output=round_output)
        self.word_lengths = word_lengths
        self.candidates = {group: self._candidates(group) for group in self.groups}
        self.linearisation = None
        if effort.samples:
            self.linearisation = linearise(network, sample_box(box, effort.samples), eps)
        self.offsets: Mapping[str, Indices] = {}
        self.accumulator_bits = ACCUMULATOR_BITS[0]
        self.proved: list[Attempt] = []
        self.solved: list[Solved] = []
        self.closest = float("inf")

    def _candidates(self, group: Group) -> list[int]:
        low, high = extent(self.network, group, self.ranges)
        shortest, longest = self.word_lengths
        if group == self.output:
            return output_candidates(low, high, float(self.eps.min()), longest)
        if group.kind == "bias":
            longest = min(MAX_WORD_LENGTH - 6, longest + 12)
        return candidate_bits(low, high, 1 if group.kind == "activation" else shortest, longest)

    def build(self, bits: Mapping[Group, int], *, aware: bool = True) -> QuantizedNetwork:
        """Integers for a choice of bits, in formats of provisional width."""
        rounded = round_parameters(self.network, bits, self.centers, self.offsets)
        if aware and self.linearisation is not None:
            rounded = cancel_errors(self.network, rounded, self.linearisation)
        return provisional(self.network, bits, rounded)

    def cost(self, bits: Mapping[Group, int]) -> float:
        """The objective at a choice of bits."""
        lengths = {group: self._word_length(group, value) for group, value in bits.items()}
        total = sum(self.goal.groups(group, lengths[group]) for group in self.groups)
        if self.goal.products:
            by_node = {group.node: lengths[group] for group in self.groups if group.kind == "activation"}
            for group in self.groups:
                if group.kind == "weight":
                    sources = sources_of(self.network, group.node)
                    other = sum(share * by_node[name] for name, share in sources.items())
                    total += self.goal.products * group.products * lengths[group] * other
        return total

    def _word_length(self, group: Group, bits: int) -> int:
        return Format.for_range(*extent(self.network, group, self.ranges), bits).word_length

    def attempt(self, bits: Mapping[Group, int], start: Attempt | None = None) -> Attempt:
        """Build and prove a choice; the best feasible one is kept.

        With `start`, the leaves of that attempt are used again, more of them are allowed, and a choice that they show to
        be hopeless is given up early.
        """
        found = self.judge(bits, start)
        self.closest = min(self.closest, found.relative)
        if found.relative <= TARGET:
            self.proved.append(found)
        return found

    def judge(self, bits: Bits, start: Attempt | None = None) -> Attempt:
        """As `attempt`, without keeping what comes out."""
        quantized = self.build(bits)
        splitting = refine(
            quantized,
            self.box,
            self.eps,
            target=TARGET,
            max_leaves=self.effort.leaves if start is None else self.effort.most_leaves,
            deadline=max(self.deadline, time.monotonic() + 0.5),
            start=None if start is None else start.splitting,
            hopeless=start is not None,
        )
        sum_bits = self._sum_bits(quantized)
        return Attempt(dict(bits), quantized, splitting, splitting.worst, self.cost(bits), sum_bits, self.offsets)

    def accepts(self, found: Attempt) -> bool:
        """Whether an attempt is proved and its sums fit the accumulator width now in force."""
        return found.relative <= TARGET and found.sum_bits <= self.accumulator_bits

    @property
    def best(self) -> Attempt | None:
        """The cheapest attempt that was proved and whose sums fit the accumulator width now in force."""
        fitting = [found for found in self.proved if self.accepts(found)]
        return min(fitting, key=lambda found: found.cost, default=None)

    def _sum_bits(self, quantized: QuantizedNetwork) -> float:
        """Bits the widest integer sum needs once formats are narrowed to about the proved ranges."""
        ranges = {
            name: (1.01 * float(found.lower.min()), 1.01 * float(found.upper.max()))
            for name, found in self.ranges.items()
        }
        narrowed = {name: Format.for_range(*ranges[name], f.fractional_bits) for name, f in quantized.formats.items()}
        sizes = QuantizedNetwork(self.network, quantized.parameters, narrowed, {}).accumulator_magnitudes
        return float(np.log2(max(1.0, *sizes.values()))) + 0.5

    def start(self) -> Attempt:
        """The coarsest uniform number of fractional bits that is proved, found by the bound's own slope."""
        bits, step = 14, 0
        tried: dict[int, Attempt] = {}
        for step in range(8):
            choice = self.uniform(bits)
            found = tried[bits] = self.attempt(choice)
            self.report("uniform formats", step / 8)
            move = int(np.ceil(np.log2(max(found.relative, 1e-12))))
            if found.relative <= TARGET and (move >= 0 or bits - 1 in tried):
                return found
            bits += move if found.relative > 1.0 else max(move, -4) if bits + move not in tried else -1
            if bits in tried:
                return tried[bits] if tried[bits].relative <= TARGET else min(tried.values(), key=lambda t: t.relative)
            if all(value == max(self.candidates[group]) for group, value in choice.items()):
                break
        return min(tried.values(), key=lambda t: t.relative)

    def uniform(self, bits: int) -> dict[Group, int]:
        """About `bits` fractional bits everywhere, within each group's candidates; finer where it costs little."""
        extra = {"weight": 0, "activation": 3, "bias": 6}
        return {
            group: int(np.clip(bits + extra[group.kind], min(found), max(found)))
            for group, found in self.candidates.items()
        }

    def run(self) -> Outcome:
        """Tune: the cheapest network that was proved, in the narrowest formats its leaves allow.

        Raises:
            InfeasibleError: no choice of at most the allowed word length was proved within the tolerance.
        """
        found = self._settled(self._tune())
        if self.per_channel:
            self.report("channels", 0.0)
            found = self._settled(spread_bits(self, found), found)
        if self.output is not None:
            self.report("output", 0.0)
            self.offsets = found.offsets
            found = self._settled(coarsen_output(self, found, self.output), found)
        self.offsets = found.offsets
        tree = found.splitting.tree
        final = narrow(found.quantized, bound_leaves(found.quantized, self.box, tree).ranges)
        return Outcome(final, tree, self._error_budget(found), optimality(self.solved, [f.bits for f in self.proved]))

    def _settled(self, found: Attempt, fallback: Attempt | None = None) -> Attempt:
        """The attempt with leaves on which it is proved in their final order, or what it started from."""
        most = 2 * self.effort.most_leaves
        splitting = settle(found.splitting, self.box.shape, target=TARGET, max_leaves=most)
        settled = replace(found, splitting=splitting, relative=splitting.worst)
        return settled if fallback is None or self.accepts(settled) else fallback

    def _error_budget(self, found: Attempt) -> tuple[BudgetRow, ...]:
        """The bound if only one group were rounded, on the leaves where the whole bound is largest."""
        leaves = self._worst_leaves(found.splitting)
        scale = float(self.eps.max())
        return tuple(
            BudgetRow(group.layer, group.kind, scale * float(self._contribution(found.bits, group, leaves).max()))
            for group in self.groups
        )

    def _tune(self) -> Attempt:
        current = self.start()
        tables = self.tables(current)
        for self.accumulator_bits in ACCUMULATOR_BITS:
            if solve(tables, self.joints(), 1.0, solver=self.solver) is not None:
                for number in range(self.effort.rounds):
                    tables = tables if number == 0 else self.tables(current)
                    current = self._sweep(tables, current, number)
                    if time.monotonic() > self.deadline:
                        break
            if self.best is not None:
                return self._shave(self.best)
        raise self._infeasible()

    def _sweep(self, tables: dict[Group, Choices], current: Attempt, number: int) -> Attempt:
        """Solve and prove for several right-hand sides; returns the best feasible attempt, or the closest."""
        tolerance = 0.97
        seen: list[Attempt] = []
        low, high = 0.0, float("inf")
        for step in range(self.effort.solves):
            self.report(
                "solve and verify", (number * self.effort.solves + step) / (self.effort.rounds * self.effort.solves)
            )
            try:
                solution = solve(tables, self.joints(), tolerance, solver=self.solver)
            except SolverError:
                if self.best is None:
                    raise
                break  # what was proved already is not lost to a solver that fails later
            if solution is None:
                break
            self.solved.append(Solved(tables, self.joints(), tolerance, solution))
            found = self.attempt(solution.bits)
            seen.append(found)
            if found.relative <= TARGET:
                low = max(low, tolerance)
                tolerance = tolerance * min(1.6, 0.98 / found.relative + 0.02)
            else:
                high = min(high, tolerance)
                tolerance = tolerance * max(0.25, 0.96 / found.relative)
            if not low < tolerance < high:
                tolerance = 0.5 * (low + high)
            if high - low < 0.04 * high or time.monotonic() > self.deadline:
                break
        return self.best or min([*seen, current], key=lambda found: found.relative)

    def tables(self, base: Attempt) -> dict[Group, Choices]:
        """Cost and error of every candidate, scaled to what each group is proved to contribute around `base`."""
        self.report("error tables", 0.0)
        leaves = self._worst_leaves(base.splitting)
        rows = leaves.shape[0] * self.eps.size
        floor = self._contribution(base.bits, None, leaves)
        tables: dict[Group, Choices] = {}
        for group in self.groups:
            bits = self._window(group, base.bits[group])
            lengths = [self._word_length(group, value) for value in bits]
            costs = np.array([self.goal.groups(group, length) for length in lengths], dtype=np.float64)
            at, shape = self._shape(group, bits, base.bits[group])
            measured = self._contribution({**base.bits, group: at}, group, leaves)
            measured = np.maximum(measured - floor, NEGLIGIBLE)
            tables[group] = Choices(bits, lengths, costs, shape[:, None] * measured.reshape(1, rows))
        return tables

    def _window(self, group: Group, base: int) -> list[int]:
        """Candidates near the base: the tables are only good there, and the model stays small."""
        near = [value for value in self.candidates[group] if base - WINDOW[0] <= value <= base + WINDOW[1]]
        return near or [min(self.candidates[group], key=lambda value: abs(value - base))]

    def _shape(self, group: Group, bits: list[int], base: int) -> tuple[int, Reals]:
        """Where to measure a group, and how its error at each candidate relates to that measurement.

        Rounding errors are proportional to the step, except that float32 weights run out of bits: beyond that a finer
        format adds nothing, and the measurement is taken where it still does.
        """
        if group.kind != "weight":
            return base, np.array([2.0 ** (base - value) for value in bits])
        kernel = self.network.by_name[group.node].op.arrays()["kernel"]
        error = {value: float(np.linalg.norm(nearest(kernel, value) - np.ldexp(kernel, value))) for value in bits}
        typical = 0.25 * np.sqrt(kernel.size / 12.0)
        regular = [value for value in bits if value <= base and error[value] >= typical]
        at = max(regular, default=bits[0])
        scale = max(error[at], 1e-300) * 2.0**-at
        return at, np.array([error[value] * 2.0**-value / scale for value in bits])

    def _worst_leaves(self, splitting: Splitting) -> Interval:
        return splitting.boxes.boxes(splitting.leaves[: self.effort.rows], self.box.shape)

    def _contribution(self, bits: Mapping[Group, int], group: Group | None, leaves: Interval) -> Reals:
        """Relative bound on each leaf when only `group` is quantised and the rest is much finer."""
        others = {g: value if g == group else min(value + FINE, self._finest(g)) for g, value in bits.items()}
        result = propagate(self.network, leaves, self.build(others))
        return output_difference(result)[0].magnitude / self.eps

    def _finest(self, group: Group) -> int:
        low, high = extent(self.network, group, self.ranges)
        largest = max(abs(low), abs(high), 1e-30)
        return int(MAX_WORD_LENGTH - 4 - np.ceil(np.log2(largest)))

    def joints(self) -> list[Joint]:
        """Weights and the activations they multiply: their product's cost, and 53 bits for the sum."""
        activations = {group.node: group for group in self.groups if group.kind == "activation"}
        found: list[Joint] = []
        for group in self.groups:
            if group.kind == "weight":
                most = self.accumulator_bits - 1 - int(np.ceil(np.log2(self.network.by_name[group.node].op.terms + 1)))
                for name, share in sources_of(self.network, group.node).items():
                    found.append(Joint(group, activations[name], self.goal.products * group.products * share, most))
        return found

    def _shave(self, best: Attempt) -> Attempt:
        """Take single bits away while the proof holds, where most is saved first, until nothing more comes off."""
        improved = True
        while improved and time.monotonic() < self.deadline:
            improved = False
            worth = [group for group in self.groups if self._saving(best.bits, group) > 1e-4 * best.cost]
            worth.sort(key=lambda group: -self._saving(best.bits, group))
            for number, group in enumerate(worth):
                self.report("shave", number / len(worth))
                step = 1
                while step:
                    found = self._shaved(best, group, step)
                    if found is not None:
                        best, improved = found, improved or group.kind == "weight"
                    # Twice as far after a success, for weights that had run out of bits to lose; one bit after a failure.
                    step = 2 * step if found is not None else int(step > 1)
        return best

    def _shaved(self, best: Attempt, group: Group, step: int) -> Attempt | None:
        """A proved attempt with `step` bits less in `group`, or None.

        A weight bit that does not come off alone is tried with a bit more on everything that is not a weight, and then on
        the smaller layers' weights too, as long as the whole gets cheaper.
        """
        fewer = {**best.bits, group: best.bits[group] - step}
        options = [fewer]
        if group.kind == "weight" and step == 1:
            finer = self._finer(fewer, lambda other: other.kind != "weight")
            options += [finer, self._finer(finer, lambda other: other.kind == "weight" and other.count < group.count)]
        for bits in options:
            if time.monotonic() > self.deadline:
                return None
            if all(value in self.candidates[g] for g, value in bits.items()) and self.cost(bits) < best.cost:
                self.attempt(bits, start=best)
                if self.best is not None and self.best is not best:
                    return self.best
        return None

    def _finer(self, bits: Mapping[Group, int], which: Callable[[Group], bool]) -> dict[Group, int]:
        return {
            group: min(value + 1, max(self.candidates[group])) if which(group) else value
            for group, value in bits.items()
        }

    def _saving(self, bits: Mapping[Group, int], group: Group) -> float:
        return self.cost(bits) - self.cost({**bits, group: bits[group] - 1})

    def _infeasible(self) -> InfeasibleError:
        eps, longest = float(self.eps.min()), self.word_lengths[1]
        bound = self.closest * float(self.eps.max())
        needed = longest + max(1, int(np.ceil(np.log2(max(self.closest, 1.0 + 1e-9)))))
        ways = f"raise eps above {bound:.3g}, shrink the box, or use effort='max'"
        if needed <= LONGEST_WORD:
            ways = f"allow about {needed} bits with word_lengths=(2, {needed}), {ways}"
        return InfeasibleError(
            f"no word length up to {longest} bits was proved to reach eps = {eps:g}: the best proved bound is {bound:.3g}; {ways}",
            best_bound=bound,
            word_length=needed if needed <= LONGEST_WORD else None,
        )
