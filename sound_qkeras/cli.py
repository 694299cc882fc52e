"""The command line. What it says about a failure is one line on stderr and an exit code, never a traceback.

| exit code | meaning |
|---|---|
| 0 | done, or verified |
| 1 | a proof was refused, the solver failed, or this library did |
| 2 | bad input: an argument, a model, a file; or something is not installed |
| 3 | no allowed word length reaches the tolerance |
| 130 | interrupted |
"""

from __future__ import annotations

import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sound_qkeras import __version__
from sound_qkeras.errors import DependencyError, FileFormatError, InfeasibleError, InputError, VerificationError

if TYPE_CHECKING:
    from sound_qkeras.result import Result

OK, FAILED, BAD_INPUT, INFEASIBLE, INTERRUPTED = 0, 1, 2, 3, 130
# Set to see the traceback of an error that is not the user's.
DEBUG = "SOUND_QKERAS_DEBUG"
# Columns of a table that is not written to a terminal.
PLAIN_WIDTH = 140

app = typer.Typer(
    help="Fixed-point QKeras models with a proved error bound for every input in a box.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 bad input, 3 infeasible, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option(metavar="DIR", help="Directory to write; an earlier result there is replaced.")]
Eps = Annotated[
    list[str],
    typer.Option(
        metavar="EPS",
        help="Tolerance in units of the output; for all outputs or one per output, repeated or with commas; auto for classifiers.",
    ),
]
Box = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="LO HI", help="The inputs: two numbers, lists like -1,-8 1,8, or .npy files."),
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A .npy file of samples; their smallest and largest values span the box."),
]
Margin = Annotated[
    float, typer.Option(metavar="SHARE", help="Widens the box by this share of its width, on every side.")
]
Cost = Annotated[str, typer.Option(metavar="COST", help="What to minimise: weight_bits, total_bits or bit_operations.")]
Effort = Annotated[str, typer.Option(metavar="EFFORT", help="fast, normal, max, or a time budget in seconds.")]
Solver = Annotated[
    str, typer.Option(metavar="NAME", help="A MILP solver that Pyomo finds: highs, cbc, scip, gurobi, ...")
]
WordLengths = Annotated[tuple[int, int], typer.Option(metavar="FEWEST MOST", help="Bits a weight or result may have.")]
KeepArchitecture = Annotated[
    bool, typer.Option("--keep-architecture", help="Keep units that are proved dead, and layers that could be merged.")
]
Rescale = Annotated[bool, typer.Option(help="Let hidden units be multiplied by powers of two, which saves bits.")]

