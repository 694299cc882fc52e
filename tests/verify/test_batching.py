"""Leaves are proved alike whoever does the work, and what is sent to others is small and cannot be changed on the way."""

from __future__ import annotations

import os
import pickle
import signal
from functools import partial
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_info, threadpool_limits

import sound_qkeras as sq
from sound_qkeras.errors import InfeasibleError, SolverError, UnsupportedLayerError, VerificationError
from sound_qkeras.interval import Interval
from sound_qkeras.network import Pair
from sound_qkeras.splitting.refine import refine
from sound_qkeras.verify import batching
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.proof import prove
from sound_qkeras.verify.split_tree import SplitTree
from tests.networks import random_network, random_quantized
from tests.results import content, random_result


@pytest.fixture
def spread_all(monkeypatch):
    """Batches of four boxes, and even the smallest work is handed out."""
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 4)
    monkeypatch.setattr(batching, "WORTH_ASKING", 0.0)


def pair(seed: int = 0) -> tuple[Pair, Interval]:
    quantized, ranges = random_quantized(np.random.default_rng(seed), (3, 8, 8, 2))
    return quantized, Interval(*ranges)


def proved(quantized: Pair, box: Interval) -> tuple:
    """Everything about a split tree of 24 leaves and the proof on it."""
    eps = np.full(2, 1e-6)
    found = refine(quantized, box, eps, max_leaves=24)
    proof = prove(quantized, box, found.tree)
    return found.tree, found.boxes.score.tobytes(), proof.leaf_bounds.tobytes(), proof.ranges


def where(quantized: Pair, boxes: Interval, note: str) -> tuple[int, str, float]:
    return os.getpid(), f"{note} {len(boxes.lower)}", float(boxes.lower.ravel()[0])


def leaves(count: int) -> Interval:
    lower = np.arange(float(count))[:, None] * np.ones(3)
    return Interval(lower, lower + 1.0)


def test_results_come_in_the_order_of_the_boxes(spread_all):
    with joblib.parallel_config(backend="threading", n_jobs=3):
        found = over_batches(partial(where, note="boxes"), pair()[0], leaves(10))
    assert found == [(os.getpid(), "boxes 4", 0.0), (os.getpid(), "boxes 4", 4.0), (os.getpid(), "boxes 2", 8.0)]
    assert over_batches(partial(where, note=""), pair()[0], leaves(0)) == []


def test_threads_prove_the_same(spread_all):
    quantized, box = pair()
    here = proved(quantized, box)
    assert here[0].leaf_count == 24
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert proved(quantized, box) == here


@pytest.mark.slow
def test_processes_prove_the_same_and_do_it_themselves(spread_all):
    quantized, box = pair()
    here = proved(quantized, box)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert proved(quantized, box) == here
        # Travels by value: worker processes cannot import tests.
        about = over_batches(lambda *_: (os.getpid(), signal.getsignal(signal.SIGINT)), quantized, leaves(40))
    (first, _), *others = about
    assert first == os.getpid() not in {process for process, _ in others}
    assert {heeds for _, heeds in others} == {signal.SIG_IGN}  # what Ctrl-C means is decided here


@pytest.mark.slow
@pytest.mark.solver
def test_a_result_is_the_same_with_any_n_jobs(monkeypatch):
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 24)
    monkeypatch.setattr(batching, "WORTH_ASKING", 0.0)
    real, told = batching._spread, list[int | None]()

    def spread(*arguments: Any) -> list[Any]:
        told.append(get_active_backend()[1])
        return real(*arguments)

    monkeypatch.setattr(batching, "_spread", spread)
    rng, results = np.random.default_rng(3), list[sq.Result]()
    network, samples = random_network(rng, (3, 6, 2)), rng.uniform(-1.0, 1.0, (48, 3))
    around = {"effort": "fast", "tier": "local", "samples": samples, "radius": 0.01}
    for n_jobs in (1, 2):
        results.append(sq.quantize(network, 1e-2, (-1.0, 1.0), n_jobs=n_jobs, **around))
        assert set(told) == {n_jobs}
        told.clear()
    alone, shared = ((one.pair.code_hash, one.certificate.to_json(), one.observed_error) for one in results)
    assert alone == shared
    for n_jobs in (1, 2):
        sq.check(results[0].pair, results[0].certificate, n_jobs=n_jobs)
        assert set(told) == {n_jobs}
        told.clear()


@pytest.mark.slow
def test_processes_multiply_matrices_with_as_many_threads_as_here(spread_all):
    def threads(quantized: Pair, boxes: Interval) -> int:
        return max(int(found["num_threads"]) for found in threadpool_info() if found["user_api"] == "blas")

    for count in (1, 3):
        config = joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=2)
        with threadpool_limits(count, user_api="blas"), config:
            assert over_batches(threads, pair()[0], leaves(20)) == [count] * 5


def test_an_error_elsewhere_is_the_error_here(spread_all):
    with (
        joblib.parallel_config(backend="threading", n_jobs=2),
        pytest.raises(VerificationError, match="no third batch"),
    ):
        over_batches(no_third_batch, pair()[0], leaves(12))


def no_third_batch(quantized: Pair, boxes: Interval) -> None:
    if boxes.lower[0, 0] >= 8.0:
        raise VerificationError("no third batch", layer_name="dense_0")


def test_little_work_stays_here(monkeypatch):
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 4)
    monkeypatch.setattr(batching, "_spread", lambda *_, **__: pytest.fail("joblib was asked"))
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert len(over_batches(partial(where, note=""), pair()[0], leaves(12))) == 3


def test_joblib_is_obeyed_once_it_is_told():
    assert not batching._told()
    for told in ({"n_jobs": 1}, {"n_jobs": 2}, {"backend": "threading"}, {"backend": "sequential"}):
        with joblib.parallel_config(**told):
            assert batching._told()


def test_a_network_travels_as_its_fields():
    quantized, _ = pair()
    before = len(pickle.dumps(quantized))
    prove(quantized, pair()[1], SplitTree((0, -1, -1)))  # derives much, and keeps it
    sent = pickle.dumps(quantized)
    assert len(sent) == before
    arrived = pickle.loads(sent)
    assert arrived.code_hash == quantized.code_hash
    assert arrived.network.weight_hash == quantized.network.weight_hash
    name, codes = next(iter(arrived.parameters.items()))
    with pytest.raises(TypeError):
        arrived.parameters[name] = codes
    for array in (codes.kernel, arrived.network.by_name[name].op.kernel):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_a_result_travels():
    result = random_result()
    assert content(pickle.loads(pickle.dumps(result))) == content(result)


@pytest.mark.parametrize(
    "error",
    [
        VerificationError("wrong", layer_name="dense_1"),
        InfeasibleError("too tight", best_bound=0.5, word_length=9),
        SolverError("slow", status="maxTimeLimit"),
        UnsupportedLayerError("lstm", "LSTM", "Dense", "use Dense"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_travels_with_its_data(error):
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))
