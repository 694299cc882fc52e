"""The examples in docstrings are true. `--doctest-modules` cannot: it would import `callbacks` under its own name."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDS_KERAS = ("sound_qkeras.callbacks", "sound_qkeras.keras_io")


def modules():
    """Names as installed, from the files of the checkout, so that collecting imports nothing."""
    for folder, package in (("sound_qkeras", "sound_qkeras"), ("callbacks", "sound_qkeras.callbacks")):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if ">>>" not in file.read_text(encoding="utf-8"):
                continue
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            yield pytest.param(name, marks=[pytest.mark.keras] if name.startswith(NEEDS_KERAS) else [])


@pytest.mark.parametrize("name", list(modules()))
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
