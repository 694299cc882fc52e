"""Levels and rounding rules, against the equations of their papers."""

import math

import numpy as np
import pytest

from sound_qkeras.baselines.levels import LEVELS, RULES, edges_of, levels_of, quantize
from sound_qkeras.errors import InputError

VALUES = np.random.default_rng(0).normal(0.3, 2.0, (12, 40))


def normal_share(x):
    """The distribution function of the tensor's own normal distribution."""
    return 0.5 * (1.0 + math.erf((x - VALUES.mean()) / (VALUES.std() * math.sqrt(2.0))))


def test_uniform_levels_are_evenly_spaced_between_the_ends():
    levels = levels_of(VALUES, "uniform", 8)
    assert (levels[0], levels[-1]) == (VALUES.min(), VALUES.max())
    assert np.allclose(np.diff(levels), (VALUES.max() - VALUES.min()) / 7, rtol=1e-12)


def test_histogram_cells_hold_equally_many_values():
    counts, _ = np.histogram(VALUES, edges_of(VALUES, "histogram", 16))
    assert counts.tolist() == [VALUES.size // 16] * 16


def test_histogram_levels_are_the_medians_of_their_cells():
    edges, levels = edges_of(VALUES, "histogram", 4), levels_of(VALUES, "histogram", 4)
    for low, high, level in zip(edges[:-1], edges[1:], levels, strict=True):
        inside = VALUES[(low <= VALUES) & (high >= VALUES)]
        assert abs(np.sum(inside < level) - np.sum(inside > level)) <= 2


def test_normal_levels_and_edges_are_quantiles_of_the_normal_distribution():
    levels, edges = levels_of(VALUES, "normal", 8), edges_of(VALUES, "normal", 8)
    assert np.allclose([normal_share(x) for x in levels], (np.arange(8) + 0.5) / 8, atol=1e-12)
    assert np.allclose([normal_share(x) for x in edges[1:-1]], np.arange(1, 8) / 8, atol=1e-12)


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("bits", [1, 3])
def test_nearest_is_the_nearest_level(kind, bits):
    levels = levels_of(VALUES, kind, 2**bits)
    distance = np.abs(VALUES[..., None] - levels).min(axis=-1)
    found = quantize(VALUES, bits, kind=kind)
    assert set(found.ravel()) <= set(levels)
    assert np.array_equal(np.abs(VALUES - found), distance)


@pytest.mark.parametrize("kind", LEVELS)
def test_mid_rise_is_the_middle_of_the_cell(kind):
    edges = edges_of(VALUES, kind, 8)
    found = quantize(VALUES, 3, rule="mid_rise", kind=kind)
    for value, level in zip(VALUES.ravel(), found.ravel(), strict=True):
        cell = next(i for i in range(8) if value <= edges[i + 1])
        assert level in {0.5 * (edges[i] + edges[i + 1]) for i in (cell, min(cell + 1, 7))}
        assert abs(value - level) <= 0.5 * np.max(np.diff(edges)) * (1 + 1e-12)


def test_mid_rise_has_no_level_at_zero():
    found = quantize(np.linspace(-1.0, 1.0, 101), 2, rule="mid_rise")
    assert sorted(set(found)) == [-0.75, -0.25, 0.25, 0.75]


@pytest.mark.parametrize("kind", LEVELS)
def test_stochastic_rounding_takes_a_neighbour_and_is_unbiased(kind):
    levels = levels_of(VALUES, kind, 8)
    inside = VALUES[(levels[0] <= VALUES) & (levels[-1] >= VALUES)]
    draws = np.array([quantize(VALUES, 3, rule="stochastic", kind=kind, seed=seed) for seed in range(400)])
    at = np.searchsorted(levels, inside, side="right") - 1
    low, high = levels[at], levels[np.minimum(at + 1, 7)]
    draws = draws[:, (levels[0] <= VALUES) & (levels[-1] >= VALUES)]
    assert np.all((draws == low) | (draws == high))
    spread = np.sqrt((inside - low) * (high - inside) / 400)
    assert np.all(np.abs(draws.mean(axis=0) - inside) <= 5 * spread + 1e-12)


def test_stochastic_rounding_repeats_itself_for_a_seed():
    first, again, other = (quantize(VALUES, 3, rule="stochastic", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("rule", RULES)
def test_a_constant_tensor_stays_itself(kind, rule):
    assert np.array_equal(quantize(np.full((2, 3), 0.7), 4, rule=rule, kind=kind), np.full((2, 3), 0.7))


@pytest.mark.parametrize("options", [{"rule": "up"}, {"kind": "log"}, {"bits": 0}, {"bits": 17}])
def test_unknown_options_are_refused(options):
    with pytest.raises(InputError, match="accepted"):
        quantize(VALUES, **{"bits": 4, **options})
