"""The solve-and-evaluate loop: the MILP proposes formats, and an evaluator looks at the integers that follow from them.

Each round measures what every group adds to the error where it is largest, scales the error tables to it, and solves for
several right-hand sides: an error above the tolerance asks for less, slack asks for more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic

import numpy as np

from sound_qkeras.errors import InfeasibleError, SolverError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Reals
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.support.decimals import at_most
from sound_qkeras.tuning.build import provisional
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.tuning.evaluator import TARGET, Alone, E, Evaluator
from sound_qkeras.tuning.families import words_of
from sound_qkeras.tuning.gap import Solved
from sound_qkeras.tuning.groups import FINE, Bits, Group, much_finer
from sound_qkeras.tuning.milp import Choices, Limit, solve
from sound_qkeras.tuning.space import Space

# Least relative error a group is said to contribute.
NEGLIGIBLE = 1e-9
# Widest integer sums, tried in turn: exact in float64 and so in QKeras; in int64; in nothing but wide integers.
ACCUMULATOR_BITS = (53, 63, 120)
# Longest word a user may allow.
LONGEST_WORD = 52
# Fractional bits at which the search starts.
FIRST_BITS = 14
# Share of the tolerance that groups may have together which are rounded to zero because they are faint.
FAINT_SHARE = 2.0**-8
# Attempts within so many tolerances are worth going on from.
NEARLY = 1.5
# Time limits of one solve where the budget is one of time.
LEAST_SOLVER_SECONDS, MOST_SOLVER_SECONDS = 2.0, 4.0
# What a solve, and the integers of one weight, count as.
SOLVE_OPERATIONS, BUILD_OPERATIONS = 5e8, 2000.0
# So many times as often as the effort says, while nothing is accepted, a round solves; from then on it asks for at most such
# a share of what it asked for before, for its model promises too much there.
MOST_SOLVES, LESS = 2, 0.7
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Attempt(Generic[E]):
    """One choice of formats and what is known about it; `relative` is the error over the tolerance."""

    bits: Bits
    pair: Pair
    evidence: E
    cost: float
    sum_bits: float
    offsets: Mapping[str, Indices]

    @property
    def relative(self) -> float:
        """The error over the tolerance."""
        return self.evidence.worst


class Search(Generic[E]):
    """State of one tuning run."""

    def __init__(
        self,
        space: Space,
        evaluator: Evaluator[E],
        eps: Reals,
        effort: Effort,
        solver: str,
        report: Report,
        deadline: Deadline | None = None,
        before: Attempt[E] | None = None,
    ) -> None:
        """Prepare.

        Args:
            space: what can be chosen.
            evaluator: what decides.
            eps: tolerance per output, shape `(outputs,)`.
            effort: budgets.
            solver: MILP solver by name.
            report: called with a stage's name and the fraction of it that is done.
            deadline: when the search ends; after the budget of its effort, if it is not given.
            before: what met a tighter tolerance of the same network, to begin with.
        """
        self.before = before
        self.space, self.evaluator, self.eps, self.effort = space, evaluator, eps, effort
        self.solver, self.report = solver, report
        self.network = space.network
        self.deadline = deadline or effort.deadline()
        self.started = self.deadline.now
        self.rounding = evaluator.rounding(effort, self.deadline.if_firm)
        self.offsets: Mapping[str, Indices] = {}
        self.accumulator_bits = ACCUMULATOR_BITS[0]
        self.accepted: list[Attempt[E]] = []
        self.accepted_bits: list[Bits] = []
        self.solved: list[Solved] = []
        self.closest = float("inf")
        # How many attempts samples that did not choose have refused.
        self.refusals = 0
        self.tolerance: float = evaluator.first_tolerance

    def build(self, bits: Bits) -> Pair:
        """Integers for a choice of bits, in formats of provisional width."""
        return provisional(self.network, bits, self.rounding(bits, self.offsets))

    def attempt(self, bits: Bits, start: Attempt[E] | None = None) -> Attempt[E]:
        """Build and evaluate a choice; what meets the tolerance is kept. For `start` see `Evaluator.evaluate`."""
        found = self.try_out(bits, start)
        self.closest = min(self.closest, found.relative)
        self.refusals += self.evaluator.refuses(found.evidence)
        if found.relative <= TARGET:
            self.accepted_bits.append(found.bits)
            self.accepted = _undominated([*self.accepted, found])
        return found

    def try_out(self, bits: Bits, start: Attempt[E] | None = None) -> Attempt[E]:
        """As `attempt`, without keeping what comes out."""
        if self.deadline.interrupted and not self.accepted:
            raise KeyboardInterrupt("nothing was proved so far")
        self.deadline.count(BUILD_OPERATIONS * self.space.weights)
        pair = self.build(bits)
        # A budget in seconds leaves no samples out before there is an answer.
        limit = self.deadline if self.accepted else replace(self.deadline, firm=False)
        evidence = self.evaluator.evaluate(pair, limit, None if start is None else start.evidence)
        if evidence.worst <= TARGET:
            self.deadline.keep_back(self.evaluator.seconds_to_prove(evidence))
        return Attempt(dict(bits), pair, evidence, self.space.cost(bits), self._sum_bits(pair), self.offsets)

    def accepts(self, found: Attempt[E]) -> bool:
        """Whether an attempt meets the tolerance and its sums fit the accumulator width now in force."""
        return found.relative <= TARGET and found.sum_bits <= self.accumulator_bits

    def tell(self, stage: str, fraction: float = 0.0) -> None:
        """Report how much of a stage is done: so much, or the share of the budget that is spent, whose end ends every stage."""
        whole = self.deadline.latest - self.started
        spent = 1.0 - self.deadline.left / whole if 0.0 < whole < np.inf else 0.0
        self.report(stage, min(1.0, max(fraction, spent)))

    @property
    def late(self) -> bool:
        """Whether something was accepted and a firm deadline has passed: what is there has to do."""
        return bool(self.accepted) and self.deadline.firm and self.deadline.passed

    @property
    def best(self) -> Attempt[E] | None:
        """The cheapest attempt that meets the tolerance and whose sums fit the accumulator width now in force."""
        fitting = [found for found in self.accepted if self.accepts(found)]
        return min(fitting, key=lambda found: found.cost, default=None)

    def _sum_bits(self, pair: Pair) -> float:
        """Bits the widest integer sum needs once formats are narrowed to about the ranges."""
        ranges = {
            name: (1.01 * float(found.lower.min()), 1.01 * float(found.upper.max()))
            for name, found in self.space.ranges.items()
        }
        narrowed = {name: Format.for_range(*ranges[name], f.fractional_bits) for name, f in pair.formats.items()}
        sizes = Pair(self.network, pair.parameters, narrowed, {}).accumulator_magnitudes
        return float(np.log2(max(1.0, *sizes.values()))) + 0.5

    def _drop_faint(self) -> None:
        """Round faint groups to zero, all but the largest of them that it would do harm to.

        Their words would have as many fractional bits as the values are small, and so would every sum. When the deadline
        passes, more of them are left as they are.
        """
        bits = {group: max(found) for group, found in self.space.candidates.items()}
        if self.space.output is not None:
            bits[self.space.output] += FINE
        faint = self.space.faint
        low, first, high = 0, 0, len(faint)
        while low < high and (first == 0 or not self.deadline.passed):
            zeros = dict.fromkeys(faint[first:], 0)
            if self.try_out({**bits, **zeros}).relative <= FAINT_SHARE:
                high = first
            else:
                low = first + 1
            first = (low + high) // 2
        self.space.drop(faint[high:])

    def start(self) -> Attempt[E]:
        """The coarsest uniform number of fractional bits that is accepted, found by the error's own slope."""
        bits, step = FIRST_BITS, 0
        tried: dict[int, Attempt[E]] = {}
        for step in range(8):
            choice = self.space.uniform(bits)
            found = tried[bits] = self.attempt(choice)
            self.tell("uniform formats", step / 8)
            if self.late or self.deadline.interrupted or not np.isfinite(found.relative):
                break
            move = int(np.ceil(np.log2(max(found.relative, 1e-12))))
            if found.relative <= TARGET and (move >= 0 or bits - 1 in tried):
                return found
            bits += move if found.relative > 1.0 else max(move, -4) if bits + move not in tried else -1
            if bits in tried:
                return tried[bits] if tried[bits].relative <= TARGET else min(tried.values(), key=lambda t: t.relative)
            if all(value == max(self.space.candidates[group]) for group, value in choice.items()):
                break
        return min(tried.values(), key=lambda t: t.relative)

    def _again(self, before: Attempt[E]) -> Attempt[E]:
        """What met a tighter tolerance, as near as there are candidates here."""
        bits = {
            group: min(found, key=lambda value, at=before.bits[group]: abs(value - at))
            for group, found in self.space.candidates.items()
        }
        found = self.attempt(bits, start=before)
        return found if self.accepts(found) else self.start()

    def run(self) -> Attempt[E]:
        """The cheapest attempt that was accepted, before single bits are trimmed.

        Raises:
            KeyboardInterrupt: the search was interrupted before anything was accepted.
            InfeasibleError: no choice of at most the allowed word length met the tolerance.
        """
        self._drop_faint()
        current = self.start() if self.before is None else self._again(self.before)
        tables: dict[Group, Choices] = {}
        for self.accumulator_bits in ACCUMULATOR_BITS:
            self.tolerance = self.evaluator.first_tolerance
            for number in range(self.effort.rounds):
                if self.deadline.interrupted or self.late or not np.isfinite(current.relative):
                    break
                tables = tables if number == 0 and tables else self.tables(current)
                found = self._sweep(tables, current, number) if tables else None
                if found is None:
                    break
                current = found
                if self.deadline.passed:
                    break
            if self.best is not None:
                return self.best
        if self.deadline.interrupted:
            raise KeyboardInterrupt("nothing was proved so far")
        raise self._infeasible()

    def _sweep(self, tables: dict[Group, Choices], current: Attempt[E], number: int) -> Attempt[E] | None:
        """Solve and evaluate for several right-hand sides; the best accepted attempt, or the closest, or None if none exists."""
        tolerance: float = self.tolerance
        seen: list[Attempt[E]] = []
        low, high = 0.0, float("inf")
        joints = self.space.joints(self.accumulator_bits)
        for step in range(MOST_SOLVES * self.effort.solves):
            if step >= self.effort.solves and low > 0.0:
                break  # more only while nothing was accepted
            if self.late:
                break
            done = number * self.effort.solves + min(step, self.effort.solves - 1)
            self.tell("solve and evaluate", done / (self.effort.rounds * self.effort.solves))
            side = tolerance**self.evaluator.power
            try:
                self.deadline.count(SOLVE_OPERATIONS)
                solution = solve(tables, joints, side, solver=self.solver, limit=self._solver_limit())
            except SolverError:
                if self.best is None or not self.solved:
                    raise
                break  # what was accepted already is not lost to a solver that fails later
            if solution is None:
                break
            self.solved.append(Solved(tables, joints, side, solution))
            if not solution.done:
                self.deadline.reached.set()
            found = self.attempt(solution.bits)
            seen.append(found)
            if found.relative <= TARGET:
                low = max(low, tolerance)
                tolerance = tolerance * min(1.6, 0.98 / max(found.relative, NEGLIGIBLE) + 0.02)
            else:
                high = min(high, tolerance)
                share = 1.0 if step < self.effort.solves else LESS
                tolerance = tolerance * min(share, max(0.25, 0.96 / found.relative))
            if not low < tolerance < high:
                tolerance = 0.5 * (low + high)
            if high - low < 0.04 * high or self.deadline.passed:
                break
        self.tolerance = low or tolerance
        if not seen and self.best is None:
            return None
        # The next tables are best measured near the answer, be it a little beyond the tolerance.
        near = [found for found in seen if found.relative <= NEARLY]
        return (
            min(near, key=lambda found: found.cost, default=None)
            or self.best
            or min([*seen, current], key=lambda found: found.relative)
        )

    def _solver_limit(self) -> Limit:
        """Nodes where work is counted, else seconds."""
        if not self.effort.firm:
            return Limit()
        return Limit.of_time(max(LEAST_SOLVER_SECONDS, min(MOST_SOLVER_SECONDS, self.deadline.left)))

    def tables(self, base: Attempt[E]) -> dict[Group, Choices]:
        """Cost and error of every candidate, scaled to what each group is seen to add around `base`.

        Nothing, where a firm deadline passes and something was accepted already.
        """
        self.tell("error tables")
        space, power = self.space, self.evaluator.power
        near = {group: space.near(group, base.bits[group]) for group in space.groups}
        shapes = {group: self._shape(group, near[group], base.bits[group]) for group in space.groups}
        alone = self.alone(base.bits, {group: at for group, (at, _) in shapes.items()})
        limit = self.deadline.if_firm if self.accepted else Deadline()
        rows = self.evaluator.contributions(base.evidence, alone, [None, *space.groups], limit)
        if len(rows) <= len(space.groups):
            return {}
        tables: dict[Group, Choices] = {}
        for group, bits in near.items():
            lengths = [space.word_length(group, value) for value in bits]
            costs = np.array([space.goal.groups(group, length) for length in lengths], dtype=np.float64)
            measured = np.maximum(rows[group] - rows[None], NEGLIGIBLE**power)
            tables[group] = Choices(bits, lengths, costs, shapes[group][1][:, None] ** power * measured[None])
        return tables

    def alone(self, bits: Bits, measured: Bits) -> Alone:
        """Networks in which only one group is as coarse as `measured`, or else `bits`, says."""
        others = much_finer(self.network, bits, self.space.ranges)

        def build(group: Group | None) -> Pair:
            return self.build(others if group is None else {**others, group: measured.get(group, bits[group])})

        return build

    def _shape(self, group: Group, bits: list[int], base: int) -> tuple[int, Reals]:
        """Where to measure a group, and how its error at each candidate relates to that measurement.

        Rounding errors are proportional to the step, except that float32 weights run out of bits: beyond that a finer
        format adds nothing, and the measurement is taken where it still does.
        """
        if group.kind != "weight":
            return base, np.array([2.0 ** (base - value) for value in bits])
        kernel = self.network.by_name[group.node].op.arrays()["kernel"]
        error = {value: words_of(kernel, value, None, group.families).error(kernel) for value in bits}
        typical = 0.25 * np.sqrt(kernel.size / 12.0)
        regular = [value for value in bits if value <= base and error[value] >= typical * 2.0**-value]
        at = max(regular, default=bits[0])
        return at, np.array([error[value] / max(error[at], 1e-300) for value in bits])

    def _infeasible(self) -> InfeasibleError:
        eps, longest = self.eps, self.space.word_lengths[1]
        alike, bound = bool(np.all(eps == eps[0])), self.closest * float(eps.max())
        asked, reached = f"{eps[0]:g}", at_most(bound, 3) if np.isfinite(bound) else "inf"
        higher = f"raise eps to {at_most(bound, 3)}"
        if not alike:
            asked, reached = f"{eps.min():g} to {eps.max():g}", f"{at_most(self.closest, 3)} times that of an output"
            higher = f"multiply eps by {at_most(self.closest, 3)}"
        beyond = float(np.clip(self.closest, 1.0 + 1e-9, 2.0**LONGEST_WORD))
        needed = longest + max(1, int(np.ceil(np.log2(beyond))))
        ways = "shrink the box, or use effort='max'"
        if np.isfinite(bound):
            ways = f"{higher}, {ways}"
        fixed = "fixed" in self.space.families
        if not fixed:
            ways = f"add fixed to families, {ways}"
        elif needed <= LONGEST_WORD:
            ways = f"allow about {needed} bits with word_lengths=(2, {needed}), {ways}"
        return InfeasibleError(
            f"no word length up to {longest} bits was found to reach eps = {asked}: {self.evaluator.measured} is {reached}; {ways}",
            best_bound=bound,
            word_length=needed if needed <= LONGEST_WORD and fixed else None,
        )


def _undominated(attempts: list[Attempt[E]]) -> list[Attempt[E]]:
    """Those that no other one beats in cost and width of sums, the first of equal ones: large networks are not kept for long."""
    kept: list[Attempt[E]] = []
    for found in sorted(attempts, key=lambda attempt: attempt.cost):
        if all(found.sum_bits < other.sum_bits for other in kept):
            kept.append(found)
    return kept
