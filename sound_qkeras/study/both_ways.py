"""Ours and AutoQKeras, both ways round: what one needs for what the other reached. Everything is read from the rows."""

from __future__ import annotations

from collections.abc import Sequence

from sound_qkeras.baselines import Row
from sound_qkeras.support.decimals import at_most, tolerance

OURS, THEIRS = "ours", "AutoQKeras"
# In names of rows of ours that may have other weights than fixed point, and of searches that may not.
ALL_FAMILIES, FIXED_ONLY = "all families", "fair space"


def bits_of(row: Row) -> int:
    """Bits as AutoQKeras' own code counts them for the candidate's QKeras model, where there is one; else by our count.

    That is more than the candidate needs elsewhere, where it has formats with negative integer bits, which QKeras has not.
    """
    return row.total_bits if row.autoqkeras_bits is None else row.autoqkeras_bits


def seconds_of(row: Row) -> float:
    """Of search and training."""
    return row.search_seconds + row.training_seconds


def best(rows: Sequence[Row]) -> Row | None:
    """The row with the highest metric; of equal ones that with the fewest bits."""
    return max(_measured(rows), key=lambda row: (row.metric, -bits_of(row)), default=None)


def cheapest(rows: Sequence[Row], metric: float) -> Row | None:
    """The row with the fewest bits whose metric is at least so high; of equal ones the quickest."""
    enough = [row for row in _measured(rows) if row.metric is not None and row.metric >= metric]
    return min(enough, key=lambda row: (bits_of(row), seconds_of(row)), default=None)


def quickest(rows: Sequence[Row], other: Row) -> Row | None:
    """The row that was known first of those at least as good as another one, in metric and bits."""
    enough = [row for row in _measured(rows) if bits_of(row) <= bits_of(other) and _at_least(row, other)]
    return min(enough, key=seconds_of, default=None)


def both_ways(rows: Sequence[Row]) -> tuple[str, ...]:
    """Sentences for every search of AutoQKeras; none where either side has no rows.

    A search that may choose fixed point alone is compared with rows of ours that may not choose more.
    """
    ours = [row for row in rows if row.name.startswith(OURS)]
    searches: dict[str, list[Row]] = {}
    for row in rows:
        if row.name.startswith(THEIRS):
            searches.setdefault(row.name.rsplit(", ", 1)[0], []).append(row)
    return tuple(line for name, theirs in searches.items() for line in _compared(name, _alike(name, ours), theirs))


def _alike(search: str, ours: Sequence[Row]) -> list[Row]:
    """Rows of ours that choose among the same numbers as a search, or fewer."""
    return [row for row in ours if FIXED_ONLY not in search or ALL_FAMILIES not in row.name]


def _compared(name: str, ours: Sequence[Row], theirs: Sequence[Row]) -> list[str]:
    winner, leader = best(theirs), best(ours)
    if winner is None or leader is None or winner.metric is None or leader.metric is None:
        return []
    match, answer, first = cheapest(ours, winner.metric), cheapest(theirs, leader.metric), quickest(ours, winner)
    lines = [f"{name}: the best of its retrained trials has {_described(winner)}."]
    if match is None:
        lines.append(f"{name}: ours does not reach that metric.")
    else:
        share = bits_of(match) / bits_of(winner)
        lines.append(f"{name}: at that metric ours needs {share:.2f} of its bits: {_described(match)}.")
    if first is None:
        lines.append(f"{name}: none of ours is as good in both metric and bits.")
    else:
        ratio = winner.search_seconds / max(seconds_of(first), 1e-9)
        lines.append(
            f"{name}: the first of ours that is as good in both took 1/{ratio:.1f} of its search: {_described(first)}."
        )
    reached = "it does not reach that metric" if answer is None else f"it needs {_described(answer)}"
    lines.append(f"{name}: the other way round, our best has {_described(leader)}; {reached}.")
    return lines


def _described(row: Row) -> str:
    seconds = f"{row.search_seconds:.1f} s of search and {row.training_seconds:.1f} s of training"
    bits = f"{bits_of(row):,} bits" + (
        "" if bits_of(row) == row.total_bits else f" ({row.total_bits:,} without QKeras)"
    )
    return f"metric {row.metric:.4g} with {bits} after {seconds}, {claimed(row)} ('{row.name}')"


def claimed(row: Row) -> str:
    """What is proved or counted about a row's error; what is only counted is never called proved."""
    if row.bound is None:
        return "no proved bound"
    if row.proved:
        found = "" if row.observed_error is None else f", worst error found {row.observed_error:.3g}"
        return f"proved bound {tolerance(row.bound, 3)} ({row.tier}){found}"
    exceeded = "" if row.probability is None else f", exceeded with probability at most {at_most(row.probability, 3)}"
    return f"no proved bound; counted: largest error on samples {tolerance(row.bound, 3)}{exceeded}"


def _measured(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.metric is not None]


def _at_least(row: Row, other: Row) -> bool:
    return row.metric is not None and other.metric is not None and row.metric >= other.metric
