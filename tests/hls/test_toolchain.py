"""Finding compilers and headers, and what happens when something is missing."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from sound_qkeras.backends import compile_and_run, export_hls, find_ap_types
from sound_qkeras.backends.targets import CC, CXX
from sound_qkeras.backends.toolchain import find_compiler
from sound_qkeras.errors import DependencyError, FileFormatError, VerificationError

from .networks import steering


@pytest.fixture
def exported(tmp_path):
    quantized, box = steering()
    return export_hls(quantized, tmp_path / "net", box=box, target="c")


@pytest.mark.skipif(importlib.util.find_spec("hls4ml") is None, reason="needs hls4ml")
def test_headers_come_from_hls4ml_without_importing_it(monkeypatch):
    monkeypatch.delenv("AP_TYPES", raising=False)
    code = (
        "import sys; from sound_qkeras.backends import find_ap_types; header = find_ap_types() / 'ap_fixed.h'\n"
        "sys.exit(0 if header.is_file() and 'hls4ml' not in sys.modules else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_named_folder_is_used_or_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("AP_TYPES", str(tmp_path))
    with pytest.raises(DependencyError, match=r"holds no ap_fixed\.h"):
        find_ap_types()
    (tmp_path / "ap_fixed.h").touch()
    assert find_ap_types() == tmp_path


def test_missing_headers_say_what_to_install(monkeypatch):
    monkeypatch.delenv("AP_TYPES", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'sound-qkeras\[hls\]'.*AP_TYPES"):
        find_ap_types()


@pytest.mark.parametrize(("compiler", "variable"), [(CXX, "CXX"), (CC, "CC")])
def test_compilers(monkeypatch, tmp_path, compiler, variable):
    monkeypatch.setenv(variable, f"{sys.executable} -x")
    assert find_compiler(compiler) == [sys.executable, "-x"]
    monkeypatch.setenv(variable, "no-such-compiler")
    with pytest.raises(DependencyError, match=f"no-such-compiler.*{variable}"):
        find_compiler(compiler)
    monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=f"no compiler.*set {variable}"):
        find_compiler(compiler)


def make(folder):
    """`make` of an export in an empty environment."""
    command = ["make", "-C", str(folder / "build")]
    return subprocess.run(command, env={"PATH": os.defpath}, capture_output=True, text=True, check=False)


@pytest.mark.hls
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("hls4ml") is None, reason="needs hls4ml")
def test_an_export_builds_where_nothing_is_activated(tmp_path, monkeypatch):
    """It brings headers under the Apache licence alone, and the licence; without them `compile_and_run` finds its own."""
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "a net", box=box)
    brought = folder / "ap_types"
    assert "Apache License" in (brought / "LICENSE").read_text(encoding="utf-8")
    headers = list(brought.rglob("*.h"))
    assert headers
    assert all("under the Apache License" in header.read_text(encoding="utf-8") for header in headers)
    done = make(folder)
    assert done.returncode == 0, done.stderr
    assert "0 input mismatches, 0 output mismatches" in done.stdout
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert compile_and_run(folder).passed


@pytest.mark.slow
def test_make_says_where_headers_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box)
    assert not (folder / "ap_types").exists()
    done = make(folder)
    assert done.returncode != 0
    assert re.search(r"no ap_fixed\.h in '../ap_types': run make with AP_TYPES=DIR.*pip install", done.stderr)


@pytest.mark.hls
def test_refused_and_incomplete_exports(exported, tmp_path):
    with pytest.raises(FileFormatError, match="holds no exported network"):
        compile_and_run(tmp_path / "nowhere")
    (exported / "tb" / "expected.dat").write_text("1 2\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="could not read its data"):
        compile_and_run(exported)
    (exported / "src" / "types.h").write_text("#error no\n", encoding="utf-8")
    with pytest.raises(VerificationError, match="the compiler refused"):
        compile_and_run(exported)


@pytest.mark.hls
@pytest.mark.slow
def test_a_type_narrower_than_the_proof_does_not_compile(tmp_path):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box)
    types = folder / "src" / "types.h"
    text = types.read_text(encoding="utf-8")
    types.write_text(text.replace("ap_ufixed<6, 1, AP_RND_CONV", "ap_ufixed<5, 1, AP_RND_CONV"), encoding="utf-8")
    with pytest.raises(VerificationError, match="dense_relu: format"):
        compile_and_run(folder)
