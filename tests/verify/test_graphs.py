"""Networks with diamonds: simulator, both proofs and the float report against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras.errors import VerificationError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import QuantizedNetwork
from sound_qkeras.verify.dyadic import Dyadic, Range
from sound_qkeras.verify.exact import _Proof, exact_error
from sound_qkeras.verify.proof import bound_leaves, prove
from sound_qkeras.verify.propagation import propagate
from tests.graphs import random_graph, random_twin, trace
from tests.networks import samples

SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed > 5 else []) for seed in range(60)]


def inside(interval, x):
    """Whether exact values lie in the intervals of the only box."""
    ends = zip(interval.lower[0].ravel(), np.ravel(x), interval.upper[0].ravel(), strict=True)
    return all(Fraction(low) <= value <= Fraction(high) for low, value, high in ends)


def case(seed):
    """A twin, its box, and points of it with some on ties of the input's grid."""
    rng = np.random.default_rng(seed)
    twin, ranges = random_twin(rng, random_graph(rng, 3 + seed % 8))
    points = samples(rng, ranges, 4)
    step = twin.formats["x"].step
    ties = np.clip((np.floor(points / step) + 0.5) * step, *ranges)
    return twin, ranges, np.concatenate([points, ties])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_proved_fact_holds_at_every_node(seed):
    twin, ranges, points = case(seed)
    box = Interval(*ranges)
    facts = propagate(twin.network, box[None], twin).facts
    proof = prove(twin, box)
    exact = _Proof(twin, Range(*(Dyadic.of(end.reshape(-1)) for end in ranges)))
    codes = twin.simulate_all(points)
    for number, point in enumerate(points):
        found = trace(twin, point)
        for name, (real, fixed) in found.items():
            value, twin_value, difference = facts[name].pair()
            assert inside(value, real), name
            assert inside(twin_value, fixed), name
            assert inside(difference, fixed - real), name
            step = Fraction(2) ** -twin.fractional_bits[name]
            assert [int(code) * step for code in codes[name][number].ravel()] == list(fixed.ravel()), name
            proved = exact.facts[name]
            for x, enclosure in ((real, proved.value), (fixed, proved.fixed), (fixed - real, proved.difference)):
                ends = zip(enclosure.lower.fractions(), x.ravel(), enclosure.upper.fractions(), strict=True)
                assert all(low <= one <= high for low, one, high in ends), name
        real, fixed = found[twin.network.output.name]
        error = (fixed - real).ravel()
        assert exact_error(twin, point) == list(error)
        assert all(abs(e) <= Fraction(b) for e, b in zip(error, proof.output_bounds, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_exact_proof_is_about_as_tight(seed):
    """Both proofs use the same mathematics: on such small networks neither is far from the other."""
    twin, ranges, _ = case(seed)
    float_bound = prove(twin, Interval(*ranges)).bound
    exact = _Proof(twin, Range(*(Dyadic.of(end.reshape(-1)) for end in ranges)))
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
        wrong = QuantizedNetwork(twin.network, twin.parameters, twin.formats, {**twin.accumulators, name: less})
        with pytest.raises(VerificationError):
            prove(wrong, box)
