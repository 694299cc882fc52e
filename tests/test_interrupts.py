"""Ctrl-C, and what a result says about the clock."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InfeasibleError
from sound_qkeras.tuning.evaluator import TARGET
from sound_qkeras.tuning.proving import ProvingEvaluator
from sound_qkeras.tuning.sampling import SamplingEvaluator
from sound_qkeras.tuning.search import Attempt
from sound_qkeras.tuning.surrounding import SurroundingEvaluator
from tests import networks
from tests.pressing import Pressing, ctrl_c_as_usual

EPS, BOX = 1e-2, (-1.0, 1.0)


def network():
    return networks.random_network(np.random.default_rng(4), (3, 6, 6, 1))


@pytest.fixture(autouse=True)
def usual():
    with ctrl_c_as_usual():
        yield


def test_ctrl_c_ends_the_search_with_what_was_proved():
    pressing = Pressing()
    result = sq.quantize(network(), EPS, BOX, effort="fast", progress=pressing)
    assert result.ended_by == "interrupt"
    assert "search interrupted" in result.summary()
    assert result.certificate.bound <= EPS
    sq.check(result.pair, result.certificate)
    assert pressing.after.count("solve and evaluate") == 0
    assert "trim" not in pressing.after
    assert pressing.after[-1] == "done"


def test_before_anything_is_proved_ctrl_c_ends_the_call():
    with pytest.raises(KeyboardInterrupt, match="nothing was proved"):
        sq.quantize(network(), 1e-7, BOX, effort="fast", progress=Pressing("uniform formats"))


def test_a_second_ctrl_c_ends_the_call():
    def press_twice(stage: str, fraction: float) -> None:
        if stage == "solve and evaluate":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sq.quantize(network(), EPS, BOX, effort="fast", progress=press_twice)


@pytest.mark.parametrize(
    ("evaluator", "options"),
    [
        (ProvingEvaluator, {}),
        (SurroundingEvaluator, {"tier": "local", "radius": 0.01}),
        (SamplingEvaluator, {"tier": "statistical"}),
    ],
    ids=["sound", "local", "statistical"],
)
def test_ctrl_c_while_another_choice_is_judged_leaves_what_was_accepted(monkeypatch, evaluator, options):
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 4)
    if evaluator is SamplingEvaluator:
        monkeypatch.setattr("sound_qkeras.network.graph.TILE_PARTS", 1 << 30)
    pressing, real, worst = Pressing("evaluate"), evaluator.evaluate, list[float]()

    def pressed(*arguments):
        if worst and worst[-1] <= TARGET:
            pressing("evaluate", 0.0)
        found = real(*arguments)
        worst.append(found.worst)
        return found

    monkeypatch.setattr(evaluator, "evaluate", pressed)
    if options:
        options = {**options, "samples": np.random.default_rng(0).uniform(-1, 1, (60, 3))}
    result = sq.quantize(network(), EPS, BOX, effort="fast", **options)
    assert result.ended_by == "interrupt"
    assert pressing.left == 0
    sq.check(result.pair, result.certificate)


def test_errors_without_a_limit_end_the_search_with_a_refusal(monkeypatch):
    stages = list[str]()
    monkeypatch.setattr(Attempt, "relative", property(lambda _: np.inf))
    with pytest.raises(InfeasibleError, match="is inf; shrink the box"):
        sq.quantize(network(), EPS, BOX, effort="fast", progress=lambda stage, _: stages.append(stage))
    assert "error tables" not in stages


@pytest.mark.slow
def test_somebody_elses_handler_is_left_alone():
    pressed = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    result = sq.quantize(network(), EPS, BOX, effort="fast", progress=Pressing())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert pressed == [True]
    assert result.ended_by == "search"


@pytest.mark.slow
def test_a_search_that_ends_by_itself_can_be_repeated_and_says_so():
    first, second = (sq.quantize(network(), EPS, BOX, effort="fast") for _ in range(2))
    assert first.ended_by == second.ended_by == "search"
    assert first.pair.code_hash == second.pair.code_hash
    assert first.observed_error == second.observed_error


def test_a_search_that_ran_out_of_time_says_so():
    assert sq.quantize(network(), EPS, BOX, effort=1e-3).ended_by == "time"
