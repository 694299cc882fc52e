"""Commands that are printed to be copied are ones that run, with what was asked for and one thing changed."""

import shlex
from pathlib import Path

import pytest

from sound_qkeras.cli import console
from sound_qkeras.cli.next_steps import Asked, show_next
from tests.results import random_result


def asked(**changes):
    given = {"effort": "fast", "tier": None, "word_lengths": (2, 48), "rescale_units": False}
    usual = {"model": Path("a model.keras"), "weights": None, "eps": ["1e-2"], "box": ("-1", "1"), "data": None}
    return Asked(**{**usual, "out": Path("out"), "overwrite": False, "curve": False, "given": given, **changes})


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (asked().command(), "--eps 1e-2 --box -1 1 --effort fast --no-rescale-units --out out"),
        (asked().command(["0.2"]), "--eps 0.2 --box -1 1 --effort fast --no-rescale-units --out out"),
        (asked(eps=["1", "2"]).command(), "--eps 1 --eps 2 --box -1 1 --effort fast --no-rescale-units --out out"),
        (
            asked(eps=["1", "2"], curve=True).command(),
            "--eps 1 2 --box -1 1 --effort fast --no-rescale-units --out out",
        ),
        (
            asked(overwrite=True).command(),
            "--eps 1e-2 --box -1 1 --effort fast --no-rescale-units --out out --overwrite",
        ),
        (
            asked(box=None, data=Path("x.npy")).command(word_lengths=(2, 60)),
            "--eps 1e-2 --data x.npy --effort fast --word-lengths 2 60 --no-rescale-units --out out",
        ),
        (
            asked().command(tier="local", radius="0.02", samples="x.npy"),
            "--eps 1e-2 --box -1 1 --effort fast --tier local --samples x.npy --radius 0.02 --no-rescale-units --out out",
        ),
    ],
)
def test_a_command_says_what_was_asked_for_and_what_changes(made, expected):
    assert shlex.join(made) == f"sound-qkeras quantize 'a model.keras' {expected}"


def test_paths_are_not_read_as_flags():
    dashed = asked(model=Path("-m.keras"), weights=Path("-w.h5"), box=None, data=Path("-x.npy"), out=Path("-o"))
    words = dashed.command(suffix="-c")
    assert words[2] == "./-m.keras"
    assert [words[words.index(flag) + 1] for flag in ("--weights", "--data", "--out")] == [
        "./-w.h5",
        "./-x.npy",
        "./-o-c",
    ]


def test_a_saved_result_is_not_read_as_a_flag(capsys):
    show_next(random_result(), Path("-o"))
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [words[2] for words in commands] == ["./-o", "./-o"]
    assert commands[1][-1] == "./-o-c"


def test_lines_of_a_command_break_between_its_words(monkeypatch):
    monkeypatch.setattr(console, "_columns", lambda err: 20)
    lines = console.in_lines(["sound-qkeras", "report", "my results/of today"])
    assert lines == "sound-qkeras \\\n    report \\\n    'my results/of today'"
