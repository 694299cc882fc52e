"""The search for the worst error finds the worst where it is known, stays in the box, and tries as often as it says."""

from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Clip, Dense, Input, Leaky, MaxPool, Op, Relu, Table
from sound_qkeras.search import falsify as module
from sound_qkeras.search.breakpoints import SearchSpace, breakpoints, slopes
from sound_qkeras.search.falsify import errors, falsify
from sound_qkeras.search.moves import propose
from sound_qkeras.search.starts import every_input, spread, starts
from tests import networks

UNIT = (-1.0, 1.0)


def pair(network, bits, activation_bits=40, ends=UNIT):
    low, high = networks.box(network, *ends)
    return networks.quantized(network, (low * 1.01, high * 1.01), bits, activation_bits, 40), Interval(low, high)


def linear(kernel):
    kernel = networks.float32(np.asarray(kernel))
    return Network((Node("x", Input((len(kernel),)), ()), Node("y", Dense(kernel, np.zeros(kernel.shape[1])), ("x",))))


def test_reaches_the_corner_of_many_inputs():
    # 2**60 corners, of which two are the worst: only a search that follows the gradient gets there.
    twin, box = pair(linear(np.random.default_rng(0).normal(size=(60, 1))), 5)
    worst = np.abs(twin.pairs["y"].kernel_residual).sum()
    assert falsify(twin, box, evaluations=3000).error == pytest.approx(worst, rel=1e-6)


def test_finds_the_tie_of_every_input():
    # The weights are exact, so the error is what the input's rounding makes: half a step of each, all of one sign.
    twin, box = pair(linear([[1.0], [-0.5], [0.25], [2.0], [1.0], [-1.0]]), 4, 10)
    worst = 5.75 * 2.0**-11
    found = falsify(twin, box, evaluations=3000).error
    assert 0.999 * worst < found <= worst


def bump(height, width, at):
    """`height * relu(width - |x - at|)` of one input."""
    slopes_ = np.array([[1.0, 1.0, 1.0]])
    first = Dense(slopes_, np.array([width - at, -at, -width - at]))
    second = Dense(np.array([[height], [-2.0 * height], [height]]), np.zeros(1))
    nodes = (Node("x", Input((1,)), ()), Node("z", first, ("x",)), Node("r", Relu(), ("z",)), Node("y", second, ("r",)))
    return Network(nodes)


def test_finds_a_narrow_peak():
    # The heights 3/4 and -3/2 become 1 and -2, so the error is a bump of a hundredth of the box, zero elsewhere.
    network = bump(0.75, 2.0**-7, 0.3125)
    codes = {node.name: networks.nearest(op, 0, 40) for node, op in network.affine()}
    ranges = networks.box(network)
    twin = networks.with_parameters(network, ranges, codes, dict.fromkeys(network.rounding_points, 40))
    found = falsify(twin, Interval(*ranges), evaluations=3000)
    assert found.error == pytest.approx(0.25 * 2.0**-7, rel=1e-3)
    assert found.sample == pytest.approx(0.3125, abs=1e-4)


def test_tries_what_it_says_inside_the_box_and_repeats_itself(monkeypatch):
    twin, ends = networks.random_quantized(np.random.default_rng(3), (4, 5, 2))
    box, tried = Interval(*ends), []

    def recorded(quantized, samples):
        tried.append(samples)
        return errors(quantized, samples)

    monkeypatch.setattr(module, "errors", recorded)
    found = falsify(twin, box, evaluations=2000)
    samples = np.concatenate(tried)
    assert 2000 <= len(samples) == found.evaluations <= 2600
    assert samples.shape[1:] == box.shape
    assert np.all(samples >= box.lower)
    assert np.all(samples <= box.upper)
    for again in (found.sample[None], samples):
        assert found.error == pytest.approx(np.abs(errors(twin, again)).max(), rel=1e-9)
    assert falsify(twin, box, evaluations=2000).error == found.error


def test_a_box_that_is_a_point_is_one_input():
    twin, _ = networks.random_quantized(np.random.default_rng(4), (3, 4, 2))
    point = np.array([0.25, -0.5, 1.0])
    found = falsify(twin, Interval(point, point), evaluations=100)
    assert np.array_equal(found.sample, point)


def test_small_batches_find_the_same_corner(monkeypatch):
    monkeypatch.setattr(module, "BATCH_NUMBERS", 640)
    twin, box = pair(linear(np.random.default_rng(1).normal(size=(20, 2))), 5)
    worst = np.abs(twin.pairs["y"].kernel_residual).sum(axis=0).max()
    assert falsify(twin, box, evaluations=3000).error == pytest.approx(worst, rel=1e-6)


