"""What is written, and what is refused before anything is written. Nothing here needs a compiler."""

import json
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from sound_qkeras.backends import export, export_hls
from sound_qkeras.backends.names import RESERVED, check_name, identifiers
from sound_qkeras.backends.render import interval
from sound_qkeras.backends.writers import WRITERS
from sound_qkeras.backends.writers.affine import Factors
from sound_qkeras.errors import InputError, UnsupportedLayerError, VerificationError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network
from sound_qkeras.network.ops import Relu
from sound_qkeras.network.simulate import simulate_codes

from .networks import STYLES, channelled, dense, steering

HLS_TREE = {
    *("src/types.h", "src/weights.h", "src/net.h", "src/net.cpp", "tb/tb.cpp", "tb/inputs.dat", "tb/expected.dat"),
    *("build/Makefile", "build/run_hls.tcl", "build/directives.tcl", "report.json", "manifest.json", "README.md"),
}


def tree(folder):
    """Our own files: others' headers are tested in `test_toolchain`."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {file for file in files if not file.startswith("ap_types/")}


def test_the_tree_is_complete_and_nothing_else_is_left(tmp_path):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "out" / "hls", box=box)
    assert tree(folder) == HLS_TREE
    assert [path.name for path in folder.parent.iterdir()] == ["hls"]
    assert tree(export_hls(quantized, tmp_path / "v", box=box, target="verilog")) == {
        *("src/net.v", "tb/inputs.dat", "tb/expected.dat", "report.json", "README.md", "manifest.json")
    }
    assert tree(export_hls(quantized, tmp_path / "c", box=box, target="c")) == {
        file.replace("net.cpp", "net.c").replace("tb.cpp", "tb.c") for file in HLS_TREE if not file.endswith(".tcl")
    }


@pytest.mark.parametrize(("style", "target"), STYLES)
def test_writing_twice_gives_the_same_text(tmp_path, style, target):
    quantized, box = steering()
    a, b = (export_hls(quantized, tmp_path / name, box=box, style=style, target=target) for name in "ab")
    for file in tree(a):
        assert (a / file).read_bytes() == (b / file).read_bytes(), file


def test_data_files_hold_the_simulator_s_codes(tmp_path):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box, vectors=50)
    inputs = (folder / "tb" / "inputs.dat").read_text(encoding="utf-8").split()
    expected = (folder / "tb" / "expected.dat").read_text(encoding="utf-8").split()
    count = int(inputs[0])
    assert inputs[1] == "3"
    assert expected[:2] == [str(count), "2"]
    codes = np.array(inputs[2::2], dtype=np.int64).reshape(count, 3)
    reals = np.array([float.fromhex(text) for text in inputs[3::2]]).reshape(count, 3)
    np.testing.assert_array_equal(codes, quantized.formats["x"].quantize(reals))
    outputs = np.array(expected[2:], dtype=np.int64).reshape(count, 2)
    np.testing.assert_array_equal(outputs, simulate_codes(quantized, reals))
    assert np.all((reals >= box[0]) & (reals <= box[1]))
    for corner in np.array(np.meshgrid(*zip(*box, strict=True))).reshape(3, -1).T:
        assert np.any(np.all(reals == corner, axis=1))
    assert np.any(np.all(reals == 0.0, axis=1))
    ties = np.ldexp(reals, 6) % 1.0 == 0.5
    assert np.sum(ties) > 50
    assert {0, 1} == set(np.unique(codes[ties] // 2 % 2))


def test_zero_weights_cost_nothing_unrolled(tmp_path):
    quantized, box = steering()
    code = (export_hls(quantized, tmp_path / "net", box=box) / "src" / "net.cpp").read_text(encoding="utf-8")
    nonzero = sum(np.count_nonzero(codes.kernel) for codes in quantized.parameters.values())
    assert len(re.findall(r"^ *add_product", code, re.MULTILINE)) == nonzero == 13
    assert "dense_out3" not in code  # the dead neuron is its bias


def test_the_report_says_what_was_proved(tmp_path):
    quantized, box = steering()
    certificate = {"tier": "sound", "eps": np.array([0.5, 0.25]), "bound": np.float64(0.125), "splits": np.int64(3)}
    ranges = {"dense": (np.array([-0.5, -1.0]), np.array([0.25, 1.0])), "steer": (-1 / 3, 1)}
    folder = export_hls(quantized, tmp_path / "net", box=box, ranges=ranges, certificate=certificate, name="steer2")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["certificate"] == {"tier": "sound", "eps": [0.5, 0.25], "bound": 0.125, "splits": 3}
    assert report["box"] == {"lower": box[0].tolist(), "upper": box[1].tolist()}
    assert report["weight_hash"] == quantized.network.weight_hash
    assert report["code_hash"] == quantized.code_hash
    tensors = {tensor["node"]: tensor for tensor in report["tensors"]}
    assert tensors["dense"]["proved_range"] == [-1.0, 1.0]
    assert tensors["dense_relu"]["format"] == {
        "word_length": 6, "integer_bits": 1, "signed": False, "fractional_bits": 5,
    }  # fmt: skip
    types = (folder / "src" / "types.h").read_text(encoding="utf-8")
    assert "// steer (dense), 2 values, step 2^-8, proved in [-0.3333334, 1]" in types
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "- bound: 0.125" in readme
    assert "- tier: sound" in readme


def test_text_from_outside_cannot_leave_a_comment(tmp_path):
    quantized, box = steering()
    nasty = "x */ \\\n#error ??/ <&> é"

    def called(name):
        return nasty if name == "dense" else name

    def rename(found):
        return {called(name): value for name, value in found.items()}

    nodes = [
        replace(node, name=called(node.name), inputs=tuple(map(called, node.inputs)))
        for node in quantized.network.nodes
    ]

    renamed = replace(
        quantized, reference=Network(tuple(nodes)), parameters=rename(quantized.parameters),
        accumulators=rename(quantized.accumulators),
    )  # fmt: skip
    folder = export_hls(renamed, tmp_path / "net", box=box, certificate={"tier": "*/\n#error"})
    for file in tree(folder) - {"report.json", "README.md"}:
        text = (folder / file).read_text(encoding="utf-8")
        assert "#error" not in text, file
        assert text.isascii(), file


def test_names():
    odd = ["int8", "int8_1", "while", "Dense", "dense", "a.b", "a/b", "7", "", "__x__", "net", "dense_w", "size", "log"]
    found = identifiers(dict.fromkeys(odd, 3), "net")
    assert set(found) == set(odd)
    derived = [found[name] + suffix for name in odd for suffix in ("_layer", "_t", "_w", "_w_t", "_out0", "_code_t")]
    assert len(set(derived)) == len(derived)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) and "__" not in name for name in derived)
    assert not set(derived) & {word + suffix for word in RESERVED for suffix in ("", "_t")}
    assert found["dense"] == "dense"


@pytest.mark.parametrize("name", ["", "2net", "a b", "a-b", "int", "printf", "module", "x;y", "a\nb", "é", "_net"])
def test_top_names_that_are_no_identifiers(tmp_path, name):
    quantized, box = steering()
    with pytest.raises(InputError, match="cannot name a C function"):
        export_hls(quantized, tmp_path / "net", box=box, name=name)
    assert not (tmp_path / "net").exists()
    assert check_name("net") == "net"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "flat"}, "style 'flat' is unknown; accepted: 'unrolled', 'loops'"),
        ({"target": "vhdl"}, "target 'vhdl' is unknown; accepted: 'hls', 'c', 'verilog', 'hls4ml'"),
        (
            {"target": "hls4ml", "style": "loops"},
            "target 'hls4ml' is a project of hls4ml, which only `to_hls4ml` builds",
        ),
        ({"input_guard": "clip"}, "input_guard 'clip' is unknown; accepted: None, 'saturate'"),
        ({"reuse_factor": 0, "style": "loops"}, "reuse_factor 0 is not"),
        ({"reuse_factor": 1.5, "style": "loops"}, r"reuse_factor 1\.5 is not"),
        ({"reuse_factor": 2, "style": "unrolled"}, "only with style='loops'"),
        ({"reuse_factor": 2, "style": "loops", "target": "c"}, "only with style='loops', target='hls'"),
        ({"style": "loops", "target": "verilog"}, "accepted with style='unrolled'"),
        ({"input_guard": "saturate", "target": "verilog"}, "no guard of its inputs"),
        ({"part": "a;exec"}, "part 'a;exec' is not a device name"),
        ({"clock_ns": 0.0}, r"clock_ns 0\.0 is not a clock period"),
        ({"clock_ns": float("nan")}, "clock_ns nan is not"),
        ({"vectors": 0}, "vectors 0 is not"),
        ({"ranges": {"denser": (0, 1)}}, r"ranges are given for \['denser'\]"),
        ({"ranges": {"dense": (1, 0)}}, r"the range of 'dense' is \[1\.0, 0\.0\]"),
        ({"certificate": {"bound": object()}}, "the certificate is no json"),
        ({"certificate": {"bound": float("nan")}}, "the certificate is no json"),
    ],
)
def test_options_that_are_refused(tmp_path, options, message):
    quantized, box = steering()
    with pytest.raises(InputError, match=message):
        export_hls(quantized, tmp_path / "net", **{"box": box, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((np.zeros(2), np.ones(2)), r"shapes \(2,\) and \(2,\), expected the input's shape \(3,\)"),
        ((np.ones(3), np.zeros(3)), "lower at most upper"),
        ((np.zeros(3), np.full(3, np.inf)), "must be finite"),
        ((np.zeros(3), np.full(3, 2.0)), "inputs would overflow"),
        (np.zeros(3), "a pair"),
    ],
)
def test_boxes_that_are_refused(tmp_path, box, message):
    with pytest.raises(InputError, match=message):
        export_hls(steering()[0], tmp_path / "net", box=box)


def test_ranges_that_do_not_belong_to_the_box_are_noticed(tmp_path):
    quantized, box = steering()
    narrow = replace(quantized, accumulators={**quantized.accumulators, "dense": Format(12, 0, True)})
    with pytest.raises(VerificationError, match="layer 'dense': a sample inside the box overflows"):
        export_hls(narrow, tmp_path / "net", box=box)
    narrow = replace(quantized, formats={**quantized.formats, "dense_relu": Format(5, 0, False)})
    with pytest.raises(VerificationError, match="layer 'dense'"):
        export_hls(narrow, tmp_path / "net", box=box)
    with pytest.raises(InputError, match="no accumulator format"):
        export_hls(replace(quantized, accumulators={}), tmp_path / "net", box=box)


def test_too_large_for_straight_code(tmp_path, monkeypatch):
    quantized, box = steering()
    monkeypatch.setattr(export, "UNROLLED_LIMIT", 12)
    with pytest.raises(InputError, match=r"13 products.*at most 12; use style='loops'"):
        export_hls(quantized, tmp_path / "net", box=box, style="unrolled")
    chosen = export_hls(quantized, tmp_path / "net", box=box)
    loops = export_hls(quantized, tmp_path / "loops", box=box, style="loops")
    assert (chosen / "src" / "net.cpp").read_text() == (loops / "src" / "net.cpp").read_text()


def test_too_wide_for_c(tmp_path):
    quantized, _ = steering()
    wide = replace(
        quantized,
        formats={**quantized.formats, "x": Format(48, 41, True)},
        parameters={**quantized.parameters, "dense": replace(
            quantized.parameters["dense"], bias=np.array([1, 0, 0, 0]), bias_format=Format(2, -23, True))},
        accumulators={**quantized.accumulators, "dense": Format(66, 41, True)},
    )  # fmt: skip
    with pytest.raises(InputError, match="adds up in 64 bits; the widest tensor, 'dense', needs 66"):
        export_hls(wide, tmp_path / "net", box=(np.zeros(3), np.ones(3)), target="c")


def test_directories(tmp_path):
    quantized, box = steering()
    folder = tmp_path / "net"
    folder.mkdir()
    export_hls(quantized, folder, box=box)  # an empty one is used
    (folder / "src" / "mine.h").touch()
    with pytest.raises(InputError, match=r"an earlier export; pass overwrite=True"):
        export_hls(quantized, folder, box=box)
    export_hls(quantized, folder, box=box, overwrite=True)
    assert tree(folder) == {*HLS_TREE, "src/mine.h"}
    (tmp_path / "file").touch()
    (tmp_path / "project" / "src").mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "report.json").write_text("{}", encoding="utf-8")
    for name, message in (("file", "is a file"), ("project", "not empty"), ("reports", "not written by")):
        with pytest.raises(InputError, match=message):
            export_hls(quantized, tmp_path / name, box=box, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "net", "project", "reports"]


def test_a_failure_leaves_the_earlier_export(tmp_path):
    quantized, box = steering()
    folder = export_hls(quantized, tmp_path / "net", box=box)
    before = {file: (folder / file).read_bytes() for file in tree(folder)}
    with pytest.raises(InputError):
        export_hls(quantized, folder, box=box, overwrite=True, certificate={"bound": object()})
    assert {file: (folder / file).read_bytes() for file in tree(folder)} == before


@dataclass(frozen=True)
class Swish(Relu):
    kind: ClassVar[str] = "swish"


def test_operations_without_a_writer(tmp_path):
    quantized, box = steering()
    nodes = [replace(node, op=Swish()) if node.name == "dense_relu" else node for node in quantized.network.nodes]
    unknown = replace(quantized, reference=Network(tuple(nodes)))
    accepted = ", ".join(sorted(WRITERS))
    with pytest.raises(UnsupportedLayerError, match=f"operation 'swish' for target 'hls'; accepted: {accepted}"):
        export_hls(unknown, tmp_path / "net", box=box)


def test_reuse_factors_set_the_unrolling(tmp_path):
    quantized, box = dense((5, 12, 2))
    for reuse, outputs, inputs in ((1, 12, 5), (5, 12, 1), (20, 3, 1), (10**6, 1, 1)):
        folder = export_hls(quantized, tmp_path / f"r{reuse}", box=box, style="loops", reuse_factor=reuse)
        code = (folder / "src" / "net.cpp").read_text(encoding="utf-8")
        assert f"5 -> 12, {outputs * inputs} multipliers for 60 products" in code
        assert f"variable=dense_0_w cyclic dim=2 factor={outputs}" in code
        assert Factors.of(5, 12, reuse) == Factors(inputs, outputs)


def test_ranges_are_printed_outward():
    assert interval(0.1, 0.1) == "[0.1, 0.1000001]"
    assert interval(-123456789.0, 2.0**-30) == "[-1.234568e+8, 9.313226e-10]"


def test_channels_are_declared_in_their_own_bits(tmp_path):
    quantized, box = channelled()
    straight = export_hls(quantized, tmp_path / "unrolled", box=box)
    text = (straight / "src" / "net.cpp").read_text(encoding="utf-8")
    assert [text.count(f"add_product<{kind}>") for kind in ("ap_uint<5>", "ap_int<6>", "ap_int<3>", "ap_int<4>")] == [
        2,
        2,
        2,
        3,
    ]
    loops = export_hls(quantized, tmp_path / "loops", box=box, style="loops")
    weights = (loops / "src" / "weights.h").read_text(encoding="utf-8")
    assert "static const uint8_t dense_s[4] = {\n    0, 1, 4, 4\n};" in weights
    assert "{12, -3, 0, 0}" in weights
    entry = json.loads((loops / "report.json").read_text(encoding="utf-8"))["weights"][0]
    assert [output["word_length"] for output in entry["channel_formats"]] == [5, 6, 3, 1]
    assert [output["fractional_bits"] for output in entry["channel_formats"]] == [5, 4, 1, 1]
