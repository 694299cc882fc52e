"""The statistical evaluator: formats that clip little, and errors on samples that shaped nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.baselines.fixed import round_affine
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import Conv, Dense, Input, Relu, Reshape
from sound_qkeras.network.rewrite.rescale import rescalable, rescale, scaled_like
from sound_qkeras.search.falsify import errors
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning import trimming as trimming
from sound_qkeras.tuning.rounding import mean_squares
from sound_qkeras.tuning.sample_errors import SampleErrors, tolerance_factor
from sound_qkeras.tuning.sampling import SamplingEvaluator
from sound_qkeras.tuning.scaling import choose_exponents
from sound_qkeras.tuning.search import Search
from tests.networks import random_network


def identity(size: int) -> Network:
    nodes = (
        Node("x", Input((size,)), (), "x"),
        Node("hidden", Dense(np.eye(size), np.zeros(size)), ("x",), "hidden"),
        Node("relu", Relu(), ("hidden",), "hidden"),
        Node("y", Dense(np.ones((size, 1)), np.zeros(1)), ("relu",), "y"),
    )
    return Network(nodes)


def evaluator_of(samples: np.ndarray, *, saturate: bool = True) -> SamplingEvaluator:
    box = Interval(np.full(4, -64.0), np.full(4, 64.0))
    return SamplingEvaluator(identity(4), box, np.ones(1), samples, coverage=1.0, saturate=saturate)


def test_rare_large_values_are_cut_off_only_where_rounding_is_as_coarse():
    samples = np.random.default_rng(0).uniform(0.0, 1.0, (400, 4))
    samples[::200, 0] = 1.9
    evaluator = evaluator_of(samples)
    smallest = samples.min()
    assert evaluator.range_of("relu", 12) == (smallest, 1.9)
    assert evaluator.range_of("relu", 2) == (smallest, 1.0 - 0.25)
    assert evaluator_of(samples, saturate=False).range_of("relu", 2) == pytest.approx((0.0, 64.0))


def test_values_are_never_cut_to_a_few_steps():
    evaluator = evaluator_of(np.full((40, 4), 1e-9))
    assert evaluator.range_of("relu", 0) == (1e-9, 1e-9)


def test_what_only_some_samples_show_is_not_cut_off_for_nothing():
    samples = np.random.default_rng(0).uniform(0.1, 0.9, (60, 4))
    for part in range(3):
        samples[part::3, part] *= 2.0 ** (3 * part)
    evaluator = evaluator_of(samples)
    assert evaluator.range_of("relu", 12) == (samples.min(), samples.max())


def test_the_parts_of_the_samples_are_disjoint():
    samples = np.arange(80.0).reshape(20, 4) / 80.0
    evaluator = evaluator_of(samples)
    parts = [{tuple(row) for row in part} for part in (evaluator.shaping, evaluator.choosing, evaluator.stopping)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert np.array_equal(evaluator.centers["hidden"], evaluator.shaping.mean(axis=0))


def test_samples_that_did_not_choose_may_refuse():
    """Rounding to whole numbers harms the samples that stop alone."""
    samples = np.ones((60, 4))
    samples[20:40] = 1.4
    evaluator = evaluator_of(samples)
    bits = dict.fromkeys(("x", "relu"), 0)
    network = evaluator.network
    exact = {name: round_affine(op.kernel, op.bias, 12, 12) for name, op in ((n.name, o) for n, o in network.affine())}
    formats = {name: Format(8, 7, True) for name in bits}
    coarse = evaluator.evaluate(Pair(network, exact, formats, {}), Deadline())
    assert coarse.relative.max() == 0.0
    assert coarse.worst > 1.0
    assert evaluator.refuses(coarse)
    fine = {name: Format(16, 7, True) for name in bits}
    assert not evaluator.refuses(evaluator.evaluate(Pair(network, exact, fine, {}), Deadline()))


@pytest.mark.solver
def test_a_descent_ends_where_samples_that_did_not_choose_refuse(monkeypatch):
    """Looking for another choice that they accept would make them choose too."""
    refused, attempt = list[int](), Search.attempt

    def counted(search, bits, start=None):
        before = search.refusals
        found = attempt(search, bits, start)
        if start is not None:
            refused.append(search.refusals - before)
        return found

    monkeypatch.setattr(Search, "attempt", counted)
    monkeypatch.setattr(trimming, "MOST_REFUSALS", 1)
    samples = np.random.default_rng(0).normal(size=(120, 4)).clip(-6.0, 6.0)
    sq.quantize(hidden(0), 0.1, (-6.0, 6.0), tier="statistical", samples=samples, effort="fast")
    assert refused[-1]
    assert not any(refused[:-1])


@pytest.mark.slow
@pytest.mark.solver
def test_the_share_that_was_aimed_at_is_met_on_fresh_samples():
    rates = list[float]()
    for seed in range(6):
        network, x = hidden(seed), np.random.default_rng(seed).normal(size=(4600, 4)).clip(-6.0, 6.0)
        result = sq.quantize(network, 0.05, (-6.0, 6.0), tier="statistical", samples=x[:600], effort="fast")
        rates.append(np.mean(np.any(np.abs(errors(result.pair, x[600:])) > 0.05, axis=1)))
    assert np.mean(rates) <= 0.0125  # the aim is 0.01


def hidden(seed: int) -> Network:
    rng, sizes = np.random.default_rng(seed), (4, 10, 10, 2)
    nodes = [Node("x", Input((4,)), (), "x")]
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        dense = Dense((rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)), 0.2 * rng.normal(size=outputs))
        nodes.append(Node(f"dense_{number}", dense, (nodes[-1].name,), f"dense_{number}"))
        if outputs > 2:
            nodes.append(Node(f"relu_{number}", Relu(), (nodes[-1].name,), f"dense_{number}"))
    return Network(tuple(nodes))


def test_few_samples_stand_for_more():
    relative = np.array([0.2, 0.4, 0.3, 0.5])
    assert SampleErrors(relative, 1.0).worst == 0.5
    assert SampleErrors(relative, 0.75).worst == 0.4
    standing = SampleErrors(np.linspace(0.0, 1.0, 128), 0.99, -10.0)
    assert standing.spare == 0  # with one beyond of 128, a new one is with probability 2 / 129
    assert replace(standing, relative=np.linspace(0.0, 1.0, 199)).spare == 1
    few, many = (SampleErrors(relative, 0.99, tolerance_factor(count, 0.99)).worst for count in (4, 4000))
    assert few > many > 0.5


# Scales of convolutions' channels.


def convolutions(depthwise: bool) -> Network:
    rng = np.random.default_rng(3)
    shape, geometry = (4, 4, 3), {"strides": (1, 1), "dilation": (1, 1), "padding": ((1, 1), (1, 1))}
    first = rng.normal(size=(3, 3, 3, 8)) * 2.0 ** rng.integers(-5, 3, 8)
    middle = rng.normal(size=(3, 3, 1 if depthwise else 8, 8))
    ops = [
        Conv(first, rng.normal(size=8), input_shape=shape, **geometry),
        Relu(),
        Conv(middle, rng.normal(size=8), input_shape=(4, 4, 8), **geometry, groups=8 if depthwise else 1),
        Relu(),
        Conv(rng.normal(size=(3, 3, 8, 2)), rng.normal(size=2), input_shape=(4, 4, 8), **geometry),
    ]
    nodes = [Node("x", Input(shape), (), "x")]
    for number, op in enumerate(ops):
        nodes.append(Node(f"n{number}", op, (nodes[-1].name,), f"n{number}"))
    return Network(tuple(nodes))


@pytest.mark.parametrize("depthwise", [False, True])
def test_rescaled_channels_compute_the_same(depthwise):
    network = convolutions(depthwise)
    assert rescalable(network) == {"n0": ("n2",), "n2": ("n4",)}
    rng = np.random.default_rng(0)
    exponents = {name: rng.integers(-6, 7, 8) for name in ("n0", "n2")}
    x = rng.normal(size=(5, *network.input_shape))
    assert np.array_equal(rescale(network, exponents).evaluate(x), network.evaluate(x))
    back = rescale(rescale(network, exponents), {name: -shifts for name, shifts in exponents.items()})
    assert back.weight_hash == network.weight_hash


def test_groups_of_several_channels_are_not_scaled():
    """With one output each they have as many groups as outputs, as a depthwise convolution has."""
    grouped = Conv(
        np.ones((1, 1, 2, 2)),
        np.zeros(2),
        input_shape=(4, 4, 4),
        strides=(1, 1),
        dilation=(1, 1),
        padding=((0, 0),) * 2,
        groups=2,
    )
    last = Conv(
        np.ones((1, 1, 2, 1)),
        np.zeros(1),
        input_shape=(4, 4, 2),
        strides=(1, 1),
        dilation=(1, 1),
        padding=((0, 0),) * 2,
    )
    nodes = (
        Node("x", Input((4, 4, 4))),
        Node("a", grouped, ("x",)),
        Node("r", Relu(), ("a",)),
        Node("b", last, ("r",)),
    )
    network = Network(nodes)
    found = sq.quantize(network, 0.1, (-1.0, 1.0), effort="fast")
    assert found.certificate.bound <= 0.1


@pytest.mark.parametrize("depthwise", [False, True])
def test_scales_of_another_network_are_found_where_its_weights_are_others(depthwise):
    network = convolutions(depthwise)
    rng = np.random.default_rng(1)
    wanted = rescale(network, {name: rng.integers(-6, 7, 8) for name in ("n0", "n2")})
    other = with_factors(wanted, lambda name, shape: rng.uniform(0.9, 1.1, shape))
    assert scaled_like(network, other).weight_hash == wanted.weight_hash
    assert scaled_like(network, network) is network
    louder = with_factors(network, lambda name, shape: 1.5 if name == "n0" else 1.0)
    assert scaled_like(network, louder) is network
    negative = with_factors(other, lambda name, shape: -1.0)
    assert scaled_like(network, negative) is network


def with_factors(network, factor):
    """With every kernel multiplied by a function of its node's name and its shape."""
    ops = {
        node.name: replace(op, kernel=op.kernel * factor(node.name, op.kernel.shape)) for node, op in network.affine()
    }
    return replace(network, nodes=tuple(replace(node, op=ops.get(node.name, node.op)) for node in network.nodes))


