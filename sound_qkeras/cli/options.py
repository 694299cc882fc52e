"""What the commands accept: flags made from the declared options of the jobs, and the values their texts stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import Options

Saved = Annotated[Path, typer.Argument(metavar="DIR", help="A directory that a result was saved to.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Directory to write; an earlier result there is replaced.")]
Eps = Annotated[
    list[str] | None,
    typer.Option(
        metavar="EPS...",
        help="Tolerance in units of the output; for all outputs or one per output, repeated or with commas; auto for classifiers. "
        "Several after one --eps are tuned in one run.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace files of an earlier result that were altered; files of others stay in any case."
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
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where MODEL is a .json of to_json(): its weights, .h5 of save_weights()."),
]

# The declared type of an option -> the type on the command line, where it is not a text.
PLAIN: dict[str, Any] = {"bool": bool, "int": int, "float": float, "tuple[int, int]": tuple[int, int]}
Command = TypeVar("Command", bound=Callable[..., None])


def takes(declared: type[Options], *names: str) -> Callable[[Command], Command]:
    """Give a command the declared options of a job, all or these; it gets them by name, as texts where `READ` has a reader."""

    def with_options(command: Command) -> Command:
        own = [one for one in signature(command, eval_str=True).parameters.values() if one.kind is not one.VAR_KEYWORD]
        chosen = [one for one in fields(declared) if one.metadata["help"] and one.name in (names or {one.name})]
        more = [_parameter(one) for one in chosen]
        command.__signature__ = Signature([*own, *more])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in (*own, *more)}
        return command

    return with_options


def _parameter(declared: Field[Any]) -> Parameter:
    """A declared option as typer reads it."""
    wanted = PLAIN.get(str(declared.type).removesuffix(" | None"), str)
    flags = (f"--{declared.name.replace('_', '-')}",) if declared.default is False else ()
    said = typer.Option(*flags, metavar=declared.metadata["metavar"], help=declared.metadata["help"])
    kind = Annotated[wanted | None if declared.default is None else wanted, said]
    return Parameter(declared.name, Parameter.POSITIONAL_OR_KEYWORD, default=declared.default, annotation=kind)


def values(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the texts of declared options stand for.

    Raises:
        InputError: a text is not usable.
        FileFormatError: a file is missing, or not of its kind.
    """
    return {name: READ[name](value) if name in READ else value for name, value in given.items()}


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


def curve_of(model: Path, texts: Sequence[str], more: Sequence[str]) -> tuple[Path, list[str]]:
    """The model, and the tolerances that follow one `--eps`, each as its text; none where there is one.

    A model that comes after its tolerances is the last word, and was taken for one of them.

    Raises:
        InputError: several follow, and `--eps` is repeated, or one of them is twice there, or is no number.
    """
    if not more:
        return model, []
    if not model.exists() and Path(more[-1]).exists():
        model, more = Path(more[-1]), [str(model), *more[:-1]]
    curve = [text.strip() for text in (*texts, *more)]
    numbers = [tuple(parse_numbers(text, "--eps")) for text in curve]
    if len(texts) > 1 or len(set(numbers)) < len(numbers):
        raise InputError(
            f"the tolerances are {' '.join(curve)}; accepted: each once, all after a single --eps, such as --eps 1e-1 1e-2, each "
            "one number, or one per output with commas"
        )
    return model, curve


def check_numbers(tolerance: float | list[float] | str | None, region: Any, margin: float) -> None:
    """Refuse what is wrong for any model before TensorFlow is loaded to read this one.

    Raises:
        InputError: as `sound_qkeras.quantize`.
    """
    from sound_qkeras.network.boxes import check_box, make_tolerance

    if tolerance is not None and not isinstance(tolerance, str):
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
        given = "not given" if box is None else "given twice"
        raise InputError(f"the box of inputs is {given}; accepted: either --box LO HI or --data FILE.npy")
    if data is not None:
        from sound_qkeras.support.given_files import load_array

        spanning = load_array(data)
        return spanning, f"smallest and largest values of {len(spanning)} samples in {data.name}"
    lower, upper = (_end(text) for text in box or ())
    return (lower, upper), "given"


def _end(text: str) -> Any:
    if text.endswith(".npy"):
        from sound_qkeras.support.given_files import load_array

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
    from sound_qkeras.support.given_files import load_array, load_member

    name, _, key = text.partition(".npz:")
    if not key and not text.endswith(".npz"):
        return load_array(Path(text))
    return load_member(Path(f"{name}.npz" if key else text), key)


def load_pair(texts: tuple[str, str]) -> tuple[Any, Any]:
    """Samples and their targets, each as `load_samples` reads it."""
    samples, targets = (load_samples(text) for text in texts)
    return samples, targets


def check_place(out: Path, *, overwrite: bool = False) -> None:
    """Find out before the work whether its result can be written.

    Raises:
        InputError: it cannot.
    """
    from sound_qkeras.results.archive import FILES
    from sound_qkeras.support.files import check_writable

    check_writable(out, names=FILES, overwrite=overwrite)


def with_weights(model: Path, weights: Path | None) -> Path | tuple[Path, Path]:
    """A model's path, or the pair of its configuration and its weights."""
    if weights is not None and not weights.exists():
        raise InputError(f"'{weights}' does not exist; accepted: the .h5 file of a model's save_weights()")
    return model if weights is None else (model, weights)


# Declared option -> what reads its text.
READ: dict[str, Callable[[Any], Any]] = {
    "effort": parse_effort,
    **dict.fromkeys(("samples", "labels", "freeze"), load_samples),
}
