"""Weights of few values: the exported code gives the simulator's integers, and powers of two are shifts."""

import numpy as np
import pytest

from sound_qkeras import quantize
from sound_qkeras.backends import compile_and_run, find_ap_types
from tests.geometries import network_of
from tests.networks import box as box_of

from .batch import run_together
from .test_verilog import needs_yosys, simulate_together

pytestmark = [pytest.mark.hls, pytest.mark.slow]

SANITIZED = ["-fsanitize=undefined,address", "-fno-sanitize-recover", "-w"]


@pytest.fixture(scope="module")
def results():
    """Networks with each kind of layer, of each family, with scales of channels or one for each layer."""
    found = []
    for seed in range(12):
        network = network_of(np.random.default_rng(seed), seed)
        options = {"families": ("po2", "ternary", "binary")[seed % 3], "per_channel": seed % 2 == 1}
        found.append(quantize(network, 1000.0, box_of(network), effort="fast", **options))
    assert {str(codes.kernel_grid) for one in found for codes in one.pair.parameters.values()} >= {
        *("powers of two", "ternary values", "binary values")
    }
    return found


@pytest.mark.parametrize("style", ["loops", "unrolled"])
def test_c_has_the_integers(results, style, tmp_path):
    for number, result in enumerate(results):
        folder = result.export_hls(tmp_path / str(number), target="c", style=style, vectors=64)
        clean, sanitized = (compile_and_run(folder, flags=flags) for flags in (["-Werror"], SANITIZED))
        assert clean.passed, clean
        assert sanitized.passed, sanitized


@pytest.mark.skipif(find_ap_types() is None, reason="needs the ap_types headers")
def test_hls_has_the_integers(results, tmp_path):
    places = [tmp_path / str(number) for number in range(2 * len(results))]
    styles = ["loops"] * len(results) + ["unrolled"] * len(results)
    exports = [r.export_hls(p, style=s, vectors=64) for r, p, s in zip(results * 2, places, styles, strict=True)]
    assert run_together(exports) == [0] * len(exports)


@needs_yosys
def test_verilog_has_the_integers(results, tmp_path):
    claimed = [(result.pair, (result.certificate.box.lower, result.certificate.box.upper)) for result in results]
    found = simulate_together(claimed, tmp_path)
    assert len(found) == len(claimed)
    assert all(line.endswith(" 0 mismatches") for line in found), found


def test_loops_shift_where_weights_are_powers_of_two(results, tmp_path):
    text = {}
    for number in (0, 1):
        folder = results[number].export_hls(tmp_path / str(number), target="c", style="loops")
        text[number] = (folder / "src" / "net.c").read_text(encoding="utf-8")
    assert "<< ~" in text[0]
    assert "<< ~" not in text[1]
