"""The search's tree and the proof agree on every leaf."""

import numpy as np

from sound_qkeras.interval import Interval
from sound_qkeras.splitting.refine import refine, settle
from sound_qkeras.verify.proof import bound_leaves
from tests.networks import box, quantized, random_network


def test_what_is_settled_is_what_is_proved():
    """Leaf by leaf and bit by bit: the leaves are measured in the batches of the proof."""
    network = random_network(np.random.default_rng(1), (3, 8, 8, 2))
    twin, region = quantized(network, box(network), 8, 8), Interval(*box(network))
    eps = np.full(2, 0.02)
    state = refine(twin, region, eps, target=0.0, max_leaves=60)
    settled = settle(state, region.shape, target=0.75 * state.worst, max_leaves=200)
    proof = bound_leaves(twin, region, settled.tree)
    np.testing.assert_array_equal(
        (proof.leaf_bounds / eps).max(axis=1), settled.boxes.score[settled.boxes.leaves_in_order]
    )
    assert settled.leaves.size > state.leaves.size == 60
    assert settled.worst <= 0.75 * state.worst
