"""The re-checked bound of the MILP never exceeds the true optimum, found by brute force in exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sound_qkeras.errors import DependencyError
from sound_qkeras.tuning import milp
from sound_qkeras.tuning.gap import Solved, lower_bound, optimality
from sound_qkeras.tuning.groups import Group
from sound_qkeras.tuning.milp import ROW_TOLERANCE, Choices, Joint, Solution, row_prices, solve
from sound_qkeras.tuning.optimality import Optimality


@dataclass(frozen=True)
class Model:
    choices: dict[Group, Choices]
    joints: list[Joint]
    tolerance: float

    def cost(self, chosen: dict[Group, int]) -> Fraction:
        """Exact, of the candidates with the given numbers."""
        total = sum((Fraction(float(found.costs[chosen[g]])) for g, found in self.choices.items()), Fraction(0))
        for joint in self.joints:
            lengths = (self.choices[g].word_lengths[chosen[g]] for g in (joint.weight, joint.activation))
            total += Fraction(joint.cost) * next(lengths) * next(lengths)
        return total

    def feasible(self, chosen: dict[Group, int], tolerance: Fraction) -> bool:
        for joint in self.joints:
            lengths = (self.choices[g].word_lengths[chosen[g]] for g in (joint.weight, joint.activation))
            if sum(lengths) > joint.most_bits:
                return False
        rows = range(next(iter(self.choices.values())).errors.shape[1])
        used = (sum(Fraction(float(c.errors[chosen[g], row])) for g, c in self.choices.items()) for row in rows)
        return all(total <= tolerance for total in used)

    def all_choices(self) -> Iterator[dict[Group, int]]:
        for numbers in product(*(range(len(found.bits)) for found in self.choices.values())):
            yield dict(zip(self.choices, numbers, strict=True))

    def optimum(self, tolerance: Fraction | None = None) -> Fraction | None:
        limit = Fraction(self.tolerance) if tolerance is None else tolerance
        return min((self.cost(c) for c in self.all_choices() if self.feasible(c, limit)), default=None)


def random_model(seed: int, weights: int = 2, candidates: int = 4, rows: int = 3, joint_cost: float = 1.0) -> Model:
    """Steps that halve the error for one more bit, as tables have them, with noise; a tensor and its readers are joined."""
    rng = np.random.default_rng(seed)
    choices: dict[Group, Choices] = {}
    activations = [Group(f"a{k}", "activation", "", 1, 1) for k in range(rng.integers(1, 3))]
    groups = activations + [Group(f"w{k}", "weight", "", 1, 1) for k in range(weights)]
    for group in groups:
        bits = list(range(count := int(rng.integers(2, candidates + 1))))
        lengths = [int(bit + rng.integers(2, 5)) for bit in bits]
        costs = rng.uniform(0.1, 10.0) * np.array(lengths) + rng.uniform(-0.3, 0.3, count)
        errors = rng.uniform(0.05, 1.0, rows) * 2.0 ** -np.array(bits)[:, None] * rng.uniform(0.8, 1.2, (count, rows))
        choices[group] = Choices(bits, lengths, costs, errors)
    joints = []
    for k, weight in enumerate(groups[len(activations) :]):
        cost = joint_cost * rng.uniform(0.0, 2.0) * (rng.random() < 0.7)
        read = activations if rng.random() < 0.3 else [activations[k % len(activations)]]
        joints += [Joint(weight, tensor, cost / len(read), int(rng.integers(6, 14))) for tensor in read]
    return Model(choices, joints, float(rng.uniform(0.4, 2.0)))


@given(seed=st.integers(0, 10**6), scale=st.integers(-3, 6), zeros=st.floats(0.0, 1.0))
def test_no_prices_lift_the_bound_above_the_optimum(seed, scale, zeros):
    model, rng = random_model(seed, rows=2, candidates=3), np.random.default_rng(seed)
    prices = 2.0**scale * rng.uniform(-0.2, 1.0, 2) * (rng.random(2) >= zeros)
    best = model.optimum(Fraction(model.tolerance) * Fraction(1.0 + ROW_TOLERANCE))
    assume(best is not None)
    assert best is not None
    assert lower_bound(model.choices, model.joints, model.tolerance, prices) <= best


def test_the_bound_is_rounded_downward():
    """Where the relaxation is exact, any rounding upward shows: costs that no float64 sum gets right, rows that are full."""
    groups = [Group(f"w{k}", "weight", "", 1, 1) for k in range(12)]
    for seed in range(60):
        rng = np.random.default_rng(seed)
        choices = {g: Choices([0], [1], rng.uniform(-1.0, 1.0, 1), rng.uniform(0.0, 1.0, (1, 2))) for g in groups}
        used = [sum(Fraction(float(c.errors[0, row])) for c in choices.values()) for row in range(2)]
        model = Model(choices, [], float(max(used)) / (1.0 + ROW_TOLERANCE))
        best = model.optimum(max(used))
        assert best is not None
        found = lower_bound(
            choices, [], model.tolerance, np.array([float(used[0] >= used[1]), float(used[0] < used[1])])
        )
        assert best - Fraction(1, 10**5) <= found <= best


@pytest.mark.solver
@pytest.mark.slow
def test_the_bound_is_close_to_the_optimum_of_most_models():
    gaps = []
    for seed in range(120):
        model = random_model(seed, weights=3)
        found, best = solve(model.choices, model.joints, model.tolerance), model.optimum()
        assert (found is None) == (best is None)
        if found is None or best is None:
            continue
        said = Solved(model.choices, model.joints, model.tolerance, found).optimality()
        chosen = {g: list(c.bits).index(found.bits[g]) for g, c in model.choices.items()}
        assert said.cost == pytest.approx(float(model.cost(chosen)), rel=1e-12)
        assert said.lower_bound <= best <= Fraction(said.cost) * (1 + Fraction(1, 1000))
        assert said.claimed_gap <= 1e-3
        gaps.append(float(1 - Fraction(said.lower_bound) / best))
    assert len(gaps) > 40
    assert np.median(gaps) < 0.06
    assert np.quantile(gaps, 0.9) < 0.15


@pytest.mark.solver
@pytest.mark.slow
def test_the_bound_is_closer_the_more_groups_there_are():
    gaps = []
    for seed in range(20):
        model = random_model(seed, weights=10, candidates=10)
        model = Model(model.choices, [replace(joint, most_bits=24) for joint in model.joints], model.tolerance)
        found = solve(model.choices, model.joints, model.tolerance)
        if found is not None:
            said = Solved(model.choices, model.joints, model.tolerance, found).optimality()
            assert said.claimed_gap <= 1e-3
            gaps.append(said.gap)
    assert len(gaps) > 5
    assert np.median(gaps) < 0.02


@pytest.mark.solver
def test_a_solver_that_lies_about_itself_is_found_out():
    model = random_model(0)
    found = solve(model.choices, model.joints, model.tolerance)
    assert found is not None
    costly = {group: max(choice.bits) for group, choice in model.choices.items()}
    lie = Solved(model.choices, model.joints, model.tolerance, Solution(costly, -1e9, 1e9)).optimality()
    true = Solved(model.choices, model.joints, model.tolerance, found).optimality()
    assert lie.claimed_gap == 0.0
    assert lie.cost > true.cost
    assert lie.gap > true.gap
    assert lie.lower_bound <= true.cost


@pytest.mark.solver
def test_without_prices_the_bound_is_the_cheapest_choice_whatever_its_errors(monkeypatch):
    model = random_model(1)
    monkeypatch.setattr(milp, "_solver", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no answer")))
    prices = row_prices(model.choices, model.joints, model.tolerance, [0, 1])
    assert not np.any(prices)
    cheapest = model.optimum(Fraction(10**6))
    assert cheapest is not None
    bound = lower_bound(model.choices, model.joints, model.tolerance, prices)
    assert float(cheapest) - 1e-9 <= bound <= cheapest


def test_neither_infinite_errors_nor_useless_prices_spoil_the_bound():
    """A candidate without a bound cannot be chosen at any price; a negative price would pay for room that is left."""
    group = Group("w", "weight", "", 1, 1)
    choices = {group: Choices([0, 1], [1, 2], np.array([1.0, 5.0]), np.array([[np.inf], [0.5]]))}
    assert lower_bound(choices, [], 1.0, np.array([2.0])) == pytest.approx(5.0 + 1.0 - 2.0, rel=1e-5)
    for useless in (np.nan, np.inf, -100.0):
        assert lower_bound(choices, [], 1.0, np.array([useless])) == pytest.approx(1.0)


def test_the_answer_that_was_proved_is_the_one_reported():
    model = random_model(2)
    coarse = {group: min(choice.bits) for group, choice in model.choices.items()}
    fine = {group: max(choice.bits) for group, choice in model.choices.items()}
    solved = [
        Solved(model.choices, model.joints, model.tolerance, Solution(b, 0.0, 0.0)) for b in (coarse, fine, coarse)
    ]
    assert optimality([], [fine]) is None
    cheap, dear = (optimality(solved, bits) for bits in ([], [fine]))
    assert cheap is not None
    assert dear is not None
    assert cheap.cost < dear.cost


def test_shares():
    assert Optimality(10.0, 9.0, 10.0).gap == pytest.approx(0.1)
    assert Optimality(10.0, 9.0, 10.0).claimed_gap == 0.0
    assert Optimality(0.0, 0.0, 1.0).gap == 0.0
    assert Optimality(10.0, -np.inf, 9.9).gap == np.inf


class TimeIsUp:
    """A solver that says of its answer that the time was up, as HiGHS does through Pyomo."""

    def __init__(self, solver: Any) -> None:
        self.solver = solver

    def solve(self, model: Any, **options: Any) -> Any:
        results = self.solver.solve(model, **options)
        results.solver.status, results.solver.termination_condition = "aborted", "maxTimeLimit"
        return results


@pytest.mark.solver
def test_an_answer_at_the_time_limit_is_used_without_a_word(monkeypatch, caplog, capfd):
    model, make = random_model(0), milp._solver
    done = solve(model.choices, model.joints, model.tolerance)
    monkeypatch.setattr(milp, "_solver", lambda *args, **options: TimeIsUp(make(*args, **options)))
    found = solve(model.choices, model.joints, model.tolerance)
    assert found is not None
    assert done is not None
    assert (found.bits, found.done, done.done) == (done.bits, False, True)
    assert not np.any(row_prices(model.choices, model.joints, model.tolerance, [0, 1]))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_solver_that_can_run_forever_is_refused(monkeypatch):
    monkeypatch.setattr(milp, "version", lambda name: milp.HANGING[0])
    with pytest.raises(DependencyError, match=r"HiGHS 1\.16\.0 can solve a small model forever.*highspy!=1\.16\.0"):
        milp.find_solver("highs")
