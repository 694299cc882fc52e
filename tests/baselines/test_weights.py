"""Multipoint quantisation and pruning, against the equations of their papers; and the count of their bits."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from sound_qkeras import baselines
from sound_qkeras.baselines.candidate import FLOAT_BITS, with_weights
from sound_qkeras.baselines.multipoint import GRID, next_point
from sound_qkeras.baselines.pruning import prune
from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval
from tests import networks

RNG = np.random.default_rng(3)
NETWORK = networks.random_network(RNG, (3, 6, 2))
BOX = Interval(*networks.box(NETWORK))
SAMPLES = networks.samples(RNG, (BOX.lower, BOX.upper), 64)
WEIGHTS, BIASES, VALUES = 3 * 6 + 6 * 2, 6 + 2, 3 + 6


def test_a_point_beats_every_scale_of_the_grid_with_every_low_bit_vector():
    for seed in range(20):
        r = np.random.default_rng(seed).normal(size=3)
        scale, codes = next_point(r, 2)
        found = np.sum((r - scale * codes) ** 2)
        scales = np.max(np.abs(r)) * np.arange(1, GRID + 1) / GRID
        best = min(np.sum((r - a * np.array(q)) ** 2) for q in product((-1, 0, 1), repeat=3) for a in scales)
        assert found <= best * (1 + 1e-12)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_points_are_low_bit_vectors_and_leave_an_orthogonal_residual(bits):
    most = 2 ** (bits - 1) - 1
    r = np.random.default_rng(bits).normal(size=50)
    scale, codes = next_point(r, bits)
    assert np.max(np.abs(codes)) <= most
    assert abs(np.dot(r - scale * codes / most, codes)) < 1e-9


def approximate(weights, bits, points):
    """The sum of so many scaled low-bit vectors, greedily."""
    total = np.zeros_like(weights)
    for _ in range(points):
        scale, codes = next_point(weights - total, bits)
        total = total + scale * codes / (2 ** (bits - 1) - 1)
    return total


def test_every_point_shrinks_the_residual_by_a_constant_factor_or_more():
    w = np.random.default_rng(0).normal(size=40)
    errors = [np.linalg.norm(w - approximate(w, 3, points)) for points in range(8)]
    assert errors[0] == np.linalg.norm(w)
    assert all(after < 0.5 * before for before, after in pairwise(errors))


def test_zero_weights_need_no_scale():
    scale, codes = next_point(np.zeros(4), 3)
    assert scale == 0.0
    assert not codes.any()


def test_only_channels_whose_outputs_suffer_get_more_points():
    op = NETWORK.by_name["dense_1"].op
    uneven = replace(op, kernel=op.kernel * np.array([1.0, 1e-3]))
    network = replace(NETWORK, nodes=tuple(replace(n, op=uneven) if n.op is op else n for n in NETWORK.nodes))
    one, some, all_ = (
        baselines.multipoint(network, SAMPLES, 3, error=error, most_points=3) for error in (1e9, 1e-4, 0.0)
    )
    fan_in = {"dense_0": 3, "dense_1": 6}
    least = sum((3 * fan_in[node.name] + 32) * op.bias.size for node, op in network.affine())
    assert one.weight_bits == least
    assert all_.weight_bits == 3 * least
    assert one.weight_bits < some.weight_bits < all_.weight_bits
    kernel = some.network.by_name["dense_1"].op.arrays()["kernel"]
    assert np.allclose(kernel[:, 1], approximate(uneven.kernel[:, 1], 3, 1), atol=1e-18)
    assert np.allclose(kernel[:, 0], approximate(uneven.kernel[:, 0], 3, 3), atol=1e-12)


def test_multipoint_leaves_biases_alone_and_counts_everything():
    found = baselines.multipoint(NETWORK, SAMPLES, 4, most_points=1)
    assert np.array_equal(found.network.by_name["dense_0"].op.bias, NETWORK.by_name["dense_0"].op.bias)
    assert found.cost.bias_bits == FLOAT_BITS * BIASES
    assert found.cost.activation_bits == FLOAT_BITS * VALUES
    assert found.weight_bits == 4 * WEIGHTS + 8 * FLOAT_BITS
    with pytest.raises(InputError, match="accepted"):
        baselines.multipoint(NETWORK, SAMPLES, 1)


def test_pruning_keeps_the_largest():
    values = {"a": RNG.normal(size=(5, 4)), "b": 10.0 * RNG.normal(size=(4, 5))}
    each = prune(values, 0.25)
    for name, kernel in values.items():
        zeros = each[name] == 0.0
        assert zeros.sum() == 5
        assert np.abs(kernel[zeros]).max() <= np.abs(kernel[~zeros]).min()
        assert np.array_equal(each[name][~zeros], kernel[~zeros])
    whole = prune(values, 0.5, "network")
    magnitudes = np.sort(np.abs(np.concatenate([values["a"].ravel(), values["b"].ravel()])))
    for name, kernel in values.items():
        assert np.array_equal(whole[name] == 0.0, np.abs(kernel) < magnitudes[20])


def test_pruning_counts_zeros_like_everything_else_and_says_what_a_bitmap_takes():
    found = baselines.pruned(NETWORK, 0.5)
    assert found.weight_bits == FLOAT_BITS * WEIGHTS
    assert found.notes[0] == f"15 of 30 weights are zero; stored with a bitmap they take {30 + 15 * 32} bits."
    with pytest.raises(InputError, match="0 to 1"):
        baselines.pruned(NETWORK, 1.5)


def test_before_and_after_prune_what_they_say():
    before, after = (
        baselines.pruned_uniform(NETWORK, BOX, 0.6, 4, order=order, scope="network") for order in ("before", "after")
    )
    plain = baselines.uniform(NETWORK, BOX, 4).pair.parameters
    kept = prune({node.name: op.kernel for node, op in NETWORK.affine()}, 0.6, "network")
    assert before.pair is not None
    for name, codes in after.pair.parameters.items():
        same = codes.kernel != 0
        assert np.array_equal(codes.kernel[same], plain[name].kernel[same])
        assert not before.pair.parameters[name].kernel[kept[name] == 0.0].any()
    # Rounded to four bits, weights of different size are equal: the two orders keep different ones.
    assert any(
        np.any((before.pair.parameters[name].kernel == 0) != (codes.kernel == 0))
        for name, codes in after.pair.parameters.items()
    )


def test_replacing_weights_touches_nothing_else():
    same = with_weights(NETWORK, {node.name: op.kernel for node, op in NETWORK.affine()})
    assert same.weight_hash == NETWORK.weight_hash
    other = with_weights(NETWORK, {"dense_0": np.zeros((3, 6))}, {"dense_1": np.ones(2)})
    assert np.array_equal(other.by_name["dense_1"].op.kernel, NETWORK.by_name["dense_1"].op.kernel)
    assert np.array_equal(other.by_name["dense_1"].op.bias, np.ones(2))
    assert not other.by_name["dense_0"].op.kernel.any()
