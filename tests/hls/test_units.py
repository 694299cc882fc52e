"""Clipped and leaky units and tables: exported code computes the simulator's integers, over every code they can read."""

import numpy as np
import pytest

from sound_qkeras.backends import compile_and_run, estimate, export_hls
from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Clip, Dense, Input, Table
from tests import units

from .batch import run_together
from .networks import BOTH

pytestmark = [pytest.mark.hls, pytest.mark.slow]
PLAIN, FINE = {"x": 6, "first": 5, "unit": 9}, {"x": 9, "first": 12, "unit": 10}


def every_code(op, source, output):
    """A unit that reads the input's codes, one after the other, through a Dense layer that changes nothing."""
    one = np.ones((1, 1))
    nodes = [
        Node("x", Input((1,)), (), "x"),
        Node("same", Dense(one, np.zeros(1)), ("x",), "same"),
        Node("unit", op, ("same",), "unit"),
    ]
    codes = AffineCodes(np.array([[1]]), Format(2, 1, True), np.zeros(1, np.int64), Format(1, 1, False))
    formats = {"x": source, "same": source, "unit": output}
    box = np.array([source.minimum]), np.array([source.maximum])
    return Pair(Network(tuple(nodes)), {"same": codes}, formats, {"same": source}), box


@pytest.mark.parametrize("bits", [PLAIN, FINE], ids=["plain", "fine"])
def test_units_as_c(tmp_path, bits):
    for name, op in units.UNITS.items():
        quantized, box = units.twin(units.network(op), bits)
        for style in BOTH:
            folder = export_hls(quantized, tmp_path / f"{name}_{style}", box=box, style=style, target="c", vectors=64)
            result = compile_and_run(folder, flags=["-Werror"])
            assert result.passed, (name, result.output)


def test_units_as_hls(tmp_path):
    exports = []
    for index, (name, op) in enumerate(units.UNITS.items()):
        quantized, box = units.twin(units.network(op), (PLAIN, FINE)[index % 2])
        exports.append(export_hls(quantized, tmp_path / name, box=box, style=BOTH[index // 2 % 2], vectors=64))
    assert run_together(exports) == [0] * len(exports)


@pytest.mark.parametrize("function", ["sigmoid", "swish", "elu"])
def test_every_entry_in_c(tmp_path, function):
    """Random vectors of a box as wide as the format: all of its codes are among them."""
    for number, (source, output) in enumerate(
        [(Format(10, 3, True), Format(10, 4, True)), (Format(12, 3, True), Format(8, 4, True))]
    ):
        quantized, box = every_code(Table(function), source, output)
        assert (quantized.tables["unit"].shift > 0) == (number == 1)
        folder = export_hls(quantized, tmp_path / str(number), box=box, target="c", vectors=60_000)
        read = {line.split()[0] for line in (folder / "tb" / "inputs.dat").read_text().splitlines()[1:]}
        assert len(read) == 2**source.word_length
        assert compile_and_run(folder).passed


def test_a_wrong_entry_is_noticed(tmp_path):
    quantized, box = every_code(Table("sigmoid"), Format(8, 3, True), Format(9, 1, True))
    folder = export_hls(quantized, tmp_path / "net", box=box, target="c", vectors=4000)
    weights = folder / "src" / "weights.h"
    lines = weights.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if "unit_w" in line) + 4
    first = lines[at].split(",")[0]
    lines[at] = lines[at].replace(first, str(int(first) + 1), 1)
    weights.write_text("\n".join(lines))
    assert not compile_and_run(folder).passed


def test_verilog_clips_and_refuses_tables(tmp_path):
    quantized, box = units.twin(units.network(Table("tanh")), PLAIN)
    with pytest.raises(UnsupportedLayerError, match="target 'verilog'"):
        export_hls(quantized, tmp_path / "table", box=box, target="verilog")
    quantized, box = units.twin(units.network(Clip(1.5)), PLAIN)
    assert (export_hls(quantized, tmp_path / "clip", box=box, target="verilog") / "src" / "net.v").exists()


def test_the_estimate_counts_the_entries():
    quantized, _ = units.twin(units.network(Table("tanh")), FINE)
    layer = next(row for row in estimate(quantized).layers if row.node == "unit")
    held = quantized.tables["unit"]
    assert layer.memory_bits == held.codes.size * held.width
