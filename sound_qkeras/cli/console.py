"""What a person at a terminal sees of any command: sentences wrapped at words, and one line for each failure."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import typer

from sound_qkeras.cli.wording import as_flags
from sound_qkeras.errors import DependencyError, InfeasibleError, InputError, VerificationError

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


def say(text: str, *, err: bool = False, indent: str = "") -> None:
    """Print a sentence: wrapped at words on a terminal, in one line elsewhere, where other programs search and cut it.

    Args:
        text: what to say.
        err: on standard error.
        indent: before every line of a wrapped sentence but the first.
    """
    width = _columns(err=err)
    if width:
        text = textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    typer.echo(text, err=err)


def in_lines(words: Sequence[str], *, err: bool = False) -> str:
    """A command, quoted for a shell of POSIX, in lines that it reads as one where it is wider than the terminal."""
    width, lines = _columns(err=err) - len("     \\"), [""]
    for word in map(shlex.quote, words):
        if width > 0 and lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return " \\\n    ".join(lines)


def _columns(*, err: bool) -> int:
    """How wide a terminal is; 0 where there is none."""
    stream = sys.stderr if err else sys.stdout
    return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else 0


def say_error(message: str) -> None:
    """Print what went wrong on standard error, in one sentence, with arguments as the flags that they are here."""
    say(as_flags(" ".join(message.split())), err=True)


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
    say_error(message)
    raise typer.Exit(code)
