"""The command `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sound_qkeras.cli.console import clear_errors, quiet_tensorflow
from sound_qkeras.cli.options import Box, load_pair, parse_box, parse_numbers, takes, values
from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import ProofOptions

# Several tolerances may follow one --eps: those after the first arrive as arguments that belong to no option.
CONTEXT = {"allow_extra_args": True}


@takes(ProofOptions, "effort", "margin")
def compare(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A trained tf_keras model: .h5, .keras or a SavedModel directory."),
    ],
    train: Annotated[
        tuple[str, str],
        typer.Option(metavar="X Y", help="Samples and classes, or numbers wanted: FILE.npy, or FILE.npz:NAME."),
    ],
    eps: Annotated[
        list[str],
        typer.Option(metavar="EPS...", help="Tolerances in units of the outputs, before a softmax or sigmoid."),
    ],
    validation: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="X Y", help="The same, to choose epochs and trials by, not trained on."),
    ] = None,
    test: Annotated[
        tuple[str, str] | None, typer.Option(metavar="X Y", help="The same, of samples the model was not trained on.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New, or a comparison to go on with.")] = Path("study"),
    box: Box = None,
    trials: Annotated[int, typer.Option(help="Of each AutoQKeras search.")] = 50,
    search_epochs: Annotated[int, typer.Option(help="Of a trial.")] = 10,
    epochs: Annotated[int, typer.Option(help="For AutoQKeras' best trials again, and to fine-tune ours.")] = 30,
    retrained: Annotated[int, typer.Option(help="How many of the best trials are trained again.")] = 3,
    methods: Annotated[str | None, typer.Option(metavar="LIST", help="With commas; all if not given.")] = None,
    modes: Annotated[str | None, typer.Option(metavar="LIST", help="Of keras-tuner, with commas.")] = None,
    spaces: Annotated[str | None, typer.Option(metavar="LIST", help="shipped, fair, or both with a comma.")] = None,
    metric: Annotated[str, typer.Option(help="accuracy of a classifier; mse or mae of a regression.")] = "accuracy",
    costs: Annotated[str | None, typer.Option(metavar="LIST", help="That ours minimises, with commas.")] = None,
    our_tiers: Annotated[str | None, typer.Option(metavar="LIST", help="In which ours chooses, with commas.")] = None,
    tier: Annotated[str, typer.Option(help="Of the bounds: sound, or statistical for deep networks.")] = "sound",
    seed: Annotated[int, typer.Option(help="Of everything.")] = 1,
    **given: Any,
) -> None:
    """Set AutoQKeras, uniform formats and other ways to choose formats beside ours. Killed, the same call goes on."""
    with clear_errors(f"; the same call goes on with what is in '{out}'"):
        tolerances = [number for text in (*eps, *context.args) for number in parse_numbers(text, "--eps")]
        if not model.exists():
            raise InputError(f"'{model}' does not exist; accepted: a tf_keras model saved as .h5, .keras or SavedModel")
        settings: dict[str, Any] = {"trials": trials, "search_epochs": search_epochs, "epochs": epochs, "seed": seed}
        settings |= {"retrained": retrained, "tier": tier, "metric": metric}
        lists = {"methods": methods, "modes": modes, "spaces": spaces, "costs": costs, "our_tiers": our_tiers}
        settings |= {name: tuple(text.split(",")) for name, text in lists.items() if text is not None}
        settings["effort"] = values(given)["effort"]
        from sound_qkeras.study import compare as run
        from sound_qkeras.study.plan import Plan

        Plan(eps=tuple(tolerances), **settings)
        pairs = {"train": train, "validation": validation, "test": test}
        samples = {name: None if pair is None else load_pair(pair) for name, pair in pairs.items()}
        region = None if box is None else parse_box(box, None)[0]
        with quiet_tensorflow():
            study = run(
                model,
                eps=tolerances,
                **samples,
                out=out,
                box=region,
                margin=given["margin"],
                progress=typer.echo,
                **settings,
            )
        for name, reason in study.failures.items():
            typer.echo(f"without a row: {name}: {reason}")
        typer.echo(
            f"{len(study.rows)} rows; the metric of the float network is {study.float_metric:.4g}; in {study.directory}"
        )
