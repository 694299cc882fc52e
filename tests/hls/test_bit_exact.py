"""Compiled, the exported code gives the simulator's integers; no tolerance anywhere."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from sound_qkeras.backends import compile_and_run, export_hls, find_ap_types
from sound_qkeras.backends.export import needed_bits
from sound_qkeras.backends.options import InputGuard, Options
from sound_qkeras.backends.plan import make_plan
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input
from sound_qkeras.network.simulate import simulate_codes

from .batch import run_together
from .drawing import Claimed, networks
from .networks import BOTH, STYLES, channelled, controller, dense, steering

pytestmark = [pytest.mark.hls, pytest.mark.slow]

GUARDS: tuple[InputGuard | None, ...] = (None, "saturate")
SANITIZED = ["-fsanitize=undefined", "-fno-sanitize-recover", "-w"]  # gcc warns about its own instrumentation
# Without shrinking: every attempt is a compilation.
FEW = settings(
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
)


@settings(FEW, max_examples=3)
@given(st.lists(networks(), min_size=10, max_size=10))
def test_random_networks_as_hls(claimed: list[Claimed]):
    with tempfile.TemporaryDirectory() as scratch:
        exports = []
        for index, (quantized, box) in enumerate(claimed):
            style, guard = BOTH[index % 2], GUARDS[index // 2 % 2]
            folder = Path(scratch) / str(index)
            exports.append(export_hls(quantized, folder, box=box, style=style, input_guard=guard, vectors=64))
        assert run_together(exports) == [0] * len(exports)


@settings(FEW, max_examples=25)
@given(networks(widest=64), st.sampled_from(GUARDS))
def test_random_networks_as_c(claimed: Claimed, guard: InputGuard | None):
    quantized, box = claimed
    if max(needed_bits(layer) for layer in make_plan(quantized, Options(target="c")).layers) > 64:
        return
    with tempfile.TemporaryDirectory() as scratch:
        for style in BOTH:
            folder = Path(scratch) / style
            export_hls(quantized, folder, box=box, style=style, target="c", input_guard=guard, vectors=64)
            clean, sanitized = (compile_and_run(folder, flags=flags) for flags in (["-Werror"], SANITIZED))
            assert clean.passed, clean
            assert sanitized.passed, sanitized
            assert clean.warnings == ""


MUTATIONS = (("-32", "-31"), ("-16", "-15"), ("-90", "-91"), ("5, -6", "5, -5"))


def mutants(folder: Path) -> list[Path]:
    """Copies of an export with one weight or bias changed by one step."""
    copies = []
    for index, (old, new) in enumerate(MUTATIONS):
        copy = Path(shutil.copytree(folder, f"{folder}_{index}"))
        weights = copy / "src" / "weights.h"
        text = weights.read_text(encoding="utf-8")
        assert text.count(old) == 1
        weights.write_text(text.replace(old, new), encoding="utf-8")
        copies.append(copy)
    return copies


def test_a_changed_weight_is_noticed_in_hls(tmp_path):
    quantized, box = steering()
    folders = [export_hls(quantized, tmp_path / style, box=box, style=style) for style in BOTH]
    wrong = run_together([*folders, *(copy for folder in folders for copy in mutants(folder))])
    assert wrong[:2] == [0, 0]
    assert min(wrong[2:]) > 0


@pytest.mark.parametrize("style", BOTH)
def test_a_changed_weight_is_noticed_in_c(tmp_path, style):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box, style=style, target="c")
    assert compile_and_run(folder).passed
    for copy in mutants(folder):
        result = compile_and_run(copy)
        assert not result.passed
        assert result.output_mismatches > 0
        assert result.input_mismatches == 0
        assert "expected" in result.output


CONTROLLERS = ("MountainCarNN", "ACC5NN", "UnicycleNN")


def test_published_controllers_as_hls(tmp_path, shared_nets):
    exports = []
    for name in CONTROLLERS:
        quantized, box = controller(shared_nets / "controllers" / f"{name}.npz")
        exports += [export_hls(quantized, tmp_path / style / name, box=box, style=style, name=name) for style in BOTH]
    assert run_together(exports) == [0] * 6


@pytest.mark.parametrize("style", BOTH)
@pytest.mark.parametrize("name", CONTROLLERS)
def test_published_controllers_as_c(tmp_path, shared_nets, name, style):
    quantized, box = controller(shared_nets / "controllers" / f"{name}.npz")
    folder = export_hls(quantized, tmp_path / "net", box=box, style=style, target="c", name=name)
    result = compile_and_run(folder, flags=["-Werror"])
    assert result.passed, result
    assert result.vectors > 256


@pytest.mark.parametrize(("style", "target"), STYLES)
def test_the_code_compiles_without_warnings(tmp_path, style, target):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box, style=style, target=target)
    result = compile_and_run(folder)
    assert result.passed
    assert result.warnings == ""


@pytest.mark.parametrize("target", ["hls", "c"])
def test_loops_stay_small_with_100_000_weights(tmp_path, target):
    code = {}
    for name, sizes in (("small", (11, 8, 2)), ("large", (301, 320, 10))):
        quantized, box = dense(sizes, bits=8)
        reuse = 64 if target == "hls" else 1
        folder = export_hls(
            quantized, tmp_path / name, box=box, style="loops", target=target, reuse_factor=reuse, vectors=32
        )
        file = folder / "src" / ("net.cpp" if target == "hls" else "net.c")
        code[name] = len(file.read_text(encoding="utf-8"))
    assert code["large"] < code["small"] + 200
    assert compile_and_run(tmp_path / "large", timeout_s=120).passed


def test_a_sum_wider_than_64_bits(tmp_path):
    kernel, wide = np.full((3, 1), (1 << 30) - 1), Format(30, 10, False)
    network = Network((Node("x", Input((3,)), (), "x"), Node("y", Dense(np.ones((3, 1)), np.zeros(1)), ("x",), "y")))
    codes = AffineCodes(kernel, wide, np.array([-5]), Format(4, -40, True))
    quantized = Pair(network, {"y": codes}, {"x": Format(40, 19, True)}, {"y": Format(77, 33, True)})
    box = (np.full(3, -(2.0**19)), np.full(3, 2.0**19 - 1.0))
    assert simulate_codes(quantized, np.stack(box)).dtype == object
    for style in BOTH:
        assert compile_and_run(export_hls(quantized, tmp_path / style, box=box, style=style)).passed


@pytest.mark.parametrize("round_output", [False, True])
def test_channels_and_a_rounded_result(tmp_path, round_output):
    """Every style gives the simulator's codes; a shift that is off by one is noticed."""
    quantized, box = channelled(round_output)
    folders = [export_hls(quantized, tmp_path / style, box=box, style=style) for style in BOTH]
    changes = (("src/net.cpp", "sum <<= 4;", "sum <<= 3;"), ("src/weights.h", "0, 1, 4, 4", "0, 1, 3, 4"))
    mutated = [changed(folder, *change) for folder, change in zip(folders, changes, strict=True)]
    wrong = run_together([*folders, *mutated])
    assert wrong[:2] == [0, 0]
    assert min(wrong[2:]) > 0
    for style in BOTH:
        folder = export_hls(quantized, tmp_path / f"c_{style}", box=box, style=style, target="c")
        assert compile_and_run(folder, flags=["-Werror"]).passed
        assert compile_and_run(folder, flags=SANITIZED).passed


