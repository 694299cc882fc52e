"""The commands, each a function; those that need numpy or more import it when they are called."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from sound_qkeras import __version__
from sound_qkeras.cli.certifying import certify
from sound_qkeras.cli.comparing import CONTEXT, compare
from sound_qkeras.cli.console import (
    INTERRUPTED,
    OK,
    SIGNALLED,
    clear_errors,
    quiet_tensorflow,
    say,
)
from sound_qkeras.cli.curve import check_page, save_curve, show_curve
from sound_qkeras.cli.doctor import doctor
from sound_qkeras.cli.finetuning import finetune
from sound_qkeras.cli.next_steps import Asked, show_next, ways_out
from sound_qkeras.cli.options import (
    Box,
    Data,
    Eps,
    Out,
    Overwrite,
    Saved,
    Weights,
    check_numbers,
    check_place,
    curve_of,
    parse_box,
    parse_eps,
    takes,
    values,
    with_weights,
)
from sound_qkeras.cli.showing import note, show, suppress_as_note
from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.jobs.options import Options, ProofOptions, QuantizeOptions
from sound_qkeras.support.deadline import INTERRUPT, handling_signals, put_in_place
from sound_qkeras.support.progress import terminal_bars

app = typer.Typer(
    help="Fixed-point QKeras models with a proved error bound for every input in a box.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 bad input, 3 infeasible, 130 interrupted (128 and the signal's number).",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code; see the table of `sound_qkeras.cli`.
    """
    with handling_signals(for_good=arguments is None) as signals:
        try:
            with clear_errors():
                code = _command()(
                    args=None if arguments is None else list(arguments), prog_name="sound-qkeras", standalone_mode=False
                )
        except typer.Exit as done:
            code = done.exit_code
        code = code if isinstance(code, int) else OK
        signals.done = True
        if signals.received is None or code not in (OK, INTERRUPTED):
            return code
        if code == OK:
            typer.echo("interrupted; all that was asked for is done", err=True)
        return SIGNALLED + signals.received


@cache
def _command() -> Any:
    """What `app` says, put together once for all calls of `main`."""
    return get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sound-qkeras {__version__}")
        raise typer.Exit(OK)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Fixed-point QKeras models with a proved error bound for every input in a box."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(context_settings=CONTEXT, short_help="Fewest bits within a tolerance that is proved.")
