"""What a notebook shows of a result, or of several: the claim, and its numbers, as a piece of html."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sound_qkeras.report.formats import NAIVE
from sound_qkeras.report.page import environment
from sound_qkeras.report.sweep import row_of
from sound_qkeras.results.result import Result

# Formats that are shown; the report has all of them.
MOST_ROWS = 24


def card(result: Result) -> str:
    """The verdict, the details, and a bar for every format; nothing is proved again for it."""
    rows = [row for row in result.formats if row.kind != "accumulator"]
    longest = max([NAIVE, *(row.word_length for row in rows)])
    bars = [
        {
            "name": row.node,
            "kind": row.kind,
            "bits": row.word_length,
            "whole": 100.0 * row.whole_bits / longest,
            "all": 100.0 * row.word_length / longest,
        }
        for row in rows[:MOST_ROWS]
    ]
    verdict, *details = result.lines
    return _render(verdict=verdict, details=details, bars=bars, more=len(rows) - len(bars), table=None)


def curve_card(results: Sequence[Result]) -> str:
    """A row for every tolerance."""
    columns = ("eps", "claimed", "worst error found", "bits a weight", "weight bits", "total bits")
    rows = [row_of(one) for one in results]
    return _render(verdict="", details=[], bars=[], more=0, table={"columns": columns, "rows": rows})


def _render(**content: Any) -> str:
    return environment().get_template("card.html.j2").render(**content)
