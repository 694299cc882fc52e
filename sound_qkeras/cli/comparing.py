"""The command `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sound_qkeras.cli.console import clear_errors, quiet_tensorflow, say
from sound_qkeras.cli.options import Box, load_pair, parse_box, parse_numbers, takes, values
from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import ProofOptions

# Several tolerances may follow one --eps: those after the first arrive as arguments that belong to no option.
CONTEXT = {"allow_extra_args": True}


@takes(ProofOptions, "margin")
def compare(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A trained model of Keras 3 or tf_keras: .keras, .h5 or a SavedModel directory."
        ),
    ],
    train: Annotated[
        tuple[str, str],
        typer.Option(metavar="X Y", help="Samples and classes, or numbers wanted: FILE.npy, or FILE.npz:NAME."),
    ],
    eps: Annotated[
        list[str],
        typer.Option(metavar="EPS...", help="Tolerances in units of the outputs, before a softmax or sigmoid."),
    ],
    preset: Annotated[
        str,
        typer.Option(
            metavar="quick|full",
            help="quick: a first look, about five minutes for a small network. full: 50 trials of each search.",
        ),
    ] = "full",
    validation: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="X Y", help="The same, to choose epochs and trials by, not trained on."),
    ] = None,
    test: Annotated[
        tuple[str, str] | None, typer.Option(metavar="X Y", help="The same, of samples the model was not trained on.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New, or a comparison to go on with.")] = Path("study"),
    box: Box = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="With commas, of ours, uniform, rule, rounding, straight_through, hgq2, autoqkeras; all if not given.",
        ),
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Of AutoQKeras' searches, with commas: random, bayesian, hyperband."),
    ] = None,
    spaces: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Of AutoQKeras, with commas: shipped (its own), fair (plain fixed-point formats)."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Of each AutoQKeras search.")] = None,
    search_epochs: Annotated[int | None, typer.Option(help="Of a trial.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="For AutoQKeras' best trials again, and to fine-tune ours.")
    ] = None,
    retrained: Annotated[int | None, typer.Option(help="How many of the best trials are trained again.")] = None,
    bits: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Word lengths of the uniform formats, 2 to 16, with commas."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="accuracy|mse|mae", help="accuracy of a classifier, if not given; mse or mae of a regression."
        ),
    ] = None,
    costs: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="That ours minimises, with commas: weight_bits, total_bits, bit_operations."),
    ] = None,
    our_tiers: Annotated[
        str | None, typer.Option(metavar="LIST", help="In which ours chooses, with commas: sound, statistical.")
    ] = None,
    sparsities: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Shares of zeros that ours is pruned to as well, with commas, 0.6,0.8."),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            metavar="sound|statistical",
            help="Of the bounds: sound, proved for the whole box; statistical, counted on samples, for deep networks.",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help="Of the search for our formats, and of proofs: fast, normal, max, or seconds."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything.")] = None,
    hgq_python: Annotated[
        str | None,
        typer.Option(metavar="PYTHON", help="Of another environment, which has HGQ2: adds its rows."),
    ] = None,
    **given: Any,
) -> None:
    """Set AutoQKeras, uniform formats and other ways to choose formats beside ours. Killed, the same call goes on.

    Options that are not given are as the preset says.
    """
    with clear_errors(f"; the same call goes on with what is in '{out}'"):
        tolerances = [number for text in (*eps, *context.args) for number in parse_numbers(text, "--eps")]
        if not model.exists():
            raise InputError(f"'{model}' does not exist; accepted: a model saved as .keras, .h5 or SavedModel")
        numbers = {"trials": trials, "search_epochs": search_epochs, "epochs": epochs, "retrained": retrained}
        numbers |= {"tier": tier, "metric": metric, "seed": seed, "hgq_python": hgq_python}
        settings: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
        lists = {"methods": methods, "modes": modes, "spaces": spaces, "costs": costs, "our_tiers": our_tiers}
        settings |= {name: tuple(text.split(",")) for name, text in lists.items() if text is not None}
        if bits is not None:
            settings["bits"] = tuple(int(number) for number in parse_numbers(bits, "--bits"))
        if sparsities is not None:
            settings["sparsities"] = tuple(parse_numbers(sparsities, "--sparsities"))
        if effort is not None:
            settings |= values({"effort": effort})
        from sound_qkeras.study import compare as run
        from sound_qkeras.study.plan import Plan

        Plan.of(preset, tolerances, settings)
        pairs = {"train": train, "validation": validation, "test": test}
        samples = {name: None if pair is None else load_pair(pair) for name, pair in pairs.items()}
        region = None if box is None else parse_box(box, None)[0]
        with quiet_tensorflow():
            study = run(
                model,
                eps=tolerances,
                **samples,
                out=out,
                preset=preset,
                box=region,
                margin=given["margin"],
                progress=say,
                **settings,
            )
        for name, reason in study.failures.items():
            say(f"without a row: {name}: {reason}", indent="  ")
        for line in study.both_ways:
            say(line, indent="  ")
        metric = study.settings.get("metric", "accuracy")
        say(f"{len(study.rows)} rows; the {metric} of the float network is {abs(study.float_metric):.4g}", indent="  ")
        say(f"table, page and drawings (accuracy.png, bound.png, time.png) are in {study.directory}", indent="  ")
