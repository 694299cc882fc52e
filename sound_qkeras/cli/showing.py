"""What is printed of a result: the verdict first, then the numbers, then what can be done next."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sound_qkeras.cli.console import say
from sound_qkeras.errors import SoundQKerasError
from sound_qkeras.support.deadline import INTERRUPT, SEARCH, TIME, WORK

if TYPE_CHECKING:
    from sound_qkeras.results.accuracy import Accuracy
    from sound_qkeras.results.result import Result

# Columns of a table that is not written to a terminal.
PLAIN_WIDTH = 140
# More formats than this are summed up by kind; more outputs are not listed.
MOST_FORMATS, MOST_OUTPUTS = 48, 12

# What to say where more than the search itself decided when it ended.
ENDED = {
    WORK: "the search used up its budget of work: a larger --effort gives it more",
    TIME: "the search used up its time budget: another run may find other formats; --effort gives it more time",
    INTERRUPT: "the search was interrupted: these are the best formats that were proved until then",
}


def show(result: Result, directory: Path) -> None:
    """The verdict, the outputs where there are some, the formats, and notes."""
    from sound_qkeras.results.archive import REPORT_FILE
    from sound_qkeras.support.reading import read_json
    from sound_qkeras.verify.evidence import Statistical

    show_verdict(result)
    if result.accuracy is not None:
        _show_tried(result.accuracy)
    _show_formats(result, directory)
    if result.ended_by != SEARCH:
        note(ENDED[result.ended_by])
    for one in result.pair.network.notes:
        note(one)
    missing = read_json(directory / REPORT_FILE).get("no_qkeras_model_because")
    if missing:
        note(f"no QKeras model was saved: {' '.join(str(missing).split())}")
    evidence = result.certificate.evidence
    if isinstance(evidence, Statistical) and evidence.probability >= 1.0:
        note("every held-out sample exceeds eps, so nothing is claimed about the error; give a larger --eps")
    say(f"saved in {directory}")


def show_verdict(result: Result) -> None:
    """What is claimed, of several outputs about each, and what else there is to say: a line each."""
    certificate, (first, *others) = result.certificate, result.lines
    say(first)
    if certificate.claims_distance and 1 < certificate.eps.size <= MOST_OUTPUTS and certificate.evidence is None:
        _show_outputs(result)
    for line in others:
        say(line, indent="  ")


def note(text: str) -> None:
    """Something that a user should know."""
    say(f"note: {text}", indent="  ")


@contextmanager
def suppress_as_note() -> Iterator[None]:
    """For what is worth having beside what was asked for: where it cannot be had, a note says why."""
    try:
        yield
    except SoundQKerasError as error:
        note(str(error))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> None:
    """Print a table; all columns but the first so many are numbers, to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for number, column in enumerate(columns):
        name = number < left
        table.add_column(column, justify="left" if name else "right", overflow="fold", no_wrap=not name)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False, highlight=False).print(table)


def _show_outputs(result: Result) -> None:
    from sound_qkeras.results.verdict import DIGITS
    from sound_qkeras.support.decimals import rounded_up, tolerance

    certificate = result.certificate
    names = certificate.labels.output_names(result.pair.network)
    rows = [
        (name, rounded_up(float(bound), float(eps), DIGITS), tolerance(float(eps)))
        for name, bound, eps in zip(names, certificate.output_bounds, certificate.eps, strict=True)
    ]
    print_table(("output", "error at most", "eps"), rows, left=1)


def _show_tried(accuracy: Accuracy) -> None:
    """What was tried for an accuracy, the tightest tolerance first."""
    rows = [
        (f"{step.eps:.3g}", f"{step.weight_bits:,}", f"{step.total_bits:,}", f"{100.0 * step.lost:.2f}")
        for step in sorted(accuracy.tried, key=lambda step: step.eps)
    ]
    print_table(("eps", "weight bits", "total bits", "points lost"), rows, left=1)


def _show_formats(result: Result, directory: Path) -> None:
    if len(result.formats) > MOST_FORMATS:
        from sound_qkeras.results.archive import REPORT_FILE

        say(f"{len(result.formats)} formats, one per tensor: in {directory / REPORT_FILE}, and drawn in the report")
        return
    from sound_qkeras.support.decimals import at_least, at_most

    rows = list[tuple[str, ...]]()
    for row in result.formats:
        ends = (at_least(row.lower, 4), at_most(row.upper, 4))
        cut = row.kind == "activation" and row.node in result.pair.saturating
        kind, signed = f"{row.kind}, saturates" if cut else row.kind, "yes" if row.signed else "no"
        rows.append((row.node, kind, str(row.word_length), str(row.integer_bits), signed, *ends))
    columns = ("\nlayer", "\nkind", "word\nlength", "integer\nbits", "\nsigned", "\nfrom", "\nto")
    print_table(columns, rows, left=2)
