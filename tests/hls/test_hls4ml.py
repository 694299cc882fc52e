"""The route through hls4ml, where hls4ml is installed."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras.backends import hls4ml_project, to_hls4ml
from sound_qkeras.backends.hls4ml_layers import RESERVED, hls4ml_layers
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.plan import make_plan
from sound_qkeras.errors import DependencyError, InputError, UnsupportedLayerError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Multiply, Op, Pad, Relu, Reshape, Table, Upsample
from tests.networks import box as networks_box
from tests.networks import float32, nearest, quantized, random_network, with_parameters

from .networks import dense, steering

needs_hls4ml = pytest.mark.skipif(importlib.util.find_spec("hls4ml") is None, reason="needs hls4ml")


def compiled(test):
    """A test that compiles a project."""
    return pytest.mark.hls(pytest.mark.slow(needs_hls4ml(test)))


@compiled
def test_the_project_is_bit_exact(tmp_path):
    network, box = dense((5, 8, 3))
    before = sys.modules.get("keras")
    project = to_hls4ml(network, tmp_path / "a project", box=box, name="flight")
    assert project.bit_exact
    assert project.samples > 2000
    assert project.worst_difference == 0.0
    assert project.summary() == f"hls4ml: bit-exact on {project.samples} samples"
    assert (project.directory / "firmware" / "flight.cpp").is_file()
    assert sys.modules.get("keras") is before
    with pytest.raises(InputError, match="overwrite=True"):
        to_hls4ml(network, tmp_path / "a project", box=box)


@compiled
@pytest.mark.parametrize(("last", "bits"), [("relu", 3), ("small", 2), ("dense", 0)])
def test_a_rounded_output_is_bit_exact(tmp_path, last, bits):
    """By itself hls4ml drops or renames the last rounding where it can, and truncates to whole numbers."""
    plain = random_network(np.random.default_rng(1), (5, 6, 2))
    nodes = list(plain.nodes)
    if last == "relu":
        nodes.append(Node("end", Relu(), (nodes[-1].name,), "end"))
    if last == "small":
        op = nodes[-1].op
        nodes[-1] = replace(nodes[-1], op=replace(op, kernel=op.kernel / 64, bias=op.bias / 64))
    network, offset = Network(tuple(nodes)), 6 if last == "small" else 0
    parameters = {n.name: nearest(op, 7 + offset, 9 + offset) for n, op in network.affine()}
    points = {**dict.fromkeys(network.rounding_points, 6), network.output.name: bits + offset}
    found = with_parameters(network, networks_box(network), parameters, points)
    project = to_hls4ml(found, tmp_path / "project", box=networks_box(network), samples=500)
    assert project.bit_exact, project.summary()


@compiled
def test_wide_words_are_bit_exact(tmp_path):
    """Weights and unsigned activations beyond the 24 bits of float32, sums and a result beyond the 53 of float64."""
    network = random_network(np.random.default_rng(3), (3, 6, 4, 2))
    box = networks_box(network)
    wide = quantized(network, box, 28, 32, 50)
    assert all(not output.signed and output.word_length > 24 for name, output in wide.formats.items() if name != "x")
    assert max(output.word_length for output in wide.accumulators.values()) > 60
    project = to_hls4ml(wide, tmp_path / "project", box=box, samples=500)
    assert project.bit_exact, project.summary()


@compiled
def test_saturation_is_bit_exact(tmp_path):
    """Of the input, inside, and of the result."""
    network, box = dense((3, 6, 2))
    points = [name for name in network.formats if name != "x"]
    formats = {name: replace(one, word_length=one.word_length - 2, integer_bits=one.integer_bits - 2)
               for name, one in network.formats.items()}  # fmt: skip
    last = network.network.output.name
    formats[last] = Format(4, 0, True)
    found = replace(network, formats=formats, saturating=frozenset((*points, "x", last)))
    project = to_hls4ml(found, tmp_path / "project", box=box, samples=500)
    assert project.bit_exact, project.summary()


@compiled
def test_a_difference_is_placed(tmp_path, monkeypatch):
    """With a weight changed behind its back, the layer is named."""
    network, box = steering()

    def changed(plan, version):
        found = hls4ml_layers(plan, version)
        layer = next(one for one in found.layers if one["name"] == "steer")
        kernel = layer["weight_data"] = layer["weight_data"].copy()
        kernel[tuple(np.argwhere(kernel > 0)[0])] *= 0.5
        return found

    monkeypatch.setattr(hls4ml_project, "hls4ml_layers", changed)
    project = to_hls4ml(network, tmp_path / "project", box=box, samples=100)
    assert not project.bit_exact
    assert 0 < project.mismatches <= project.samples
    assert project.first_layer == "steer"
    assert "first in layer 'steer'" in project.summary()
    assert "word_lengths=(2, 24), or use export_hls" in project.summary()


def one_operation(op: Op, shape: tuple[int, ...], *others: tuple[int, ...], bits: int = 6) -> Pair:
    """A Dense layer, its values in some shapes, and an operation the user knows as "theirs"."""
    size = int(np.prod(shape))
    kernel = float32(np.random.default_rng(0).normal(size=(2, size)))
    nodes = [
        Node("x", Input((2,)), (), "x"),
        Node("dense", Dense(kernel, np.zeros(size)), ("x",), "dense"),
        *(Node(f"shape{i}", Reshape((size,), one), ("dense",), "shape") for i, one in enumerate((shape, *others))),
        Node("op", op, tuple(f"shape{i}" for i in range(1 + len(others))), "theirs"),
    ]
    network = Network(tuple(nodes))
    parameters: dict[str, AffineCodes] = {"dense": nearest(nodes[1].op, 4, 4)}  # type: ignore[arg-type]
    formats = dict.fromkeys(network.rounding_points, Format(bits + 4, 3, True))
    sums = {n.name: Format(20, 9, True) for n in network.nodes if n.op.accumulates}
    bare = Pair(network, parameters, formats, {})
    accumulators = {name: Format(20, 19 - bare.exact_bits[name], True) for name in sums}
    return Pair(network, parameters, formats, accumulators)


REFUSED = {
    "broadcast": (Multiply(), ((6, 1), (1, 6)), 6, "equal last axes"),
    "channels": (Upsample((1, 2)), ((2, 3),), 6, "not the channels"),
    "padded channels": (Pad((0, 1), (0, 0)), ((2, 3),), 6, "none along the channels"),
    "long table": (Table("tanh"), ((3,),), 14, r"at most 16 .*word_lengths=\(2, 16\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_hls4ml_cannot_do_is_one_line(what):
    """Before hls4ml is asked: the user's layer, hls4ml's version, the way out."""
    op, shapes, bits, accepted = REFUSED[what]
    plan = make_plan(one_operation(op, *shapes, bits=bits), Options(style="loops"))
    with pytest.raises(UnsupportedLayerError, match=f"layer 'theirs'.*hls4ml 1.2.3.*{accepted}.*export_hls") as caught:
        hls4ml_layers(plan, "1.2.3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RESERVED)
def test_names_of_its_own_files_are_refused(name):
    network, _ = steering()
    with pytest.raises(InputError, match=f"name '{name}'"):
        hls4ml_layers(make_plan(network, Options(style="loops", name=name)), "1.2.3")


@pytest.mark.hls
@needs_hls4ml
def test_errors_of_hls4ml_are_one_line(tmp_path, monkeypatch):
    """Whatever it raises, and a compiler that is not there."""
    network, box = steering()

    def failing(*arguments):
        raise KeyError("no template\nfor steer")

    with pytest.raises(InputError, match=r"backend 'Vivid'.*vitis"):
        to_hls4ml(network, tmp_path / "project", box=box, backend="Vivid")
    with monkeypatch.context() as patch:
        patch.setattr("hls4ml.model.ModelGraph.from_layer_list", failing)
        with pytest.raises(
            DependencyError, match=r"hls4ml [0-9.]+ fails at layer 'steer' \(KeyError.*export_hls"
        ) as caught:
            to_hls4ml(network, tmp_path / "project", box=box, samples=10)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=r"Failed to compile.*not found.*export_hls"):
        to_hls4ml(network, tmp_path / "project", box=box, samples=10)


def test_hls4ml_does_not_bring_tensorflow(monkeypatch):
    """It imports `keras` to write down a Keras model, of which there is none."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with hls4ml_project._without_keras(), pytest.raises(ImportError):
        importlib.import_module("keras")
    assert "keras" not in sys.modules
