"""The command `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sound_qkeras.cli.console import clear_errors, progress_bars, quiet_tensorflow, show
from sound_qkeras.cli.options import Effort, Out, Overwrite, check_place, load_pair, parse_effort, parse_eps
from sound_qkeras.support.deadline import put_in_place

Pair = Annotated[tuple[str, str], typer.Option(metavar="X Y", help="Samples and targets: FILE.npy, or FILE.npz:NAME.")]
MaybePair = Annotated[
    tuple[str, str] | None, typer.Option(metavar="X Y", help="The same, to measure on and to choose the epoch by.")
]


def finetune(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that a result was saved to.")],
    train: Pair,
    validation: MaybePair = None,
    epochs: Annotated[int, typer.Option(help="How often to go through the data.")] = 10,
    out: Out = Path("finetuned"),
    overwrite: Overwrite = False,
    eps: Annotated[
        list[str] | None,
        typer.Option(metavar="EPS", help="Keep only epochs that are proved to meet it; if not given, say what is met."),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="A loss of Keras by name; chosen by the task if not given.")] = None,
    monitor: Annotated[str, typer.Option(help="What the epoch is chosen by: loss, accuracy or mae.")] = "loss",
    optimizer: Annotated[str, typer.Option(help="An optimizer of Keras by name.")] = "adam",
    batch_size: Annotated[int, typer.Option(help="Samples in a batch.")] = 32,
    effort: Effort = "normal",
    seed: Annotated[int, typer.Option(help="Of the order of samples.")] = 0,
) -> None:
    """Train a saved result on with its formats fixed, and certify what comes out against the same float network."""
    with clear_errors(f"; '{out}' is as it was"):
        check_place(out, overwrite=overwrite)
        from sound_qkeras.jobs.finetune import finetune as run
        from sound_qkeras.results.archive import load

        result = load(directory)
        with progress_bars() as progress:
            progress("load TensorFlow", 0.0)
            with quiet_tensorflow():
                found = run(
                    result,
                    load_pair(train),
                    epochs,
                    validation=None if validation is None else load_pair(validation),
                    loss=loss,
                    monitor=monitor,
                    optimizer=optimizer,
                    batch_size=batch_size,
                    eps=None if eps is None else parse_eps(eps),
                    effort=parse_effort(effort),
                    seed=seed,
                    progress=progress,
                )
                with put_in_place():
                    written = found.save(out, overwrite=overwrite)
        show(found, written)
