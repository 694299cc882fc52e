"""What to type next: commands that are ready to run, each with the reason for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sound_qkeras.cli.console import INFEASIBLE, in_lines, say, say_error
from sound_qkeras.errors import InfeasibleError
from sound_qkeras.jobs.options import QuantizeOptions

if TYPE_CHECKING:
    from sound_qkeras.results.result import Result

# A bound that is so many times the worst error found says little about the inputs that occur.
LOOSE = 20.0
# What stands for a file of samples that was not given; and a radius to begin with, as a share of the box's usual width.
SAMPLES, RADIUS_SHARE = "SAMPLES.npy", 0.01


@dataclass(frozen=True)
class Asked:
    """What `sound-qkeras quantize` was asked for, in the texts of the command line.

    Args:
        model, weights: files.
        eps: texts of the tolerance, or of several that are tuned in one run.
        curve: whether they are several.
        overwrite: whether altered files may be replaced.
        box: lower and upper end, or None where `data` spans it.
        data: a file of samples.
        out: the directory.
        given: the declared options by name.
    """

    model: Path
    weights: Path | None
    eps: Sequence[str]
    box: tuple[str, str] | None
    data: Path | None
    out: Path
    overwrite: bool
    curve: bool
    given: Mapping[str, Any]

    def command(self, eps: Sequence[str] | None = None, suffix: str = "", **changes: Any) -> list[str]:
        """The same command with other tolerances or options, ready to run; the suffix is of its directory."""
        words = ["sound-qkeras", "quantize", no_flag(self.model)]
        words += [] if self.weights is None else ["--weights", no_flag(self.weights)]
        texts = self.eps if eps is None else eps
        words += ["--eps", *texts] if self.curve else [word for text in texts for word in ("--eps", text)]
        words += ["--data", no_flag(f"{self.data}")] if self.box is None else ["--box", *self.box]
        for one in fields(QuantizeOptions):
            value = changes.get(one.name, self.given.get(one.name, one.default))
            if value != one.default:
                flag = one.name.replace("_", "-")
                if isinstance(value, bool):
                    words += [f"--{flag}" if value else f"--no-{flag}"]
                else:
                    words += [f"--{flag}", *map(str, value if isinstance(value, tuple | list) else (value,))]
        return [*words, "--out", no_flag(f"{self.out}{suffix}"), *(["--overwrite"] if self.overwrite else [])]


def no_flag(path: str | Path) -> str:
    """A path as a word of a command that is not read as a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def show_next(result: Result, directory: Path, asked: Asked | None = None) -> None:
    """Print what is worth doing with a result: first what would make it better, then what it can become."""
    steps = [] if asked is None else list(_better(result, asked))
    saved = no_flag(directory)
    steps.append(("one page with all of it", ["sound-qkeras", "report", saved]))
    if result.pair.has_integers:
        beside = f"{saved if directory.name else directory.resolve()}-c"
        command = ["sound-qkeras", "export", saved, "--target", "c", "--to", beside]
        steps.append(("C, compiled and compared bit for bit", command))
    _show(steps)


@contextmanager
def ways_out(asked: Asked) -> Iterator[None]:
    """Where no word length reaches the tolerance, print why, the commands that reach what they ask for, and leave.

    Raises:
        typer.Exit: with the code of the infeasible.
    """
    try:
        yield
    except InfeasibleError as error:
        from sound_qkeras.support.decimals import at_most

        say_error(f"infeasible: {error}")
        steps = list[tuple[str, list[str]]]()
        if math.isfinite(error.best_bound) and not asked.curve and len(asked.eps) == 1 and "," not in asked.eps[0]:
            steps.append(("the tolerance that is reached", asked.command([at_most(error.best_bound, 3)])))
        if error.word_length is not None:
            steps.append(
                ("longer words", asked.command(word_lengths=(asked.given["word_lengths"][0], error.word_length)))
            )
        _show(steps, err=True)
        raise typer.Exit(INFEASIBLE) from error


def _better(result: Result, asked: Asked) -> list[tuple[str, list[str]]]:
    """Other tiers where the sound one says little, and more effort where a tighter proof may be had."""
    import numpy as np

    if result.certificate.tier != "sound":
        return []
    ratio = result.certificate.bound / result.observed_error if result.observed_error > 0.0 else 1.0
    convolutional = any("conv" in node.op.kind for node in result.pair.network.nodes)
    samples = asked.given.get("samples")
    if ratio <= LOOSE and not convolutional and samples is None:
        return []
    why = f"the bound is {ratio:.0f} times the worst error found"
    steps = list[tuple[str, list[str]]]()
    if ratio > LOOSE and asked.given.get("effort") != "max":
        steps.append((f"{why}: a tighter proof takes more work", asked.command(effort="max")))
    named = {"samples": samples or SAMPLES}
    counting = {**named, "tier": "statistical", "exact": False}
    # What came out of "auto": each tier would choose another.
    eps = [repr(float(result.certificate.eps[0]))] if list(asked.eps) == ["auto"] else None
    box = result.certificate.box
    radius = f"{RADIUS_SHARE * float(np.median(box.upper - box.lower)):.2g}"
    yours = "your samples" if samples else f"your samples in {SAMPLES}"
    steps.append(
        (
            f"proved around {yours} only, usually with fewer bits",
            asked.command(eps, "-local", tier="local", radius=radius, **named),
        )
    )
    steps.append((f"counted on {yours}, usually with fewest bits", asked.command(eps, "-statistical", **counting)))
    return steps


def _show(steps: Sequence[tuple[str, list[str]]], *, err: bool = False) -> None:
    """A reason and its command, to be copied: on a terminal in lines that the shell reads as one."""
    if steps:
        typer.echo(err=err)
    for why, command in steps:
        say(f"{why}:", err=err)
        typer.echo(f"  {in_lines(command, err=err)}", err=err)
