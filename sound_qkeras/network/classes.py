"""Classes of a network's outputs: the largest output's, for a single output its sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network, size_of

Classes = npt.NDArray[np.int64]


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
        tied = "two largest outputs" if size_of(network.output_shape) > 1 else "an output between both classes"
        raise InputError(
            f"no tolerance keeps the class of {keep:.2%} of {margins.size} samples: {np.sum(margins <= 0.0)} of them "
            f"have {tied}; use a smaller keep, or give eps"
        )
    return eps
