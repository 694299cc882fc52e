"""No error that occurs exceeds a proved bound: exact fractions at the worst points found, on networks of every kind."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sound_qkeras.errors import ModelError, VerificationError
from sound_qkeras.exact.proof import exact_bound, exact_error
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Relu
from sound_qkeras.verify.proof import Proof, bound_leaves, prove
from sound_qkeras.verify.propagation import batches, propagate
from sound_qkeras.verify.split_tree import SplitTree

from . import twins
from .tight import tight
from .twins import Case, cases, leaves_of, output_error, points, random_tree, trace, twin, worst_first

Exact = np.ndarray


def examples(count: int):
    """So many networks; drawing one is slow by Hypothesis' standards, and is meant to be."""
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def corner_parameters(case: Case) -> dict[str, tuple[Exact, Exact]]:
    """For folded parameters: ends of their enclosures, chosen at random."""
    choose = np.vectorize(lambda up: Fraction(1) if up else Fraction(-1), otypes=[object])
    return {
        node.name: (choose(case.rng.random(op.kernel.shape) < 0.5), choose(case.rng.random(op.bias.shape) < 0.5))
        for node, op in case.pair.network.affine()
    }


def attack(case: Case, count: int = 10) -> None:
    """Whatever is proved of the case, on its leaves and on the whole box, holds at the worst points found."""
    fine = prove(case.pair, case.box, case.tree)
    bits = {name: output.fractional_bits for name, output in case.pair.formats.items()}
    whole = twin(case.pair.network, dict(case.pair.parameters), bits, case.box)
    same = {n: f.fractional_bits for n, f in whole.formats.items()} == bits and not case.pair.saturating
    coarse = prove(whole, case.box) if same else None
    found = worst_first(case, points(case), count)
    simulated = case.pair.simulate_all(found)
    signs = corner_parameters(case)
    for number, x in enumerate(found):
        values = trace(case.pair, x, signs)
        hold(case, fine, x, values)
        errors = output_error(case.pair, values)
        assert np.all(errors <= twins.fractions(fine.output_bounds))
        assert coarse is None or np.all(errors <= twins.fractions(coarse.output_bounds))
        same_codes(case.pair, simulated, number, values)


def hold(case: Case, proof: Proof, x: np.ndarray, values: dict[str, twins.Trace]) -> None:
    """At one point: the errors on each leaf that holds it, and every tensor's range."""
    errors = output_error(case.pair, values)
    leaves = leaves_of(case, x)
    assert leaves.size > 0, "the leaves do not cover the box"
    for leaf in leaves:
        assert np.all(errors <= twins.fractions(proof.leaf_bounds[leaf]))
    for name, value in values.items():
        low, high = (Fraction(end) for end in proof.ranges[name])
        assert all(low <= member <= high for member in value.before), name


def same_codes(quantized: Pair, simulated: dict[str, np.ndarray], number: int, values: dict[str, twins.Trace]) -> None:
    """The simulator has the same codes at every node; nothing saturates in the box."""
    for name, codes in simulated.items():
        step = Fraction(2) ** -quantized.fractional_bits[name]
        assert [int(code) * step for code in codes[number].reshape(-1)] == list(values[name].after), name


# Random networks.


@examples(24)
@given(cases(saturate=True))
def test_no_error_exceeds_the_bound(case):
    attack(case)


@examples(12)
@given(cases(saturate=True, folded=True, largest_width=5))
def test_no_error_exceeds_the_bound_of_folded_parameters(case):
    attack(case)


@examples(14)
@given(cases(saturate=True, bits=st.integers(14, 44), largest_width=6))
def test_no_error_exceeds_the_bound_where_sums_need_more_than_53_bits(case):
    attack(case)


@examples(8)
@given(cases(saturate=True, bits=st.integers(0, 6), largest_width=2, most_layers=3))
def test_no_error_exceeds_the_bound_of_tiny_networks_on_many_leaves(case):
    tree = random_tree(case.rng, case.box.lower.size, 40)
    bits = {name: output.fractional_bits for name, output in case.pair.formats.items()}
    quantized = twin(case.pair.network, dict(case.pair.parameters), bits, case.box, tree)
    attack(replace(case, pair=quantized, tree=tree), 24)


@pytest.mark.slow
@examples(600)
@given(cases(saturate=True))
def test_no_error_exceeds_the_bound_at_length(case):
    attack(case)


@pytest.mark.slow
@examples(250)
@given(cases(saturate=True, bits=st.integers(14, 44)))
def test_no_error_exceeds_the_bound_of_wide_sums_at_length(case):
    attack(case)


def test_the_wide_cases_are_wide():
    """The strategy above does reach what it is there for."""
    wide = []

    @examples(14)
    @given(cases(bits=st.integers(14, 44), largest_width=6))
    def collect(case):
        wide.append(max(f.word_length for f in case.pair.accumulators.values()) > 53)

    collect()
    assert sum(wide) >= 4


