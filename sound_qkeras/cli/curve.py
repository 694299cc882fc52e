"""Several tolerances in one run of `quantize`: a directory for each, one page, one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sound_qkeras.cli.console import clear_errors, print_table, quiet_tensorflow
from sound_qkeras.errors import InputError
from sound_qkeras.support.deadline import put_in_place

if TYPE_CHECKING:
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
    network: Any, eps: Sequence[Any], box: Any, places: Sequence[Path], *, overwrite: bool, **options: Any
) -> list[Result]:
    """The results in the order of `eps`, each saved in its place as soon as it is there, the tightest tolerance first."""
    from sound_qkeras.jobs.sweep import answers

    found: dict[int, Result] = {}
    with clear_errors(f"; tolerances that were done are in '{places[0].parent}'"):
        for index, result in answers(network, list(eps), box, **options):
            with put_in_place(), quiet_tensorflow():
                result.save(places[index], overwrite=overwrite)
            found[index] = result
    return [found[index] for index in range(len(eps))]


def show_curve(results: Sequence[Result], texts: Sequence[str], out: Path) -> None:
    """Write the page, about the tightest tolerance with the others beside it, and print the table."""
    from sound_qkeras.report import FILE
    from sound_qkeras.report.sweep import claimed, mean_bits

    tightest = min(results, key=lambda one: float(one.certificate.eps.sum()))
    page = tightest.report(out / FILE, sweep=[one for one in results if one is not tightest])
    rows = [
        (
            text,
            claimed(one),
            f"{one.observed_error:.4g}",
            f"{mean_bits(one):.2f}",
            f"{one.cost.weight_bits:,}",
            f"{one.cost.total_bits:,}",
            f"{one.seconds:.1f}",
            one.ended_by,
        )
        for text, one in zip(texts, results, strict=True)
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
        typer.echo(f"note: {', '.join(earlier)} there: of an earlier run, not of this curve")
    typer.echo(
        f"box: {tightest.certificate.box_source}; saved in {out.resolve()}, a directory a tolerance; page: {page}"
    )