@pytest.mark.parametrize("shape", [(6,), (3, 2), (2, 3)])
def test_units_are_rescaled_through_what_changes_nothing_and_no_other_reshape(shape):
    rng = np.random.default_rng(2)
    first = Dense(rng.normal(size=(4, 6)), rng.normal(size=6))
    second = Dense(rng.normal(size=(shape[-1], 2)), rng.normal(size=2))
    nodes = (
        Node("x", Input((4,)), (), "x"),
        Node("first", first, ("x",), "first"),
        Node("relu", Relu(), ("first",), "relu"),
        Node("reshape", Reshape((6,), shape), ("relu",), "reshape"),
        Node("second", second, ("reshape",), "second"),
    )
    network = Network(nodes)
    assert rescalable(network) == ({"first": ("second",)} if shape == (6,) else {})
    if shape == (6,):
        x = rng.normal(size=(5, 4))
        assert np.array_equal(rescale(network, {"first": np.arange(6)}).evaluate(x), network.evaluate(x))


@pytest.mark.parametrize("depthwise", [False, True])
def test_channels_of_unlike_ranges_are_brought_together(depthwise):
    network = convolutions(depthwise)
    x = np.random.default_rng(0).normal(size=(16, *network.input_shape))
    squares = mean_squares(network, x, np.ones(32), {"n0", "n2", "n4"})
    exponents = choose_exponents(network, squares)
    assert np.any(exponents["n0"])

    def spread(found: Network) -> float:
        largest = np.abs(found.by_name["n0"].op.kernel).reshape(-1, 8).max(axis=0)
        return float(np.log2(largest.max() / largest.min()))

    assert spread(rescale(network, exponents)) < spread(network)


@pytest.mark.solver
@pytest.mark.parametrize("options", [{"tier": "local", "radius": 0.1}, {"tier": "statistical"}])
@pytest.mark.parametrize("seed", [7, 27, 39])
def test_sums_behind_short_words_that_need_not_saturate_are_wide_enough(options, seed):
    """Those were bounded as if they saturated, and an accumulator was too narrow for what is proved of them."""
    network = random_network(np.random.default_rng(seed), (3, 12, 2))
    samples = np.random.default_rng(seed).uniform(-1.0, 1.0, (24, 3))
    found = sq.quantize(network, 1.0, (-1.0, 1.0), word_lengths=(2, 8), effort="fast", samples=samples, **options)
    assert found.certificate.tier == options["tier"]
