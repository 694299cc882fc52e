"""The pictures in docs/ are those that their script draws, pages show them, and they can be read on light and on dark."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
# Of pages on GitHub and on the site, dark and light.
BACKGROUNDS = ("#0d1117", "#131416", "#1a1c1e", "#ffffff")


def luminance(colour):
    """Relative luminance as WCAG defines it."""
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255.0
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_pictures_are_those_of_the_script_and_are_shown():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("draw", FOLDER.parent / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    names = {f"{name}.svg" for name in draw.PICTURES}
    assert {file.name for file in FOLDER.iterdir()} == names, "run: python docs/draw.py"
    shown = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *FOLDER.parent.glob("*.md")))
    assert [name for name in sorted(names) if f"pictures/{name}" not in shown] == []


@pytest.mark.parametrize("picture", sorted(FOLDER.glob("*.svg")), ids=lambda file: file.stem)
def test_a_picture_can_be_read_on_light_and_on_dark(picture):
    text = picture.read_text(encoding="utf-8")
    colours = set(re.findall(r"#[0-9a-f]{6}\b", text))
    assert colours
    for colour in colours:
        for background in BACKGROUNDS:
            low, high = sorted((luminance(colour), luminance(background)))
            assert (high + 0.05) / (low + 0.05) > 4.0, (colour, background)
