"""The picture at the top of the page: how wrong the network can be beside what is allowed, and its bits beside 32-bit ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sound_qkeras.interval import Reals
from sound_qkeras.report.claim import DIGITS, asked, output_bound
from sound_qkeras.report.formats import NAIVE, totals
from sound_qkeras.report.naming import Naming
from sound_qkeras.report.tables import FRAME, Bar, Segment, count, percent, share
from sound_qkeras.results.result import Result
from sound_qkeras.support.decimals import at_least, tolerance
from sound_qkeras.tuning.uniform import Uniform
from sound_qkeras.verify.evidence import Statistical


@dataclass(frozen=True)
class Group:
    """Bars on one scale: a heading, and rows of label, bar and number."""

    heading: str
    rows: tuple[tuple[str, Bar, str], ...]


def picture_of(result: Result, uniform: Uniform | None, errors: Reals, naming: Naming) -> tuple[Group, ...]:
    """Errors of the output that is closest to its tolerance, and the bits of everything that is stored.

    Args:
        result: the result.
        uniform: the smallest single format, if it is known.
        errors: those at the worst input found, shape `(outputs,)`.
        naming: what outputs are called.
    """
    certificate = result.certificate
    counted = isinstance(certificate.evidence, Statistical)
    sizes = errors if counted else certificate.output_bounds
    closest = int(np.argmax(sizes / certificate.eps if asked(certificate) else sizes))
    against = ", the largest against its tolerance" if asked(certificate) else ""
    which = f" of {naming.outputs[closest]}{against}" if certificate.eps.size > 1 else ""
    error = Group(f"Error{which}", tuple(_errors(result, float(errors[closest]), closest, naming)))
    return error, Group("Stored bits", tuple(_bits(result, uniform)))


def _errors(result: Result, error: float, k: int, naming: Naming) -> Iterator[tuple[str, Bar, str]]:
    certificate = result.certificate
    eps, bound = float(certificate.eps[k]), float(certificate.output_bounds[k])
    unit = f"\N{NO-BREAK SPACE}{naming.output_units[k]}" if naming.output_units[k] else ""
    counted = isinstance(certificate.evidence, Statistical)
    scale = max(eps, error)
    if asked(certificate):
        yield "tolerance eps", Bar((Segment(0.0, eps / scale, "allowed"),)), f"{tolerance(eps)}{unit}"
    if not counted:
        bar = Bar((Segment(0.0, share(bound, scale), "outer"), FRAME))
        yield "proved bound", bar, f"{output_bound(certificate, k)}{unit}"
    if result.evaluations:
        several = certificate.eps.size > 1  # the search looks for the largest error of any output
        found = "error at the worst input found" if several else "worst error found by search"
        name = "largest error at a held-out sample" if counted else found
        bar = Bar((Segment(0.0, share(error, scale), "beyond" if error > eps else "inner"), FRAME))
        yield name, bar, f"{at_least(error, DIGITS)}{unit}"


def _bits(result: Result, uniform: Uniform | None) -> Iterator[tuple[str, Bar, str]]:
    naive = sum(totals(result)[f"{NAIVE} bits"])
    yield f"all in {NAIVE} bits", Bar((Segment(0.0, 1.0, "allowed"),)), count(naive)
    if uniform is not None:
        bits, length = uniform.cost.total_bits, uniform.format.word_length
        bar = Bar((Segment(0.0, share(bits, naive), "outer"), FRAME))
        yield f"one format of {length} bits", bar, f"{count(bits)} ({percent(bits, naive)})"
    bits = result.cost.total_bits
    bar = Bar((Segment(0.0, share(bits, naive), "inner"), FRAME))
    yield "this network", bar, f"{count(bits)} ({percent(bits, naive)})"
