"""The claim in words, tier by tier, and what can be said about how tight it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sound_qkeras.report.naming import Naming
from sound_qkeras.report.tables import count, percent
from sound_qkeras.results.result import Result
from sound_qkeras.results.verdict import asked, every_input
from sound_qkeras.support.decimals import at_least, at_most, percent_at_most, rounded_up, tolerance
from sound_qkeras.verify.certificate import PROVED, Certificate
from sound_qkeras.verify.evidence import FLOAT64, Local, Statistical

DIGITS = 4
# So many outputs have their own bounds in the sentence.
FEW_OUTPUTS = 4


@dataclass(frozen=True)
class Claim:
    """What is claimed.

    Args:
        sentence: the claim in one sentence.
        tier: strength of the guarantee.
        meaning: what the tier means here.
        tightness: how near the worst error found comes.
        facts: its numbers, each with a name.
    """

    sentence: str
    tier: str
    meaning: str
    tightness: str
    facts: tuple[tuple[str, str], ...]


def claim_of(result: Result) -> Claim:
    """The claim of a result, with every limit rounded so that it claims no more than the certificate."""
    found = _of_tier(result, Naming.of(result))
    what = "ranges" if isinstance(result.certificate.evidence, Statistical) else "all of it"
    again = (("Second proof", f"{what} re-proved in exact arithmetic when it was made"),)
    again = again if result.certificate.exact else ()
    return replace(found, facts=(*found.facts, *again))


def _of_tier(result: Result, naming: Naming) -> Claim:
    evidence = result.certificate.evidence
    if isinstance(evidence, Local):
        return _local(result, evidence, naming)
    if isinstance(evidence, Statistical):
        return _statistical(result, evidence, naming)
    return _sound(result, naming)


def _sound(result: Result, naming: Naming) -> Claim:
    certificate = result.certificate
    sentence = (
        f"For {every_input(certificate)}, {naming.who} of {_subject(result)} by at most "
        f"{_at_most(certificate, naming)}, and {_overflow(result)}."
    )
    tightness = (
        f"{_searched(result)}{': the largest error there is lies between the two' if result.evaluations else ''}."
    )
    facts = (
        ("Proved bound", bound_text(certificate)),
        *_closest(certificate, naming),
        *_worst(result, "Worst error found"),
    )
    return Claim(sentence, certificate.tier, f"proved for {every_input(certificate)}", tightness, facts)


def _local(result: Result, evidence: Local, naming: Naming) -> Claim:
    certificate = result.certificate
    certified, all_of_them = int(evidence.certified(certificate.eps).sum()), len(evidence.samples)
    radius = at_least(evidence.radius, 6)
    sentence = (
        f"For {every_input(certificate)} that is within {radius} of one of {count(certified)} certified samples in every "
        f"coordinate, {naming.who} of {_subject(result)} by at most "
        f"{_at_most(certificate, naming)}. For {every_input(certificate)}, {_overflow(result)}."
    )
    meaning = (
        f"proved around {count(certified)} of {count(all_of_them)} samples; elsewhere in the box nothing is proved about the "
        "error"
    )
    between = (
        "; it looked only around the certified samples with the largest bounds. The largest error near a certified sample lies "
        "between the two"
    )
    tightness = f"{_searched(result)}{between if result.evaluations else ''}."
    facts = (
        ("Samples certified", f"{count(certified)} of {count(all_of_them)}"),
        ("Radius", radius),
        ("Proved bound there", bound_text(certificate)),
        *_closest(certificate, naming),
        *_worst(result, "Worst error found there"),
    )
    return Claim(sentence, certificate.tier, meaning, tightness, facts)


def _statistical(result: Result, evidence: Statistical, naming: Naming) -> Claim:
    certificate, held_out = result.certificate, len(evidence.samples)
    limit, confidence = percent_at_most(evidence.probability, DIGITS), repr(float(evidence.confidence))
    reference = ", as float64 evaluates it," if evidence.reference == FLOAT64 else ""
    sentence = (
        f"With confidence {confidence}, at most {limit} of the inputs drawn like the {count(held_out)} held-out samples "
        f"make {naming.an_output} of the fixed-point network differ from the trained network's{reference} by "
        f"more than the {tolerance_text(certificate, naming.unit)}. For {every_input(certificate)}, {_overflow(result)}."
    )
    meaning = (
        f"counted on {count(held_out)} samples that no choice depended on ({count(evidence.failures)} exceed the tolerance) "
        "and turned into an exact binomial limit; nothing is proved about the error at a single input"
    )
    tightness = (
        f"The largest error at a held-out sample is {at_least(result.observed_error, DIGITS)}; no bound is proved."
    )
    facts = (
        ("Share that may exceed eps", f"at most {limit}"),
        ("Confidence", confidence),
        ("Held-out samples beyond eps", f"{count(evidence.failures)} of {count(held_out)}"),
        ("Tolerance eps", f"{_short_tolerance(certificate)}{naming.unit}"),
    )
    return Claim(sentence, certificate.tier, meaning, tightness, facts)


def _subject(result: Result) -> str:
    """What differs from what."""
    if result.model is not None:
        return "the model that was given differs from its reference's"
    return "the fixed-point network differs from the trained network's"


def _at_most(certificate: Certificate, naming: Naming) -> str:
    """The bound and its tolerance; of several tolerances those of each output, which a table below the sentence has."""
    if not asked(certificate):
        source = certificate.eps_source.removeprefix(PROVED)
        return f"{_listed(certificate, naming)}{source and f' ({PROVED}{source})'}"
    if np.all(certificate.eps == certificate.eps[0]):
        return f"{bound_text(certificate)}{naming.unit} ({tolerance_text(certificate, naming.unit)})"
    if certificate.eps.size > FEW_OUTPUTS:
        return f"its own bound, which is within its own tolerance ({tolerance_text(certificate, naming.unit)})"
    return _listed(certificate, naming)


def _listed(certificate: Certificate, naming: Naming) -> str:
    """The bounds of a few outputs, each with its tolerance if somebody asked for one; of many the largest."""
    if not 1 < certificate.eps.size <= FEW_OUTPUTS:
        return f"{bound_text(certificate)}{naming.unit}"
    said = [
        f"{output_bound(certificate, k)}{unit and ' '}{unit} for {name}"
        f"{f' (eps = {tolerance(float(certificate.eps[k]))})' if asked(certificate) else ''}"
        for k, (name, unit) in enumerate(zip(naming.outputs, naming.output_units, strict=True))
    ]
    return f"{', '.join(said[:-1])} and {said[-1]}"


def output_bound(certificate: Certificate, k: int) -> str:
    """The bound of an output, rounded up but never above a tolerance that it was asked to meet."""
    bound, eps = float(certificate.output_bounds[k]), float(certificate.eps[k])
    return rounded_up(bound, eps, DIGITS) if asked(certificate) else at_most(bound, DIGITS)


def _overflow(result: Result) -> str:
    if not result.pair.saturating:
        return "no value in it ever overflows its format"
    return "no value in it ever wraps: results that may exceed their formats saturate"


def _worst(result: Result, name: str) -> tuple[tuple[str, str], ...]:
    """What a search found, where there was one."""
    return ((name, at_least(result.observed_error, DIGITS)),) if result.evaluations else ()


def _searched(result: Result) -> str:
    found, bound = result.observed_error, result.certificate.bound
    if not result.evaluations:
        return "The worst error was not searched for"
    return (
        f"A search of {count(result.evaluations)} inputs found an error of {at_least(found, DIGITS)}, "
        f"{percent(found, bound)} of the bound"
    )


def tolerance_text(certificate: Certificate, unit: str = "") -> str:
    """The tolerance that was asked for, as it was given; where it was not, also where it comes from."""
    eps, source = certificate.eps, "" if certificate.eps_source == "given" else f", {certificate.eps_source}"
    if np.all(eps == eps[0]):
        return f"tolerance eps = {tolerance(eps[0])}{unit}{source}"
    return f"tolerances eps from {tolerance(eps.min())} to {tolerance(eps.max())}{unit}, one per output{source}"


def _short_tolerance(certificate: Certificate) -> str:
    low, high = (tolerance(end) for end in (certificate.eps.min(), certificate.eps.max()))
    return low if low == high else f"{low} to {high}"


def bound_text(certificate: Certificate) -> str:
    """The largest bound, rounded up but never above the tolerance it meets."""
    return output_bound(certificate, int(np.argmax(certificate.output_bounds)))


def _closest(certificate: Certificate, naming: Naming) -> tuple[tuple[str, str], ...]:
    """Of several tolerances, the one that is met most narrowly; nothing where they are one, for then the bound says it."""
    eps, bounds = certificate.eps, certificate.output_bounds
    if np.all(eps == eps[0]) or not asked(certificate):
        return ()
    k = int(np.argmax(bounds / eps))
    limit = float(eps[k])
    return (
        (
            f"Bound of {naming.outputs[k]}, closest to its tolerance",
            f"{rounded_up(float(bounds[k]), limit, DIGITS)} of {tolerance(limit)}",
        ),
    )
