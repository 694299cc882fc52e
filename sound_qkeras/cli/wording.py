"""Messages of the library name arguments as Python writes them; on the command line they are flags."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache

# Arguments of the commands that are declared as options nowhere, and those of them that are switches.
OTHERS = {"eps": None, "box": None, "overwrite": False, "weights": None}
_QUOTED = r"'[^']*'|\"[^\"]*\""
_VALUE = rf"True|False|None|{_QUOTED}|\([^()\[\]]*\)|\[[^()\[\]]*\]|[\w.+-]+"


def as_flags(message: str) -> str:
    """The message with every argument of a command as its flag; what is in quotes, or in a path, stays as it is.

    >>> as_flags("accepted: word_lengths=(2, 24), overwrite=True, eps=[0.1, 0.2], or a box=")
    'accepted: --word-lengths 2 24, --overwrite, --eps 0.1,0.2, or a --box'
    >>> as_flags("use box=(0, 1)")
    'use --box 0 1'
    >>> as_flags("use per_channel=False, or rescale_units=False"), as_flags("a larger eps, or eps=None, which takes")
    ('use no --per-channel, or --no-rescale-units', 'a larger eps, or no --eps, which takes')
    >>> as_flags("effort is 'fats'; accepted: fast, normal"), as_flags("n_jobs is 0")
    ("--effort is 'fats'; accepted: fast, normal", '--n-jobs is 0')
    >>> as_flags("'runs/seed=3/model.keras' is missing"), as_flags("box=([-1, -1], [1, 1]) is none")
    ("'runs/seed=3/model.keras' is missing", 'box=([-1, -1], [1, 1]) is none')
    """
    begins, anywhere = _patterns()
    return anywhere.sub(_flag, begins.sub(lambda found: f"{found[1]}--{found[2].replace('_', '-')}", message))


def _flag(found: re.Match[str]) -> str:
    """An argument with its value, an argument alone, or what stays as it is."""
    name, value, alone = found["name"], found["value"] or "", found["alone"]
    if alone:
        return f"--{alone.replace('_', '-')}"
    if not name:
        return found[0]
    flag = name.replace("_", "-")
    if value == "None" or (value == "False" and _defaults().get(name) is False):
        return f"no --{flag}"
    if value in ("True", "False"):
        return f"--{'' if value == 'True' else 'no-'}{flag}"
    separator = "," if name == "eps" else " "
    bare = value.strip("'\"") if value[:1] in "'\"" else value.strip("()[]").replace(", ", separator)
    return f"--{flag} {bare}" if bare else f"--{flag}"


@cache
def _defaults() -> dict[str, object]:
    """Every argument of a command, and its default."""
    from sound_qkeras.backends.options import Options as ExportOptions
    from sound_qkeras.jobs.options import CertifyOptions, FinetuneOptions, QuantizeOptions

    declared = (QuantizeOptions, CertifyOptions, FinetuneOptions, ExportOptions)
    return {
        one.name: one.default for kind in declared for one in fields(kind) if one.metadata.get("help", True)
    } | OTHERS


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """An argument that begins a message, which is about it; and arguments elsewhere, with their values or no words of prose."""
    names = sorted(_defaults(), key=len, reverse=True)
    several = "|".join(name for name in names if "_" in name)
    given = rf"(?<![\w./-])(?P<name>{'|'.join(names)})=(?P<value>{_VALUE})?(?![\w(\[])"
    return (
        re.compile(rf"^((?:[a-z]+: )?)({'|'.join(names)})(?= (?:is|'))"),
        re.compile(rf"{given}|(?<![\w./-])(?P<alone>{several})(?![\w(=./])|{_QUOTED}"),
    )