def changed(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy with one place in one file changed."""
    copy = Path(shutil.copytree(folder, f"{folder}_changed"))
    text = (copy / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    return copy


def test_a_guarded_input_saturates_outside_its_format(tmp_path):
    """Samples outside are part of the vectors where everything behind the input still fits."""
    network = Network((Node("x", Input((2,)), (), "x"), Node("y", Dense(np.ones((2, 1)), np.zeros(1)), ("x",), "y")))
    codes = AffineCodes(np.array([[1], [1]]), Format(2, 1, True), np.array([0]), Format(2, 1, True))
    quantized = Pair(network, {"y": codes}, {"x": Format(5, 2, True)}, {"y": Format(6, 3, True)})
    box = (np.full(2, -1.0), np.full(2, 1.0))
    guarded = export_hls(quantized, tmp_path / "hls", box=box, input_guard="saturate")
    plain = export_hls(quantized, tmp_path / "plain", box=box, target="c")
    for folder in (guarded, export_hls(quantized, tmp_path / "c", box=box, target="c", input_guard="saturate")):
        result = compile_and_run(folder)
        assert result.passed, result
        assert result.vectors == compile_and_run(plain).vectors + 36


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", ["hls", "c"])
def test_the_makefile_checks(tmp_path, target):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box, target=target)
    command = ["make", "-C", str(folder / "build"), "check"] + (
        [f"AP_TYPES={find_ap_types()}"] if target == "hls" else []
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 output mismatches" in done.stdout
    assert "warning" not in done.stderr
    (folder / "tb" / "expected.dat").write_text("3 2\n0 0\n", encoding="utf-8")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def check_statically(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("style", "target"), STYLES)
def test_cppcheck_is_content(tmp_path, style, target):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box, style=style, target=target)
    source = folder / "src"
    check_statically("cppcheck", "--quiet", "--error-exitcode=1", f"-I{source}", source, folder / "tb")


@pytest.mark.parametrize("style", BOTH)
def test_clang_tidy_is_content(tmp_path, style):
    """With the C, that is: the ap_types headers themselves are not clean."""
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box, style=style, target="c")
    source = folder / "src"
    checks = ["--checks=clang-analyzer-*,clang-diagnostic-*", "--warnings-as-errors=*"]
    check_statically("clang-tidy", *checks, source / "net.c", folder / "tb" / "tb.c", "--", "-std=c99", f"-I{source}")


@pytest.mark.parametrize("style", BOTH)
@pytest.mark.parametrize("saturating", [(), ("y",)])
def test_a_narrow_result_of_a_wide_alignment(tmp_path, style, saturating):
    """Products that are shifted by 40 bits, and zero inside the box: the sum is wide, what it ends as is not."""
    network = Network((Node("x", Input((1,)), (), "x"), Node("y", Dense(np.ones((1, 2)), np.zeros(2)), ("x",), "y")))
    codes = AffineCodes(np.array([[1, 1]]), Format(2, 21, True), np.array([500, -300]), Format(10, -11, True))
    formats = {"x": Format(2, 1, True), "y": Format(4 if saturating else 6, -12 if saturating else -10, True)}
    quantized = Pair(network, {"y": codes}, formats, {"y": Format(10, -11, True)}, saturating=frozenset(saturating))
    box = (np.zeros(1), np.zeros(1))
    folder = export_hls(quantized, tmp_path / "net", box=box, style=style, target="c")
    assert compile_and_run(folder, flags=["-Werror"]).passed
