"""The claim in words, the box it is for, and what it does not say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sound_qkeras.decimals import at_least, at_most
from sound_qkeras.interval import Interval
from sound_qkeras.report.tables import Table, count, percent, table
from sound_qkeras.result import Result
from sound_qkeras.verify.certificate import Certificate

DIGITS = 4
# Rows of a box that are written out; a longer one is summarised.
MOST_ROWS = 24


@dataclass(frozen=True)
class Claim:
    """One sentence, its tier with what that means, and what can be said about how tight it is."""

    sentence: str
    tier: str
    meaning: str
    tightness: str


def claim_of(result: Result) -> Claim:
    """The claim of a result. A tier this page has no words for speaks in the words of its certificate."""
    certificate = result.certificate
    sentence, meaning = str(certificate.to_json()["claim"]), "as the claim says"
    if certificate.tier == "sound":
        outputs = certificate.eps.size
        each = "the output" if outputs == 1 else f"each of the {outputs} outputs"
        sentence = (
            f"For every input in the box, {each} of the fixed-point network differs from the trained network's by at most "
            f"{bound_text(certificate)} ({tolerance_text(certificate)}), and no value in it ever overflows its format."
        )
        meaning = "proved for every input in the box"
    return Claim(sentence, certificate.tier, meaning, _tightness(result))


def _tightness(result: Result) -> str:
    found, bound = result.observed_error, result.certificate.bound
    return (
        f"A search of {count(result.evaluations)} inputs found an error of {at_least(found, DIGITS)}, "
        f"{percent(found, bound)} of the bound: the largest error there is lies between the two."
    )


def tolerance_text(certificate: Certificate) -> str:
    """The tolerance that was asked for, as it was given."""
    eps = certificate.eps
    if np.all(eps == eps[0]):
        return f"tolerance eps = {eps[0]}"
    return f"tolerances eps from {eps.min()} to {eps.max()}, one per output"


def bound_text(certificate: Certificate) -> str:
    """The largest bound, rounded up but never above the tolerance it meets."""
    worst = int(np.argmax(certificate.output_bounds))
    return rounded_up(certificate.bound, float(certificate.eps[worst]))


def rounded_up(bound: float, limit: float) -> str:
    """A bound in few digits, rounded up; in all of them where that would exceed what it is at most."""
    short = at_most(bound, DIGITS)
    return short if float(short) <= limit or bound > limit else repr(bound)


def not_covered(result: Result) -> list[str]:
    """What the claim does not say, most important first."""
    quantized = result.quantized
    found = [
        "Inputs outside the box.",
        "How well the trained network does its task. It is what the fixed-point network is compared with, right or wrong.",
        "Rounding in Keras. The trained network is taken in exact arithmetic over its stored float32 parameters.",
    ]
    if not result.float32.exact:
        bound = at_most(result.float32.bound, DIGITS)
        found.append(
            f"The QKeras model evaluated in float32, which is not bit-exact here: its own proved bound is {bound}."
        )
    if quantized.network.head:
        found.append(f"The final {quantized.network.head}, which was set aside: the claim is about what enters it.")
    if quantized.rewrite:
        found.append("The rewritten network outside the box, where it is another function than the trained one.")
    found.append(
        "Sensors, compilers, synthesis tools, timing and faults of the hardware. Cost figures are estimates, not measured."
    )
    return found


def box_table(box: Interval) -> Table:
    """The box, one row per input or per run of inputs with the same interval; summarised where that is too long."""
    rows = list(_runs(box))
    if len(rows) <= MOST_ROWS:
        return table("The box: exact ends", "Input:name, From:number, To:number", rows)
    width = (box.upper - box.lower).reshape(-1)
    numbers = [
        ("Inputs", count(box.lower.size)),
        ("Smallest lower end", repr(float(box.lower.min()))),
        ("Largest upper end", repr(float(box.upper.max()))),
        ("Narrowest interval", f"{width.min():.6g}"),
        ("Widest interval", f"{width.max():.6g}"),
        ("Median width", f"{np.median(width):.6g}"),
    ]
    return table("The box, summarised; certificate.json has every interval", "Quantity:name, Value:number", numbers)


def _runs(box: Interval) -> Iterator[tuple[str, str, str]]:
    lower, upper = box.lower.reshape(-1), box.upper.reshape(-1)
    changes = np.flatnonzero((np.diff(lower) != 0.0) | (np.diff(upper) != 0.0)) + 1
    starts = [0, *changes.tolist()]
    for start, end in zip(starts, [*starts[1:], lower.size], strict=True):
        name = f"{start}" if end == start + 1 else f"{start} to {end - 1}"
        yield name, repr(float(lower[start])), repr(float(upper[start]))
