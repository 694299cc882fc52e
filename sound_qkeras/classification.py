"""What quantisation does to a classifier: accuracy, agreement, and the samples whose class is proved to stay."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.simulate import simulate

Classes = npt.NDArray[np.int64]


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

    def to_json(self) -> dict[str, Any]:
        """All numbers."""
        return asdict(self)


def classify(quantized: QuantizedNetwork, samples: Reals, labels: Any, bounds: Reals) -> Classification:
    """Compare both networks on samples.

    Args:
        quantized: the pair of networks; the class is the largest output's, for a single output its sign.
        samples: shape `(n, *input_shape)`.
        labels: class numbers `(n,)` from 0, or one-hot rows; or None.
        bounds: the proved bound of each output, shape `(outputs,)` or `(n, outputs)`; infinite where there is none.

    Raises:
        InputError: there is not one label per sample, or one is no class.
    """
    before = outputs_of(quantized.trained, samples)
    after = simulate(quantized, samples).reshape(len(samples), -1)
    old, new = classes_of(before), classes_of(after)
    wanted = None if labels is None else labels_of(labels, len(samples), before.shape[1])
    return Classification(
        samples=len(samples),
        float_accuracy=None if wanted is None else float(np.mean(old == wanted)),
        fixed_accuracy=None if wanted is None else float(np.mean(new == wanted)),
        agreement=float(np.mean(old == new)),
        proved=float(np.mean(_stays(before, np.broadcast_to(bounds, before.shape)))),
    )


def tolerance_for(network: Network, samples: Reals, keep: float) -> float:
    """The largest tolerance at which the class of the share `keep` of the samples cannot change: half their margin.

    Raises:
        InputError: that tolerance is zero, because too many samples have two equal outputs.
    """
    margins = np.sort(margins_of(outputs_of(network, samples)))
    lost = min(int((1.0 - keep) * margins.size), margins.size - 1)
    # A little less than half, for the comparison is strict and the margins are float64.
    eps = float(margins[lost]) * (0.5 - 2.0**-20)
    if not eps > 0.0:
        raise InputError(
            f"no tolerance keeps the class of {keep:.2%} of {margins.size} samples: {np.sum(margins <= 0.0)} of them "
            "have two largest outputs; use a smaller keep, or give eps"
        )
    return eps


def outputs_of(network: Network, samples: Reals) -> Reals:
    """The float64 outputs, shape `(n, outputs)`."""
    name = network.output.name
    parts = [network.evaluate_all(tile)[name].reshape(len(tile), -1) for tile in network.tiles(samples)]
    return np.concatenate(parts)


def classes_of(outputs: npt.NDArray[Any]) -> Classes:
    """The class of each row: its largest output's, the first of equal ones; with one output, whether it is positive."""
    single = outputs.shape[1] == 1
    return (outputs[:, 0] > 0).astype(np.int64) if single else np.argmax(outputs, axis=1)


def margins_of(outputs: Reals) -> Reals:
    """By how much each row's class leads."""
    if outputs.shape[1] == 1:
        return 2.0 * np.abs(outputs[:, 0])
    top = np.sort(outputs, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def _stays(outputs: Reals, bounds: Reals) -> npt.NDArray[np.bool_]:
    """Whether the class cannot change within the bounds; the slack is far above what float64 evaluation rounds."""
    slack = 2.0**-30 * np.abs(outputs).max(axis=1)
    if outputs.shape[1] == 1:
        return np.abs(outputs[:, 0]) > bounds[:, 0] + slack
    rows, first = np.arange(len(outputs)), np.argmax(outputs, axis=1)
    lead = outputs[rows, first, None] - outputs - bounds - bounds[rows, first, None]
    lead[rows, first] = np.inf
    return lead.min(axis=1) > slack


def labels_of(labels: Any, samples: int, outputs: int) -> Classes:
    """Class numbers `(n,)` from them or from one-hot rows.

    Raises:
        InputError: there is not one label per sample, or one is no class.
    """
    array, classes = np.asarray(labels), max(outputs, 2)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"the labels are not numbers: received {array.dtype}; accepted: class numbers, or one-hot rows"
        )
    if array.shape == (samples, outputs) and outputs > 1:
        usual = np.all((array == 0) | (array == 1), axis=1) & (np.sum(array, axis=1) == 1)
        if not np.all(usual):
            n = int(np.argmin(usual))
            raise InputError(
                f"label {n} is {array[n].tolist()}; accepted: rows with a single 1 and otherwise 0, or class numbers"
            )
        return np.argmax(array, axis=1)
    if array.shape not in {(samples,), (samples, 1)}:
        raise InputError(f"the labels have shape {array.shape}; accepted: class numbers ({samples},), or one-hot rows")
    array = array.reshape(-1)
    fits = (array >= 0) & (array < classes) & (array == np.rint(array))
    if not np.all(fits):
        n = int(np.argmin(fits))
        raise InputError(
            f"{np.sum(~fits)} of {samples} labels are no class of this network, label {n}, {array[n]:g}, first; accepted: whole "
            f"numbers from 0 to {classes - 1}"
        )
    return array.astype(np.int64)
