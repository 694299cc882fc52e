"""How the network that is given formats follows from the trained one, as the same function on the box."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sound_qkeras.network.graph import Network
from sound_qkeras.network.rewrite.reduce import Reduction, reduce_units
from sound_qkeras.network.rewrite.rescale import Exponents, Indices, rescale


@dataclass(frozen=True)
class Rewrite:
    """First hidden units are reduced, then those that are left are multiplied by powers of two.

    Args:
        reductions: by Dense node of the trained network.
        exponents: by Dense node; nodes that are missing keep their scale.
    """

    reductions: Mapping[str, Reduction] = field(default_factory=dict[str, Reduction])
    exponents: Exponents = field(default_factory=dict[str, Indices])

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return bool(self.reductions or self.exponents)

    def apply(self, trained: Network) -> Network:
        """The rewritten network.

        Raises:
            ModelError: the rewrite is not one of this network.
        """
        reduced = reduce_units(trained, self.reductions) if self.reductions else trained
        return rescale(reduced, self.exponents) if self.exponents else reduced

    def to_json(self) -> dict[str, Any]:
        """Plain json; floats keep every bit."""
        return {
            "reductions": {name: reduction.to_json() for name, reduction in self.reductions.items()},
            "exponents": {name: shifts.tolist() for name, shifts in self.exponents.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rewrite:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, OverflowError, ModelError: a part is missing or of the wrong type.
        """
        reductions = {
            str(name): Reduction(
                _indices(entry["dead"]),
                _indices(entry["active"]),
                str(entry["form"]),
                np.array([float(value) for value in entry["shift"]]),
            )
            for name, entry in data["reductions"].items()
        }
        return cls(reductions, {str(name): _indices(shifts) for name, shifts in data["exponents"].items()})


def _indices(values: Any) -> Indices:
    return np.array([operator.index(value) for value in values], dtype=np.int64)
