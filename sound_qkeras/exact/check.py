"""A certificate proved again by the second proof, in rational arithmetic: every leaf, on all cores.

Nothing but the claim, the boxes that it names and the graph is taken from the first proof. A box on which the quick rules of the
second proof do not reach the claim is proved by all of them, and cut where these do not suffice; no comparison has a tolerance.
"""

# pyright: standard
# joblib has no type stubs.
from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any
from uuid import uuid4

import numpy as np

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.proof import (
    FORWARD,
    QUICK,
    THOROUGH,
    Proof,
    box_of,
    check_known,
    exact_error_range,
    meanings_of,
)
from sound_qkeras.exact.rewriting import Signs, check_parameters
from sound_qkeras.network import Network, Pair, size_of
from sound_qkeras.network.pickling import Rebuilt
from sound_qkeras.support.progress import Progress, silent
from sound_qkeras.types import Reals
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.evidence import REAL, Local, Statistical
from sound_qkeras.verify.split_tree import SplitTree

# Layers are matrices here, with an entry for every result and input: so many entries a network may have.
MOST_ENTRIES = 2_000_000
# A box on which a claim is not reached is halved at most so often.
CUTS = 6
# Processes are begun where what is left takes longer than this many seconds, by the measure of three boxes.
WORTH_PROCESSES = 4.0
# Parts of the work that each process is given, one after the other.
PARTS_EACH = 12
STAGE = "prove again exactly"
BOUNDS, RANGES, SIGNS, ERRORS = "bounds", "ranges", "signs", "errors"


@dataclass(frozen=True)
class Box:
    """A box and what is claimed on it.

    Args:
        region: the inputs.
        bounds: of every output; empty where none is claimed.
    """

    region: Range
    bounds: tuple[Fraction, ...] = ()


@dataclass(frozen=True, eq=False)
class Work(Rebuilt):
    """What is to be proved on a box.

    Args:
        quantized: the pair of networks.
        ranges: what every value is claimed to stay within.
        kind: `BOUNDS` and ranges; `RANGES` alone, of a box that is not cut; the `SIGNS` of units that were dropped or replaced;
            or `ERRORS` at a point, where nothing is claimed.
    """

    pair: Pair
    ranges: Mapping[str, tuple[float, float]]
    kind: str = BOUNDS

    @cached_property
    def _meanings(self) -> Any:
        return meanings_of(self.pair)

    @cached_property
    def _signs(self) -> Signs:
        return Signs(self.pair)

    def prove(self, box: Box, cuts: int = CUTS) -> list[Fraction]:
        """The bounds of all outputs on a box.

        Raises:
            VerificationError: something claimed does not hold, however the box is cut.
        """
        if self.kind == ERRORS:
            sample = np.array([float(x) for x in box.region.lower.fractions()])  # it came from such numbers
            sample = sample.reshape(self.pair.network.input_shape)
            return [max(abs(low), abs(high)) for low, high in exact_error_range(self.pair, sample)]
        for effort in (FORWARD, QUICK) if self.kind == RANGES else (QUICK,):
            with suppress(VerificationError):
                return self._prove(box, effort)
        try:
            return self._prove(box, THOROUGH)
        except VerificationError:
            if not cuts or self.kind == RANGES:
                raise
        halves = [self.prove(half, cuts - 1) for half in _halves(box)]
        return [max(pair) for pair in zip(*halves, strict=True)]

    def _prove(self, box: Box, effort: int) -> list[Fraction]:
        if self.kind == SIGNS:
            self._signs.check(box.region, effort)
            return []
        proof = Proof(self.pair, box.region, self._meanings, effort=effort)
        _check_ranges(self.pair.network, proof, self.ranges)
        for k, (found, claimed) in enumerate(zip(proof.bounds, box.bounds, strict=bool(box.bounds))):
            if found > claimed:
                raise VerificationError(
                    f"output {k}: the bound proved in exact arithmetic is {float(found):.9g}, the certificate claims "
                    f"{float(claimed):.9g}"
                )
        return proof.bounds


