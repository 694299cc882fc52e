"""The command `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sound_qkeras.cli.console import clear_errors, quiet_tensorflow
from sound_qkeras.cli.options import (
    Out,
    Overwrite,
    Saved,
    check_place,
    load_pair,
    load_samples,
    parse_eps,
    takes,
    values,
)
from sound_qkeras.cli.showing import show
from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import FinetuneOptions
from sound_qkeras.support.deadline import put_in_place
from sound_qkeras.support.progress import terminal_bars

Pair = Annotated[
    tuple[str, str] | None, typer.Option(metavar="X Y", help="Samples and targets: FILE.npy, or FILE.npz:NAME.")
]
Alone = Annotated[str | None, typer.Option(metavar="X", help="Samples alone, with --teacher.")]
MaybePair = Annotated[
    tuple[str, str] | None, typer.Option(metavar="X Y", help="The same, to measure on and to choose the epoch by.")
]


@takes(FinetuneOptions)
def finetune(
    directory: Saved,
    train: Pair = None,
    data: Alone = None,
    validation: MaybePair = None,
    out: Out = Path("finetuned"),
    overwrite: Overwrite = False,
    eps: Annotated[
        list[str] | None,
        typer.Option(metavar="EPS", help="Keep only epochs that are proved to meet it; if not given, say what is met."),
    ] = None,
    **given: Any,
) -> None:
    """Train a saved result on with its formats fixed, and certify what comes out against the same float network."""
    with clear_errors(f"; '{out}' is as it was"):
        check_place(out, overwrite=overwrite)
        from sound_qkeras.jobs.finetune import finetune as run
        from sound_qkeras.results.archive import load

        options = values(given)
        teacher = FinetuneOptions(**options).teacher
        if (train is None) == (data is None) or (data is not None and not teacher):
            raise InputError("what to train on is not clear; accepted: --train X Y, or --data X with --teacher")
        result = load(directory)
        with terminal_bars() as progress:
            progress("load TensorFlow", 0.0)
            with quiet_tensorflow():
                found = run(
                    result,
                    load_samples(data) if train is None else load_pair(train),
                    validation=None if validation is None else load_pair(validation),
                    eps=None if eps is None else parse_eps(eps),
                    **options,
                    progress=progress,
                )
                with put_in_place():
                    written = found.save(out, overwrite=overwrite)
        show(found, written)
