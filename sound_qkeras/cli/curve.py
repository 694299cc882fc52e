"""Several tolerances in one run of `quantize`: a directory for each, one page, one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sound_qkeras.cli.console import quiet_tensorflow, say
from sound_qkeras.cli.showing import note, print_table
from sound_qkeras.errors import InputError
from sound_qkeras.support.deadline import put_in_place
from sound_qkeras.support.progress import Progress

if TYPE_CHECKING:
    from sound_qkeras.results.curve import Curve
    from sound_qkeras.results.result import Result


def check_page(out: Path) -> None:
    """Find out before the work whether the page of a curve can be written.

    Raises:
        InputError: it cannot.
    """
    from sound_qkeras.report import FILE
    from sound_qkeras.report.page import MARK
    from sound_qkeras.support.files import RESULT, check_writable_file
    from sound_qkeras.support.manifest import kind_of

    if kind_of(out) == RESULT:
        raise InputError(f"'{out}' holds a result; choose another directory for several tolerances")
    check_writable_file(out / FILE, MARK)


def save_curve(
    network: Any,
    eps: Sequence[Any],
    box: Any,
    places: Sequence[Path],
    files: Any,
    *,
    overwrite: bool,
    progress: Progress,
    **options: Any,
) -> Curve:
    """The results in the order of `eps`, each saved in its place as soon as it is there, the tightest tolerance first."""
    from sound_qkeras.jobs.sweep import answers
    from sound_qkeras.results.curve import Curve
    from sound_qkeras.results.origin import of_files

    found: dict[int, Result] = {}
    for index, result in answers(network, list(eps), box, report=progress, **options):
        found[index] = of_files(result, files)
        with put_in_place(), quiet_tensorflow():
            found[index].save(places[index], overwrite=overwrite)
    return Curve(found[index] for index in range(len(eps)))


def show_curve(results: Curve, texts: Sequence[str], out: Path) -> None:
    """Write the page, about the tightest tolerance with the others beside it, and print the table."""
    from sound_qkeras.report import FILE
    from sound_qkeras.report.sweep import row_of

    page = results.report(out / FILE)
    rows = [
        (text, *row_of(one)[1:], f"{one.seconds:.1f}", one.ended_by) for text, one in zip(texts, results, strict=True)
    ]
    columns = (
        "\neps",
        "\nclaimed",
        "worst\nfound",
        "bits a\nweight",
        "weight\nbits",
        "total\nbits",
        "\nseconds",
        "ended\nby",
    )
    print_table(columns, rows, left=1)
    earlier = sorted({path.name for path in out.glob("eps_*")} - {f"eps_{text}" for text in texts})
    if earlier:
        note(f"{', '.join(earlier)} there: of an earlier run, not of this curve")
    say(f"box: {results[0].certificate.box_source}; saved in {out}, a directory a tolerance; page: {page}")
