"""Several tolerances in one run: proved like single ones, and never dearer than a tighter one."""

from itertools import pairwise

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input
from tests import networks

pytestmark = pytest.mark.solver
NETWORK = networks.random_network(np.random.default_rng(3), (3, 8, 8, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"effort": "fast"},
        pytest.param({"cost": "total_bits", "round_output": True}, marks=pytest.mark.slow),
        pytest.param({"per_channel": True}, marks=pytest.mark.slow),
        pytest.param(
            {"tier": "statistical", "samples": np.random.default_rng(0).uniform(-1, 1, (200, 3))},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["fast", "total_bits", "per_channel", "statistical"],
)
def test_a_looser_tolerance_costs_no_more(options):
    eps = [0.3, 0.003, 0.1, 0.03, np.array([0.003, 0.01])]
    done = dict[str, list[float]]()
    found = sq.sweep(
        NETWORK,
        eps,
        (-1.0, 1.0),
        progress=lambda stage, fraction: done.setdefault(stage, []).append(fraction),
        **options,
    )
    names = ("eps 0.003", "eps up to 0.01", "eps 0.03", "eps 0.1", "eps 0.3")
    numbered = {f"{name}, {number} of 5" for number, name in enumerate(names, 1)}
    assert {stage.partition(": ")[0] for stage in done} == {"read", *numbered}
    assert all(fractions == sorted(fractions) and fractions[-1] <= 1.0 for fractions in done.values()), done
    assert [result.certificate.eps.tolist() for result in found] == [np.broadcast_to(one, 2).tolist() for one in eps]
    for result in found:
        sq.check(result.pair, result.certificate)
    ordered = [found[index] for index in (1, 4, 3, 2, 0)]
    kind = "total_bits" if "cost" in options else "weight_bits"
    costs = [getattr(result.cost, kind) for result in ordered]
    assert all(tighter >= looser for tighter, looser in pairwise(costs))
    assert costs[0] > costs[-1]


def test_an_answer_to_a_tighter_tolerance_is_kept_where_nothing_cheaper_is_found(monkeypatch):
    """Whatever the search for the looser one ends with."""
    from sound_qkeras.jobs import job as module

    tune = module.tune

    def dear(search, **kwargs):
        outcome = tune(search, **kwargs)
        if search.before is None:
            return outcome
        wider = {}
        for name, codes in outcome.pair.parameters.items():
            word, integer = codes.kernel_format.word_length + 9, codes.kernel_format.integer_bits + 9
            kernel_format = module.replace(codes.kernel_format, word_length=word, integer_bits=integer)
            wider[name] = module.replace(codes, kernel_format=kernel_format)
        return module.replace(outcome, pair=module.replace(outcome.pair, parameters=wider))

    monkeypatch.setattr(module, "tune", dear)
    tight, loose = sq.sweep(NETWORK, [0.01, 0.1], (-1.0, 1.0), effort="fast")
    assert tight.certificate.code_hash == loose.certificate.code_hash
    assert (float(tight.certificate.eps[0]), float(loose.certificate.eps[0])) == (0.01, 0.1)


def test_after_an_interrupt_looser_tolerances_get_what_was_found(monkeypatch):
    from sound_qkeras.jobs import job as module

    tune, calls = module.tune, []

    def interrupted(search, **kwargs):
        calls.append(search)
        return module.replace(tune(search, **kwargs), ended_by=module.INTERRUPT)

    monkeypatch.setattr(module, "tune", interrupted)
    tight, loose = sq.sweep(NETWORK, [0.01, 0.1], (-1.0, 1.0), effort="fast")
    assert len(calls) == 1
    assert (tight.ended_by, loose.ended_by) == ("interrupt", "interrupt")
    sq.check(loose.pair, loose.certificate)


def test_the_tightest_tolerance_is_named_where_it_is_not_met():
    with pytest.raises(sq.InfeasibleError, match="tightest of 2 tolerances") as refused:
        sq.sweep(NETWORK, [0.1, 1e-9], (-1.0, 1.0), effort="fast", word_lengths=(2, 6))
    assert refused.value.best_bound > 1e-9


def test_costs_are_those_of_the_formats_that_come_out():
    """Here and there an integer bit is for the margin of a range alone: the search does not know of it."""
    kernel, bias = np.full((4, 1), 0.25), np.zeros(1)
    nodes = (Node("x", Input((4,)), (), "x"), Node("y", Dense(kernel, bias), ("x",), "y"))
    eps = [3.0, 1.5, 0.75, 0.5, 0.25, 0.1]
    options = {"cost": "total_bits", "round_output": True, "effort": "fast"}
    costs = [one.cost.total_bits for one in sq.sweep(Network(nodes), eps, (-1.0, 1.0), **options)]
    assert costs == sorted(costs)


@pytest.mark.parametrize("eps", [[], ["auto"], [[0.1, 0.2], [0.2, 0.1]]])
def test_what_is_no_curve_is_refused(eps):
    with pytest.raises(sq.InputError, match="eps"):
        sq.sweep(NETWORK, eps, (-1.0, 1.0), effort="fast")
