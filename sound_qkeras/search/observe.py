"""The worst error that was seen, beside the bound that was proved: where the claim holds, it must not exceed it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.search.falsify import Counterexample, errors, falsify
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.evidence import Local, Statistical, around

# Boxes around samples that are searched in the local tier: those with the largest bounds.
BOXES_SEARCHED = 4
# Products beyond which exact arithmetic on one input takes too long; float64 decides there.
MOST_EXACT_PRODUCTS = 2_000_000


def observe(
    quantized: QuantizedNetwork, certificate: Certificate, *, seed: int = 0, deadline: Deadline | None = None
) -> Counterexample:
    """Look for the worst error where the claim holds, until the deadline passes; of the statistical tier, on its samples.

    Raises:
        VerificationError: an error exceeds its proved bound: the worst bug there can be, so it stops everything.
    """
    evidence = certificate.evidence
    if isinstance(evidence, Statistical):
        found = np.abs(errors(quantized, evidence.samples)).max(axis=1)
        worst = int(np.argmax(found))
        return Counterexample(float(found[worst]), evidence.samples[worst], len(found))
    if isinstance(evidence, Local):
        return _observe_around(quantized, certificate, evidence, seed, deadline)
    found = falsify(quantized, certificate.box, seed=seed, deadline=deadline)
    return _confirmed(quantized, found, certificate.output_bounds)


def _observe_around(
    quantized: QuantizedNetwork, certificate: Certificate, evidence: Local, seed: int, deadline: Deadline | None
) -> Counterexample:
    boxes = around(certificate.box, evidence.samples, evidence.radius)
    certified = np.flatnonzero(evidence.certified(certificate.eps))
    order = certified[np.argsort(-evidence.bounds[certified].max(axis=1), kind="stable")][:BOXES_SEARCHED]
    found: list[Counterexample] = []
    for n in order:
        if found and deadline is not None and deadline.passed:
            break
        one = falsify(quantized, Interval(boxes.lower[n], boxes.upper[n]), seed=seed, deadline=deadline)
        found.append(_confirmed(quantized, one, evidence.bounds[n]))
    worst = max(found, key=lambda one: one.error)
    return Counterexample(worst.error, worst.sample, sum(one.evaluations for one in found))


def _confirmed(quantized: QuantizedNetwork, found: Counterexample, bounds: Reals) -> Counterexample:
    """The same with its error in exact arithmetic, compared with the bounds."""
    if quantized.trained.products > MOST_EXACT_PRODUCTS:
        return found
    exact = [abs(error) for error in exact_error(quantized, found.sample)]
    for k, error in enumerate(exact):
        if error > Fraction(float(bounds[k])):
            raise VerificationError(
                f"output {k}: an error of {float(error):.9g} was observed, above the proved bound {bounds[k]:.9g}: "
                "please report this"
            )
    return Counterexample(float(max(exact)), found.sample, found.evaluations)