RoundOutput = Annotated[bool, typer.Option("--round-output", help="Round the output too, to the fewest bits.")]
PerChannel = Annotated[
    bool, typer.Option("--per-channel", help="Formats of its own for each output channel of a layer; not for QKeras.")
]
Tier = Annotated[str, typer.Option(metavar="TIER", help="Strength of the guarantee: sound, local or statistical.")]
Samples = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Inputs for other tiers and classifiers: FILE.npy, or FILE.npz:NAME."),
]
Labels = Annotated[
    str | None, typer.Option(metavar="FILE", help="The samples' classes, for accuracies: FILE.npy, or FILE.npz:NAME.")
]
Radius = Annotated[float | None, typer.Option(metavar="R", help="Of the tier local, in units of the input.")]
Confidence = Annotated[float, typer.Option(metavar="SHARE", help="Of the tier statistical.")]
Coverage = Annotated[float | None, typer.Option(metavar="SHARE", help="Share of the samples formats are chosen for.")]
Saturate = Annotated[bool, typer.Option(help="In other tiers than sound: results may saturate far from the samples.")]
Task = Annotated[str, typer.Option(metavar="TASK", help="regression or classifier.")]
Keep = Annotated[
    float, typer.Option(metavar="SHARE", help="For --eps auto: share of the samples whose class is to stay.")
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code; see the module's table.
    """
    try:
        with _clear_errors():
            code = app(
                args=None if arguments is None else list(arguments), prog_name="sound-qkeras", standalone_mode=False
            )
    except typer.Exit as done:
        code = done.exit_code
    return code if isinstance(code, int) else OK


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
        raise typer.Exit(BAD_INPUT)


@app.command()
def quantize(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A tf_keras model: .h5, .keras or a SavedModel directory.")
    ],
    eps: Eps,
    box: Box = None,
    data: Data = None,
    margin: Margin = 0.0,
    out: Out = Path("out"),
    cost: Cost = "weight_bits",
    effort: Effort = "normal",
    solver: Solver = "highs",
    word_lengths: WordLengths = (2, 48),
    keep_architecture: KeepArchitecture = False,
    rescale: Rescale = True,
    round_output: RoundOutput = False,
    per_channel: PerChannel = False,
    tier: Tier = "sound",
    samples: Samples = None,
    labels: Labels = None,
    radius: Radius = None,
    confidence: Confidence = 0.99,
    coverage: Coverage = None,
    saturate: Saturate = True,
    task: Task = "regression",
    keep: Keep = 0.99,
) -> None:
    """Quantise a trained model within a tolerance that is proved for every input in a box."""
    with _clear_errors(f"; '{out}' is as it was"):
        tolerance = parse_eps(eps)
        region, source = parse_box(box, data)
        check_numbers(tolerance, region, margin)
        if not model.exists():
            raise InputError(f"'{model}' does not exist; accepted: a tf_keras model saved as .h5, .keras or SavedModel")
        check_place(out)
        from sound_qkeras import pipeline
        from sound_qkeras.options import Options

        parsed_effort = parse_effort(effort)
        options: dict[str, Any] = {
            "cost": cost,
            "effort": parsed_effort,
            "solver": solver,
            "word_lengths": word_lengths,
            "keep_architecture": keep_architecture,
            "rescale_units": rescale,
            "round_output": round_output,
            "per_channel": per_channel,
            "tier": tier,
            "samples": load_samples(samples),
            "labels": load_samples(labels),
            "radius": radius,
            "confidence": confidence,
            "coverage": coverage,
            "saturate": saturate,
            "task": task,
            "keep": keep,
        }
        Options.checked(options)
        with progress_bars() as progress:
            progress("read", 0.0)
            with quiet_tensorflow():
                network = pipeline.read(model)
            result = pipeline.quantize(
                network,
                tolerance,
                region,
                margin=margin,
                **options,
                box_source=source,
                progress=progress,
            )
            progress("save", 0.0)
            with quiet_tensorflow():
                written = result.save(out)
        show(result, written)


@app.command()
def demo(out: Out = Path("out")) -> None:
    """Train a controller for a pendulum, quantise it within 0.001 of its torque, and close the loop with both."""
    with _clear_errors(f"; '{out}' is as it was"):
        check_place(out)
        with progress_bars() as progress:
            progress("load TensorFlow", 0.0)
            with quiet_tensorflow():
                from sound_qkeras.demo import run

                outcome = run(out, progress)
        show(outcome.result, out.resolve())
        typer.echo(outcome.summary())


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that a result was saved to.")],
) -> None:
    """Prove a saved certificate again, from the files alone and without TensorFlow. Exit code 1 if it does not hold."""
    with _clear_errors():
        from threadpoolctl import threadpool_limits

        from sound_qkeras.archive import load_claim
        from sound_qkeras.verify.checker import check

        started = time.monotonic()
        quantized, certificate = load_claim(directory)
        with threadpool_limits(1, user_api="blas"):
            bounds = check(quantized, certificate)
        typer.echo(
            f"verified: {certificate.claim}; box: {certificate.box_source}, {certificate.tree.leaf_count} parts; largest "
            f"bound {bounds.max():.6g}, eps {certificate.eps.max():g}; tier {certificate.tier}, "
            f"{time.monotonic() - started:.1f} s"
        )


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that a result was saved to.")],
    hls: Annotated[Path, typer.Option(metavar="DIR", help="Directory to write the sources to.")],
    target: Annotated[str, typer.Option(help="hls (C++ for Vitis HLS), c (portable C99) or verilog.")] = "hls",
    style: Annotated[str, typer.Option(help="unrolled, or loops for large networks.")] = "unrolled",
    input_guard: Annotated[str | None, typer.Option(help="saturate: clamp inputs outside the input's format.")] = None,
    reuse_factor: Annotated[int, typer.Option(help="How often each multiplier is used per input; loops only.")] = 1,
    part: Annotated[str, typer.Option(help="The FPGA, for the Vitis script.")] = "xc7z020clg484-1",
    clock_ns: Annotated[float, typer.Option(help="The clock period in nanoseconds, for the Vitis script.")] = 5.0,
    name: Annotated[str, typer.Option(help="The top function, a C identifier.")] = "net",
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
    test: Annotated[bool, typer.Option(help="Compile it and run its test bench.")] = True,
) -> None:
    """Export a saved result as source code with a test bench, and run the test bench."""
    with _clear_errors():
        from sound_qkeras.archive import load

        options: dict[str, Any] = {"target": target, "style": style, "input_guard": input_guard, "name": name}
        options |= {"reuse_factor": reuse_factor, "part": part, "clock_ns": clock_ns, "overwrite": overwrite}
        written = load(directory).export_hls(hls, **options)
        typer.echo(f"written to {written}")
        if test and target != "verilog":
            from sound_qkeras.hls import compile_and_run

            bench = compile_and_run(written)
            if not bench.passed:
                raise VerificationError(
                    f"the test bench found {bench.output_mismatches} wrong codes: {bench.output.strip()}"
                )
            typer.echo(f"test bench: {bench.vectors} vectors, 0 mismatches")


@app.command()
def cost(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that a result was saved to.")],
    reuse_factor: Annotated[int, typer.Option(help="How often a multiplier is used per input.")] = 1,
    measure: Annotated[bool, typer.Option(help="Synthesise with yosys and count cells; needs the extra [hw].")] = False,
) -> None:
    """Estimate what a saved result costs in hardware; with --measure, synthesise its Verilog and count."""
    with _clear_errors():
        from sound_qkeras import hls
        from sound_qkeras.archive import load

        result = load(directory)
        estimate = result.estimate_hardware(reuse_factor=reuse_factor)
        for quantity, value in estimate.to_json()["total"].items():
            typer.echo(f"{quantity.replace('_', ' '):>20}  {value:,}")
        typer.echo(f"({estimate.to_json()['method']})")
        if measure:
            box = result.certificate.box
            measured = hls.measure(result.quantized, box=(box.lower, box.upper))
            for quantity, value in measured.to_json().items():
                typer.echo(f"{quantity.replace('_', ' '):>20}  {value}")


def parse_numbers(text: str, option: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        InputError: something else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} received '{text}'; accepted: a number, or numbers separated by commas") from error


def parse_eps(texts: Sequence[str]) -> float | list[float] | str:
    """One number, or one per output; or "auto".

    Raises:
        InputError: something else.
    """
    if list(texts) == ["auto"]:
        return "auto"
    numbers = [number for text in texts for number in parse_numbers(text, "--eps")]
    return numbers[0] if len(numbers) == 1 else numbers


def check_numbers(tolerance: float | list[float] | str, region: Any, margin: float) -> None:
    """Refuse what is wrong for any model before TensorFlow is loaded to read this one.

    Raises:
        InputError: as `sound_qkeras.quantize`.
    """
    from sound_qkeras.boxes import check_box, make_tolerance

    if not isinstance(tolerance, str):
        make_tolerance(tolerance, len(tolerance) if isinstance(tolerance, list) else 1)
    check_box(region, margin)


def parse_effort(text: str) -> str | float:
    """A name, or seconds."""
    try:
        return float(text)
    except ValueError:
        return text


def parse_box(box: tuple[str, str] | None, data: Path | None) -> tuple[Any, str]:
    """The box and where it came from.

    Raises:
        InputError: both options or none was given, or they do not hold numbers.
        FileFormatError: a file is missing or not a .npy file.
    """
    if (box is None) == (data is None):
        raise InputError("the inputs are not known; accepted: either --box LO HI or --data FILE.npy")
    if data is not None:
        samples = load_array(data)
        return samples, f"smallest and largest values of {len(samples)} samples in {data.name}"
    lower, upper = (_end(text) for text in box or ())
    return (lower, upper), "given"


def _end(text: str) -> Any:
    if text.endswith(".npy"):
        return load_array(Path(text))
    numbers = parse_numbers(text, "--box")
    return numbers[0] if len(numbers) == 1 else numbers


def load_samples(text: str | None) -> Any:
    """An array from FILE.npy or FILE.npz:NAME, or None.

    Raises:
        InputError: an .npz file without a name, or with one it does not hold.
        FileFormatError: as `load_array`.
    """
    if text is None:
        return None
    name, _, key = text.partition(".npz:")
    if not key and not text.endswith(".npz"):
        return load_array(Path(text))
    import numpy as np

    path = Path(f"{name}.npz" if key else text)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if key not in archive:
                raise InputError(f"'{path}' holds {sorted(archive)}; accepted: {path}:NAME with one of these names")
            return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"'{path}' is no .npz file of numbers ({error})") from error


def load_array(path: Path) -> Any:
    """An array of numbers from a .npy file.

    Raises:
        FileFormatError: missing, empty, corrupt, or no array of numbers.
    """
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise FileFormatError(f"'{path}' cannot be read ({error.strerror or error}); accepted: a .npy file") from error
    except (ValueError, EOFError, SyntaxError) as error:
        raise FileFormatError(f"'{path}' is not a .npy file of numbers, or it is cut short") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim == 0:
        raise FileFormatError(f"'{path}' holds no array of real numbers; accepted: a .npy file that numpy.save wrote")
    return array


def check_place(out: Path) -> None:
    """Find out before the work whether its result can be written.

    Raises:
        InputError: it cannot.
    """
    from sound_qkeras.files import check_writable

    check_writable(out)


def show(result: Result, directory: Path) -> None:
    """The table of formats, and one line: bound, eps, tier, observed error, bits, seconds."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("layer", "kind", box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("word\nlength", "integer\nbits", "\nsigned", "\nfrom", "\nto"):
        table.add_column(column, justify="right")
    for row in result.formats:
        ends = (f"{row.lower:.4g}", f"{row.upper:.4g}")
        table.add_row(
            row.node, row.kind, str(row.word_length), str(row.integer_bits), "yes" if row.signed else "no", *ends
        )
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False, highlight=False).print(table)
    for note in result.quantized.network.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"box: {result.certificate.box_source}; float32 evaluation: {_float32(result)}; saved in {directory}")
    typer.echo(result.summary())


