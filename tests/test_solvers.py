"""Another solver than HiGHS, by its name: CBC, which the project that the per-layer rule is from used."""

from fractions import Fraction

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.baselines.per_layer import solve_rule
from sound_qkeras.errors import DependencyError
from sound_qkeras.tuning.milp import find_solver, solve
from tests import networks
from tests.unit.test_gap import random_model

pytestmark = [pytest.mark.solver, pytest.mark.slow]


@pytest.fixture(autouse=True, scope="module")
def cbc():
    try:
        find_solver("cbc")
    except DependencyError:
        pytest.skip("needs cbc")


def test_it_finds_the_optimum():
    found = 0
    for seed in range(40):
        model = random_model(seed, weights=3)
        best, solution = model.optimum(), solve(model.choices, model.joints, model.tolerance, solver="cbc")
        assert (solution is None) == (best is None)
        if solution is not None and best is not None:
            chosen = {group: list(one.bits).index(solution.bits[group]) for group, one in model.choices.items()}
            assert best <= model.cost(chosen) <= best * (1 + Fraction(1, 500))
            found += 1
    assert found > 9


def test_it_solves_the_rule():
    bounds = {"a": 2.0**-6, "b": 0.3e-3, "c": 1e-9}
    assert solve_rule(bounds, solver="cbc") == solve_rule(bounds)


def test_it_quantizes():
    network = networks.random_network(np.random.default_rng(0), (3, 6, 4, 2))
    results = [sq.quantize(network, 1e-2, (-1.0, 1.0), solver=solver, effort="fast") for solver in ("cbc", "highs")]
    for result in results:
        sq.check(result.pair, result.certificate)
        assert result.certificate.bound <= 1e-2
        assert result.optimality.gap < 0.1
    ours, theirs = (result.optimality.cost for result in results)
    assert ours == pytest.approx(theirs, rel=0.2)