@takes(QuantizeOptions)
def quantize(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model of Keras 3 or tf_keras: .h5, .keras or a SavedModel.")
    ],
    eps: Eps = None,
    weights: Weights = None,
    box: Box = None,
    data: Data = None,
    out: Out = Path("out"),
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Quantise a trained model within a tolerance that is proved for every input in a box."""
    if not eps and given["max_drop"] is None:
        raise typer.BadParameter("give --eps, or --max-drop with --samples and --labels", ctx=context)
    eps = eps or []
    with clear_errors():
        model, curve = curve_of(model, eps, context.args)
    kept = f"tolerances that were done are in '{out}'" if curve else f"'{out}' is as it was"
    asked = Asked(model, weights, curve or eps, box, data, out, overwrite, bool(curve), given)
    with clear_errors(f"; {kept}"), ways_out(asked):
        tolerances = [parse_eps([text]) for text in curve] or [parse_eps(eps) if eps else None]
        region, source = parse_box(box, data)
        for tolerance in tolerances:
            check_numbers(tolerance, region, given["margin"])
        if not model.exists():
            raise InputError(f"'{model}' does not exist; accepted: a saved model of Keras 3 or tf_keras")
        saved = with_weights(model, weights)
        places = [out / f"eps_{text}" for text in curve] or [out]
        for place in places:
            check_place(place, overwrite=overwrite)
        if curve:
            check_page(out)
        from sound_qkeras.jobs import job
        from sound_qkeras.jobs import quantize as pipeline
        from sound_qkeras.results.curve import Curve
        from sound_qkeras.results.origin import of_files, source_files

        options, files = values(given), source_files("model", saved)
        QuantizeOptions(**options).check_goal(curve or tolerances[0])
        with terminal_bars() as progress:
            progress("read", 0.0)
            with quiet_tensorflow():
                network = job.read(saved, region, given["margin"])
            options |= {"box_source": source, "progress": progress}
            if curve:
                found = save_curve(network, tolerances, region, places, files, overwrite=overwrite, **options)
            else:
                found = Curve([of_files(pipeline.quantize(network, tolerances[0], region, **options), files)])
                progress("save", 0.0)
                with put_in_place(), quiet_tensorflow():
                    found[0].save(out, overwrite=overwrite)
        if curve:
            show_curve(found, curve, out)
        else:
            show(found[0], out)
            show_next(found[0], out, asked)
        if any(result.ended_by == INTERRUPT for result in found):
            raise typer.Exit(INTERRUPTED)


app.command(short_help="How far a given QKeras model may be from its reference.")(certify)
app.command(short_help="Train a saved result on, its formats fixed.")(finetune)
app.command(short_help="What is installed, and what is missing for what.")(doctor)
app.command(context_settings=CONTEXT, short_help="Beside AutoQKeras and others.")(compare)


@app.command(short_help="A controller from training to C++, in a minute.")
def demo(out: Out = Path("out")) -> None:
    """Train a controller for a pendulum, quantise it within 0.001 of its torque, and close the loop with both."""
    with clear_errors(f"; '{out}' is as it was"):
        check_place(out)
        with terminal_bars() as progress:
            progress("load TensorFlow", 0.0)
            with quiet_tensorflow():
                from sound_qkeras.cli.demo import run

                outcome = run(out, progress)
        show(outcome.result, out)
        say(f"C++ with a test bench is in {out / 'hls'}: make -C {out / 'hls' / 'build'} check")
        for line in outcome.summary().splitlines():
            say(line)
        show_next(outcome.result, out)


@app.command(short_help="Prove a saved result again, from its files alone.")
@takes(ProofOptions, "exact", "n_jobs")
def verify(
    directory: Saved,
    **given: Any,
) -> None:
    """Prove a saved certificate again, from the files alone and without TensorFlow. Exit code 1 if it does not hold."""
    with clear_errors():
        from threadpoolctl import threadpool_limits

        from sound_qkeras.exact.check import prove_again
        from sound_qkeras.jobs.cores import shared_by
        from sound_qkeras.results import archive
        from sound_qkeras.results.verdict import box_text

        Options(n_jobs=given["n_jobs"])
        started = time.monotonic()
        with threadpool_limits(1, user_api="blas"), shared_by(given["n_jobs"]):
            result, _ = archive.verify(directory)
        certificate = result.certificate
        say(f"verified: {result.verdict}")
        say(f"claim: {certificate.claim}")
        say(f"box: {box_text(certificate)}; {time.monotonic() - started:.1f} s")
        if given["exact"]:
            started = time.monotonic()
            with terminal_bars() as progress, shared_by(given["n_jobs"]):
                prove_again(result.pair, certificate, progress)
            say(f"verified again in exact arithmetic, all of it: {time.monotonic() - started:.1f} s")
        elif certificate.exact:
            note("it says that it was re-proved in exact arithmetic; that was not repeated here, --exact repeats it")


@app.command(short_help="C, HLS C++, Verilog or an hls4ml project of a result.")
def export(
    directory: Saved,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Directory to write the sources to.")],
    target: Annotated[
        str, typer.Option(help="hls (C++ for Vitis HLS), c (C99), verilog, or hls4ml (its project).")
    ] = "hls",
    style: Annotated[
        str | None, typer.Option(help="unrolled or loops; if not given, loops where there are many products.")
    ] = None,
    input_guard: Annotated[str | None, typer.Option(help="saturate: clamp inputs outside the input's format.")] = None,
    reuse_factor: Annotated[int, typer.Option(help="How often each multiplier is used per input; loops only.")] = 1,
    part: Annotated[str, typer.Option(help="The FPGA, for the Vitis script.")] = "xc7z020clg484-1",
    clock_ns: Annotated[float, typer.Option(help="The clock period in nanoseconds, for the Vitis script.")] = 5.0,
    name: Annotated[str, typer.Option(help="The top function, a C identifier.")] = "net",
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
    test: Annotated[bool, typer.Option(help="Compile it and run its test bench.")] = True,
) -> None:
    """Export a saved result as source code with a test bench, and run the test bench."""
    with clear_errors():
        from sound_qkeras.backends import compile_and_run, program_size
        from sound_qkeras.backends.options import Options as ExportOptions
        from sound_qkeras.backends.targets import HLS4ML, C, target_named
        from sound_qkeras.results.archive import load

        chosen = target_named(target)
        options: dict[str, Any] = {"name": name, "reuse_factor": reuse_factor, "part": part, "clock_ns": clock_ns}
        if not test and chosen.compiler is None:
            raise InputError(f"target '{target}' has no test bench that could be left out: leave out --no-test")
        if chosen is HLS4ML:
            chosen.check(ExportOptions(style or chosen.styles[0], target, input_guard, **options))  # type: ignore[arg-type]
            project = load(directory).to_hls4ml(to, **options, overwrite=overwrite)
            if not project.bit_exact:
                raise VerificationError(f"{project.summary()}; the project is in '{to}'")
            say(project.summary())
            say(f"written to {to}")
            return
        options |= {"target": target, "style": style, "input_guard": input_guard, "overwrite": overwrite}
        written = load(directory).export_hls(to, **options)
        say(f"{chosen.what}, written to {written}")
        if test and chosen.compiler is not None:
            bench = compile_and_run(written)
            if not bench.passed:
                raise VerificationError(
                    f"the test bench found {bench.output_mismatches} wrong codes: {bench.output.strip()}"
                )
            say(f"test bench: {bench.vectors} vectors, 0 mismatches")
            if chosen is C:
                with suppress_as_note():
                    say(program_size(written).summary())


@app.command(short_help="One html page about a saved result.")
def report(
    directory: Saved,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page to write; DIR/report.html if not given.")
    ] = None,
    sweep: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="A result of the same network and box at another tolerance; repeated for more."
        ),
    ] = None,
) -> None:
    """Prove a saved certificate again and write a report of it: one html page, without TensorFlow."""
    with clear_errors():
        from threadpoolctl import threadpool_limits

        from sound_qkeras.report import FILE
        from sound_qkeras.results.archive import load

        with threadpool_limits(1, user_api="blas"):
            others = [load(other) for other in sweep or ()]
            written = load(directory).report(directory / FILE if to is None else to, sweep=others)
        typer.echo(f"written to {written}")


@app.command(short_help="Adders, multipliers and memory of a saved result.")
def cost(
    directory: Saved,
    reuse_factor: Annotated[int, typer.Option(help="How often a multiplier is used per input.")] = 1,
    measure: Annotated[bool, typer.Option(help="Synthesise with yosys and count cells; needs the extra [hw].")] = False,
) -> None:
    """Estimate what a saved result costs in hardware; with --measure, synthesise its Verilog and count."""
    with clear_errors():
        from sound_qkeras import backends as hls
        from sound_qkeras.results.archive import load

        result = load(directory)
        estimate = result.estimate_hardware(reuse_factor=reuse_factor)
        for quantity, value in estimate.to_json()["total"].items():
            typer.echo(f"{quantity.replace('_', ' '):>20}  {value:,}")
        typer.echo(f"({estimate.to_json()['method']})")
        if measure:
            box = result.certificate.box
            measured = hls.measure(result.pair, box=(box.lower, box.upper))
            for quantity, value in measured.to_json().items():
                typer.echo(f"{quantity.replace('_', ' '):>20}  {value}")
