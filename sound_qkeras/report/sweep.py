"""What other tolerances cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.report.claim import DIGITS
from sound_qkeras.report.tables import Table, count, table
from sound_qkeras.results.result import Result
from sound_qkeras.support.decimals import at_least, at_most, percent_at_most, tolerance
from sound_qkeras.verify.evidence import Statistical


@dataclass(frozen=True)
class Point:
    """One tolerance: its bound, its bits, and where it is drawn (`x` to the right, `y` down)."""

    eps: float
    bits: float
    x: float
    y: float


@dataclass(frozen=True)
class Sweep:
    """Bits against eps: a table, points to draw from the finest tolerance to the coarsest, and ticks `(place, text)`."""

    table: Table
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def sweep_of(result: Result, others: Iterable[Result]) -> Sweep | None:
    """What other tolerances cost; None without other results.

    Raises:
        InputError: a result is of another trained network or another box.
    """
    found = list(others)
    for other in found:
        _check_comparable(result, other)
    if not found:
        return None
    ordered = sorted([result, *found], key=lambda one: float(one.certificate.eps.max()))
    claim = "Share that may exceed it" if isinstance(result.certificate.evidence, Statistical) else "Proved bound"
    columns = f"eps:name, {claim}:number, Worst error found:number, Bits per weight:number, Weight bits:number, Total bits:number"
    return Sweep(table("Bits against eps", columns, [row_of(one) for one in ordered]), *_drawing(ordered))


def row_of(result: Result) -> tuple[str, ...]:
    """A tolerance, what is claimed, the worst error found, bits per weight, weight bits, and total bits."""
    return (
        tolerance(float(result.certificate.eps.max())),
        claimed(result),
        at_least(result.observed_error, DIGITS),
        f"{mean_bits(result):.2f}",
        count(result.cost.weight_bits),
        count(result.cost.total_bits),
    )


def claimed(result: Result) -> str:
    """The proved bound; where none is, the limit of the share of inputs beyond the tolerance."""
    evidence = result.certificate.evidence
    if isinstance(evidence, Statistical):
        return percent_at_most(evidence.probability, DIGITS)
    return at_most(result.certificate.bound, DIGITS)


def mean_bits(result: Result) -> float:
    """Weight bits over the number of weights of the trained network: weights that were dropped cost nothing."""
    return result.cost.weight_bits / sum(op.kernel.size for _, op in result.pair.reference.owners())


def _check_comparable(result: Result, other: Result) -> None:
    mine, theirs = result.certificate, other.certificate
    if mine.weight_hash != theirs.weight_hash:
        raise InputError("the sweep holds a result of another trained network; give results of the same one")
    if not (np.array_equal(mine.box.lower, theirs.box.lower) and np.array_equal(mine.box.upper, theirs.box.upper)):
        raise InputError("the sweep holds a result for another box; give results for the same one")
    if mine.tier != theirs.tier:
        raise InputError(
            f"the sweep holds a result of tier '{theirs.tier}', not '{mine.tier}': their bounds mean other things"
        )


def _drawing(
    ordered: Sequence[Result],
) -> tuple[tuple[Point, ...], tuple[tuple[float, str], ...], tuple[tuple[float, str], ...]]:
    """Points and ticks as shares of the drawing: eps on a logarithmic axis, bits per weight from zero."""
    eps = np.array([float(one.certificate.eps.max()) for one in ordered])
    bits = np.array([mean_bits(one) for one in ordered])
    first, last = int(np.floor(np.log10(eps.min()))), int(np.ceil(np.log10(eps.max())))
    last = max(last, first + 1)
    top = 4 * int(np.ceil(max(float(bits.max()), 1.0) / 4))
    x, y = (np.log10(eps) - first) / (last - first), 1.0 - bits / top
    points = tuple(Point(*map(float, values)) for values in zip(eps, bits, x, y, strict=True))
    step = max(1, (last - first) // 6)
    x_ticks = tuple(((power - first) / (last - first), f"1e{power}") for power in range(first, last + 1, step))
    y_ticks = tuple((1.0 - share, f"{top * share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
    return points, x_ticks, y_ticks
