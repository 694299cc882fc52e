"""The search's tree and the proof agree on every leaf."""

import numpy as np
import pytest

from sound_qkeras.interval import Interval
from sound_qkeras.splitting import refine as module
from sound_qkeras.splitting.refine import refine
from sound_qkeras.tuning.effort import EFFORTS
from sound_qkeras.tuning.proving import ProvingEvaluator
from sound_qkeras.verify.proof import bound_boxes, bound_leaves
from tests.graphs import random_graph, random_twin
from tests.networks import box, quantized, random_network

NETWORK = random_network(np.random.default_rng(1), (3, 8, 8, 2))
REGION, EPS = Interval(*box(NETWORK)), np.full(2, 0.02)


def test_what_is_measured_is_what_is_proved():
    """Leaf by leaf, or a little more: the search keeps coefficients in float32, and the proof must not come out above it."""
    pair = quantized(NETWORK, box(NETWORK), 8, 8)
    state = refine(pair, REGION, EPS, target=0.0, max_leaves=60)
    proof = bound_leaves(pair, REGION, state.tree)
    scores = state.boxes.score[state.boxes.leaves_in_order]
    proved = (proof.leaf_bounds / EPS).max(axis=1)
    np.testing.assert_allclose(proved, scores, rtol=1e-3)
    assert np.all(proved <= scores)


def test_what_is_settled_is_measured_as_the_proof_does_it():
    evaluator = ProvingEvaluator(NETWORK, REGION, EPS, EFFORTS["normal"])
    pair = quantized(NETWORK, box(NETWORK), 8, 8)
    state = refine(pair, REGION, EPS, target=0.0, max_leaves=20)
    state.boxes.score[state.leaves] = 0.0
    settled = evaluator.settle(state)
    proof = bound_leaves(pair, REGION, settled.tree)
    scores = settled.boxes.score[settled.boxes.leaves_in_order]
    np.testing.assert_allclose((proof.leaf_bounds / EPS).max(axis=1), scores, rtol=1e-12)
    assert settled.leaves.size >= 20
    assert settled.worst <= 1.0 or settled.leaves.size > 2000


@pytest.mark.parametrize("seed", range(6))
def test_a_leaf_is_bounded_alike_in_any_company(seed):
    rng = np.random.default_rng(seed)
    pair, ranges = random_twin(rng, random_graph(rng, 8)) if seed else (quantized(NETWORK, box(NETWORK)), box(NETWORK))
    state = refine(pair, Interval(*ranges), np.ones(1), target=0.0, max_leaves=40)
    leaves = state.boxes.boxes(state.leaves, ranges[0].shape)
    together = bound_boxes(pair, leaves)
    alone = np.concatenate([bound_boxes(pair, leaves[[number]]) for number in range(len(together))])
    np.testing.assert_allclose(alone, together, rtol=1e-12, atol=1e-300)


def test_the_reference_is_enclosed_once_for_all_candidates(monkeypatch):
    """What a leaf's enclosures are does not depend on the integers; a second candidate gives what it would give alone."""
    first, second = (quantized(NETWORK, box(NETWORK), bits, bits) for bits in (8, 9))
    start = refine(first, REGION, EPS, target=0.0, max_leaves=30)
    asked = []
    propagate = module.propagate
    monkeypatch.setattr(
        module, "propagate", lambda *a, values, **k: asked.append(values) or propagate(*a, values=values, **k)
    )
    again = refine(second, REGION, EPS, target=np.inf, max_leaves=30, start=start)
    assert all(values is not None for values in asked)
    np.testing.assert_allclose(
        again.boxes.score[again.leaves],
        (bound_boxes(second, again.boxes.boxes(again.leaves, REGION.shape)) / EPS).max(axis=1),
        rtol=1e-3,
    )
