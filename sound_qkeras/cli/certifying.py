"""The command `certify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sound_qkeras.cli.console import INFEASIBLE, clear_errors, quiet_tensorflow, say
from sound_qkeras.cli.options import (
    Box,
    Data,
    Overwrite,
    Weights,
    check_numbers,
    check_place,
    parse_box,
    parse_eps,
    takes,
    values,
    with_weights,
)
from sound_qkeras.cli.showing import note, show_verdict
from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import CertifyOptions
from sound_qkeras.support.progress import terminal_bars


@takes(CertifyOptions)
def certify(
    model: Annotated[
        Path, typer.Argument(metavar="QMODEL", help="A QKeras 0.9.0 model: .h5, .keras or a SavedModel directory.")
    ],
    reference: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Its float reference; or latent: itself with nothing rounded."),
    ] = None,
    weights: Weights = None,
    reference_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the float reference is a .json: its weights.")
    ] = None,
    box: Box = None,
    data: Data = None,
    eps: Annotated[list[str] | None, typer.Option(metavar="EPS", help="A tolerance to compare with.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to save the result, to be verified and exported.")
    ] = None,
    overwrite: Overwrite = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Where to write the report.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Where to write all numbers as json.")
    ] = None,
    **given: Any,
) -> None:
    """Prove how far a QKeras model may be from its float reference, which quantizers may saturate, and what float32 adds."""
    with clear_errors():
        tolerance = None if eps is None else parse_eps(eps)
        if isinstance(tolerance, str):
            raise InputError("--eps auto is for quantize; accepted here: numbers")
        region, source = parse_box(box, data)
        check_numbers(1.0 if tolerance is None else tolerance, region, given["margin"])
        for path in (model, reference):
            if path not in (None, "latent") and not Path(path).exists():
                raise InputError(f"'{path}' does not exist; accepted: a model saved as .h5, .keras or SavedModel")
        if out is not None:
            check_place(out, overwrite=overwrite)
        saved, other = with_weights(model, weights), reference
        if reference not in (None, "latent") and reference_weights is not None:
            other = with_weights(Path(reference), reference_weights)
        from sound_qkeras.jobs.certify import certify as prove
        from sound_qkeras.support.plain import write_json

        options = values(given)
        CertifyOptions(**options)
        with terminal_bars() as progress, quiet_tensorflow():
            found = prove(saved, other, box=region, eps=tolerance, **options, box_source=source, progress=progress)
        if json_file is not None:
            write_json(json_file, found.to_json())
        show_verdict(found)
        for one in found.certificate.notes:
            note(one)
        if out is not None:
            say(f"saved in {found.save(out, overwrite=overwrite)}")
        if report_file is not None:
            found.report(report_file)
    if (
        found.model is not None
        and found.model.met is not None
        and found.certificate.tier == "sound"
        and found.model.met < 1.0
    ):
        raise typer.Exit(INFEASIBLE)
