"""One yardstick: a row a candidate, whoever made it.

Bits are counted as AutoQKeras counts them: every weight, bias and value between layers times its word length, whatever its
value; results of the last layer count nothing. The input counts its word length; where a method leaves it a float, AutoQKeras
assumes 8 bits.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.baselines.candidate import Candidate
from sound_qkeras.baselines.enclosed import ebops, nonzero_operations
from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.interval import Reals
from sound_qkeras.network.classes import Classes, classes_of, labels_of


@dataclass(frozen=True)
class Row:
    """One candidate of the comparison. What does not apply, or was not measured, is None.

    Args:
        name: method and settings.
        weight_bits: scales and code books included.
        bias_bits: of the biases.
        activation_bits: of the values between layers, the input's included.
        metric: of the task, on data nobody tuned on: accuracy, or a negative loss; higher is better.
        autoqkeras_bits: total bits of the candidate's QKeras model as AutoQKeras' own code counts them. That may be more than
            `total_bits`: of channels with words of different lengths QKeras' kernels have the longest.
        agreement: share of samples with the class of the float network.
        bit_operations: sum over multiplications of weight bits times input bits.
        nonzero_operations: the same without the weights that are zero, of a fixed-point network or one by HGQ2.
        ebops: effective bit operations of its integers, as `enclosed.ebops` counts them.
        energy: picojoules of one inference by QTools.
        bound: proved error bound against the float network; in the tier "statistical" nothing but the largest error of samples,
            enclosed.
        probability: in the tier "statistical", how probable an input drawn like the samples is to exceed `bound`, at most, at
            99% confidence. The limit is about this row alone.
        observed_error: the worst error that a search found, or that the samples show.
        tier: of the bound: "sound", "local" or "statistical".
        search_seconds: until the configuration was known, all trials included.
        training_seconds: of what was trained after that.
        table_bits: of integers that are looked up in place of functions; QKeras' models have none.
        notes: what a reader has to know, one sentence each.
    """

    name: str
    weight_bits: int
    bias_bits: int
    activation_bits: int
    autoqkeras_bits: int | None = None
    metric: float | None = None
    agreement: float | None = None
    bit_operations: int | None = None
    nonzero_operations: int | None = None
    ebops: int | None = None
    energy: float | None = None
    bound: float | None = None
    observed_error: float | None = None
    tier: str | None = None
    probability: float | None = None
    search_seconds: float = 0.0
    training_seconds: float = 0.0
    table_bits: int = 0
    notes: tuple[str, ...] = ()

    @property
    def total_bits(self) -> int:
        """Weights, biases, values and tables together."""
        return self.weight_bits + self.bias_bits + self.activation_bits + self.table_bits

    @property
    def proved(self) -> bool:
        """Whether the bound is one, and not the largest error of some samples."""
        return self.bound is not None and self.tier != "statistical"

    @classmethod
    def of(cls, candidate: Candidate, **measured: Any) -> Row:
        """The row of a candidate, with what was measured about it, under the names of the fields."""
        cost = candidate.cost
        counted: dict[str, Any] = {name: getattr(cost, name) for name in ("bit_operations", "table_bits")}
        counted["notes"] = candidate.notes
        if candidate.pair is not None:
            counted |= {"ebops": ebops(candidate.pair), "nonzero_operations": nonzero_operations(candidate.pair)}
        return cls(candidate.name, cost.weight_bits, cost.bias_bits, cost.activation_bits, **{**counted, **measured})

    def to_json(self) -> dict[str, Any]:
        """Plain json, the total included."""
        return {**asdict(self), "total_bits": self.total_bits, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: a field is missing or unknown, or the total is not the sum.
        """
        try:
            given: dict[str, Any] = {name: value for name, value in data.items() if name != "total_bits"}
            given["notes"] = tuple(given["notes"])
            row, total = cls(**given), data["total_bits"]
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"a row of the comparison is not readable ({error})") from error
        if row.total_bits != total:
            raise FileFormatError(f"row '{row.name}': its bits sum to {row.total_bits}, it says {total}")
        return row


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as a table with a header; floats keep every digit, notes are joined by blanks."""
    text = io.StringIO(newline="")
    names = list(Row("", 0, 0, 0).to_json())
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row.to_json(), "notes": " ".join(row.notes)} for row in rows)
    return text.getvalue()


def pareto_front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows that no other one beats in metric and total bits, fewest bits first; of equal ones the first given."""
    best, front = -math.inf, list[Row]()
    for row in sorted(rows, key=lambda row: (row.total_bits, math.inf if row.metric is None else -row.metric)):
        if row.metric is not None and row.metric > best:
            best = row.metric
            front.append(row)
    return tuple(front)


def agreement(outputs: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Share of samples whose class two networks agree on: the largest of several outputs, or the sign of a single one.

    Args:
        outputs: before the softmax or sigmoid, shape `(n, classes)`.
        reference: of the float network, the same shape.

    Raises:
        InputError: shapes differ.
    """
    found, expected = _rows(outputs), _rows(reference)
    if found.shape != expected.shape:
        raise InputError(f"outputs of shape {found.shape} and {expected.shape}; accepted: the same shape")
    return _share_equal(classes_of(found), classes_of(expected))


def accuracy(outputs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of samples whose class is their label.

    Args:
        outputs: before the softmax or sigmoid, shape `(n, classes)`.
        labels: class numbers `(n,)` or `(n, 1)`, or one-hot `(n, classes)`.

    Raises:
        InputError: as many labels as samples are needed.
    """
    found = _rows(outputs)
    return _share_equal(classes_of(found), labels_of(labels, len(found), found.shape[1]))


def mean_error(outputs: npt.ArrayLike, wanted: npt.ArrayLike, metric: str) -> float:
    """The mean square error, or the mean absolute one, over samples and outputs.

    Args:
        outputs: shape `(n, outputs)`.
        wanted: the same shape.
        metric: "mse" or "mae".

    Raises:
        InputError: shapes differ, or the metric is another one.
    """
    found, expected = _rows(outputs), _rows(wanted)
    if found.shape != expected.shape or metric not in ("mse", "mae"):
        raise InputError(
            f"outputs of shape {found.shape} and {expected.shape}, metric '{metric}'; accepted: the same shape, mse or mae"
        )
    difference = np.abs(found - expected)
    return float(np.mean(difference**2 if metric == "mse" else difference))


def _share_equal(found: Classes, expected: Classes) -> float:
    return np.count_nonzero(found == expected) / len(found)


def _rows(outputs: npt.ArrayLike) -> Reals:
    array: Reals = np.asarray(outputs, dtype=np.float64)
    return array.reshape(len(array), -1)
