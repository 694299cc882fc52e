"""The certificate: a claim about a fixed-point network, with all that is needed to prove it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from sound_qkeras.errors import FileFormatError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.labels import Labels
from sound_qkeras.network.pair import Pair
from sound_qkeras.support.reading import digest_of_json, same_json
from sound_qkeras.verify.evidence import Evidence, from_json
from sound_qkeras.verify.proof import MARGIN, prove, prove_ranges, with_margin
from sound_qkeras.verify.split_tree import SplitTree
from sound_qkeras.verify.stability import check_rewrite

# Where the tolerance is what is proved, its source begins with this.
PROVED = "what is proved"
TIERS = ("sound", "local", "statistical")
FORMAT, VERSION = "sound_qkeras certificate", 3
# Where there is no reference that distances are claimed from.
RANGES_CLAIM = (
    "for every x in the box every value stays within its range, and nothing overflows but where results are marked so"
)
SOUND_CLAIM = "for every x in the box, |f_q(x)_k - f(x)_k| <= output_bounds[k] <= eps[k], and nothing overflows"


@dataclass(frozen=True)
class BudgetRow:
    """The bound that would be proved if only one kind of value of one layer were rounded."""

    layer: str
    kind: str
    bound: float


@dataclass(frozen=True, eq=False)
class Certificate:
    """For every `x` in the box: `|f_q(x)_k - f(x)_k| <= output_bounds[k] <= eps[k]`, and nothing overflows.

    In other tiers than "sound" the bounds are about fewer inputs, which `claim` says; overflow never is.

    Args:
        tier: strength of the guarantee; "sound" holds for every input in the box; "local" and "statistical" rest on
            `evidence`.
        eps: the tolerance asked for, per output.
        output_bounds: the proved bound, per output.
        box: the inputs, shape `input_shape`.
        box_source: where the box came from, in words.
        tree: the bisections whose leaves were proved one by one.
        stability_tree: the bisections on whose leaves dropped and replaced units were proved to be so.
        ranges: for each node, what the fixed-point value before rounding stays within.
        weight_hash: SHA-256 of the float network as it was trained, see `Network.weight_hash`.
        code_hash: SHA-256 of the integers, the formats and the rewrite of the trained network.
        error_budget: what each layer's weights, biases and results contribute alone.
        versions: the tools that made it.
        eps_source: where the tolerance came from, in words.
        notes: what a user should know about how the trained network was read; those of the network.
        input_bits: fractional bits that inputs are taken to have, so that the claim is about such inputs only; None for all.
        labels: what inputs and outputs were called, and their units.
        exact: whoever made it says that all of it was proved again in exact arithmetic, which `check` repeats when it is asked to.
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
    stability_tree: SplitTree = field(default_factory=SplitTree)
    evidence: Evidence | None = None
    eps_source: str = "given"
    notes: tuple[str, ...] = ()
    input_bits: int | None = None
    exact: bool = False
    labels: Labels = field(default_factory=Labels)

    def __repr__(self) -> str:
        """One line."""
        return f"<Certificate, tier {self.tier}: {self.claim}>"

    @property
    def claim(self) -> str:
        """What is claimed, in one sentence."""
        sound = SOUND_CLAIM if self.claims_distance else RANGES_CLAIM
        said = sound if self.evidence is None else self.evidence.claim
        return said if self.input_bits is None else f"{said}; x has at most {self.input_bits} fractional bits"

    @property
    def claims_distance(self) -> bool:
        """Whether anything is claimed about the distance of the two networks; else there is no tolerance and no bound."""
        return self.eps.size > 0

    @property
    def bound(self) -> float:
        """The largest output bound; infinite where no distance is claimed."""
        return float(self.output_bounds.max()) if self.claims_distance else math.inf

    @property
    def distance(self) -> float:
        """What a floating-point evaluation's error is added to, which is the bound, or nothing where no distance is claimed."""
        return self.bound if self.claims_distance else 0.0

    @property
    def digest(self) -> str:
        """SHA-256 over everything the certificate says, and so over the network's hashes and the evidence's too."""
        return digest_of_json(self._content())

    def to_json(self) -> dict[str, Any]:
        """Plain json with the digest; floats keep every bit."""
        content = self._content()
        return {**content, "sha256": digest_of_json(content)}

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "tier": self.tier,
            "claim": self.claim,
            "eps": self.eps.tolist(),
            "eps_source": self.eps_source,
            "bound": self.bound if self.claims_distance else None,
            "output_bounds": self.output_bounds.tolist(),
            "box": {"lower": self.box.lower.tolist(), "upper": self.box.upper.tolist(), "source": self.box_source},
            "split_tree": list(self.tree.axes),
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "weight_hash": self.weight_hash,
            "code_hash": self.code_hash,
            "error_budget": [{"layer": r.layer, "kind": r.kind, "bound": r.bound} for r in self.error_budget],
            "versions": dict(self.versions),
            "stability_tree": list(self.stability_tree.axes),
            "evidence": None if self.evidence is None else self.evidence.to_json(),
            "notes": list(self.notes),
            **({} if self.input_bits is None else {"input_bits": self.input_bits}),
            **({"exact": True} if self.exact else {}),
            **({} if self.labels == Labels() else {"labels": self.labels.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], arrays: Mapping[str, Reals] | None = None) -> Certificate:
        """Read what `to_json` wrote, with the arrays of its evidence.

        Guarantee: the certificate says what the json says, all of it and nothing else; whatever follows from other parts, as
        the claim and the bound do, is worked out again.

        Raises:
            FileFormatError: a part is missing, unknown, of the wrong type, or not what the others say.
        """
        _check_version(data)
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
                tree=_tree(data["split_tree"]),
                ranges={str(name): (float(low), float(high)) for name, (low, high) in data["ranges"].items()},
                weight_hash=str(data["weight_hash"]),
                code_hash=str(data["code_hash"]),
                error_budget=tuple(
                    BudgetRow(str(row["layer"]), str(row["kind"]), float(row["bound"])) for row in data["error_budget"]
                ),
                versions={str(tool): str(version) for tool, version in data["versions"].items()},
                stability_tree=_tree(data["stability_tree"]),
                evidence=from_json(str(data["tier"]), data["evidence"], arrays or {}, len(data["eps"])),
                eps_source=str(data["eps_source"]),
                notes=tuple(str(note) for note in data["notes"]),
                input_bits=None if data.get("input_bits") is None else int(data["input_bits"]),
                exact=data.get("exact", False) is True,
                labels=Labels.from_json(data["labels"]) if "labels" in data else Labels(),
            )
            again = found.to_json()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FileFormatError(f"the certificate is not readable ({type(error).__name__}: {error})") from error
        wrong = [name for name in {**again, **data} if not same_json(data.get(name), again.get(name))]
        if wrong:
            raise FileFormatError(f"the certificate's {_first(wrong)} is not what its other parts say")
        return found


