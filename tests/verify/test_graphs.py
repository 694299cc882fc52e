"""Networks with diamonds: simulator, both proofs and the float report against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.proof import Proof, exact_bound, exact_error
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.ops import Add, MatMul, Permute, Reshape
from sound_qkeras.verify.proof import bound_leaves, prove
from tests.graphs import Builder, random_graph, random_twin, trace

from .facts import check_facts, points_with_ties

SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed > 5 else []) for seed in range(60)]


def case(seed):
    """A twin, its box, and points of it with some on ties of the input's grid."""
    rng = np.random.default_rng(seed)
    twin, ranges = random_twin(rng, random_graph(rng, 3 + seed % 8))
    return twin, ranges, points_with_ties(rng, twin, ranges)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_proved_fact_holds_at_every_node(seed):
    twin, ranges, points = case(seed)
    proof = prove(twin, Interval(*ranges))
    for point, found in check_facts(twin, ranges, points, trace):
        real, fixed = found[twin.network.output.name]
        error = (fixed - real).ravel()
        assert exact_error(twin, point) == list(error)
        assert all(abs(e) <= Fraction(b) for e, b in zip(error, proof.output_bounds, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_every_proved_fact_of_matrix_products_holds(seed):
    """Scores of rows against one another, and those times the rows, as in attention."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, (3,))
    rows, others = (b.add(Reshape((4,), (2, 2)), b.dense("x", 4)) for _ in range(2))
    scores = b.add(MatMul(2), rows, b.add(Permute((1, 0)), others))
    b.dense(b.add(Add((False, False)), b.add(MatMul(2), scores, others), rows), 2)
    twin, ranges = random_twin(rng, Network(tuple(b.nodes)))
    proof, exact = prove(twin, Interval(*ranges)), exact_bound(twin, *ranges)
    for point, found in check_facts(twin, ranges, points_with_ties(rng, twin, ranges), trace):
        real, fixed = found[twin.network.output.name]
        assert exact_error(twin, point) == list((fixed - real).ravel())
        assert all(abs(e) <= Fraction(b) for e, b in zip((fixed - real).ravel(), proof.output_bounds, strict=True))
    assert float(max(exact)) <= 1.1 * proof.bound <= 3.3 * float(max(exact))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_exact_proof_is_about_as_tight(seed):
    """Both proofs use the same mathematics: on such small networks neither is far from the other."""
    twin, ranges, _ = case(seed)
    float_bound = prove(twin, Interval(*ranges)).bound
    exact = Proof(twin, Range(*(Dyadic.of(end.reshape(-1)) for end in ranges)))
    bound = max(exact.facts[twin.network.output.name].difference.magnitude().fractions())
    assert float(bound) <= 1.1 * float_bound + 1e-9
    assert float_bound <= 3.0 * float(bound) + 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_an_accumulator_that_is_too_narrow_is_refused(seed):
    """Of every operation that accumulates, one bit less than its proved range needs."""
    twin, ranges, _ = case(seed)
    box = Interval(*ranges)
    proved = bound_leaves(twin, box).ranges
    for name, output in twin.accumulators.items():
        tight = Format.for_range(*proved[name], output.fractional_bits)
        if tight.word_length < 4:
            continue
        less = Format(tight.word_length - 1, tight.integer_bits - 1, tight.signed)
        wrong = Pair(twin.network, twin.parameters, twin.formats, {**twin.accumulators, name: less})
        with pytest.raises(VerificationError):
            prove(wrong, box)
