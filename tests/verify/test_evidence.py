"""The tiers below the sound one: what they claim holds, and what they do not claim is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras import cli
from sound_qkeras.errors import FileFormatError, InfeasibleError, InputError, VerificationError
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.interval import Interval
from sound_qkeras.jobs import job
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu
from sound_qkeras.results.classification import Classification
from sound_qkeras.verify import evidence
from sound_qkeras.verify.binomial import upper_limit
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.evidence import Local, Statistical, around, error_limits, reference_for
from tests.results import edit, reseal

EPS, RADIUS = 0.05, 0.05


def network(seed: int, sizes: tuple[int, ...] = (3, 8, 8, 2)) -> Network:
    rng = np.random.default_rng(seed)
    nodes = [Node("x", Input((sizes[0],)), (), "x")]
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        kernel = (rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32).astype(np.float64)
        bias = (0.2 * rng.normal(size=outputs)).astype(np.float32).astype(np.float64)
        nodes.append(Node(f"dense_{index}", Dense(kernel, bias), (nodes[-1].name,), f"dense_{index}"))
        if index < len(sizes) - 2:
            nodes.append(Node(f"relu_{index}", Relu(), (nodes[-1].name,), f"dense_{index}"))
    return Network(tuple(nodes))


SAMPLES = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 3))


def run(seed: int = 0, **options: object) -> sq.Result:
    return sq.quantize(network(seed), EPS, (-4.0, 4.0), samples=SAMPLES, effort="fast", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def local() -> sq.Result:
    return run(tier="local", radius=RADIUS)


@pytest.fixture(scope="module")
def statistical() -> sq.Result:
    return run(tier="statistical", coverage=0.9)


# Local.


def test_no_error_near_a_sample_exceeds_its_bound(local):
    evidence, box = local.certificate.evidence, local.certificate.box
    assert isinstance(evidence, Local)
    assert evidence.certified(local.certificate.eps).all()
    boxes, rng = around(box, SAMPLES, RADIUS), np.random.default_rng(1)
    for number in range(0, len(SAMPLES), 7):
        ends = boxes.lower[number], boxes.upper[number]
        for _ in range(6):
            x = np.where(rng.random(3) < 0.5, *ends) if rng.random() < 0.5 else rng.uniform(*ends)
            errors = exact_error(local.pair, x)
            for error, bound in zip(errors, evidence.bounds[number], strict=True):
                assert abs(error) <= Fraction(float(bound))


def test_bounds_on_fewer_boxes_than_claimed_prove_nothing(local, monkeypatch):
    """One row would be compared with every claimed one."""
    monkeypatch.setattr(evidence, "bound_boxes", lambda *_: np.zeros((1, 2)))
    certificate = local.certificate
    with pytest.raises(VerificationError, match="bounds of 1 of 60 boxes"):
        certificate.evidence.check(local.pair, certificate.box, certificate.eps)


def test_boxes_around_samples_reach_as_far_as_they_say():
    box, radius = Interval(np.full(3, -0.3), np.full(3, 0.4)), 1.0 / 255.0
    samples = np.vstack([np.clip(SAMPLES, -0.3, 0.4), np.full((1, 3), 0.4)])
    found = around(box, samples, radius)
    for x, low, high in zip(samples.reshape(-1), found.lower.reshape(-1), found.upper.reshape(-1), strict=True):
        assert low <= max(Fraction(x) - Fraction(radius), Fraction(-0.3))
        assert high >= min(Fraction(x) + Fraction(radius), Fraction(0.4))
    assert np.all((box.lower <= found.lower) & (found.upper <= box.upper))


@pytest.mark.slow
def test_it_costs_less_than_the_whole_box_and_says_where_it_saturates(local):
    whole = sq.quantize(network(0), EPS, (-4.0, 4.0), effort="fast")
    wide = run(tier="local", radius=RADIUS, saturate=False)
    assert local.cost.weight_bits < whole.cost.weight_bits
    assert local.pair.saturating
    assert not wide.pair.saturating
    assert local.cost.activation_bits < wide.cost.activation_bits
    far = np.full((1, 3), 4.0)
    assert np.all(np.isfinite(local.simulate(far)))


def test_a_sample_outside_the_box_is_refused():
    with pytest.raises(InputError, match="not in the box"):
        sq.quantize(network(0), EPS, (-0.1, 0.1), samples=SAMPLES, tier="local", radius=0.1, effort="fast")


@pytest.mark.slow
def test_a_share_of_the_samples_may_be_left_out():
    """One sample lies where the network is steep, so that a tolerance for all of them costs bits."""
    most = run(tier="local", radius=RADIUS, coverage=0.8)
    every = run(tier="local", radius=RADIUS)
    evidence = most.certificate.evidence
    assert isinstance(evidence, Local)
    certified = evidence.certified(most.certificate.eps)
    assert 0.8 <= certified.mean() <= 1.0
    assert most.cost.weight_bits <= every.cost.weight_bits
    assert np.all(most.certificate.output_bounds <= EPS)


# Statistical.


def test_untouched_samples_alone_yield_the_limit(statistical):
    evidence = statistical.certificate.evidence
    assert isinstance(evidence, Statistical)
    assert (evidence.calibration_samples, len(evidence.samples)) == (30, 30)
    exceeded = [max(map(abs, exact_error(statistical.pair, x))) > Fraction(EPS) for x in evidence.samples]
    assert evidence.failures == sum(exceeded)
    assert evidence.probability == upper_limit(sum(exceeded), 30, 0.99)


def test_what_is_only_counted_is_never_called_a_bound_or_proved(statistical, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)  # saving does without the QKeras model, and is fast
    evidence, found = statistical.certificate.evidence, Classification(30, 0.9, 0.8, 0.9, 0.0)
    one = replace(statistical, classification=found)
    assert cli.main(["verify", str(one.save(tmp_path / "saved"))]) == cli.OK
    for text in (one.summary(), capsys.readouterr().out):
        assert f"{evidence.failures} of 30 held-out samples" in text
        assert "counted, not proved" in text
        assert "bound" not in text
        assert "class proved" not in text
    with pytest.raises(InfeasibleError, match="calibration samples") as caught:
        run(tier="statistical", word_lengths=(2, 3))
    assert "proved" not in str(caught.value)


def test_of_several_tolerances_the_narrowest_is_named(local):
    certificate = local.certificate
    narrow = replace(certificate, eps=np.array([1.0, 0.05]), output_bounds=np.array([0.5, 0.0477]))
    assert (
        "every output within its own eps (closest: dense_2[1], error at most 0.0477 of eps 0.05)"
        in replace(local, certificate=narrow).summary()
    )
    tight = replace(certificate, eps=np.full(2, 0.100004), output_bounds=np.full(2, 0.100003))
    assert "error at most 0.100003 (eps 0.100004)" in replace(local, certificate=tight).summary()


def test_error_limits_hold_the_exact_error(statistical):
    evidence = statistical.certificate.evidence
    limits = error_limits(statistical.pair, evidence.samples)
    for x, limit in zip(evidence.samples[:8], limits, strict=False):
        for error, most in zip(exact_error(statistical.pair, x), limit, strict=True):
            assert abs(error) <= Fraction(float(most)) <= abs(error) + Fraction(1, 10**9)


def test_a_claim_about_float64_says_so_and_is_checked(statistical):
    """Such is the reference of networks so deep that enclosures say nothing."""
    evidence = replace(statistical.certificate.evidence, reference="float64")
    assert "as float64 evaluates it" in evidence.claim
    evidence.check(statistical.pair, statistical.certificate.box, statistical.certificate.eps)
    with pytest.raises(VerificationError, match="exceed the tolerance"):
        evidence.check(statistical.pair, statistical.certificate.box, 0.05 * statistical.certificate.eps)
    with pytest.raises(VerificationError, match="reference 'none'"):
        replace(evidence, reference="none").check(
            statistical.pair, statistical.certificate.box, statistical.certificate.eps
        )


def test_what_guides_show_decides_the_reference():
    """Enclosures as wide as the tolerance, as those of very deep networks are, would count errors that are none."""
    trained, calibration = network(0), SAMPLES[:20]
    assert reference_for(trained, calibration, np.full(2, EPS)) == "real"
    assert reference_for(trained, calibration, np.array([EPS, 1e-15])) == "float64"


@pytest.mark.slow
def test_the_stated_confidence_holds():
    """Of many claims from samples with a known violation rate, no more are false than the confidence allows."""
    rng, rate, trials, confidence = np.random.default_rng(0), 0.07, 120, 0.9
    failures = rng.binomial(trials, rate, 4000)
    false = np.mean([upper_limit(int(k), trials, confidence) < rate for k in failures[:1000]])
    assert 0.02 < false <= 0.1 + 3 * np.sqrt(0.09 / 1000)


def test_too_few_samples_are_refused():
    with pytest.raises(InputError, match="at least 12"):
        sq.quantize(network(0), EPS, (-4.0, 4.0), samples=SAMPLES[:11], tier="statistical", effort="fast")


def test_an_impossible_tolerance_says_what_was_reached():
    with pytest.raises(InfeasibleError, match="smallest error of the calibration samples"):
        sq.quantize(network(0), 1e-9, (-4, 4), samples=SAMPLES, tier="statistical", word_lengths=(2, 6), effort="fast")


# Both, on disk and under attack.


@pytest.mark.keras
@pytest.mark.parametrize("tier", ["local", "statistical"])
def test_a_saved_claim_is_found_again(tier, tmp_path, request):
    result = request.getfixturevalue(tier)
    loaded = sq.load(result.save(tmp_path / tier))
    check(loaded.pair, loaded.certificate)
    assert loaded.certificate.to_json() == result.certificate.to_json()


@pytest.mark.keras
@pytest.mark.parametrize("tier", ["local", "statistical"])
def test_other_samples_are_refused(tier, tmp_path, request):
    folder = request.getfixturevalue(tier).save(tmp_path / tier)
    with np.load(folder / "samples.npz") as archive:
        arrays = dict(archive)
    arrays["samples"][0, 0] += 0.01
    np.savez(folder / "samples.npz", **arrays)
    reseal(folder)
    with pytest.raises(FileFormatError, match="hash"):
        sq.load(folder)


@pytest.mark.keras
@pytest.mark.parametrize("tier", ["local", "statistical"])
def test_the_claim_must_say_what_its_numbers_say(tier, tmp_path, request):
    folder = request.getfixturevalue(tier).save(tmp_path / tier)
    edit(folder / "certificate.json", lambda document: document.update(claim="for every x in the box, all is well"))
    reseal(folder)
    with pytest.raises(FileFormatError, match="claim"):
        sq.load(folder)


def test_smaller_bounds_fewer_failures_and_a_wider_radius_are_refused(local, statistical):
    evidence = local.certificate.evidence
    for wrong in (replace(evidence, bounds=0.5 * evidence.bounds), replace(evidence, radius=2 * RADIUS)):
        certificate = replace(local.certificate, evidence=wrong, output_bounds=wrong.bounds_of(local.certificate.eps))
        with pytest.raises(VerificationError, match="the proved bound is"):
            check(local.pair, certificate)
    eps = 0.05 * statistical.certificate.eps
    certificate = replace(statistical.certificate, eps=eps, output_bounds=eps)
    with pytest.raises(VerificationError, match="exceed the tolerance"):
        check(statistical.pair, certificate)


def test_a_weaker_tier_cannot_pass_for_a_stronger(local):
    certificate = replace(local.certificate, tier="sound", evidence=None)
    with pytest.raises(VerificationError, match="the proved bound is"):
        check(local.pair, certificate)
    with pytest.raises(VerificationError, match="tier"):
        check(local.pair, replace(local.certificate, tier="sound"))


def test_overflow_is_never_statistical(statistical):
    """Where nothing may saturate any more, the same formats are refused."""
    assert statistical.pair.saturating
    wrapping = replace(statistical.pair, saturating=frozenset())
    certificate = replace(statistical.certificate, code_hash=wrapping.code_hash)
    with pytest.raises(VerificationError, match="values reach"):
        check(wrapping, certificate)


# Options.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tier": "loca"}, "tier 'loca' is unknown"),
        ({"tier": "local"}, "radius is None"),
        ({"tier": "statistical", "radius": 0.1}, "radius is 0.1"),
        ({"tier": "statistical", "confidence": 1.0}, "confidence is 1.0"),
        ({"tier": "statistical", "coverage": 0.0}, "coverage is 0.0"),
        ({"tier": "local", "radius": -1.0}, "radius is -1.0"),
        ({"task": "clustering"}, "task 'clustering' is unknown"),
        ({"tier": "local", "radius": 0.1, "labels": [0] * 60}, "labels are given, but the task is 'regression'"),
        ({}, "samples are given, but the tier 'sound'"),
        ({"task": "classifier", "coverage": 0.9}, "coverage is 0.9 in tier 'sound'"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises(InputError, match=says):
        run(**options)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (
            [99] * 60,
            "60 of 60 labels are no class of this network, label 0, 99, first; accepted: whole numbers from 0 to 1",
        ),
        ([0] * 59 + [-1], "label 59, -1"),
        ([0.5] * 60, "label 0, 0.5"),
        ([np.nan] * 60, "label 0, nan"),
        (["cat"] * 60, "not numbers"),
        ([0] * 59, r"shape \(59,\)"),
        (np.zeros((60, 3)), r"shape \(60, 3\)"),
        (np.zeros((60, 2)), "a single 1"),
        (np.full((60, 2), np.nan), "a single 1"),
    ],
)
def test_labels_that_are_no_classes_are_refused_before_the_work(labels, says, monkeypatch):
    monkeypatch.setattr(job, "tune", lambda *_, **__: pytest.fail("formats were searched"))
    with pytest.raises(InputError, match=says):
        run(task="classifier", labels=labels)


@pytest.mark.parametrize("options", [{"tier": "statistical"}, {"task": "classifier"}])
def test_tiers_and_classifiers_need_samples(options):
    with pytest.raises(InputError, match="needs samples"):
        sq.quantize(network(0), EPS, (-1.0, 1.0), **options)


# Classifiers.


@pytest.mark.slow
def test_a_classifier_keeps_the_classes_it_was_asked_to_keep():
    labels = np.arange(len(SAMPLES)) % 2
    result = sq.quantize(
        network(3), "auto", (-1.0, 1.0), samples=SAMPLES, labels=labels, task="classifier", keep=0.9, effort="fast"
    )
    found = result.classification
    assert found is not None
    assert found.proved >= 0.9
    assert found.agreement >= found.proved
    old, new = network(3).evaluate(SAMPLES).argmax(axis=1), result.simulate(SAMPLES).argmax(axis=1)
    assert found.agreement == np.mean(old == new)
    assert found.float_accuracy == np.mean(old == labels)
    assert found.fixed_accuracy == np.mean(new == labels)


def test_automatic_tolerance_is_for_classifiers():
    with pytest.raises(InputError, match="eps='auto'"):
        sq.quantize(network(3), "auto", (-1.0, 1.0))


def test_automatic_tolerance_looks_at_calibration_samples_alone():
    """What the held-out ones show must not decide what is counted on them."""
    held = np.random.default_rng(0).permutation(len(SAMPLES))[len(SAMPLES) // 2 :]
    others = SAMPLES.copy()
    others[held] = 0.01 * SAMPLES[held]
    options = {"tier": "statistical", "task": "classifier", "effort": "fast"}
    found = [sq.quantize(network(0), "auto", (-4.0, 4.0), samples=x, **options) for x in (SAMPLES, others)]
    np.testing.assert_array_equal(*(result.certificate.eps for result in found))
