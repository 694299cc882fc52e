"""What a certificate says, in one line of words: proved or counted, how far the networks may be apart, and for which inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sound_qkeras.support.decimals import at_least, at_most, rounded_up, tolerance
from sound_qkeras.verify.certificate import PROVED, Certificate
from sound_qkeras.verify.evidence import Local, Statistical

DIGITS, TOLERANCE_DIGITS = 4, 6


def verdict(certificate: Certificate, outputs: Sequence[str] = ()) -> str:
    """One line: what is proved, or counted, about the error, with every limit rounded so that it claims no more.

    Args:
        certificate: the claim.
        outputs: names of the outputs, where one of them has to be named; their numbers if not given.
    """
    evidence, inputs = certificate.evidence, every_input(certificate)
    if not certificate.claims_distance:
        return f"proved for {inputs}: the ranges of all values; no error is claimed, for there is no reference"
    if isinstance(evidence, Statistical):
        counts = f"{evidence.failures} of {len(evidence.samples)} held-out samples did"
        return (
            f"counted, not proved: the error at an input like the samples exceeds eps {_tolerances(certificate)} with "
            f"probability at most {at_most(evidence.probability, 3)}, at confidence {evidence.confidence!r} ({counts})"
        )
    if isinstance(evidence, Local):
        certified = int(evidence.certified(certificate.eps).sum())
        near = f"within {at_least(evidence.radius, 6)} of a sample ({certified} of {len(evidence.samples)} samples)"
        return f"proved for {inputs} {near}: {_error(certificate, outputs)}"
    return f"proved for {inputs}: {_error(certificate, outputs)}"


def every_input(certificate: Certificate) -> str:
    """The inputs that a claim over the whole box is about."""
    bits = certificate.input_bits
    return f"every input in the box{'' if bits is None else f' with at most {bits} fractional bits'}"


def box_text(certificate: Certificate) -> str:
    """Where the box came from, and in how many parts it was proved."""
    leaves = certificate.tree.leaf_count
    return f"{certificate.box_source}, proved in {leaves:,} part{'' if leaves == 1 else 's'}"


def asked(certificate: Certificate) -> bool:
    """Whether somebody asked for the tolerance; else it is what came out."""
    return not certificate.eps_source.startswith(PROVED)


def _error(certificate: Certificate, outputs: Sequence[str]) -> str:
    """The bound beside its tolerance; of several tolerances the one that is met most narrowly."""
    eps, bounds = certificate.eps, certificate.output_bounds
    source = certificate.eps_source
    if not asked(certificate) and certificate.evidence is None:
        return f"error at most {at_most(certificate.bound, DIGITS)}{source.removeprefix(PROVED)}"
    k = int(np.argmax(bounds / eps))
    bound, limit = rounded_up(float(bounds[k]), float(eps[k]), DIGITS), tolerance(eps[k], TOLERANCE_DIGITS)
    said = "" if source == "given" else f", {source}"
    if np.all(eps == eps[0]):
        return f"error at most {bound} (eps {limit}{said})"
    name = outputs[k] if outputs else f"output {k}"
    return f"every output within its own eps{said} (closest: {name}, error at most {bound} of eps {limit})"


def _tolerances(certificate: Certificate) -> str:
    given = certificate.eps_source == "given"
    low, high = (
        tolerance(end, TOLERANCE_DIGITS if given else DIGITS) for end in (certificate.eps.min(), certificate.eps.max())
    )
    source = "" if given else f" ({certificate.eps_source})"
    return f"{low if low == high else f'{low} to {high}'}{source}"
