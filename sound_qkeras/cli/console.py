"""What a person at a terminal sees: the table of formats, progress, and one line for each failure."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from sound_qkeras.errors import DependencyError, InfeasibleError, InputError, VerificationError
from sound_qkeras.support.deadline import INTERRUPT, SEARCH, TIME, WORK

if TYPE_CHECKING:
    from sound_qkeras.results.result import Result

OK, FAILED, BAD_INPUT, INFEASIBLE = 0, 1, 2, 3
# What a command that a signal ends gives: this and the signal's number, as shells do; for Ctrl-C the second.
SIGNALLED, INTERRUPTED = 128, 130
# What to do about a path or a disk, where the message of the system does not say it.
WAYS_OUT = {
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "make room there, or choose another place",
    errno.EFBIG: "make room there, or choose another place",
    errno.ENAMETOOLONG: "use a shorter path",
}
CHECK = "check that it is there, of the right kind, and yours to use"
# Set to see the traceback of an error that is not the user's.
DEBUG = "SOUND_QKERAS_DEBUG"
# Columns of a table that is not written to a terminal.
PLAIN_WIDTH = 140

# What to say where more than the search itself decided when it ended.
ENDED = {
    WORK: "the search used up its budget of work: a larger --effort gives it more",
    TIME: "the search used up its time budget: another run may find other formats; --effort gives it more time",
    INTERRUPT: "the search was interrupted: these are the best formats that were proved until then",
}


def show(result: Result, directory: Path) -> None:
    """The table of formats, and one line: bound, eps, tier, observed error, bits, seconds."""
    from sound_qkeras.results.archive import REPORT_FILE
    from sound_qkeras.support.reading import read_json
    from sound_qkeras.verify.evidence import Statistical

    rows = list[tuple[str, ...]]()
    for row in result.formats:
        ends = (f"{row.lower:.4g}", f"{row.upper:.4g}")
        cut = row.kind == "activation" and row.node in result.pair.saturating
        kind, signed = f"{row.kind}, saturates" if cut else row.kind, "yes" if row.signed else "no"
        rows.append((row.node, kind, str(row.word_length), str(row.integer_bits), signed, *ends))
    columns = ("layer", "kind", "word\nlength", "integer\nbits", "\nsigned", "\nfrom", "\nto")
    print_table(columns, rows, left=2)
    if result.ended_by != SEARCH:
        typer.echo(f"note: {ENDED[result.ended_by]}")
    for note in result.pair.network.notes:
        typer.echo(f"note: {note}")
    missing = read_json(directory / REPORT_FILE).get("no_qkeras_model_because")
    if missing:
        typer.echo(f"note: no QKeras model was saved: {' '.join(str(missing).split())}")
    evidence = result.certificate.evidence
    if isinstance(evidence, Statistical) and evidence.probability >= 1.0:
        typer.echo(
            "note: every held-out sample exceeds eps, so nothing is claimed about the error; give a larger --eps"
        )
    typer.echo(f"box: {result.certificate.box_source}; float32 evaluation: {_float32(result)}; saved in {directory}")
    typer.echo(result.summary())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> None:
    """Print a table; all columns but the first so many are numbers, to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False, highlight=False).print(table)


def _float32(result: Result) -> str:
    if result.float32.exact:
        return "exact"
    if result.certificate.tier == "statistical":
        return f"proved within {result.float32.error:.4g} of the integers"
    return f"proved within {result.float32.bound:.4g}"


@contextmanager
def progress_bars() -> Iterator[Any]:
    """A callable `(stage, fraction)` that draws one bar per stage on a terminal and nothing elsewhere.

    Of several tolerances ("eps 0.1, 2 of 3: stage") only the bars of the present one are seen.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    # A descriptor of its own: while TensorFlow is silenced, standard error leads nowhere.
    terminal = os.fdopen(os.dup(2), "w") if sys.stderr.isatty() else sys.stderr
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    columns += (TextColumn("about"), TimeRemainingColumn(), TextColumn("left"))
    bars = Progress(*columns, console=Console(file=terminal), disable=not terminal.isatty())
    tasks: dict[str, Any] = {}
    with bars:
        yield lambda stage, fraction: _advance(bars, tasks, stage, fraction)
        for task in tasks.values():
            bars.update(task, completed=1.0)


def _advance(bars: Any, tasks: dict[str, Any], stage: str, fraction: float) -> None:
    if stage not in tasks:
        for earlier, task in tasks.items():
            same = earlier.partition(": ")[0] == stage.partition(": ")[0] or ": " not in earlier
            bars.update(task, completed=1.0, visible=same)
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
def clear_errors(after_interrupt: str = "") -> Iterator[None]:
    """Turn every error into a line on stderr and `typer.Exit` with its code."""
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except (KeyboardInterrupt, typer.Abort) as stop:
        by = f" by {stop}" if str(stop).startswith("SIG") and str(stop) != "SIGINT" else ""
        _stop(f"interrupted{by}{after_interrupt}", INTERRUPTED)
    except InfeasibleError as error:
        _stop(f"infeasible: {error}", INFEASIBLE)
    except (InputError, DependencyError) as error:
        _stop(f"error: {error}", BAD_INPUT)
    except VerificationError as error:
        _stop(f"refused: {error}", FAILED)
    except Exception as error:
        _stop_unexpected(error)


def _stop_unexpected(error: Exception) -> NoReturn:
    """Usage errors come from the option parser, the solver's are ours, the system's are about paths and disks; others are bugs."""
    from sound_qkeras.errors import SoundQKerasError

    usage = getattr(error, "format_message", None)
    if usage is not None:
        _stop(f"error: {usage()} (see --help)", BAD_INPUT)
    if isinstance(error, SoundQKerasError):
        _stop(f"error: {error}", FAILED)
    if os.environ.get(DEBUG):
        raise error
    if isinstance(error, OSError) and error.errno is not None:
        _stop(f"error: {_of_the_system(error, error.errno)}", BAD_INPUT)
    _stop(f"internal error, please report it: {type(error).__name__}: {error} ({DEBUG}=1 shows where)", FAILED)


def _of_the_system(error: OSError, code: int) -> str:
    """What failed, why, and the way out. Libraries put more than the reason into the text, so the system's own is taken."""
    what = "a file or directory" if error.filename is None else f"'{os.fsdecode(error.filename)}'"
    return f"{what} cannot be used ({os.strerror(code)}); {WAYS_OUT.get(code, CHECK)}"


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(" ".join(message.split()), err=True)
    raise typer.Exit(code)
