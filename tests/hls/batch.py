"""Many exported networks in one compilation: the headers are most of what a small network costs to compile."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sound_qkeras.hls.toolchain import FLAGS, find_ap_types, find_compiler

FILES = ("src/types.h", "src/weights.h", "src/net.h", "src/net.cpp", "tb/tb.cpp")


def run_together(exports: Sequence[Path], scratch: Path) -> str:
    """Compile HLS exports into one program, each in a namespace of its own; returns what their test benches print."""
    text = [
        "#include <ap_fixed.h>",
        "#include <ap_int.h>",
        "#include <cstdint>",
        "#include <cstdio>",
        "#include <string>",
    ]
    for index, export in enumerate(exports):
        body = "\n".join((export / file).read_text(encoding="utf-8") for file in FILES)
        body = re.sub(r"^#(include|ifndef|define|endif).*$", "", body, flags=re.MULTILINE).replace(
            "int main(", "int bench("
        )
        text.append(f"namespace n{index} {{\n{body}\n}}")
    calls = "".join(
        f'    {{ char folder[] = "{export / "tb"}"; char* arguments[] = {{folder, folder}}; '
        f'std::printf("{index} %d: ", n{index}::bench(2, arguments)); std::fflush(stdout); }}\n'
        for index, export in enumerate(exports)
    )
    text.append(f"int main() {{\n{calls}    return 0;\n}}\n")
    source, program = scratch / "batch.cpp", scratch / "batch"
    source.write_text("\n".join(text), encoding="utf-8")
    command = [*find_compiler("hls"), *FLAGS["hls"], "-O0", "-Werror", "-isystem", str(find_ap_types())]
    done = subprocess.run([*command, str(source), "-o", str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return subprocess.run([str(program)], capture_output=True, text=True, check=False).stdout
