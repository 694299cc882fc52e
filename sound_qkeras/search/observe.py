"""The worst error that was seen, beside the bound that was proved: where the claim holds, it must not exceed it."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.network.pair import Pair
from sound_qkeras.search.falsify import EVALUATIONS, Counterexample, errors, falsify
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.evidence import Local, Statistical, around
from sound_qkeras.verify.propagation import propagate

# Boxes around samples that are searched in the local tier: those with the largest bounds.
BOXES_SEARCHED = 4
# Products beyond which exact arithmetic on one input takes too long; float64 decides there.
MOST_EXACT_PRODUCTS = 2_000_000
# What a product takes there.
EXACT_SECONDS = 2.5e-6


def observe(
    pair: Pair,
    certificate: Certificate,
    *,
    seed: int = 0,
    deadline: Deadline | None = None,
    evaluations: int = EVALUATIONS,
) -> Counterexample:
    """Look for the worst error where the claim holds, until the deadline passes; of the statistical tier, on its samples.

    Args:
        pair: the pair of networks.
        certificate: what is proved about it.
        seed: of the search.
        deadline: of the search.
        evaluations: about how many inputs to try.

    Raises:
        VerificationError: an error exceeds its proved bound: the worst bug there can be, so it stops everything.
    """
    evidence = certificate.evidence
    if not certificate.claims_distance:
        return Counterexample(0.0, certificate.box.center, 0)
    if isinstance(evidence, Statistical):
        found = np.abs(errors(pair, evidence.samples)).max(axis=1)
        worst = int(np.argmax(found))
        return Counterexample(float(found[worst]), evidence.samples[worst], len(found))
    if isinstance(evidence, Local):
        return _observe_around(pair, certificate, evidence, seed, deadline, evaluations)
    found = falsify(pair, certificate.box, evaluations=evaluations, seed=seed, deadline=deadline)
    return confirmed(pair, found, certificate.output_bounds)


def _observe_around(
    pair: Pair,
    certificate: Certificate,
    evidence: Local,
    seed: int,
    deadline: Deadline | None,
    evaluations: int,
) -> Counterexample:
    boxes = around(certificate.box, evidence.samples, evidence.radius)
    certified = np.flatnonzero(evidence.certified(certificate.eps))
    order = certified[np.argsort(-evidence.bounds[certified].max(axis=1), kind="stable")][:BOXES_SEARCHED]
    found: list[Counterexample] = []
    for n in order:
        if found and deadline is not None and deadline.passed:
            break
        part = Interval(boxes.lower[n], boxes.upper[n])
        one = falsify(pair, part, evaluations=evaluations, seed=seed, deadline=deadline)
        found.append(confirmed(pair, one, evidence.bounds[n]))
    worst = max(found, key=lambda one: one.error)
    return Counterexample(worst.error, worst.sample, sum(one.evaluations for one in found))


def confirmed(pair: Pair, found: Counterexample, bounds: Reals) -> Counterexample:
    """The same with its error in exact arithmetic, compared with the bounds; enclosed where the subject has no integers.

    Raises:
        VerificationError: it exceeds its bound.
    """
    if not pair.has_integers:
        _refuse_beyond(np.abs(_least_errors(pair, found.sample)), bounds)
        return found
    if pair.reference.products > MOST_EXACT_PRODUCTS:
        return found
    exact = [abs(error) for error in exact_error(pair, found.sample)]
    _refuse_beyond(exact, bounds)
    return Counterexample(float(max(exact)), found.sample, found.evaluations)


def seconds_to_confirm(network: Network) -> float:
    """About how long exact arithmetic on one input takes."""
    return EXACT_SECONDS * network.products if network.products <= MOST_EXACT_PRODUCTS else 0.0


def _least_errors(pair: Pair, sample: Reals) -> Reals:
    """The part of each output's error at a sample that is certain."""
    facts = propagate(pair.network, Interval.point(sample[None]), pair, substitute=False).facts
    difference = facts[pair.network.output.name].pair()[2]
    return np.maximum(np.maximum(difference.lower, -difference.upper), 0.0).reshape(-1)


def _refuse_beyond(errors: Iterable[Any], bounds: Reals) -> None:
    for k, error in enumerate(errors):
        if Fraction(error) > Fraction(float(bounds[k])):
            raise VerificationError(
                f"output {k}: an error of {float(error):.9g} was observed, above the proved bound {bounds[k]:.9g}: "
                "please report this"
            )
