"""What quantisation does to a classifier: accuracy, agreement, and the samples whose class is proved to stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import Reals
from sound_qkeras.network.classes import classes_of, labels_of, outputs_of
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.simulate import simulate


@dataclass(frozen=True)
class Classification:
    """Shares of some samples.

    Args:
        samples: how many there were.
        float_accuracy, fixed_accuracy: share the trained and the fixed-point network classify as labelled; None without
            labels.
        agreement: share both give one class.
        proved: share whose class is proved not to change: the distance of the trained network's two largest outputs
            exceeds twice the proved bound.
    """

    samples: int
    float_accuracy: float | None
    fixed_accuracy: float | None
    agreement: float
    proved: float


def classify(pair: Pair, samples: Reals, labels: Any, bounds: Reals) -> Classification:
    """Compare both networks on samples.

    Args:
        pair: the pair of networks; the class is the largest output's, for a single output its sign.
        samples: shape `(n, *input_shape)`.
        labels: class numbers `(n,)` from 0, or one-hot rows; or None.
        bounds: the proved bound of each output, shape `(outputs,)` or `(n, outputs)`; infinite where there is none.

    Raises:
        InputError: there is not one label per sample, or one is no class.
    """
    before = outputs_of(pair.reference, samples)
    after = simulate(pair, samples).reshape(len(samples), -1)
    old, new = classes_of(before), classes_of(after)
    wanted = None if labels is None else labels_of(labels, len(samples), before.shape[1])
    return Classification(
        samples=len(samples),
        float_accuracy=None if wanted is None else float(np.mean(old == wanted)),
        fixed_accuracy=None if wanted is None else float(np.mean(new == wanted)),
        agreement=float(np.mean(old == new)),
        proved=float(np.mean(_stays(before, np.broadcast_to(bounds, before.shape)))),
    )


def _stays(outputs: Reals, bounds: Reals) -> npt.NDArray[np.bool_]:
    """Whether the class cannot change within the bounds; the slack is far above what float64 evaluation rounds."""
    slack = 2.0**-30 * np.abs(outputs).max(axis=1)
    if outputs.shape[1] == 1:
        return np.abs(outputs[:, 0]) > bounds[:, 0] + slack
    rows, first = np.arange(len(outputs)), np.argmax(outputs, axis=1)
    lead = outputs[rows, first, None] - outputs - bounds - bounds[rows, first, None]
    lead[rows, first] = np.inf
    return lead.min(axis=1) > slack
