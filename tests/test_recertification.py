"""Other integers in the formats of a certificate: what is proved then is what the new certificate says."""

from dataclasses import replace

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InfeasibleError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.jobs.finetune import Prover
from sound_qkeras.jobs.recertify import ACCEPTED, KEPT, Demand, recertify
from sound_qkeras.keras_io.train.latent import Grid, Latent
from sound_qkeras.network import Pair
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.results.finetuned import Finetuning
from sound_qkeras.support.plain import from_plain, to_plain
from sound_qkeras.tuning.effort import EFFORTS
from sound_qkeras.verify.certificate import make_certificate
from sound_qkeras.verify.evidence import Local, Statistical
from sound_qkeras.verify.split_tree import SplitTree
from tests.networks import by_channel, samples
from tests.results import random_result

FAST = EFFORTS["fast"]


def moved(codes: AffineCodes, seed: int, steps: int) -> AffineCodes:
    """Every integer moved by a few steps, within its format."""
    rng = np.random.default_rng(seed)

    def move(array, output):
        return np.clip(
            array + rng.integers(-steps, steps, array.shape, endpoint=True), output.min_code, output.max_code
        )

    return replace(codes, kernel=move(codes.kernel, codes.kernel_format), bias=move(codes.bias, codes.bias_format))


def changed(quantized: Pair, steps: int = 3) -> Pair:
    names = enumerate(quantized.parameters.items())
    return replace(quantized, parameters={name: moved(codes, n, steps) for n, (name, codes) in names})


def with_tolerance(result, eps):
    return replace(Demand.of(result.certificate), eps=np.full(result.certificate.eps.shape, eps))


def points(result, count=12):
    box = result.certificate.box
    return samples(np.random.default_rng(5), (0.5 * box.lower, 0.5 * box.upper), count)


def evidence_of(result, tier):
    x, quantized = points(result), result.pair
    if tier == "local":
        return Local.prove(quantized, result.certificate.box, x, 0.01)
    return Statistical.count(quantized, x, np.full(2, 0.02), 0.9, 3)


def certified(result, tier, eps):
    box = result.certificate.box
    return Demand.of(
        make_certificate(
            result.pair,
            box,
            np.full(2, eps),
            SplitTree(),
            evidence=evidence_of(result, tier),
            box_source="made up",
        )
    )


def test_a_tolerance_that_still_holds_is_kept_and_weight_formats_too():
    result = random_result()
    new, proved = recertify(changed(result.pair), Demand.of(result.certificate), None, FAST)
    sq.check(new, proved)
    assert np.array_equal(proved.eps, result.certificate.eps)
    assert proved.eps_source == KEPT
    assert proved.box_source == "made up"
    assert proved.code_hash != result.certificate.code_hash
    assert proved.weight_hash == result.certificate.weight_hash
    for name, codes in result.pair.parameters.items():
        assert new.parameters[name].kernel_format == codes.kernel_format
        assert new.parameters[name].bias_format == codes.bias_format


def test_another_box_is_proved_and_no_certificate_speaks_of_it_before():
    result = random_result()
    box = result.certificate.box
    half = Interval(0.5 * box.lower, 0.5 * box.upper)
    new, proved = recertify(
        result.pair, replace(Demand.of(result.certificate), box=half, box_source="half"), None, FAST
    )
    sq.check(new, proved)
    assert np.array_equal(proved.box.upper, half.upper)
    assert proved.box_source == "half"
    assert proved.bound < result.certificate.bound


def test_a_tolerance_that_does_not_hold_becomes_what_is_proved_and_says_so():
    result = random_result()
    new, proved = recertify(changed(result.pair, 9), with_tolerance(result, 0.011), None, FAST)
    sq.check(new, proved)
    assert proved.bound > 0.011
    assert np.array_equal(proved.eps, np.maximum(proved.output_bounds, 0.011))
    assert proved.eps_source == "what is proved after fine-tuning; 0.011 before"


def test_a_given_tolerance_holds_or_is_refused_with_the_bound():
    result = random_result()
    old, twin = with_tolerance(result, 0.01), changed(result.pair, 9)
    with pytest.raises(InfeasibleError, match="a larger eps") as refused:
        recertify(twin, old, np.full(2, 0.02), FAST)
    assert refused.value.best_bound > 0.02
    enough = np.full(2, refused.value.best_bound)
    assert recertify(twin, old, enough, FAST)[1].eps_source == ACCEPTED


def test_results_get_more_integer_bits_where_their_ranges_grow():
    result = random_result()
    name = "dense_0"
    codes = result.pair.parameters[name]
    large = replace(codes, kernel=np.full_like(codes.kernel, codes.kernel_format.max_code))
    twin = replace(result.pair, parameters={**result.pair.parameters, name: large})
    new, proved = recertify(twin, Demand.of(result.certificate), None, FAST)
    sq.check(new, proved)
    before, after = (network.formats["dense_0_relu"] for network in (result.pair, new))
    assert after.integer_bits > before.integer_bits
    assert after.fractional_bits == before.fractional_bits
    for tier in ("local", "statistical"):
        new, proved = recertify(twin, certified(result, tier, 0.05), None, FAST)
        sq.check(new, proved)
        assert new.formats["dense_0_relu"] == after


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("tier", ["local", "statistical"])
def test_other_tiers_keep_their_samples(tier, saturates):
    result = random_result()
    if saturates:
        twin = result.pair
        narrow = replace(twin.formats["dense_0_relu"], word_length=8, integer_bits=0)
        formats = {**twin.formats, "dense_0_relu": narrow}
        result = replace(result, pair=replace(twin, formats=formats, saturating=frozenset({"dense_0_relu"})))
    old = certified(result, tier, 0.05 if not saturates else 5.0)
    new, proved = recertify(changed(result.pair), old, None, FAST)
    if saturates:  # what saturates holds what inputs near the samples of "local" need, and stays as it is otherwise
        assert (new.formats["dense_0_relu"].integer_bits > 0) == (tier == "local")
    sq.check(new, proved)
    assert proved.tier == tier
    assert np.array_equal(proved.evidence.samples, old.evidence.samples)
    if tier == "statistical":
        assert np.array_equal(proved.eps, old.eps)
        assert proved.eps_source == KEPT
        assert proved.evidence.calibration_samples == old.evidence.calibration_samples
    else:
        assert proved.evidence.certified(proved.eps).sum() >= old.evidence.certified(old.eps).sum()


