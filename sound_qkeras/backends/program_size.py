"""How much flash and RAM exported C takes, as a compiler and `size` count it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sound_qkeras.backends.targets import CC
from sound_qkeras.backends.toolchain import find_compiler, run
from sound_qkeras.errors import DependencyError, VerificationError

# A compiler for the microcontrollers that most users have; where it is not there, this machine's own.
CROSS, CROSS_FLAGS = "arm-none-eabi-gcc", ("-mcpu=cortex-m4", "-mthumb")
FLAGS = ("-std=c99", "-Os", "-c", "-fstack-usage")
SECONDS = 600.0


@dataclass(frozen=True)
class ProgramSize:
    """What the network's own code and data take; a program adds what is its own, and what it takes of the C library.

    Args:
        flash: bytes of code and constants.
        ram: bytes of static buffers, and of the stack of all its functions together.
        processor: what it was compiled for.
    """

    flash: int
    ram: int
    processor: str

    def summary(self) -> str:
        """One line."""
        return f"{self.processor}, -Os: {self.flash:,} bytes of flash, about {self.ram:,} bytes of RAM"


def program_size(directory: str | Path) -> ProgramSize:
    """Compile the network of an export in C for size, and count.

    Uses `arm-none-eabi-gcc` for a Cortex-M4 where it is on the path; else this machine's compiler, whose constants and buffers are
    as large as a microcontroller's and whose code is not.

    Args:
        directory: what `export_hls(..., target="c")` returned.

    Raises:
        DependencyError: there is no compiler, or no `size`.
        VerificationError: the compiler refuses the code.
    """
    source = Path(directory) / CC.sources[0]
    if shutil.which(CROSS) is not None:
        found = _compiled(source, [CROSS, *CROSS_FLAGS], CROSS.replace("gcc", "size"), "Cortex-M4")
        if isinstance(found, ProgramSize):
            return found  # without a C library for it the compiler is of no use
    found = _compiled(source, find_compiler(CC), "size", "this machine's processor")
    if isinstance(found, str):
        raise VerificationError(f"the compiler refused '{source}':\n{found[:2000]}")
    return found


def _compiled(source: Path, compiler: list[str], tool: str, processor: str) -> ProgramSize | str:
    """The size; or what the compiler says against the code."""
    if shutil.which(tool) is None:
        raise DependencyError(f"'{tool}' is not on the path; install binutils")
    with tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch) / "net.o"
        done = run([*compiler, *FLAGS, str(source), "-o", str(compiled)], SECONDS)
        if done.returncode != 0:
            return done.stderr
        head, _, numbers = run([tool, str(compiled)], SECONDS).stdout.partition("\n")
        if head.split()[:3] != ["text", "data", "bss"]:
            raise DependencyError(f"'{tool}' is not that of binutils; install binutils")
        text, data, bss = map(int, numbers.split()[:3])
        frames = compiled.with_suffix(".su").read_text(encoding="utf-8").splitlines()
    stack = sum(int(line.split("\t")[1]) for line in frames)
    return ProgramSize(text + data, data + bss + stack, processor)