def _check_ranges(network: Network, proof: Proof, claimed: Mapping[str, tuple[float, float]]) -> None:
    """Every value before its rounding must be where the certificate says."""
    for name, found in proof.ranges.items():
        low, high = min(found.lower.fractions()), max(found.upper.fractions())
        ends = claimed.get(name)
        if ends is None or low < Fraction(ends[0]) or high > Fraction(ends[1]):
            layer = network.by_name[name].layer
            raise VerificationError(
                f"layer '{layer}' ({name}): values reach [{float(low):.9g}, {float(high):.9g}] in exact arithmetic, the "
                f"certificate claims {ends}",
                layer_name=layer,
            )


def _halves(box: Box) -> Iterator[Box]:
    """Both halves of a box, cut across its longest side."""
    lower, upper = box.region.lower, box.region.upper
    axis = int(np.argmax(box.region.width.numbers))
    here = np.arange(lower.shape[0]) == axis
    middle = box.region.middle
    yield Box(Range(lower, middle.where(here, upper)), box.bounds)
    yield Box(Range(middle.where(here, lower), upper), box.bounds)


def prove_again(quantized: Pair, certificate: Certificate, report: Progress = silent) -> list[Fraction]:
    """Prove everything that a certificate claims about inputs again, in exact rational arithmetic, or refuse it.

    Guarantee: as `sound_qkeras.check`, of whose other checks (that hashes, shapes and tolerances fit) this is no substitute;
    floating-point arithmetic and BLAS are not used. In the tier "sound" every leaf of the tree is proved, in "local" the box
    around every sample; in "statistical" the exact error of every held-out sample is counted again. In all tiers: the
    ranges of every node, that nothing overflows, and that the rewritten network is the trained one.

    Args:
        quantized: the pair of networks.
        certificate: the claim.
        report: told the stage, which says about how long it takes, and the fraction that is done.

    Returns:
        The largest bound of every output; in the tier "statistical" none.

    Raises:
        InputError: the network is too large for this proof, or errors were measured against a float64 evaluation.
        VerificationError: a claim does not hold, or an operation is unknown here.
    """
    evidence = certificate.evidence
    if quantized.obstacles:
        raise InputError(
            f"exact arithmetic is for networks of integers: {quantized.obstacles[0]}; rely on the proof without it"
        )
    if quantized.input_bits is not None:
        raise InputError(
            f"the certificate is about inputs of {quantized.input_bits} fractional bits, which exact arithmetic makes nothing of; "
            "rely on the proof without it, or certify without input_bits"
        )
    check_possible(quantized.network, evidence.reference if isinstance(evidence, Statistical) else REAL)
    report(STAGE, 0.0)
    if quantized.rewrite:
        check_parameters(quantized)
    if quantized.rewrite.reductions:
        _over(
            Work(quantized, {}, SIGNS), _leaves(quantized, certificate, certificate.stability_tree), report, "rewrite"
        )
    pair = Work(quantized, certificate.ranges)
    if evidence is None:
        claimed = _claimed(certificate.output_bounds)
        found = _over(pair, _leaves(quantized, certificate, certificate.tree, claimed), report, "boxes")
        return [max(bounds) for bounds in zip(*found, strict=True)]
    whole = box_of(quantized, certificate.box.lower, certificate.box.upper)
    replace(pair, kind=RANGES).prove(Box(whole))
    points = [box_of(quantized, sample, sample) for sample in evidence.samples]
    if isinstance(evidence, Local):
        claims = [_claimed(bounds) for bounds in evidence.bounds]
        boxes = [Box(_around(point, evidence.radius, whole), c) for point, c in zip(points, claims, strict=True)]
        found = zip(_over(pair, boxes, report, "boxes"), evidence.certified(certificate.eps), strict=True)
        return [max(bounds) for bounds in zip(*(bounds for bounds, met in found if met), strict=True)]
    if isinstance(evidence, Statistical):
        _count(
            _over(replace(pair, kind=ERRORS), [Box(point) for point in points], report, "samples"),
            certificate,
            evidence,
        )
    return []


def _claimed(bounds: Reals) -> tuple[Fraction, ...]:
    return tuple(Fraction(bound) for bound in bounds.tolist())


def _leaves(
    quantized: Pair, certificate: Certificate, tree: SplitTree, claimed: tuple[Fraction, ...] = ()
) -> list[Box]:
    leaves = tree.leaves(certificate.box)
    return [Box(box_of(quantized, low, high), claimed) for low, high in zip(leaves.lower, leaves.upper, strict=True)]