def test_a_network_of_which_one_point_fits_is_searched(monkeypatch):
    twin, box = pair(linear(np.random.default_rng(1).normal(size=(20, 2))), 5)
    monkeypatch.setattr(module, "BATCH_NUMBERS", 3 * twin.reference.value_count // 2)
    assert falsify(twin, box, evaluations=50).error > 0.0


def test_every_corner_of_a_small_box_is_tried():
    twin, box = pair(linear(np.ones((4, 1))), 3)
    points = spread(np.random.default_rng(0), SearchSpace.of(twin, box), 32, corners=True)
    assert len(np.unique(points[:16], axis=0)) == 16
    assert np.all(np.abs(points[:16]) == 1.0)


def test_slopes_and_breakpoints_are_those_of_the_network():
    rng = np.random.default_rng(5)
    twin, ends = networks.random_quantized(rng, (3, 6, 5, 2))
    space = SearchSpace.of(twin, Interval(*ends))
    points, rows, directions = rng.uniform(-1, 1, (7, 3)), rng.normal(size=(7, 2)), rng.normal(size=(7, 3))
    for network in (space.network, space.unrounded):

        def along(t, network=network):
            return np.sum(rows * network.evaluate(points + np.reshape(t, (-1, 1)) * directions), axis=1)

        slope = np.sum(slopes(network, points, rows) * directions, axis=1)
        assert slope == pytest.approx((along(1e-7) - along(-1e-7)) / 2e-7, rel=1e-5, abs=1e-6)
        first = np.sort(breakpoints(network, points, directions), axis=1)[:, 0]
        assert along(0.9 * np.minimum(first, 1e3)) == pytest.approx(
            along(0.0) + 0.9 * np.minimum(first, 1e3) * slope, rel=1e-9, abs=1e-9
        )


def test_moves_have_the_number_and_the_shape_asked_for():
    twin, ends = networks.random_quantized(np.random.default_rng(6), (3, 2))
    space = SearchSpace.of(twin, Interval(*ends))
    for count in (8, 13, 50):
        moved = propose(np.random.default_rng(0), space, np.zeros((5, 3)), np.ones((5, 2)), count)
        assert moved.shape == (5, count, 3)
        assert np.all((space.lower <= moved) & (moved <= space.upper))


def test_starting_points_leave_no_part_of_an_input_out():
    twin, box = pair(linear(np.ones((3, 1))), 3)
    points = spread(np.random.default_rng(0), SearchSpace.of(twin, box), 100, corners=False)
    inner = np.abs(points) < 1.0
    for column, kept in zip(points.T, inner.T, strict=True):
        strata = np.floor(50.0 * (column[kept] + 1.0)).astype(int)
        assert len(np.unique(strata)) == len(strata)


def test_two_inputs_start_on_a_grid():
    twin, box = pair(linear(np.ones((2, 1))), 3)
    points = starts(np.random.default_rng(0), SearchSpace.of(twin, box), 100)
    ends = -1.0 + 2.0 * (np.arange(7) / 6)
    assert {(x, y) for x in ends for y in ends} <= {(x, y) for x, y in points}
    assert points.shape == (100, 2)


def test_boxes_of_many_inputs_that_hold_few_are_tried_in_full():
    """Numpy's own arrays have at most 64 axes."""
    twin, box = pair(linear(np.ones((72, 1))), 3)
    assert falsify(twin, box, evaluations=200).evaluations >= 200
    twin, low = replace(twin, input_bits=2), np.full(72, 0.25)
    found = falsify(twin, Interval(low, np.where(np.arange(72) < 2, 0.75, low)), evaluations=200)
    assert found.evaluations == 9


def test_few_inputs_are_all_tried():
    twin, box = pair(networks.random_network(np.random.default_rng(0), (3, 6, 2)), 4)
    twin, box = replace(twin, input_bits=2), Interval(box.lower, 0.9 * box.upper)
    found = falsify(twin, box, evaluations=600)
    ends = np.arange(-4, 4) / 4
    everything = np.stack(np.meshgrid(ends, ends, ends), axis=-1).reshape(-1, 3)
    assert found.evaluations == len(everything) == 512
    assert found.error == np.abs(errors(twin, everything)).max()
    assert every_input(SearchSpace.of(twin, box), 511) is None


KINKED = (Relu(), Clip(0.375), Leaky(np.array([0.25])), Table("hard_sigmoid"), MaxPool((3,), (3,)))


@pytest.mark.parametrize("op", KINKED, ids=lambda op: op.kind)
def test_slopes_change_at_the_breakpoints_and_not_before(op: Op):
    rng = np.random.default_rng(0)
    z, ways = 2.0 * rng.normal(size=(2, 80, 3 if isinstance(op, MaxPool) else 1, 1))
    ahead = op.ahead([ways], z)
    assert ahead.shape == (80, 1)

    def slope(t):
        t = np.where(np.isfinite(ahead), t * np.minimum(ahead, 1e9), 1e3 * (t > 0.0))[..., None]
        return op.forward_gradient([ways[:, None]], z + t * ways).reshape(80)

    assert 10 < np.isfinite(ahead).sum() < 80
    assert np.array_equal(slope(0.999), slope(0.0))
    kinked = np.isfinite(ahead[:, 0])
    assert np.all(slope(1.001)[kinked] != slope(0.0)[kinked])
