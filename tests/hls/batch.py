"""Many exported networks in one compilation: the headers are most of what a small network costs to compile."""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sound_qkeras.backends.targets import CXX
from sound_qkeras.backends.toolchain import find_ap_types, find_compiler

FILES = ("src/types.h", "src/weights.h", "src/net.h", "src/net.cpp", "tb/tb.cpp")


def run_together(exports: Sequence[Path]) -> list[int]:
    """Compile HLS exports into one program, each in its own namespace; returns how many outputs of each are wrong."""
    headers = ("ap_fixed.h", "ap_int.h", "cstdint", "cstdio", "string")
    text = [f"#include <{header}>" for header in headers]
    for index, export in enumerate(exports):
        body = "\n".join((export / file).read_text(encoding="utf-8") for file in FILES)
        body = re.sub(r"^#(include|ifndef|define|endif).*$", "", body, flags=re.MULTILINE)
        text.append(f"namespace n{index} {{\n{body.replace('int main(', 'int bench(')}\n}}")
    text.append("int main(int count, char** folders) {")
    text.extend(f"    n{index}::bench(count, folders + {index});" for index in range(len(exports)))
    text.append("    return 0;\n}")
    with tempfile.TemporaryDirectory() as scratch:
        source, program = Path(scratch) / "batch.cpp", Path(scratch) / "batch"
        source.write_text("\n".join(text), encoding="utf-8")
        command = [*find_compiler(CXX), *CXX.flags, "-O0", "-Werror", "-isystem", str(find_ap_types())]
        done = subprocess.run([*command, str(source), "-o", str(program)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        folders = [str(export / "tb") for export in exports]
        ran = subprocess.run([str(program), *folders], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.findall(r"(\d+) vectors, (\d+) input mismatches, (\d+) output mismatches", ran.stdout)
    assert len(found) == len(exports), ran.stdout
    assert all(int(vectors) > 32 and int(wrong) == 0 for vectors, wrong, _ in found), ran.stdout
    return [int(wrong) for _, _, wrong in found]
