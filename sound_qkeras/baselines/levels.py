"""Scalar quantisers: where the levels lie, and which of them a value becomes.

Levels of a tensor, K of them, or K + 1 edges of cells:
    uniform    evenly spaced between the smallest and the largest value
    histogram  empirical quantiles, so that every level stands for equally many values
    normal     quantiles of the normal distribution with the tensor's mean and standard deviation

Rules:
    nearest     the nearest level
    mid_rise    the middle of the cell between two edges: no level at zero
    stochastic  one of the two levels beside it, each with probability one minus its relative distance: unbiased

References: Gersho and Gray, Vector Quantization and Signal Compression (1992), ch. 5, for mid-rise; Gupta et al., Deep
learning with limited numerical precision (ICML 2015), for stochastic rounding; Zhou et al., Balanced quantization (JCST
2017), for equally populated cells; Baskin et al., UNIQ (TOCS 2021), for normal quantiles.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals

LEVELS = ("uniform", "histogram", "normal")
RULES = ("nearest", "mid_rise", "stochastic")
# Above this, code books are larger than weights and quantiles run out of values.
MOST_BITS = 16


def levels_of(values: Reals, kind: str, count: int) -> Reals:
    """`count` levels, ascending: the ends and what lies between (uniform), or the middles of equal shares."""
    if kind == "uniform":
        return _evenly(values, count)
    return _quantiles(values, kind, (np.arange(count) + 0.5) / count)


def edges_of(values: Reals, kind: str, count: int) -> Reals:
    """Edges of `count` cells that hold every value, ascending, shape `(count + 1,)`."""
    if kind == "uniform":
        return _evenly(values, count + 1)
    inner = _quantiles(values, kind, np.arange(1, count) / count)
    inner = np.clip(inner, values.min(), values.max())
    return np.concatenate([[values.min()], inner, [values.max()]])


def _evenly(values: Reals, count: int) -> Reals:
    return np.array(np.linspace(float(values.min()), float(values.max()), count), dtype=np.float64)


def _quantiles(values: Reals, kind: str, shares: Reals) -> Reals:
    if kind == "histogram":
        return np.quantile(values, shares)
    spread = float(values.std())
    if spread == 0.0:
        return np.full(shares.shape, values.mean())
    normal = NormalDist(float(values.mean()), spread)
    return np.array([normal.inv_cdf(float(share)) for share in shares])


def quantize(values: Reals, bits: int, *, rule: str = "nearest", kind: str = "uniform", seed: int = 0) -> Reals:
    """Replace every value of a tensor by one of `2**bits` levels made for it.

    Args:
        values: a tensor.
        bits: per value, 1 to 16.
        rule: "nearest", "mid_rise" or "stochastic".
        kind: of levels: "uniform", "histogram" or "normal".
        seed: of stochastic rounding.

    Raises:
        InputError: an option is not known.
    """
    check_options(bits, rule, kind)
    if rule == "mid_rise":
        edges = edges_of(values, kind, 2**bits)
        cell = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, 2**bits - 1)
        return 0.5 * (edges[cell] + edges[cell + 1])
    levels = levels_of(values, kind, 2**bits)
    above = np.clip(np.searchsorted(levels, values), 1, levels.size - 1)
    low, high = levels[above - 1], levels[above]
    if rule == "nearest":
        return np.where(values - low <= high - values, low, high)
    width = np.where(high > low, high - low, 1.0)
    share = np.clip((values - low) / width, 0.0, 1.0)
    return np.where(np.random.default_rng(seed).random(values.shape) < share, high, low)


def check_options(bits: int, rule: str, kind: str) -> None:
    """Refuse unknown rules and levels, and bits that make no sense.

    Raises:
        InputError: says what is accepted.
    """
    for name, value, accepted in (("rule", rule, RULES), ("levels", kind, LEVELS)):
        if value not in accepted:
            raise InputError(f"{name} '{value}' is unknown; accepted: {', '.join(accepted)}")
    if not 1 <= bits <= MOST_BITS:
        raise InputError(f"received {bits} bits; accepted: 1 to {MOST_BITS}")
