"""The independent checker: proves a certificate again from the network, the integers and the claim alone."""

from __future__ import annotations

import numpy as np

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.interval import Reals
from sound_qkeras.network import Pair, size_of
from sound_qkeras.verify.certificate import TIERS, Certificate
from sound_qkeras.verify.evidence import check_samples
from sound_qkeras.verify.proof import check_overflow, prove, prove_ranges
from sound_qkeras.verify.split_tree import SplitTree
from sound_qkeras.verify.stability import check_rewrite


def check(pair: Pair, certificate: Certificate) -> Reals:
    """Confirm every claim of a certificate, or refuse it.

    Guarantee: returns only if, for every input in the certificate's box (in other tiers: those that `claim` names), every
    output stays within its recorded bound of the reference, if there is one, every recorded bound within `eps`, and for every
    input in the box every tensor within its recorded range, and every recorded range within its format. Nothing the tuner computed
    is used; there is no tolerance in any comparison.

    Returns:
        The bound found for every output, shape `(outputs,)`.

    Raises:
        VerificationError: names what does not hold.
    """
    check_identity(pair, certificate)
    _check_claim(pair, certificate)
    check_rewrite(pair, certificate.box, certificate.stability_tree)
    bounds, ranges = _found(pair, certificate)
    beyond = np.flatnonzero(~(bounds <= certificate.output_bounds))
    if beyond.size:
        k = int(beyond[0])
        raise VerificationError(
            f"output {k}: the proved bound is {bounds[k]:.9g}, the certificate claims {certificate.output_bounds[k]:.9g}"
        )
    for name, (low, high) in ranges.items():
        claimed = certificate.ranges.get(name)
        if claimed is None or not (claimed[0] <= low and high <= claimed[1]):
            layer = pair.network.by_name[name].layer
            raise VerificationError(
                f"layer '{layer}' ({name}): values reach [{low:.9g}, {high:.9g}], the certificate claims {claimed}",
                layer_name=layer,
            )
    check_overflow(pair, dict(certificate.ranges))
    return bounds


def _found(pair: Pair, certificate: Certificate) -> tuple[Reals, dict[str, tuple[float, float]]]:
    """Bounds and ranges, proved again."""
    box, evidence = certificate.box, certificate.evidence
    if not certificate.claims_distance:
        return certificate.eps, prove_ranges(pair, box)
    if evidence is None:
        proof = prove(pair, box, certificate.tree)
        return proof.output_bounds, proof.ranges
    try:
        check_samples(evidence.samples, box)
        evidence.check(pair, box, certificate.eps)
    except InputError as error:
        raise VerificationError(f"the samples of the certificate do not suit it: {error}") from error
    return evidence.bounds_of(certificate.eps), prove_ranges(pair, box)


def check_identity(pair: Pair, certificate: Certificate) -> None:
    """The certificate must be about this trained network and these integers.

    Raises:
        VerificationError: it is about others.
    """
    for what, found, claimed in (
        ("float weights", pair.reference.weight_hash, certificate.weight_hash),
        ("integers and formats", pair.code_hash, certificate.code_hash),
    ):
        if found != claimed:
            raise VerificationError(
                f"the {what} are not those of the certificate: hash {found[:12]}, expected {claimed[:12]}"
            )
    if pair.reference.notes != certificate.notes or pair.input_bits != certificate.input_bits:
        raise VerificationError(
            "the notes about the trained network, or its inputs' grid, are not those of the certificate"
        )


def _check_claim(pair: Pair, certificate: Certificate) -> None:
    """Shapes, finiteness, and that the bounds meet the tolerance."""
    outputs = size_of(pair.network.output_shape)
    box = certificate.box
    evidence = certificate.evidence
    if certificate.tier not in TIERS or certificate.tier != ("sound" if evidence is None else evidence.tier):
        raise VerificationError(
            f"tier '{certificate.tier}' is not that of the evidence, or unknown; accepted: {', '.join(TIERS)}"
        )
    if box.lower.shape != pair.network.input_shape or box.upper.shape != pair.network.input_shape:
        raise VerificationError(f"the box has shape {box.lower.shape}, the network's input {pair.network.input_shape}")
    if not (np.all(np.isfinite(box.lower)) and np.all(np.isfinite(box.upper)) and np.all(box.lower <= box.upper)):
        raise VerificationError("the box is not finite, or empty")
    shapes = certificate.eps.shape, certificate.output_bounds.shape
    silent = evidence is None and shapes == ((0,), (0,))
    if shapes != ((outputs,), (outputs,)) and not silent:
        raise VerificationError(f"expected one tolerance and one bound for each of {outputs} outputs")
    if np.any(np.isinf(certificate.eps)):
        raise VerificationError("a tolerance is infinite, so nothing is claimed")
    if not np.all(certificate.output_bounds <= certificate.eps):
        raise VerificationError(
            f"the bound {certificate.bound:.9g} exceeds the tolerance {float(certificate.eps.max()):.9g}"
        )
    _check_trees(pair, certificate)
    unknown = sorted(set(certificate.ranges) - set(pair.network.by_name))
    if unknown:
        raise VerificationError(f"the certificate has ranges of {unknown[:3]}, which are no nodes")
    missing = [node.name for node, _ in pair.network.affine() if node.name not in pair.accumulators]
    if missing and pair.has_integers:
        raise VerificationError(
            f"layers {missing} have no accumulator format, so nothing is claimed about their sums; certify the model again"
        )


def _check_trees(pair: Pair, certificate: Certificate) -> None:
    """A tree that no proof of this tier uses must be that of the whole box: nobody would notice what it says."""
    unused = [certificate.tree] if certificate.evidence is not None or not certificate.claims_distance else []
    unused += [] if pair.rewrite.reductions else [certificate.stability_tree]
    if any(tree != SplitTree() for tree in unused):
        raise VerificationError("the split tree is malformed: nothing is proved on its leaves in this tier")