def _check_version(data: Any) -> None:
    """Refuse what is no certificate, and one of another version."""
    if not isinstance(data, Mapping) or cast("Mapping[str, Any]", data).get("format") != FORMAT:
        raise FileFormatError(
            f"the certificate is not of the format '{FORMAT}' (before version 2 it had none); quantise the model again"
        )
    version = cast("Mapping[str, Any]", data).get("version")
    if version != VERSION:
        raise FileFormatError(
            f"the certificate is of version {version!r}, this library reads {VERSION}; quantise the model again, or use the "
            "version of the library that wrote it"
        )


def _first(wrong: list[str]) -> str:
    """What to name: the digest changes with everything else."""
    return f"'{next((name for name in wrong if name != 'sha256'), 'sha256')}'"


def _vector(values: Any) -> Reals:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.all(np.isfinite(array)):
        raise ValueError(f"expected a list of finite numbers, received {values!r:.80}")
    return array


def _tree(axes: Any) -> SplitTree:
    if not all(type(axis) is int for axis in axes):
        raise ValueError("a tree is a list of integers")
    return SplitTree(tuple(axes))


def make_certificate(
    pair: Pair,
    box: Interval,
    eps: Reals,
    tree: SplitTree,
    *,
    box_source: str = "given",
    error_budget: tuple[BudgetRow, ...] = (),
    versions: Mapping[str, str] | None = None,
    stability_tree: SplitTree | None = None,
    evidence: Evidence | None = None,
) -> Certificate:
    """Prove the network on the leaves of `tree` and write down what was proved, with `MARGIN`.

    With `evidence` only the ranges are proved here: the bounds are those it found. Without any tolerance no distance is claimed.

    The certificate may claim less than `eps` asks; `check` refuses it then.

    Raises:
        VerificationError: something may overflow, or the rewritten network is not proved to be the trained one.
    """
    stability_tree = stability_tree or SplitTree()
    check_rewrite(pair, box, stability_tree)
    if evidence is None and eps.size == 0:
        ranges, bounds = prove_ranges(pair, box), eps
    elif evidence is None:
        proof = prove(pair, box, tree)
        ranges, bounds = proof.ranges, proof.output_bounds * (1.0 + MARGIN)
    else:
        ranges, bounds = prove_ranges(pair, box), evidence.bounds_of(eps)
    return Certificate(
        tier="sound" if evidence is None else evidence.tier,
        eps=eps,
        output_bounds=bounds,
        box=box,
        box_source=box_source,
        tree=tree,
        ranges={name: with_margin(*ends) for name, ends in ranges.items()},
        weight_hash=pair.reference.weight_hash,
        code_hash=pair.code_hash,
        error_budget=error_budget,
        versions=versions or {},
        stability_tree=stability_tree,
        evidence=evidence,
        notes=pair.reference.notes,
        input_bits=pair.input_bits,
    )