# Hidden enclosures: not only the outputs.


@examples(10)
@given(cases(saturate=True, largest_width=5))
def test_every_tensor_stays_within_its_enclosures(case):
    leaves = case.tree.leaves(case.box)
    facts = propagate(case.pair.network, leaves, case.pair).facts
    for x in worst_first(case, points(case, 6), 8):
        values = trace(case.pair, x, corner_parameters(case))
        for leaf in leaves_of(case, x):
            for name, value in values.items():
                real, fixed, difference = facts[name].pair()
                for interval, member in (
                    (real, value.real),
                    (fixed, value.after),
                    (difference, value.after - value.real),
                ):
                    lower, upper = (twins.fractions(end[leaf].reshape(-1)) for end in (interval.lower, interval.upper))
                    assert np.all(lower <= member), name
                    assert np.all(member <= upper), name


@examples(10)
@given(cases(largest_width=5))
def test_every_real_tensor_stays_within_its_range_without_formats(case):
    facts = propagate(case.pair.network, case.box[None]).facts
    for x in points(case, 3)[::2]:
        for name, value in trace(case.pair, x, corner_parameters(case)).items():
            lower, upper = (
                twins.fractions(end.reshape(-1)) for end in (facts[name].value.lower, facts[name].value.upper)
            )
            assert np.all(lower <= value.real), name
            assert np.all(value.real <= upper), name


# A second proof, in exact rationals.


@examples(20)
@given(cases(saturate=True, largest_width=5, most_layers=4))
def test_the_rational_proof_is_never_looser(case):
    """It uses every enclosure the float64 proof uses, without rounding: a smaller float64 bound would lack something.

    A float64 proof with a new idea may beat it one day; then this asks for the idea in the rational proof too.
    """
    bits = {name: output.fractional_bits for name, output in case.pair.formats.items()}
    quantized = twin(case.pair.network, dict(case.pair.parameters), bits, case.box)
    proved = prove(quantized, case.box).output_bounds
    rational = exact_bound(quantized, case.box.lower, case.box.upper)
    assert all(exact <= Fraction(bound) for exact, bound in zip(rational, proved, strict=True))


# Bounds that are reached: nothing may be left out of them.


@pytest.mark.parametrize("seed", range(24))
def test_a_bound_that_is_reached_is_not_exceeded(seed):
    found = tight(seed, size=1 + seed % 5, bits=1 + seed % 6)
    proof = prove(found.pair, found.box)
    error = abs(exact_error(found.pair, found.worst)[0])
    assert Fraction(proof.output_bounds[0]) * (1 - Fraction(1, 10**9)) <= error <= Fraction(proof.output_bounds[0])


@pytest.mark.parametrize("seed", range(6))
def test_a_bound_that_is_reached_is_not_exceeded_on_leaves(seed):
    found = tight(seed, size=3)
    tree = random_tree(np.random.default_rng(seed), 3, 20)
    proof = prove(found.pair, found.box, tree)
    error = abs(exact_error(found.pair, found.worst)[0])
    assert Fraction(proof.output_bounds[0]) * (1 - Fraction(1, 10**9)) <= error <= Fraction(proof.output_bounds[0])


def test_ranges_are_reached_where_the_input_rounds_outward():
    """Half a step beyond an odd code rounds away from zero: the sum has to be taken after that rounding."""
    one = Dense(np.ones((1, 1)), np.zeros(1))
    network = Network((Node("x", Input((1,))), Node("y", one, ("x",))))
    codes = AffineCodes(np.array([[1]]), Format(2, 1, True), np.array([0]), Format(2, 1, True))
    quantized = Pair(network, {"y": codes}, {"x": Format(6, 3, True)}, {})
    proof = bound_leaves(quantized, Interval(np.array([-0.875]), np.array([0.875])))
    assert proof.ranges["x"] == (-0.875, 0.875)
    assert proof.ranges["y"][0] <= -1.0 <= 1.0 <= proof.ranges["y"][1]
    assert proof.output_bounds[0] >= 0.125


def test_the_ranges_are_the_hull_of_all_leaves_in_all_batches(monkeypatch):
    found = tight(0)
    tree = random_tree(np.random.default_rng(0), 3, 12)
    together = prove(found.pair, found.box, tree)
    monkeypatch.setattr("sound_qkeras.verify.propagation.BATCH_NUMBERS", 1)
    apart = prove(found.pair, found.box, tree)
    leaves = tree.leaves(found.box)
    for number in range(12):
        alone = prove(found.pair, leaves[number])
        assert np.array_equal(alone.output_bounds, apart.leaf_bounds[number])
        for name, (low, high) in alone.ranges.items():
            assert apart.ranges[name][0] <= low <= high <= apart.ranges[name][1]
    assert np.allclose(together.leaf_bounds, apart.leaf_bounds, rtol=1e-12)
    assert np.array_equal(apart.output_bounds, apart.leaf_bounds.max(axis=0))


