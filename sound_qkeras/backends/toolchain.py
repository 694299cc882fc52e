"""Compilers and headers: what is needed to run the exported code on this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sound_qkeras.backends.targets import CXX, TARGETS, Compiler
from sound_qkeras.errors import DependencyError, FileFormatError, VerificationError

HEADER = "ap_fixed.h"
# Where an export has the headers.
AP_TYPES = "ap_types"
_SUMMARY = re.compile(r"(\d+) vectors, (\d+) input mismatches, (\d+) output mismatches")


@dataclass(frozen=True)
class TestBenchResult:
    """What the test bench said.

    Args:
        passed: every code was equal.
        vectors: samples compared.
        input_mismatches: real inputs that rounded to another code.
        output_mismatches: output codes that differ.
        output: everything the test bench printed, the first few mismatches among it.
        warnings: everything the compiler printed; empty when the code is clean.
    """

    __test__ = False  # not a test class, whatever its name says to pytest

    passed: bool
    vectors: int
    input_mismatches: int
    output_mismatches: int
    output: str
    warnings: str


def find_ap_types() -> Path:
    """The folder of the ap_types headers: `AP_TYPES` where it is set, else the copy inside the hls4ml package.

    hls4ml is located, not imported.

    Raises:
        DependencyError: `AP_TYPES` names a folder without the headers, or neither is there.
    """
    named = os.environ.get("AP_TYPES")
    if named:
        folder = Path(named)
        if not (folder / HEADER).is_file():
            raise DependencyError(f"AP_TYPES is '{named}', which holds no {HEADER}; name the folder that does")
        return folder
    folder = _inside_hls4ml()
    if folder is not None:
        return folder
    raise DependencyError(
        f"the ap_types headers ({HEADER}) are missing: pip install 'sound-qkeras[hls]', or set AP_TYPES to the include "
        "folder of a Vitis HLS installation"
    )


def _inside_hls4ml() -> Path | None:
    found = importlib.util.find_spec("hls4ml")
    for location in (found.submodule_search_locations or ()) if found else ():
        folder = Path(location) / "templates" / "vivado" / "ap_types"
        if (folder / HEADER).is_file():
            return folder
    return None


def public_headers() -> dict[str, bytes]:
    """The ap_types headers that may travel with exported code: relative names and contents, with their licence.

    Those inside the hls4ml package that say to be under the Apache licence, whose text comes with them. Empty where
    the headers or the licence are not there; headers that `AP_TYPES` names are the vendor's and stay where they are.
    """
    folder = _inside_hls4ml()
    if folder is None:
        return {}
    try:
        listed = importlib.metadata.files("hls4ml") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    licences = [Path(str(file.locate())) for file in listed if file.name == "LICENSE"]
    texts = [file.read_bytes() for file in licences if file.is_file()]
    licence = next((text for text in texts if b"Apache License" in text), None)
    if licence is None:
        return {}
    headers = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.h"))}
    free = {name: text for name, text in headers.items() if b"Licensed under the Apache License" in text[:2000]}
    return {**free, "LICENSE": licence}


def find_compiler(compiler: Compiler) -> list[str]:
    """The command of a compiler: `CXX` or `CC` where set, else the first known compiler on the path.

    Raises:
        DependencyError: there is none.
    """
    named = os.environ.get(compiler.variable)
    for command in [named] if named else compiler.commands:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    looked = f"'{named}', which {compiler.variable} names," if named else ", ".join(compiler.commands)
    raise DependencyError(f"no compiler: {looked} not found on the path; install g++, or set {compiler.variable}")


def compile_and_run(directory: str | Path, *, flags: Sequence[str] = (), timeout_s: float = 600.0) -> TestBenchResult:
    """Compile an exported network with its test bench and replay its vectors. Leaves nothing behind.

    Args:
        directory: what `export_hls` returned.
        flags: compiler flags after our own, for example `["-Werror"]`.
        timeout_s: seconds for compiling and again for running.

    Returns:
        What the test bench said; `passed` is False when any code differs.

    Raises:
        DependencyError: no compiler or no headers.
        FileFormatError: the directory or its data is not a complete export.
        VerificationError: the compiler refuses the code, or something takes longer than `timeout_s`.
    """
    folder = Path(directory)
    known = [target.compiler for target in TARGETS.values() if target.compiler is not None]
    complete = [compiler for compiler in known if all((folder / file).is_file() for file in compiler.sources)]
    if not complete:
        expected = " or ".join(str(compiler.sources) for compiler in known)
        raise FileFormatError(f"'{folder}' holds no exported network; expected {expected}")
    compiler = complete[0]
    headers = ["-isystem", str(_headers_for(folder))] if compiler is CXX else []
    command = [*find_compiler(compiler), *compiler.flags, *flags, *headers, f"-I{folder / 'src'}"]
    with tempfile.TemporaryDirectory() as scratch:
        program = str(Path(scratch) / "tb")
        sources = [str(folder / file) for file in compiler.sources]
        compiled = run([*command, *sources, "-lm", "-o", program], timeout_s)
        if compiled.returncode != 0:
            raise VerificationError(f"the compiler refused '{folder}':\n{compiled.stderr[:2000]}")
        done = run([program, str(folder / "tb")], timeout_s)
    summary = _SUMMARY.search(done.stdout)
    if summary is None:
        raise FileFormatError(
            f"the test bench of '{folder}' could not read its data (exit status {done.returncode}): {done.stderr}"
        )
    vectors, input_mismatches, output_mismatches = map(int, summary.groups())
    passed = done.returncode == 0 and not input_mismatches and not output_mismatches
    return TestBenchResult(
        passed, vectors, input_mismatches, output_mismatches, done.stdout + done.stderr, compiled.stderr
    )


def _headers_for(folder: Path) -> Path:
    """What `AP_TYPES` names, else what came with the export, else what is installed."""
    own = folder / AP_TYPES
    return own if (own / HEADER).is_file() and not os.environ.get("AP_TYPES") else find_ap_types()


def run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end.

    Raises:
        VerificationError: it takes longer than `timeout_s`.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"'{command[0]}' did not finish in {timeout_s:g} s") from error
