"""Commands that are printed to be copied are ones that run, with what was asked for and one thing changed."""

import shlex
from pathlib import Path

import pytest

from sound_qkeras.cli import console
from sound_qkeras.cli.next_steps import Asked


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


def test_lines_of_a_command_break_between_its_words(monkeypatch):
    monkeypatch.setattr(console, "_columns", lambda err: 20)
    lines = console.in_lines(["sound-qkeras", "report", "my results/of today"])
    assert lines == "sound-qkeras \\\n    report \\\n    'my results/of today'"
