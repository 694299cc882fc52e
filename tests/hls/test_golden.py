"""The generated text, reviewed as text. SOUND_QKERAS_GOLDEN=write regenerates it."""

import os
import re
from pathlib import Path

import pytest

from sound_qkeras import __version__
from sound_qkeras.backends import export_hls
from sound_qkeras.backends.toolchain import AP_TYPES
from sound_qkeras.support.manifest import MANIFEST

from .networks import STYLES, steering

GOLDEN = Path(__file__).parent / "golden"


def as_one_text(folder: Path) -> str:
    """Every file but the vectors, whose random points are numpy's business, all hashes, and others' headers; no versions."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".dat")
    files = [path for path in files if path.relative_to(folder).parts[0] not in {AP_TYPES, MANIFEST}]
    text = "".join(f"==== {path.relative_to(folder)}\n{path.read_text(encoding='utf-8')}" for path in files)
    text = text.replace(f"sound_qkeras {__version__}", "sound_qkeras VERSION")
    return re.sub(r'"versions": \{[^}]*\}', '"versions": {}', text)


@pytest.mark.parametrize(("style", "target"), [*STYLES, ("unrolled", "verilog")])
def test_generated_text_is_the_golden_text(tmp_path, style, target):
    quantized, box = steering()
    ranges = {"x": box, "dense": (-0.976563, 1.10782), "dense_relu": (0, 1.10782), "steer": (-1.92847, 1.39283)}
    guard = None if target == "verilog" else "saturate"
    reuse = 4 if (style, target) == ("loops", "hls") else 1
    folder = export_hls(
        quantized, tmp_path / "net", box=box, style=style, target=target, input_guard=guard, ranges=ranges,
        certificate={"tier": "sound", "eps": 0.5, "bound": 0.31}, reuse_factor=reuse,
    )  # fmt: skip
    golden = GOLDEN / f"{target}_{style}.txt"
    if os.environ.get("SOUND_QKERAS_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(as_one_text(folder), encoding="utf-8", newline="\n")
    assert as_one_text(folder) == golden.read_text(encoding="utf-8")
