"""Families of numbers: each word has its values and no others, and the one that loses least is taken."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras import InfeasibleError, quantize
from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import Conv, Dense
from sound_qkeras.tuning.build import Parameters, round_parameters
from sound_qkeras.tuning.families import FAMILIES, LENGTHS, families_of, words_of
from sound_qkeras.tuning.feedback import FeedbackRounding
from sound_qkeras.tuning.groups import candidates, groups_of
from sound_qkeras.tuning.rounding import cancel_errors, linearise, sample_box
from sound_qkeras.tuning.words import Words
from tests.geometries import network_of
from tests.networks import box, random_network

FEW = ("po2", "ternary", "binary")
KERNELS = st.lists(st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3), min_size=2, max_size=6).map(np.array)


def values_of(family: str, length: int, scale: Fraction) -> list[Fraction]:
    """All values there are, by their definition."""
    if family == "po2":
        return [sign * scale * 2**k for sign in (-1, 1) for k in range(2 ** (length - 1))]
    return [sign * scale for sign in ((-1, 1) if family == "binary" else (-1, 0, 1))]


def bits_for(kernel: np.ndarray, length: int) -> int | None:
    """Fractional bits at which fixed point has words so long."""
    return next((bits for bits in range(-6, 12) if Words.of(kernel, bits).length == length), None)


@given(
    KERNELS, st.sampled_from([(name, length) for name in FEW for length in range(LENGTHS[name][0], 6)]), st.booleans()
)
def test_every_weight_has_the_nearest_value_of_its_family(kernel, kind, channels):
    family, length = kind
    bits = bits_for(kernel, length)
    if bits is None or length > LENGTHS[family][1]:
        return
    words = words_of(kernel, bits, np.zeros(3, np.int64) if channels else None, (family,))
    codes = Parameters(words.nearest(kernel), words, np.zeros(3, np.int64), 0).to_codes()
    assert codes.kernel_bits == length * kernel.size
    steps = np.broadcast_to(words.bits, (3,)).tolist()
    assert len(set(steps)) == 1 or (channels and family != "po2")
    for column in range(3):
        values = values_of(family, length, Fraction(2) ** -steps[column])
        for weight, found in zip(kernel[:, column].tolist(), codes.kernel_value[:, column].tolist(), strict=True):
            assert Fraction(found) in values
            assert abs(Fraction(found) - Fraction(weight)) == min(abs(value - Fraction(weight)) for value in values)


@given(KERNELS, st.integers(-4, 4))
def test_the_family_that_loses_least_is_taken(kernel, bits):
    found = words_of(kernel, bits, None, FAMILIES)
    each = [words_of(kernel, bits, None, (family,)) for family in FAMILIES]
    assert found.length == each[0].length
    assert found.error(kernel) == min(words.error(kernel) for words in each if words.length == found.length)


def test_the_scale_of_signs_loses_least():
    kernel = np.array([[0.3], [-0.27], [0.26], [-2.0]])
    words = words_of(kernel, bits_for(kernel, 1), None, ("binary",))
    errors = {bits: np.abs(np.abs(kernel) - 2.0**-bits) @ np.ones(1) for bits in range(-2, 5)}
    best = min(errors, key=lambda bits: float(np.sum(errors[bits] ** 2)))
    assert int(words.bits) == best


def test_channels_of_next_to_nothing_have_scales_near_the_others():
    kernel = np.array([[1.0, 1e-20, 0.0], [-0.7, -1e-20, 0.0]])
    words = words_of(kernel, bits_for(kernel, 1), np.zeros(3, np.int64), ("binary",))
    assert words.bits.max() - words.bits.min() < 20
    codes = Parameters(words.nearest(kernel), words, np.zeros(3, np.int64), 0).to_codes()
    assert codes.kernel_format.word_length < 24


def test_groups_have_words_of_the_lengths_of_their_families():
    network = random_network(np.random.default_rng(0), (4, 6, 2))
    for families, allowed in (
        ("binary", {1}),
        ("ternary", {2}),
        ("po2", {2, 3, 4, 5}),
        ("binary,po2", {1, 2, 3, 4, 5}),
    ):
        for group in groups_of(network, families=families_of(families)):
            kernel = network.by_name[group.node].op.arrays().get("kernel")
            if group.kind == "weight":
                found = [
                    words_of(kernel, bits, None, group.families) for bits in candidates(network, group, {}, (2, 16))
                ]
                assert {words.length for words in found} == allowed
                assert all(words.levels is not None for words in found)


@pytest.mark.parametrize("family", FEW)
def test_roundings_that_look_at_data_stay_in_the_family(family):
    network = random_network(np.random.default_rng(3), (4, 6, 2))
    low, high = box(network)
    groups = groups_of(network, families=(family,))
    bits = {group: candidates(network, group, {}, (2, 16))[0] if group.kind == "weight" else 14 for group in groups}
    centers = {node.name: np.zeros(op.kernel.shape[0]) for node, op in network.affine()}
    rounded = round_parameters(network, bits, centers)
    cancelled = cancel_errors(
        network, rounded, linearise(network, sample_box(Interval(low, high), 128), np.full(2, 1e-3))
    )
    samples = sample_box(Interval(low, high), 64).reshape(-1, *network.input_shape)
    fed_back = FeedbackRounding(network, samples, centers)(bits, {})
    for made in (cancelled, fed_back):
        assert any(np.any(made[name].kernel != rounded[name].kernel) for name in made)
        for parameters in made.values():
            codes = parameters.to_codes()
            assert codes.kernel_grid is not None
            np.testing.assert_array_equal(codes.kernel_grid.apply(codes.kernel_value), codes.kernel_value)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("family", [*FEW, "fixed,binary"])
def test_what_is_quantised_keeps_its_bound(family, channels):
    network = random_network(np.random.default_rng(3), (4, 8, 8, 2))
    ends = box(network)
    result = quantize(network, 100.0, ends, families=family, per_channel=channels, effort="fast")
    length = 1 if "binary" in family else 2
    assert result.cost.weight_bits == length * sum(op.kernel.size for _, op in result.pair.network.owners())
    x = np.random.default_rng(1).uniform(*ends, (512, *network.input_shape))
    far = np.abs(result.simulate(x) - result.pair.reference.evaluate(x))
    assert np.all(far.reshape(512, -1) <= result.certificate.output_bounds)


def test_what_cannot_be_reached_names_the_families():
    """Averages and normalisations are of fixed point whatever is asked for."""
    network = network_of(np.random.default_rng(2), 2)
    assert any(not isinstance(op, Dense | Conv) for _, op in network.owners())
    with pytest.raises(InfeasibleError, match="add fixed to families, raise eps") as refused:
        quantize(network, 1e-4, box(network), families=("ternary", "binary"), effort="fast")
    assert refused.value.word_length is None


@pytest.mark.parametrize("given", ["", (), "fixed,log", ("fixed", "posit"), 3, None])
def test_unknown_families_are_refused(given):
    with pytest.raises(InputError, match=r"families is .*; accepted: some of fixed, po2, ternary, binary"):
        families_of(given)
