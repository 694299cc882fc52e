"""The certificate: a claim about a fixed-point network, with all that is needed to prove it again."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sound_qkeras.errors import FileFormatError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.network.rescale import Exponents, Indices, rescale
from sound_qkeras.verify.proof import MARGIN, Proof, prove, with_margin
from sound_qkeras.verify.split_tree import SplitTree

TIERS = ("sound",)


@dataclass(frozen=True)
class BudgetRow:
    """The bound that would be proved if only one kind of value of one layer were rounded."""

    layer: str
    kind: str
    bound: float


@dataclass(frozen=True, eq=False)
class Certificate:
    """For every `x` in the box: `|f_q(x)_k - f(x)_k| <= output_bounds[k] <= eps[k]`, and nothing overflows.

    Args:
        tier: strength of the guarantee; "sound" holds for every input in the box.
        eps: the tolerance asked for, per output.
        output_bounds: the proved bound, per output.
        box: the inputs, shape `input_shape`.
        box_source: where the box came from, in words.
        tree: the bisections whose leaves were proved one by one.
        ranges: for each node, what the fixed-point value before rounding stays within.
        weight_hash: SHA-256 of the float network as it was trained.
        rescaling: powers of two by which hidden units of that network were multiplied, per node; nodes that are missing
            were not.
        code_hash: SHA-256 of the integers and formats.
        error_budget: what each layer's weights, biases and results contribute alone.
        versions: the tools that made it.
    """

    tier: str
    eps: Reals
    output_bounds: Reals
    box: Interval
    box_source: str
    tree: SplitTree
    ranges: Mapping[str, tuple[float, float]]
    weight_hash: str
    code_hash: str
    error_budget: tuple[BudgetRow, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    rescaling: Exponents = field(default_factory=dict[str, Indices])

    @property
    def bound(self) -> float:
        """The largest output bound."""
        return float(self.output_bounds.max())

    def to_json(self) -> dict[str, Any]:
        """Plain json; floats keep every bit."""
        return {
            "tier": self.tier,
            "claim": "for every x in the box, |f_q(x)_k - f(x)_k| <= output_bounds[k] <= eps[k], and nothing overflows",
            "eps": self.eps.tolist(),
            "bound": self.bound,
            "output_bounds": self.output_bounds.tolist(),
            "box": {"lower": self.box.lower.tolist(), "upper": self.box.upper.tolist(), "source": self.box_source},
            "split_tree": list(self.tree.axes),
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "weight_hash": self.weight_hash,
            "code_hash": self.code_hash,
            "error_budget": [{"layer": r.layer, "kind": r.kind, "bound": r.bound} for r in self.error_budget],
            "versions": dict(self.versions),
            "rescaling": {name: shifts.tolist() for name, shifts in self.rescaling.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Certificate:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: a part is missing or of the wrong type, or the recorded bound is not that of the outputs.
        """
        try:
            found = cls(
                tier=str(data["tier"]),
                eps=_vector(data["eps"]),
                output_bounds=_vector(data["output_bounds"]),
                box=Interval(
                    np.asarray(data["box"]["lower"], dtype=np.float64),
                    np.asarray(data["box"]["upper"], dtype=np.float64),
                ),
                box_source=str(data["box"]["source"]),
                tree=SplitTree(tuple(operator.index(axis) for axis in data["split_tree"])),
                ranges={str(name): (float(low), float(high)) for name, (low, high) in data["ranges"].items()},
                weight_hash=str(data["weight_hash"]),
                code_hash=str(data["code_hash"]),
                error_budget=tuple(
                    BudgetRow(str(row["layer"]), str(row["kind"]), float(row["bound"])) for row in data["error_budget"]
                ),
                versions={str(tool): str(version) for tool, version in data["versions"].items()},
                rescaling={str(name): _exponents(shifts) for name, shifts in data["rescaling"].items()},
            )
            recorded = float(data["bound"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FileFormatError(f"the certificate is not readable ({type(error).__name__}: {error})") from error
        if found.output_bounds.size == 0 or recorded != found.bound:
            raise FileFormatError(f"the certificate's bound {recorded} is not the largest of its output bounds")
        return found


def _vector(values: Any) -> Reals:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected a list of numbers, received {array.ndim} axes")
    return array


def _exponents(values: Any) -> Indices:
    return np.array([operator.index(value) for value in values], dtype=np.int64)


def certify(
    quantized: QuantizedNetwork,
    box: Interval,
    eps: Reals,
    tree: SplitTree,
    *,
    box_source: str = "given",
    error_budget: tuple[BudgetRow, ...] = (),
    versions: Mapping[str, str] | None = None,
    rescaling: Exponents | None = None,
) -> Certificate:
    """Prove the network on the leaves of `tree` and write down what was proved, with `MARGIN`.

    The certificate may claim less than `eps` asks; `check` refuses it then.

    Raises:
        VerificationError: something may overflow.
    """
    proof: Proof = prove(quantized, box, tree)
    return Certificate(
        tier="sound",
        eps=eps,
        output_bounds=proof.output_bounds * (1.0 + MARGIN),
        box=box,
        box_source=box_source,
        tree=tree,
        ranges={name: with_margin(*ends) for name, ends in proof.ranges.items()},
        weight_hash=trained(quantized.network, rescaling or {}).weight_hash,
        code_hash=quantized.code_hash,
        error_budget=error_budget,
        versions=versions or {},
        rescaling=rescaling or {},
    )


def trained(network: Network, rescaling: Exponents) -> Network:
    """The network before its hidden units were rescaled: the same function, with the parameters of the trained model.

    Raises:
        ModelError: the exponents do not belong to this network.
    """
    return rescale(network, {name: -shifts for name, shifts in rescaling.items()}) if rescaling else network