def test_the_local_tier_never_certifies_fewer_samples_unasked():
    result = random_result()
    old = certified(result, "local", 0.02)
    count = old.evidence.certified(old.eps).sum()
    twin = changed(result.pair, 9)
    new, proved = recertify(twin, old, None, FAST)
    sq.check(new, proved)
    assert proved.eps.max() > 0.02
    assert proved.evidence.certified(proved.eps).sum() >= count > 0
    with pytest.raises(InfeasibleError):
        recertify(twin, old, old.eps, FAST)


def test_latent_weights_round_to_codes_of_the_same_formats():
    rng = np.random.default_rng(3)
    result = random_result(sizes=(5, 7, 3))
    for codes in result.pair.parameters.values():
        own = by_channel(codes, rng)
        for made in (codes, own):
            grid = Grid.of(made.kernel, made.kernel_format, made.channel_formats)
            assert np.array_equal(grid.round(made.kernel_value), made.kernel)
            far = grid.round(rng.normal(size=made.kernel.shape) * 100.0)
            trained = replace(made, kernel=far)
            twin = {**result.pair.parameters}
            name = next(name for name, old in twin.items() if old is codes)
            replace(result.pair, parameters={**twin, name: trained})  # refuses what does not fit


def test_latent_weights_start_near_the_float_ones_and_stand_for_the_codes():
    result = random_result(seed=4)
    for (_, op), codes in zip(result.pair.network.affine(), result.pair.parameters.values(), strict=True):
        grid = Grid.of(codes.kernel, codes.kernel_format)
        start = grid.start(op.kernel)
        assert np.array_equal(grid.round(start.astype(np.float64)), codes.kernel)
        assert np.abs(start - op.kernel).max() < np.abs(codes.kernel_value - op.kernel).max()
        away = grid.start(op.kernel + 5.0)
        assert np.array_equal(grid.round(away.astype(np.float64)), codes.kernel)


@pytest.mark.parametrize("tier", ["sound", "local", "statistical"])
def test_untouched_samples_have_no_say_in_which_epoch_is_kept(tier):
    result = random_result()
    old = with_tolerance(result, 0.02) if tier == "sound" else certified(result, tier, 0.02)
    twin = changed(result.pair, 9)
    assert Prover(old, np.full(2, 0.02), FAST).accepts(twin) == (tier == "statistical")
    assert Prover(old, None, FAST).accepts(twin)
    prover = Prover(old, np.full(2, 9.0), FAST)
    assert prover.accepts(twin)
    sq.check(*prover.prove(twin))


class Variable:
    """What a latent weight needs of a Keras variable."""

    def __init__(self, array):
        self.shape, self.value = array.shape, array

    def assign(self, value):
        self.value = value


def test_weights_that_training_left_alone_keep_codes_that_float32_cannot_hold():
    codes = np.array([[2**30 + 1, -(2**30) + 3, 5]])
    grid = Grid.of(codes, Format(32, 3, True))
    variable = Variable(codes)
    latent = Latent(variable, grid, np.ldexp(codes.astype(float), -28))
    assert np.array_equal(latent.codes(variable.value), codes)
    assert latent.codes(variable.value + np.float32(2.0**-20))[0, 2] == 5 + 2**8


def test_a_record_of_training_survives_json():
    record = Finetuning(3, 2, 10, 20, "training data", {"loss": np.inf}, {"loss": 0.5}, {"loss": 0.25})
    assert from_plain(Finetuning, to_plain(record)) == record
    assert "loss 0.5 -> 0.25 (float inf) on the training data" in record.summary


def test_the_error_budget_is_that_of_the_new_integers():
    result = random_result()
    (name, codes), *_ = result.pair.parameters.items()
    # One weight is a quarter off, which is larger than everything else.
    kernel = codes.kernel.copy()
    kernel[0, 0] += 1 << (codes.kernel_format.fractional_bits - 2)
    low, high = int(kernel.min()), int(kernel.max())
    wider = Format.for_codes(low, high, codes.kernel_format.fractional_bits)
    twin = replace(
        result.pair,
        parameters={**result.pair.parameters, name: replace(codes, kernel=kernel, kernel_format=wider)},
    )
    (_, before), (_, after) = (
        recertify(quantized, with_tolerance(result, 10.0), None, FAST) for quantized in (result.pair, twin)
    )
    old, new = ({(row.layer, row.kind): row.bound for row in proved.error_budget} for proved in (before, after))
    assert set(old) == set(new)
    assert all(0.0 < bound <= before.bound for bound in old.values())
    layer = result.pair.network.by_name[name].layer
    assert new[layer, "weight"] > 4.0 * before.bound
    assert max(new.values()) <= after.bound
    for group, bound in old.items():
        if group != (layer, "weight"):
            assert new[group] == pytest.approx(bound, rel=0.2)