@pytest.mark.parametrize("count", [1, 2, 15, 16, 31, 32, 33, 63, 64, 255, 257, 1000])
def test_batches_hold_every_box_once(count):
    network = tight(0).pair.network
    boxes = Interval(np.zeros((count, 3)), np.ones((count, 3)))
    numbers = [int(number) for part in batches(network, boxes) for number in np.arange(count)[part]]
    assert numbers == list(range(count))


# What decides the phases of a ReLU.


@pytest.mark.parametrize("bias", [-0.75, -0.3125, -0.25, -0.125, 0.0, 0.125, 0.25, 0.3125, 0.75])
@pytest.mark.parametrize("nudge", [-2, -1, 0, 1, 2])
def test_a_unit_whose_sign_changes_between_the_networks_is_covered(bias, nudge):
    """Brute force over a fine grid: dead in one network, alive in the other, on both sides of zero."""
    first = Dense(np.array([[0.8125, -0.6875]]), np.array([bias, 0.1]))
    second = Dense(np.array([[1.0], [-0.5]]), np.zeros(1))
    network = Network(
        (
            Node("x", Input((1,))),
            Node("a", first, ("x",)),
            Node("a_relu", Relu(), ("a",)),
            Node("b", second, ("a_relu",)),
        )
    )
    codes = {
        "a": AffineCodes(
            np.array([[3, -3]]), Format(4, 1, True), np.array([4 * bias + nudge, 0]).astype(int), Format(6, 3, True)
        ),
        "b": AffineCodes(np.array([[2], [-1]]), Format(4, 2, True), np.array([0]), Format(2, 1, True)),
    }
    box = Interval(np.array([-0.6]), np.array([0.45]))
    samples = np.linspace(-0.6, 0.45, 841)[:, None].clip(-0.6, 0.45)
    for tree in (SplitTree(), random_tree(np.random.default_rng(0), 1, 16)):
        quantized = twin(network, codes, {"x": 3, "a_relu": 2}, box, tree)
        proof = prove(quantized, box, tree)
        fixed = quantized.simulate_all(samples)["b"] * 2.0 ** -quantized.fractional_bits["b"]
        worst = np.abs(fixed - network.evaluate(samples)).max()
        assert worst <= proof.bound
        assert proof.bound <= worst + 0.6


# Refusals of the proof itself.


@examples(12)
@given(cases(bits=st.integers(-2, 12)), st.data())
def test_any_format_or_accumulator_one_bit_narrower_is_refused(case, data):
    quantized = case.pair
    chosen = data.draw(
        st.sampled_from(
            [("formats", n) for n in quantized.formats] + [("accumulators", n) for n in quantized.accumulators]
        )
    )
    kind, name = chosen
    held = getattr(quantized, kind)[name]
    if held.word_length <= 1 + held.signed:
        return
    narrower = Format(held.word_length - 1, held.integer_bits - 1, held.signed)
    kinds = {"formats": "output", "accumulators": "accumulator"}
    with pytest.raises(VerificationError, match=f"{kinds[kind]}: values reach"):
        prove(replace(quantized, **{kind: {**getattr(quantized, kind), name: narrower}}), case.box, case.tree)


def test_what_overflows_float64_has_no_finite_bound():
    huge = Dense(np.full((1, 1), 1e38), np.zeros(1))
    names = [f"d{number}" for number in range(12)]
    nodes = [Node("x", Input((1,)))] + [
        Node(name, huge, (before,)) for name, before in zip(names, ["x", *names], strict=False)
    ]
    zero = AffineCodes(np.array([[0]]), Format(2, 1, True), np.array([0]), Format(2, 1, True))
    formats = dict.fromkeys(["x", *names[:-1]], Format(8, 2, True))
    quantized = Pair(Network(tuple(nodes)), dict.fromkeys(names, zero), formats, {})
    box = Interval(np.array([0.5]), np.array([1.0]))
    with np.errstate(all="ignore"):
        assert not np.isfinite(bound_leaves(quantized, box).bound)


@pytest.mark.parametrize("bits", [301, 1079, -301])
def test_steps_at_the_ends_of_float64_are_refused(bits):
    network = Network((Node("x", Input((1,))), Node("d", Dense(np.zeros((1, 1)), np.zeros(1)), ("x",))))
    extreme, plain = Format(2, 1 - bits, True), Format(2, 0, True)
    one, zero = np.array([[1]]), np.array([0])
    for codes, output in (
        (AffineCodes(one, extreme, zero, plain), plain),
        (AffineCodes(one, plain, zero, extreme), plain),
        (AffineCodes(one, plain, zero, plain), extreme),
    ):
        with pytest.raises(ModelError, match="fractional bits"):
            Pair(network, {"d": codes}, {"x": output}, {})
