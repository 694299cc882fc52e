"""Messages of the library name arguments as Python writes them; on the command line they are flags."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache

# Arguments of the commands that are declared as options nowhere.
OTHERS = ("eps", "box", "overwrite", "weights")
_VALUE = r"True|False|None|'[^']*'|\"[^\"]*\"|\([^()]*\)|\[[^\[\]]*\]|[\w.+-]+"


def as_flags(message: str) -> str:
    """The message with every argument of a command as its flag.

    >>> as_flags("accepted: word_lengths=(2, 24), overwrite=True, per_channel=False, or a box=")
    'accepted: --word-lengths 2 24, --overwrite, --no-per-channel, or a --box'
    >>> as_flags("accepted: a larger eps, or eps=None, which takes what is proved")
    'accepted: a larger eps, or no --eps, which takes what is proved'
    >>> as_flags("effort is 'fats'; accepted: fast, normal"), as_flags("n_jobs is 0")
    ("--effort is 'fats'; accepted: fast, normal", '--n-jobs is 0')
    """
    given, begins, longer = _patterns()
    return begins.sub(r"\1--\2", longer.sub(_named, given.sub(_given, message)))


def _given(found: re.Match[str]) -> str:
    name, value = found[1].replace("_", "-"), found[2] or ""
    if value == "None":
        return f"no --{name}"
    if value in ("True", "False"):
        return f"--{'' if value == 'True' else 'no-'}{name}"
    bare = value.strip("'\"") if value[:1] in "'\"" else value.strip("()[]").replace(",", "")
    return f"--{name} {bare}" if bare else f"--{name}"


def _named(found: re.Match[str]) -> str:
    return f"--{found[0].replace('_', '-')}"


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """An argument with its value; one that begins a message, which is about it; and any other that is no word of prose."""
    from sound_qkeras.backends.options import Options as ExportOptions
    from sound_qkeras.jobs.options import CertifyOptions, FinetuneOptions, QuantizeOptions

    declared = (QuantizeOptions, CertifyOptions, FinetuneOptions, ExportOptions)
    names = sorted({one.name for kind in declared for one in fields(kind)} | set(OTHERS), key=len, reverse=True)
    several = "|".join(name for name in names if "_" in name)
    return (
        re.compile(rf"(?<![\w.-])({'|'.join(names)})=({_VALUE})?"),
        re.compile(rf"^((?:[a-z]+: )?)({'|'.join(names)})(?= (?:is|'))"),
        re.compile(rf"(?<![\w.'\"-])(?:{several})(?![\w'\"(=.])"),
    )