def _float32(result: Result) -> str:
    return "exact" if result.float32.exact else f"proved within {result.float32.bound:.4g}"


@contextmanager
def progress_bars() -> Iterator[Any]:
    """A callable `(stage, fraction)` that draws one bar per stage on a terminal and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    # A descriptor of its own: while TensorFlow is silenced, standard error leads nowhere.
    terminal = os.fdopen(os.dup(2), "w") if sys.stderr.isatty() else sys.stderr
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=Console(file=terminal), disable=not terminal.isatty())
    tasks: dict[str, Any] = {}
    with bars:
        yield lambda stage, fraction: _advance(bars, tasks, stage, fraction)
        for task in tasks.values():
            bars.update(task, completed=1.0)


def _advance(bars: Any, tasks: dict[str, Any], stage: str, fraction: float) -> None:
    if stage not in tasks:
        for task in tasks.values():
            bars.update(task, completed=1.0)
        if fraction == 1.0:
            return  # the last report, that everything is done
        tasks[stage] = bars.add_task(stage, total=1.0)
    bars.update(tasks[stage], completed=fraction)


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Silence what TensorFlow's C++ parts write to standard error, unless TF_CPP_MIN_LOG_LEVEL is set."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
        del os.environ["TF_CPP_MIN_LOG_LEVEL"]


@contextmanager
def _clear_errors(after_interrupt: str = "") -> Iterator[None]:
    """Turn every error into a line on stderr and `typer.Exit` with its code."""
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except (KeyboardInterrupt, typer.Abort):
        _stop(f"interrupted{after_interrupt}", INTERRUPTED)
    except InfeasibleError as error:
        _stop(f"infeasible: {error}", INFEASIBLE)
    except (InputError, DependencyError) as error:
        _stop(f"error: {error}", BAD_INPUT)
    except VerificationError as error:
        _stop(f"refused: {error}", FAILED)
    except Exception as error:
        _stop_unexpected(error)


def _stop_unexpected(error: Exception) -> NoReturn:
    """Usage errors come from the option parser; the solver's are ours; anything else is a bug."""
    from sound_qkeras.errors import SoundQKerasError

    usage = getattr(error, "format_message", None)
    if usage is not None:
        _stop(f"error: {usage()} (see --help)", BAD_INPUT)
    if isinstance(error, SoundQKerasError):
        _stop(f"error: {error}", FAILED)
    if os.environ.get(DEBUG):
        raise error
    _stop(f"internal error, please report it: {type(error).__name__}: {error} ({DEBUG}=1 shows where)", FAILED)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(" ".join(message.split()), err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    sys.exit(main())
