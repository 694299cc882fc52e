"""Results rounded to a format per element, or to few values: the exported code gives the simulator's integers."""

from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras.backends import compile_and_run, export_hls, find_ap_types, to_hls4ml
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.network.ops import Dense, Input, MaxPool, Pad, Relu
from sound_qkeras.network.pairing import pair_of
from sound_qkeras.network.staircases import Staircase
from tests.property.test_grids import CASES, INPUTS, POWERS, SIGNS, with_grids

pytestmark = [pytest.mark.hls, pytest.mark.slow]

SANITIZED = ["-fsanitize=undefined", "-fno-sanitize-recover", "-w"]
# Ends on one side of zero, none but zero, more bits than there are and fewer than one.
ODD = FixedPoint(np.array([9, -3, 2, 4]), np.array([-9, -1, 3, 0]), np.array([-2, 0, 9, 0]))
MANY = Staircase(np.arange(-3, 4) / 2, (True, False) * 3 + (True,), np.arange(8.0) - 4)
RESULTS = {**CASES, "odd": ODD, "many": MANY}


def exported(pair, folder, target, style="loops", size=3):
    return export_hls(pair, folder, box=(np.full(size, -1.5), np.full(size, 1.5)), target=target, style=style)


@pytest.mark.parametrize("kind", RESULTS)
def test_c_rounds_to_grids(kind, tmp_path):
    for style, inputs in (("unrolled", INPUTS), ("loops", SIGNS)):
        folder = exported(with_grids(1, inputs, RESULTS[kind]), tmp_path / style, "c", style)
        clean, sanitized = (compile_and_run(folder, flags=flags) for flags in (["-Werror"], SANITIZED))
        assert clean.passed, clean
        assert sanitized.passed, sanitized


@pytest.mark.skipif(find_ap_types() is None, reason="needs the ap_types headers")
@pytest.mark.parametrize("kind", RESULTS)
def test_hls_rounds_to_grids(kind, tmp_path):
    inputs, style = (INPUTS, "loops") if kind in ("each", "signs", "many") else (POWERS, "unrolled")
    found = compile_and_run(exported(with_grids(1, inputs, RESULTS[kind]), tmp_path / "hls", "hls", style))
    assert found.passed, found


def zeros():
    """Zeros that are rounded, to one half: padding, a sum of nothing, the side of a rectifier that is zero."""
    kernel = np.zeros((2, 2))
    kernel[0, 1] = 1.0
    nodes = [
        Node("x", Input((3, 1))),
        Node("pad", Pad((2, 0), (1, 1)), ("x",)),
        Node("nothing", Dense(kernel, np.zeros(2)), ("pad",)),
        Node("unit", Relu(), ("nothing",)),
        Node("pool", MaxPool((2,), (2,), "valid"), ("unit",)),
        Node("y", Dense(np.array([[1.0], [3.0]]), np.zeros(1)), ("pool",)),
    ]
    network, rest = Network(tuple(nodes)), FixedPoint(np.array([1, 0]), np.array([0, 0]), np.array([1, 1]))
    grids = {
        "x": FixedPoint(np.array(3), np.array(-16), np.array(15)),
        "pad": SIGNS,
        "nothing": SIGNS,
        "unit": SIGNS,
        "pool": rest,
    }
    return pair_of(network, network, grids)


@pytest.mark.parametrize("target", ["c", "hls"])
def test_zeros_are_rounded_too(target, tmp_path):
    pair = zeros()
    pair = replace(pair, accumulators={n: Format.for_range(-64.0, 64.0, pair.exact_bits[n]) for n in ("nothing", "y")})
    box = np.full((3, 1), -1.5), np.full((3, 1), 1.5)
    for style in ("unrolled", "loops"):
        assert compile_and_run(export_hls(pair, tmp_path / style, box=box, target=target, style=style)).passed


def test_what_has_no_code_says_so(tmp_path):
    pair = with_grids(0)
    box = np.full(3, -1.5), np.full(3, 1.5)
    with pytest.raises(InputError, match=r"which target 'verilog' cannot; accepted: target='hls' or 'c'"):
        export_hls(pair, tmp_path / "v", box=box, target="verilog")
    with pytest.raises(InputError, match="leave out input_guard"):
        export_hls(pair, tmp_path / "c", box=box, target="c", input_guard="saturate")
    with pytest.raises(InputError, match="which target 'hls4ml' cannot"):
        to_hls4ml(pair, tmp_path / "p", box=box)
    far = with_grids(0, hidden=FixedPoint(np.array(-60), np.array(-1), np.array([1, 1, 1, 2])))
    with pytest.raises(InputError, match="drops or adds at most 62"):
        export_hls(far, tmp_path / "far", box=box, target="c")
