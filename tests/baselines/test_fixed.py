"""Baselines that are fixed-point networks: their rules, that nothing overflows, and that our verifier can prove them."""

import math
from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras import baselines
from sound_qkeras.baselines.fixed import fitting_bits
from sound_qkeras.baselines.per_layer import FEWEST_BITS, MOST_BITS, solve_rule
from sound_qkeras.baselines.post_training import grid_codes
from sound_qkeras.baselines.uniform import auto_po2
from sound_qkeras.errors import InfeasibleError, InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.verify.proof import prove
from tests import networks

RNG = np.random.default_rng(1)
NETWORK = networks.random_network(RNG, (4, 6, 5, 2))
BOX = Interval(*networks.box(NETWORK))
SAMPLES = networks.samples(RNG, (BOX.lower, BOX.upper), 64)
EPS = np.full(2, 0.05)
FIXED = {
    "plain": lambda: baselines.uniform(NETWORK, BOX, 6),
    "auto_po2": lambda: baselines.uniform(NETWORK, BOX, 6, scale="auto_po2"),
    "rule": lambda: baselines.per_layer_rule(NETWORK, BOX, baselines.equal_bounds(NETWORK, 0.1)),
    "nearest": lambda: baselines.on_grid(NETWORK, BOX, 5, other_bits=8),
    "mid-rise": lambda: baselines.on_grid(NETWORK, BOX, 5, rule="mid_rise", other_bits=8),
    "stochastic": lambda: baselines.on_grid(NETWORK, BOX, 5, rule="stochastic", other_bits=8),
    "before": lambda: baselines.pruned_uniform(NETWORK, BOX, 0.5, 7),
    "after": lambda: baselines.pruned_uniform(NETWORK, BOX, 0.5, 7, order="after"),
}


@pytest.mark.parametrize("name", FIXED)
def test_the_verifier_judges_it_and_its_bound_holds(name):
    found = FIXED[name]()
    prove(found.pair, BOX)  # raises where something may overflow
    proved = baselines.prove_candidate(found, BOX, EPS, max_leaves=4)
    error = np.abs(found.evaluate(SAMPLES) - NETWORK.evaluate(SAMPLES)).max(axis=0)
    assert np.all(error <= proved.output_bounds)
    assert 0.0 < proved.bound < 10.0


@pytest.mark.parametrize("word_length", [4, 8, 16])
def test_uniform_means_uniform(word_length):
    found = baselines.uniform(NETWORK, BOX, word_length)
    parameters = found.pair.parameters.values()
    formats = [*found.pair.formats.values(), *(f for c in parameters for f in (c.kernel_format, c.bias_format))]
    assert {output.word_length for output in formats} == {word_length}
    assert found.cost == cost_of(found.pair)
    for node, op in NETWORK.affine():
        bits = found.pair.parameters[node.name].kernel_format.fractional_bits
        assert Format.for_range(op.kernel.min(), op.kernel.max(), bits + 1).word_length > word_length
    # One fractional bit more and a value would no longer fit.
    ranges = prove(found.pair, BOX).ranges
    for name, output in found.pair.formats.items():
        assert Format.for_range(*ranges[name], output.fractional_bits + 2).word_length > word_length


def test_the_smallest_word_is_proved_and_no_shorter_one_is():
    found = baselines.smallest_word(NETWORK, BOX, EPS, max_leaves=1)
    length = found.candidate.pair.formats["x"].word_length
    assert np.all(found.output_bounds <= EPS)
    for shorter in range(2, length):
        proved = baselines.prove_candidate(baselines.uniform(NETWORK, BOX, shorter), BOX, EPS, max_leaves=1)
        assert np.any(proved.output_bounds > EPS)
    with pytest.raises(InfeasibleError, match="at best") as caught:
        baselines.smallest_word(NETWORK, BOX, EPS, longest=length - 1, max_leaves=1)
    assert caught.value.best_bound > EPS.min()


def test_auto_po2_by_hand():
    # Channel 0: start 2 * 3 / 6 = 1, codes (3, 1), <w, z> / <z, z> = 10.2 / 10, exponent 0.
    # Channel 1: start 2 * 0.3 / 6 = 0.1, nearest power 2**-3, codes (2, -1), 0.7 / 5 = 0.14, exponent -3.
    codes, exponents = auto_po2(np.array([[3.1, 0.3], [0.9, -0.1]]), 3)
    assert codes.tolist() == [[3, 2], [1, -1]]
    assert exponents.tolist() == [0, -3]


def test_auto_po2_counts_its_word_length_though_channels_share_a_grid():
    found = baselines.uniform(NETWORK, BOX, 6, scale="auto_po2")
    weights = sum(op.kernel.size for _, op in NETWORK.affine())
    assert found.weight_bits == 6 * weights
    for node, op in NETWORK.affine():
        codes, exponents = auto_po2(op.kernel, 6)
        value = found.pair.parameters[node.name].kernel_value
        assert np.array_equal(value, codes * 2.0**exponents)


