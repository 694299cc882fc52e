"""What is printed of a result is never better than what it says."""

from fractions import Fraction
from pathlib import Path

from sound_qkeras.cli import showing
from tests.results import random_result


def test_ranges_of_formats_are_printed_outward(monkeypatch):
    tables = []
    monkeypatch.setattr(showing, "print_table", lambda _, rows, **__: tables.append(list(rows)))
    result = random_result(0)
    showing._show_formats(result, Path("out"))
    (rows,) = tables
    assert len(rows) == len(result.formats) > 0
    for shown, row in zip(rows, result.formats, strict=True):
        assert Fraction(shown[-2]) <= Fraction(row.lower)
        assert Fraction(row.upper) <= Fraction(shown[-1])
