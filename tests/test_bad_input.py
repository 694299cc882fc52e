"""Bad input to `quantize`, and solvers that are missing, slow or wrong: a clear error, or a proved result."""

from dataclasses import replace

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import (
    DependencyError,
    FileFormatError,
    InfeasibleError,
    InputError,
    ModelError,
    SolverError,
    VerificationError,
)
from sound_qkeras.jobs import job
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input
from sound_qkeras.support.decimals import at_most
from sound_qkeras.tuning import milp
from sound_qkeras.tuning.build import narrow
from sound_qkeras.verify.proof import bound_leaves
from tests import networks

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(scope="module")
def network():
    return networks.random_network(np.random.default_rng(0), (3, 5, 2))


def quantize(network, **changes):
    return sq.quantize(network, **{"eps": 1e-2, "box": (-1.0, 1.0), "effort": "fast", **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"eps": -1e-3}, "eps is -0.001"),
        ({"eps": NAN}, "eps is nan"),
        ({"eps": 1e-300}, "eps is 1e-300; accepted: numbers from 1e-90"),
        ({"eps": [1e-3, 5e-324]}, "from 1e-90"),
        ({"eps": 1e308, "round_output": True}, r"to 1e\+90"),
        ({"eps": [1e-3] * 3}, "2 outputs"),
        ({"box": (1, -1)}, "empty"),
        ({"box": (NAN, 1)}, "NaN"),
        ({"box": (-INFINITY, 1)}, "infinity"),
        ({"box": (-1e308, 1e308)}, r"accepted: ends between -3.403e\+38 and 3.403e\+38"),
        ({"margin": 1e308}, r"widened by its margin.*accepted"),
        ({"box": ([0, 0], 1)}, r"shape \(2,\).*\(3,\)"),
        ({"box": np.zeros((4, 2))}, r"\(4, 2\).*\(n, 3\)"),
        ({"margin": -1}, "margin"),
        ({"cost": "money"}, "weight_bits, total_bits, bit_operations"),
        ({"word_lengths": (8, 4)}, "fewest <= most"),
        ({"word_lengths": (2, 99)}, "fewest <= most <= "),
        ({"word_lengths": 8}, "pair"),
        ({"effort": "heroic"}, "fast, normal, max"),
        ({"effort": 0}, "seconds"),
        ({"effort": None}, "seconds"),
        ({"seed": -1}, "seed is -1; accepted: a whole number of at least 0"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_arguments(network, changes, says):
    with pytest.raises(InputError, match=says):
        quantize(network, **changes)


@pytest.mark.solver
@pytest.mark.parametrize("length", [3, 52])
def test_words_of_one_length(length):
    layer = Dense(np.array([[-0.62, 0.04]]), np.array([0.3, -0.2]))  # no step gives this kernel three bits
    result = quantize(
        Network((Node("x", Input((1,))), Node("y", layer, ("x",), "y"))), eps=0.5, word_lengths=(length,) * 2
    )
    assert all(row.word_length <= length for row in result.formats if row.kind == "weight")


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_weights_that_are_not_finite(value):
    with pytest.raises(ModelError, match="kernel holds 1 values that are NaN or infinite"):
        Network((Node("x", Input((1,))), Node("y", Dense(np.array([[value]]), np.zeros(1)), ("x",), "y")))


@pytest.mark.parametrize("name", ["nowhere.h5", "nowhere.keras", "nowhere"])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(FileFormatError, match="does not exist"):
        quantize(tmp_path / name)


@pytest.mark.keras  # h5py comes with TensorFlow
@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
@pytest.mark.parametrize(
    "content", [b"", b"no model at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, b"PK\x03\x04" + b"\0" * 50]
)
def test_an_empty_or_corrupt_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=r"empty|corrupt|truncated|neither"):
        quantize(tmp_path / name)


@pytest.mark.solver
def test_an_eps_no_word_length_reaches_names_what_would_do(network):
    with pytest.raises(InfeasibleError) as caught:
        quantize(network, eps=1e-6, word_lengths=(2, 8))
    error = caught.value
    assert 1e-6 < error.best_bound < 1.0
    assert f"raise eps to {at_most(error.best_bound, 3)}" in str(error)
    assert f"(2, {error.word_length})" in str(error)
    result = quantize(network, eps=1e-6, word_lengths=(2, error.word_length))
    assert result.certificate.bound <= 1e-6


@pytest.mark.solver
@pytest.mark.parametrize("solver", ["no_such_solver", "cbc_which_is_not_here", ""])
def test_a_missing_solver_is_found_before_the_work(network, solver, capfd):
    with pytest.raises(DependencyError, match="not available; install it or use solver='highs'"):
        quantize(network, solver=solver)
    assert capfd.readouterr().err == ""


@pytest.mark.solver
@pytest.mark.parametrize("error", [ValueError("no license"), RuntimeError("crashed"), OSError("gone")])
def test_a_solver_that_fails(network, monkeypatch, error):
    class Broken:
        def solve(self, *_, **__):
            raise error

    monkeypatch.setattr(milp, "_solver", lambda *_: Broken())
    with pytest.raises(SolverError, match=str(error)):
        quantize(network)


@pytest.mark.solver
def test_a_solver_that_runs_out_of_time(network, monkeypatch):
    def late(model, choices, solver, limit, gap):
        raise SolverError(f"solver '{solver}' gave no answer within {limit}", status="maxTimeLimit")

    monkeypatch.setattr(milp, "_run", late)
    with pytest.raises(SolverError, match="no answer") as caught:
        quantize(network)
    assert caught.value.status == "maxTimeLimit"


def coarsest(found):
    return found.bits[0]


def finest(found):
    return found.bits[-1]


@pytest.mark.solver
@pytest.mark.parametrize("choose", [coarsest, finest])
def test_a_solver_that_answers_nonsense_proves_nothing(network, monkeypatch, choose):
    def nonsense(model, choices, *_):
        return milp.Solution({group: choose(found) for group, found in choices.items()}, 0.0, 0.0)

    monkeypatch.setattr(milp, "_run", nonsense)
    monkeypatch.setattr(milp, "ROW_TOLERANCE", INFINITY)
    try:
        result = quantize(network)
    except (InfeasibleError, SolverError, VerificationError):
        return
    assert result.observed_error <= result.certificate.bound <= 1e-2
    sq.check(result.pair, result.certificate)


@pytest.mark.solver
def test_a_search_that_returns_other_integers_than_it_proved_is_refused(network, monkeypatch):
    real = job.tune

    def coarse(search, **options):
        outcome = real(search, **options)
        attempt = search.attempt({group: min(found) for group, found in search.space.candidates.items()})
        ranges = bound_leaves(attempt.pair, search.evaluator.box, outcome.tree).ranges
        return replace(outcome, pair=narrow(attempt.pair, ranges))

    monkeypatch.setattr(job, "tune", coarse)
    with pytest.raises(VerificationError, match=r"exceeds the tolerance|overflow|reach"):
        quantize(network)
