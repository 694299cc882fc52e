"""Which inputs the claim is about, and what it does not say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sound_qkeras.interval import Interval
from sound_qkeras.report.claim import DIGITS
from sound_qkeras.report.naming import Naming
from sound_qkeras.report.tables import Table, count, table
from sound_qkeras.results.result import Result
from sound_qkeras.support.decimals import at_most
from sound_qkeras.verify.evidence import FLOAT64, Evidence, Local, Statistical

# Rows of a box that are written out; a longer one is summarised.
MOST_ROWS = 24
BEYOND_EVIDENCE = {
    Local.tier: "How large the error is at inputs in the box that are not near a certified sample.",
    Statistical.tier: (
        "How large the error is at a particular input, and inputs drawn in another way than the samples: if what the network "
        "meets in use differs from them, the share is not claimed."
    ),
}


def not_covered(result: Result) -> list[str]:
    """What the claim does not say, most important first."""
    pair, evidence = result.pair, result.certificate.evidence
    found = ["Inputs outside the box."]
    if evidence is not None:
        found.append(BEYOND_EVIDENCE[evidence.tier])
    found += [
        "How well the trained network does its task. It is what the fixed-point network is compared with, right or wrong.",
        f"Rounding in Keras. The trained network is taken {_reference(evidence)} over its stored float32 parameters.",
    ]
    if not result.float32.exact:
        found.append(f"The QKeras model evaluated in float32, which is not bit-exact here: {_float32(result)}.")
    if pair.network.head:
        found.append(f"The final {pair.network.head}, which was set aside: the claim is about what enters it.")
    if pair.rewrite:
        found.append("The rewritten network outside the box, where it is another function than the trained one.")
    found.append(
        "Sensors, compilers, synthesis tools, timing and faults of the hardware. Cost figures are estimates, not measured."
    )
    return found


def _reference(evidence: Evidence | None) -> str:
    if isinstance(evidence, Statistical) and evidence.reference == FLOAT64:
        return "as float64 evaluates it, whose own rounding is not enclosed,"
    return "in exact arithmetic"


def _float32(result: Result) -> str:
    if isinstance(result.certificate.evidence, Statistical):
        return f"it is proved to stay within {at_most(result.float32.error, DIGITS)} of the integers"
    return f"its own proved bound is {at_most(result.float32.bound, DIGITS)}"


def box_table(box: Interval, naming: Naming) -> Table:
    """The box, one row per input or per run of inputs with the same interval; summarised where that is too long."""
    rows = list(_runs(box, naming))
    if len(rows) <= MOST_ROWS:
        return table("The box", "Input:name, From:number range, To:number range", rows)
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


def moved_ends(box: Interval) -> tuple[str, str] | None:
    """An end that is a number of float32 and no short decimal one, as both; None where all ends are what they look like."""
    ends = np.concatenate([box.lower.reshape(-1), box.upper.reshape(-1)])
    return next(((short, repr(float(end))) for end in ends if (short := _short(end)) != repr(float(end))), None)


def _short(end: float) -> str:
    """The shortest decimal number that float32 rounds to an end; all digits where the end is none of float32."""
    short = repr(float(str(np.float32(end))))
    return short if float(np.float32(end)) == end else repr(float(end))


def _end(end: float) -> str:
    """An end as people know it, and exactly in brackets where that is another number."""
    short, exact = _short(end), repr(float(end))
    return exact if short == exact else f"{short} ({exact})"


def _runs(box: Interval, naming: Naming) -> Iterator[tuple[str, str, str]]:
    lower, upper = box.lower.reshape(-1), box.upper.reshape(-1)
    units = np.array(naming.input_units)
    changes = np.flatnonzero((np.diff(lower) != 0.0) | (np.diff(upper) != 0.0) | (units[1:] != units[:-1])) + 1
    if any(naming.input_units):  # what has units has names worth reading
        changes = np.arange(1, lower.size)
    starts = [0, *changes.tolist()]
    for start, end in zip(starts, [*starts[1:], lower.size], strict=True):
        several = f"{naming.inputs[start]} to {naming.inputs[end - 1]}"
        yield naming.input(start) if end == start + 1 else several, _end(lower[start]), _end(upper[start])
