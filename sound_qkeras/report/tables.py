"""What a page is made of: tables whose cells are texts and bars. How they look is the templates' business."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """Part of a bar, from `start` to `end` as shares of its scale.

    `style` is "outer", "inner", "core" (as inner, but thin, to lie in an outer one), "beyond", "frame" or "allowed" (a full one).
    """

    start: float
    end: float
    style: str


@dataclass(frozen=True)
class Mark:
    """A line across a bar at a share of its scale; `style` is "dashed" or "line"."""

    at: float
    style: str


@dataclass(frozen=True)
class Bar:
    """A picture of numbers that stand in the same row, so it needs no text of its own."""

    segments: tuple[Segment, ...]
    marks: tuple[Mark, ...] = ()


Cell = str | Bar
FRAME = Segment(0.0, 1.0, "frame")


def filled(part: float, scale: float = 1.0) -> Bar:
    """A bar filled to `part` of its frame; what exceeds the frame stands out. The drawing ends at `scale` frames."""
    segments = [Segment(0.0, min(max(part, 0.0), 1.0) / scale, "inner")]
    if part > 1.0:
        segments.append(Segment(1.0 / scale, min(part, scale) / scale, "beyond"))
    return Bar((*segments, Segment(0.0, 1.0 / scale, "frame")))


@dataclass(frozen=True)
class Column:
    """A heading, and what stands below it: "text", "name", "number", "code" or "bar"."""

    label: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it.

    Args:
        caption: one line, read out before the table.
        columns: headings.
        rows: cells, as many as there are columns.
        total: whether the last row sums up the others.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: bool = False


def table(caption: str, columns: str, rows: Iterable[Iterable[Cell]], *, total: bool = False) -> Table:
    """A table whose columns are written as `"Layer:name, Bits:number, Format:code, :bar"`; plain headings head texts."""
    headings = (heading.strip().partition(":") for heading in columns.split(","))
    found = tuple(Column(label, kind or "text") for label, _, kind in headings)
    return Table(caption, found, tuple(map(tuple, rows)), total)


def share(part: float, whole: float) -> float:
    """`part` as a share of `whole`, kept between 0 and 1 for drawing."""
    return min(1.0, max(0.0, part / whole)) if whole > 0.0 else 0.0


def count(value: int) -> str:
    """A whole number with separators."""
    return f"{value:,}"


def slug(caption: str) -> str:
    """A caption as the name of an element."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in caption.lower())


def percent(part: float, whole: float) -> str:
    """A share in words of three digits; a dash where there is no whole."""
    return f"{100.0 * part / whole:.3g}%" if whole > 0.0 else "\N{EN DASH}"


def shape(dimensions: tuple[int, ...]) -> str:
    """Dimensions with the sign of multiplication between them."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, dimensions)) or "1"
