"""What bounds on logits say about softmax probabilities.

With logits off by `d`, every probability `p_i` moves along `dp_i = p_i (d_i - sum_j p_j d_j)`, which is at most
`p_i (1 - p_i) |d_i - d_j|` for the worst other class j, as `d_i - sum_j p_j d_j` is `1 - p_i` times `d_i` less a mean of the
others. So softmax is 1/2-Lipschitz in the max norm: `p (1 - p) <= 1/4` and `|d_i - d_j| <= 2 max |d|`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval, Reals, down, up
from sound_qkeras.network.elementary import exp, quotient

# Further apart, `exp` of the difference encloses that of any other: it is zero below and infinite above.
FAR = 1e4


def softmax_bound(logit_bounds: npt.ArrayLike, logits: Interval | None = None) -> Reals:
    """Bound on `|softmax(z + d) - softmax(z)|` for every `|d_k| <= logit_bounds[k]`, per class.

    Args:
        logit_bounds: proved bounds on the logits' errors, shape `(..., classes)`.
        logits: where the trained network's logits are known to lie, same shape, to be tighter where classes are clear;
            all logits where it is missing.

    Returns:
        At most half of the largest logit bound, per class, outward rounded.

    Raises:
        InputError: a bound is negative or not finite, or shapes differ.

    >>> softmax_bound([0.1, 0.2, 0.1]).round(6).tolist()
    [0.075, 0.075, 0.075]
    """
    bounds = np.asarray(logit_bounds, dtype=np.float64)
    if bounds.ndim == 0 or not np.all(np.isfinite(bounds)) or np.any(bounds < 0.0):
        raise InputError("logit bounds are finite numbers from zero up, one per class")
    if logits is not None and logits.shape != bounds.shape:
        raise InputError(f"logits have shape {logits.shape}, their bounds {bounds.shape}")
    spread = _spread(bounds)
    largest = np.full_like(bounds, 0.25)
    if logits is not None:
        low, high = _probabilities(Interval(down(logits.lower - bounds), up(logits.upper + bounds)))
        near = np.clip(0.5, low, high)
        largest = np.minimum(largest, up(near * up(1.0 - near)))
    return up(largest * spread)


def _spread(bounds: Reals) -> Reals:
    """For each class, the largest difference of its error and another one's."""
    if bounds.shape[-1] == 1:
        return np.zeros_like(bounds)
    own = np.eye(bounds.shape[-1], dtype=bool)
    return up(bounds + np.where(own, 0.0, bounds[..., None, :]).max(axis=-1))


def _probabilities(logits: Interval) -> tuple[Reals, Reals]:
    """Smallest and largest probability of each class: its own logit at one end, the others' at the other."""
    classes = logits.shape[-1]
    others = ~np.eye(classes, dtype=bool)

    def against(own: Reals, rest: Reals) -> Interval:
        with np.errstate(over="ignore"):
            gap = np.clip(rest[..., None, :] - own[..., :, None], -FAR, FAR)
        low, high = np.where(others, exp(down(gap)).lower, 0.0), np.where(others, exp(up(gap)).upper, 0.0)
        slack = (classes + 4) * 2.0**-52
        total = Interval((1.0 + low.sum(axis=-1)) * (1.0 - slack), (1.0 + high.sum(axis=-1)) * (1.0 + slack))
        return quotient(Interval.point(np.ones(total.shape)), total)

    lowest, highest = against(logits.lower, logits.upper), against(logits.upper, logits.lower)
    return np.clip(lowest.lower, 0.0, 1.0), np.clip(highest.upper, 0.0, 1.0)