def _around(point: Range, radius: float, whole: Range) -> Range:
    """What is within a radius of a point, and in the whole box."""
    reach = Dyadic.of(np.array(radius))
    return Range((point.lower - reach).maximum(whole.lower), (point.upper + reach).minimum(whole.upper))


def _count(errors: list[list[Fraction]], certificate: Certificate, evidence: Statistical) -> None:
    """How many samples exceed the tolerance, or may do so."""
    eps = _claimed(certificate.eps)
    found = sum(any(e > limit for e, limit in zip(one, eps, strict=True)) for one in errors)
    if found > evidence.failures:
        raise VerificationError(
            f"{found} of {len(errors)} samples exceed the tolerance in exact arithmetic, the certificate claims {evidence.failures}"
        )


def check_possible(network: Network, reference: str = REAL) -> None:
    """Refuse by name what is beyond this proof, before any work.

    Args:
        network: the trained network, or the rewritten one.
        reference: what errors at samples are measured against.

    Raises:
        InputError: a layer is too large, or the reference is no exact one.
        VerificationError: an operation is unknown here.
    """
    for node, _ in network.affine():
        entries = size_of(network.shapes[node.name]) * size_of(network.shapes[node.inputs[0]])
        if entries > MOST_ENTRIES:
            raise InputError(
                f"layer '{node.layer}' is a matrix of {entries:,} entries in exact arithmetic; accepted there: up to "
                f"{MOST_ENTRIES:,}; leave out exact=True"
            )
    check_known(network)
    if reference != REAL:
        raise InputError(
            "errors were measured against the trained network as float64 evaluates it, of which exact arithmetic knows nothing; "
            "accepted there: tier 'sound' or 'local', or 'statistical' where enclosures of the network are tight; leave out "
            "exact=True"
        )


def _over(work: Work, boxes: Sequence[Box], report: Progress, what: str) -> list[list[Fraction]]:
    """The bounds on every box, in their order; by other processes where that pays."""
    done: dict[int, list[Fraction]] = {}
    seconds: list[float] = []
    for n in (len(boxes) - 1, len(boxes) // 2, 0, 0):  # the last one again: nothing is left to find out about tables
        started = time.monotonic()
        done[n] = work.prove(boxes[n])
        seconds.append(time.monotonic() - started)
    rest = [n for n in range(len(boxes)) if n not in done]
    each = min(seconds)
    cores, first = (
        _cores(),
        max(seconds) - each,
    )  # what the first box found out about tables, each process finds out again
    alone = each * len(rest)
    if alone < WORTH_PROCESSES or cores == 1:
        stage = f"{STAGE}: {what}, about {alone:.0f} s"
        for n in rest:
            done[n] = work.prove(boxes[n])
            report(stage, len(done) / len(boxes))
        return [done[n] for n in range(len(boxes))]
    stage = f"{STAGE}: {what}, about {first + alone / cores:.0f} s"
    report(stage, len(done) / len(boxes))
    size = max(1, len(rest) // (PARTS_EACH * cores))
    parts = [rest[start : start + size] for start in range(0, len(rest), size)]
    import joblib

    name = uuid4().hex
    parallel: Any = joblib.Parallel(n_jobs=cores, return_as="generator_unordered")
    for found in parallel(joblib.delayed(_on_part)(work, [(n, boxes[n]) for n in part], name) for part in parts):
        done.update(found)
        report(stage, len(done) / len(boxes))
    return [done[n] for n in range(len(boxes))]


def _cores() -> int:
    """As many as joblib was told, else all."""
    import joblib
    from joblib.parallel import get_active_backend

    told: Any = get_active_backend()[1]
    return joblib.effective_n_jobs(-1 if told is None else told)


# What a process was last given: its tables and matrices are made once. Threads have one each, as proofs keep lines between calls.
_KEPT: dict[tuple[str, int], Work] = {}


def _on_part(work: Work, boxes: Sequence[tuple[int, Box]], name: str) -> dict[int, list[Fraction]]:
    key = name, threading.get_ident()
    if key not in _KEPT:
        for old in [one for one in _KEPT if one[0] != name]:
            del _KEPT[old]
        _KEPT[key] = replace(work)
    return {n: _KEPT[key].prove(box) for n, box in boxes}
