"""What a certificate says, in one line of words: proved or counted, how far the networks may be apart, and for which inputs."""

from __future__ import annotations

import numpy as np

from sound_qkeras.support.decimals import at_most, rounded_up, tolerance
from sound_qkeras.verify.certificate import PROVED, Certificate
from sound_qkeras.verify.evidence import Local, Statistical

DIGITS, TOLERANCE_DIGITS = 4, 6
EVERYWHERE = "for every input in the box"


def verdict(certificate: Certificate) -> str:
    """One line: what is proved, or counted, about the error, with every limit rounded so that it claims no more."""
    evidence = certificate.evidence
    if not certificate.claims_distance:
        return f"proved: the ranges of all values, {EVERYWHERE}; no error is claimed, for there is no reference"
    if isinstance(evidence, Statistical):
        return (
            f"counted, not proved: an input like the samples exceeds eps {_tolerances(certificate)} with probability at most "
            f"{at_most(evidence.probability, 3)}, at confidence {evidence.confidence:g} ({evidence.failures} of "
            f"{len(evidence.samples)} held-out samples did)"
        )
    if isinstance(evidence, Local):
        certified = int(evidence.certified(certificate.eps).sum())
        where = f"within {evidence.radius:g} of {certified} of {len(evidence.samples)} samples"
        return f"proved {where}: {_error(certificate)}"
    return f"proved {EVERYWHERE}: {_error(certificate)}"


def _error(certificate: Certificate) -> str:
    """The bound beside its tolerance; of several tolerances the one that is met most narrowly."""
    eps, bounds = certificate.eps, certificate.output_bounds
    source = certificate.eps_source
    if source.startswith(PROVED) and certificate.evidence is None:
        return f"error at most {at_most(certificate.bound, DIGITS)}{source.removeprefix(PROVED)}"
    k = int(np.argmax(bounds / eps))
    bound, limit = rounded_up(float(bounds[k]), float(eps[k]), DIGITS), tolerance(eps[k], TOLERANCE_DIGITS)
    said = "" if source == "given" else f", {source}"
    if np.all(eps == eps[0]):
        return f"error at most {bound} (eps {limit}{said})"
    return f"every output within its own eps{said} (closest: output {k}, error at most {bound} of eps {limit})"


def _tolerances(certificate: Certificate) -> str:
    given = certificate.eps_source == "given"
    low, high = (
        tolerance(end, TOLERANCE_DIGITS if given else DIGITS) for end in (certificate.eps.min(), certificate.eps.max())
    )
    source = "" if given else f" ({certificate.eps_source})"
    return f"{low if low == high else f'{low} to {high}'}{source}"
