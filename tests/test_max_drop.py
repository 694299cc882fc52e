"""The fewest bits for an accuracy: what is counted, what is stated about it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from math import comb

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InfeasibleError, InputError
from sound_qkeras.jobs import walk
from sound_qkeras.jobs.job import Job
from sound_qkeras.network.classes import classes_of, outputs_of
from sound_qkeras.results.accuracy import Accuracy
from sound_qkeras.results.archive import verify
from sound_qkeras.support.deadline import INTERRUPT
from sound_qkeras.verify.binomial import shared
from sound_qkeras.verify.evidence import Statistical
from tests.networks import random_network

NETWORK = random_network(np.random.default_rng(0), (6, 12, 4))
X = np.random.default_rng(1).uniform(-1.0, 1.0, (900, 1, 6))
# One label in eight is wrong.
Y = (classes_of(outputs_of(NETWORK, X)) + (np.random.default_rng(2).random(900) < 0.125)) % 4
GIVEN = {"box": (-1.0, 1.0), "samples": X, "labels": Y, "effort": "fast"}

pytestmark = pytest.mark.solver


@pytest.fixture(scope="module")
def found():
    return sq.quantize(NETWORK, max_drop=0.02, **GIVEN)


def test_the_cheapest_that_loses_no_more_is_taken(found):
    accuracy = found.accuracy
    assert accuracy.lost <= 0.02
    assert 2 <= len(accuracy.tried) <= walk.LOOKS
    kept = [step for step in accuracy.tried if step.lost <= 0.02]
    assert min(step.weight_bits for step in kept) == found.cost.weight_bits
    assert any(step.lost > 0.02 for step in accuracy.tried)
    tight = sq.quantize(
        NETWORK, min(step.eps for step in accuracy.tried), **GIVEN, tier="statistical", task="classifier"
    )
    assert found.cost.weight_bits < tight.cost.weight_bits


def test_the_counts_are_those_of_the_held_out_samples(found):
    accuracy, evidence = found.accuracy, found.certificate.evidence
    assert isinstance(evidence, Statistical)
    place = {row.tobytes(): number for number, row in enumerate(X)}
    wanted = Y[[place[row.tobytes()] for row in evidence.samples]]
    before = classes_of(outputs_of(NETWORK, evidence.samples)) == wanted
    after = classes_of(found.simulate(evidence.samples)) == wanted
    assert (accuracy.samples, accuracy.trained, accuracy.fixed) == (len(wanted), before.sum(), after.sum())
    assert (accuracy.losses, accuracy.gains) == ((before & ~after).sum(), (after & ~before).sum())
    assert len(wanted) + evidence.calibration_samples == len(X)


def reachable() -> int:
    """Networks at the end of any sequence of answers, found by answering at random until nothing new comes."""
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20_000):
        path, answers = walk.tolerances(1.0), ()
        next(path)
        try:
            while True:
                seen.add(answers)
                answers = (*answers, bool(rng.random() < rng.choice([0.1, 0.5, 0.9])))
                path.send(answers[-1])
        except StopIteration:
            pass
    return len(seen)


def test_a_walk_ends_between_what_is_within_and_what_is_beyond():
    """Whatever the largest tolerance within is, and with words too short below some tolerance."""
    for limit in np.geomspace(1e-4, 1e4, 41):
        for shortest in (0.0, 0.2, 3.0):
            path, tried = walk.tolerances(1.0), [1.0]
            next(path)
            try:
                while True:
                    eps = tried[-1]
                    tried.append(path.send(None if eps < shortest and eps != 1.0 else eps <= limit))
            except StopIteration:
                pass
            assert len(tried) <= walk.LOOKS
            within = [eps for eps in tried if eps <= limit]
            if 1e-2 < limit < 1e2 and limit > 1.5 * shortest:
                assert limit / 1.2 < max(within) <= limit


def tail(failures: int, trials: int, share: Fraction) -> Fraction:
    return sum(comb(trials, i) * share**i * (1 - share) ** (trials - i) for i in range(failures + 1))


def test_limits_hold_for_every_network_that_samples_chose_from(found):
    """Exactly: each of so many claims may fail with so small a part of the error probability."""
    evidence = found.certificate.evidence
    assert evidence.looks == walk.networks() == reachable()
    allowed = (1 - Fraction(0.99)) / walk.networks()
    limit = Fraction(evidence.probability)
    assert tail(evidence.failures, len(evidence.samples), limit) <= allowed
    assert tail(evidence.failures, len(evidence.samples), limit - Fraction(1, 2**20)) > allowed
    assert f"chose one of at most {evidence.looks} networks" in evidence.claim
    accuracy = Accuracy(0.02, 400, 300, 297, losses=5, gains=2, confidence=0.9, looks=4, tried=())
    most = next(k for k in range(2**24) if tail(5, 400, Fraction(k, 2**12)) <= Fraction(1, 80))
    least = next(k for k in range(2**12) if 1 - tail(1, 400, Fraction(k, 2**12)) > Fraction(1, 80)) - 1
    assert accuracy.limit == pytest.approx((most - least) / 2**12, abs=2.0**-11)
    assert accuracy.limit > accuracy.lost
    assert 1 - Fraction(shared(0.99, 7)) <= (1 - Fraction(0.99)) / 7


def test_it_is_saved_shown_and_checked(found, tmp_path):
    sq.load(found.save(tmp_path / "out"))
    again = sq.load(tmp_path / "out")
    assert again.accuracy == found.accuracy
    assert found.accuracy.summary in again.lines
    assert again.certificate.evidence.looks == walk.networks()
    verify(tmp_path / "out")
    page = found.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "This is counted, not proved" in page
    assert "Networks that were tried" in page
    # A claim that forgets how often the samples chose is another certificate.
    path = tmp_path / "out" / "certificate.json"
    content = json.loads(path.read_text())
    assert content["evidence"].pop("looks") == walk.networks()
    path.write_text(json.dumps(content))
    with pytest.raises(sq.SoundQKerasError):
        verify(tmp_path / "out")
    forgotten = replace(found.certificate.evidence, looks=1)
    assert forgotten.probability < found.certificate.evidence.probability


def test_the_tier_is_the_one_asked_for():
    result = sq.quantize(NETWORK, max_drop=0.02, **GIVEN, tier="sound")
    assert result.certificate.tier == "sound"
    assert result.certificate.bound <= result.certificate.eps.max()
    assert result.accuracy.lost <= 0.02
    near = sq.quantize(NETWORK, max_drop=0.02, **GIVEN, tier="local", radius=0.001)
    held_out = {row.tobytes() for row in near.certificate.evidence.samples}
    assert len(held_out) == len(X) - near.accuracy.samples


def test_the_same_arguments_give_the_same_result(found):
    again = sq.quantize(NETWORK, max_drop=0.02, **GIVEN)
    assert again.certificate.code_hash == found.certificate.code_hash
    assert again.accuracy == found.accuracy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 0.0}, "max_drop is 0.0; accepted: a share above 0 and below 1"),
        ({"max_drop": 1.0}, "max_drop is 1.0; accepted"),
        ({"max_drop": "a point"}, "max_drop is a point; accepted"),
        ({"max_drop": 0.01, "labels": None}, "max_drop needs samples and their labels"),
        ({"max_drop": 0.01, "samples": None}, "max_drop needs samples and their labels"),
        ({"max_drop": 0.01, "labels": np.full(900, 99)}, "900 labels are no class of this network"),
        ({"max_drop": 0.01, "labels": np.where(Y == 0, -1, Y)}, "labels are no class of this network"),
        (
            {"max_drop": 0.001},
            "max_drop 0.001 is less than one of 450 held-out samples; accepted: at least 1,640 samples",
        ),
        ({"max_drop": 0.01, "eps": 0.1}, "eps and max_drop are both given; accepted: one of them"),
        ({"samples": None, "labels": None}, "neither eps nor max_drop is given; accepted: one of them"),
        ({"eps": 0.1, "train": (X, Y)}, "train is given without max_drop"),
        (
            {"max_drop": 0.02, "tier": "sound", "train": (X, Y)},
            "450 of the 450 held-out samples are among the data that train",
        ),
        ({"max_drop": 0.02, "train": X[:, :, :2]}, "train: samples have shape (900, 1, 2)"),
        ({"max_drop": 0.02, "box": None}, "the box of inputs is missing"),
        ({"max_drop": 0.01, "tier": "certain"}, "tier 'certain' is unknown"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(InputError) as refused:
        sq.quantize(NETWORK, **{**GIVEN, **options})
    assert message in str(refused.value)


def test_a_curve_of_tolerances_takes_no_accuracy():
    with pytest.raises(InputError, match="eps and max_drop are both given"):
        sq.sweep(NETWORK, [0.1, 0.2], (-1.0, 1.0), max_drop=0.01, samples=X, labels=Y)


def test_a_cost_of_ones_own_decides_which_is_cheapest():
    """The share of the input's bits, which other costs hardly count."""
    own = lambda group, length: float(length) if group.node == "x" else 1e-3 * length  # noqa: E731
    result = sq.quantize(NETWORK, max_drop=0.02, **GIVEN, cost=own)
    assert result.accuracy.lost <= 0.02


def test_an_interrupt_keeps_what_was_found(monkeypatch):
    answer, asked = Job.answer, []

    def interrupted(job, eps, before=None):
        asked.append(eps)
        result, outcome = answer(job, eps, before)
        return result, replace(outcome, ended_by=INTERRUPT) if len(asked) == 3 else outcome

    monkeypatch.setattr(Job, "answer", interrupted)
    result = sq.quantize(NETWORK, max_drop=0.02, **GIVEN)
    assert len(result.accuracy.tried) == len(asked) == 3
    assert result.ended_by == INTERRUPT


def test_where_every_network_loses_too_much_it_says_how_much():
    with pytest.raises(InfeasibleError, match=r"no network lost at most 0\.3 points of accuracy on 450"):
        sq.quantize(NETWORK, max_drop=0.003, **{**GIVEN, "word_lengths": (2, 3)}, coverage=0.5)