def test_the_rule_is_the_fewest_bits_with_a_step_within_the_bound():
    bounds = [1.0, 2.0**-7, np.nextafter(2.0**-7, 0.0), 0.3e-3, 2.0**-32, 1e-9]
    expected = [min(max(math.ceil(-math.log2(b)), FEWEST_BITS), MOST_BITS) for b in bounds]
    expected[2] = 8
    found = solve_rule({str(i): b for i, b in enumerate(bounds)})
    assert list(found.values()) == expected
    for bits, bound in zip(found.values(), bounds, strict=True):
        assert Fraction(1, 2**bits) <= Fraction(bound)
        assert bits == FEWEST_BITS or Fraction(1, 2 ** (bits - 1)) > Fraction(bound)


def test_the_rule_refuses_what_it_cannot_do():
    with pytest.raises(InfeasibleError, match="layer 'a'") as caught:
        solve_rule({"a": 2.0**-33})
    assert caught.value.best_bound == 2.0**-32
    with pytest.raises(InputError, match="positive"):
        solve_rule({"a": 0.0})
    with pytest.raises(InputError, match="dense_2"):
        baselines.per_layer_rule(NETWORK, BOX, {"dense_0": 0.1, "dense_1": 0.1})


def test_the_rules_bits_reach_weights_biases_and_results_of_their_layer():
    bounds = {"dense_0": 2.0**-6, "dense_1": 2.0**-9, "dense_2": 2.0**-12}
    found = baselines.per_layer_rule(NETWORK, BOX, bounds).pair
    for name, bits in {"dense_0": 6, "dense_1": 9, "dense_2": 12}.items():
        codes = found.parameters[name]
        assert (codes.kernel_format.fractional_bits, codes.bias_format.fractional_bits) == (bits, bits)
    values = {name: output.fractional_bits for name, output in found.formats.items()}
    assert values == {"x": 6, "dense_0_relu": 6, "dense_1_relu": 9}


@pytest.mark.parametrize("bits", [2, 4, 9])
@pytest.mark.parametrize("largest", [0.9, 1.0, 1.1, 0.03, 70.0])
def test_mid_rise_codes_are_odd_and_within_half_a_step(bits, largest):
    values = np.append(np.random.default_rng(0).uniform(-largest, largest, 200), [largest, -largest])
    codes, fractional_bits = grid_codes(values, bits, "mid_rise", RNG)
    half_step = Fraction(2) ** -fractional_bits
    assert np.all(codes % 2 == 1)
    assert np.max(np.abs(codes)) < 2**bits
    assert all(
        abs(Fraction(int(code)) * half_step - Fraction(value)) <= half_step
        for code, value in zip(codes, values, strict=True)
    )
    # Half the step would not reach the ends.
    assert Fraction(largest) > 2 ** (bits - 1) * half_step


def test_stochastic_codes_are_neighbours_in_the_word_and_unbiased():
    values = np.random.default_rng(0).uniform(-1.0, 1.0, 100)
    rng = np.random.default_rng(5)
    draws = [grid_codes(values, 5, "stochastic", rng) for _ in range(400)]
    bits = fitting_bits(float(values.min()), float(values.max()), 5)
    scaled = values * 2.0**bits
    codes = np.array([code for code, _ in draws])
    assert {fractional for _, fractional in draws} == {bits}
    assert codes.min() >= -16
    assert codes.max() <= 15
    inside = scaled <= 15
    assert np.all((codes == np.floor(scaled)) | (codes == np.ceil(scaled)) | ~inside)
    share = scaled - np.floor(scaled)
    assert np.all((np.abs(codes.mean(axis=0) - scaled) <= 5 * np.sqrt(share * (1 - share) / 400) + 1e-12) | ~inside)


def test_seeds_repeat_and_differ():
    first, again, other = (
        baselines.on_grid(NETWORK, BOX, 5, rule="stochastic", seed=seed).pair.code_hash for seed in (1, 1, 2)
    )
    assert first == again != other


def test_mid_rise_does_not_count_the_constant_bit():
    found = baselines.on_grid(NETWORK, BOX, 3, rule="mid_rise", other_bits=8)
    assert found.weight_bits == 3 * sum(op.kernel.size for _, op in NETWORK.affine())
    assert cost_of(found.pair).weight_bits > found.weight_bits


def test_all_zero_layers_and_tiny_weights_have_formats():
    network = networks.random_network(np.random.default_rng(0), (3, 4, 2))
    kernels = {"dense_0": np.zeros((3, 4)), "dense_1": 1e-20 * network.by_name["dense_1"].op.kernel}
    network = baselines.candidate.with_weights(network, kernels, {"dense_0": np.zeros(4)})
    box = Interval(*networks.box(network))
    for scale in ("plain", "auto_po2"):
        prove(baselines.uniform(network, box, 4, scale=scale).pair, box)


@pytest.mark.parametrize("options", [{"word_length": 1}, {"word_length": 60}, {"word_length": 8, "scale": "auto"}])
def test_unknown_formats_are_refused(options):
    with pytest.raises(InputError, match="accepted"):
        baselines.uniform(NETWORK, BOX, **options)


def test_only_fixed_point_candidates_are_judged():
    with pytest.raises(InputError, match="fixed-point"):
        baselines.prove_candidate(baselines.from_levels(NETWORK, 4), BOX, EPS)
