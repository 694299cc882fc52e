"""Sums, products, concatenations, pooling and moves as code: exactly the simulator's integers."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sound_qkeras.backends import compile_and_run, export_hls
from sound_qkeras.backends.export import needed_bits
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.plan import make_plan
from sound_qkeras.backends.writers import WRITERS
from sound_qkeras.backends.writers.merges import MergeWriter
from sound_qkeras.backends.writers.moves import MoveWriter
from sound_qkeras.backends.writers.walks import Index, Walk, broadcast
from sound_qkeras.errors import InputError, UnsupportedLayerError
from sound_qkeras.network import Network
from sound_qkeras.network.ops import (
    Add,
    Concatenate,
    Crop,
    Dense,
    MatMul,
    MaxPool,
    Multiply,
    Pad,
    Permute,
    Reshape,
    Upsample,
)
from sound_qkeras.network.ports import Port
from tests.graphs import Builder, random_graph, random_twin

from .batch import run_together
from .drawing import Claimed, graphs
from .networks import BOTH

SANITIZED = ["-fsanitize=undefined,address", "-fno-sanitize-recover", "-w"]
# Without shrinking: every attempt is a compilation.
FEW = settings(
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
)
HEAVY = [pytest.mark.hls, pytest.mark.slow]


def every_operation(seed: int = 0) -> Claimed:
    """A network with every structural operation, a tensor read twice by one of them, and broadcasting both ways."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, (12,))
    image = b.add(Reshape((12,), (2, 3, 2)), b.dense("x", 12))
    pools = [b.add(MaxPool((2, 2), (1, 2), "same"), image), b.add(MaxPool((3, 3), (1, 1), "same"), image)]
    gate = b.add(Reshape((2,), (1, 1, 2)), b.dense(image, 2))
    padded = b.add(Pad((1, 0, 0), (0, 1, 0)), b.add(Multiply(), image, gate))
    turned = b.add(Permute((2, 0, 1)), b.add(Upsample((1, 2, 1)), padded))
    twice = b.add(Add((False, False), -1), turned, turned)
    inner = b.add(
        Crop((0, 1, 0), (1, 0, 2)), b.add(Add((True, False)), twice, b.add(Crop((1, 0, 0), (0, 0, 0)), turned))
    )
    heads = [b.add(Reshape((12,), shape), b.dense(image, 12)) for shape in ((2, 2, 3), (2, 3, 2))]
    scores = b.add(MatMul(2), b.add(MatMul(3), *heads), heads[0])
    b.add(Concatenate(0), *(b.flat(name) for name in (inner, *pools, scores)))
    return random_twin(rng, Network(tuple(b.nodes)))


@pytest.mark.parametrize("op", ["permute", "crop", "pad", "upsample", "add", "concatenate"])
def test_walks_are_what_the_operations_do(op):
    """Every index of every walk, against numpy, on tensors that hold their own places."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        shape = tuple(int(n) for n in rng.integers(1, 4, rng.integers(1, 4)))
        made = {
            "permute": lambda s: Permute(tuple(int(i) for i in rng.permutation(len(s)))),
            "crop": lambda s: Crop(tuple(int(rng.integers(0, n)) for n in s), (0,) * len(s)),
            "pad": lambda s: Pad(*(tuple(int(i) for i in rng.integers(0, 3, len(s))) for _ in range(2))),
            "upsample": lambda s: Upsample(tuple(int(i) for i in rng.integers(1, 4, len(s)))),
            "add": lambda s: Add((False, False)),
            "concatenate": lambda s: Concatenate(int(rng.integers(0, len(s)))),
        }[op](shape)
        other = tuple(int(rng.choice([1, n])) for n in shape) if op == "add" else shape
        check_walks(made, [shape] if isinstance(WRITERS[op], MoveWriter) else [shape, other])


def check_walks(op, shapes):
    """Run the loops in Python and compare with the operation."""
    b = Builder(np.random.default_rng(0), (1,))
    names = [b.add(Reshape((int(np.prod(s)),), s), b.dense("x", int(np.prod(s)))) for s in shapes]
    b.add(op, *names)
    quantized, _ = random_twin(np.random.default_rng(0), Network(tuple(b.nodes)))
    layer = make_plan(quantized, Options(style="loops")).layers[-1]
    context = WRITERS[op.kind].context(layer, Options(style="loops"))
    values = [np.arange(1.0, np.prod(s) + 1).reshape(1, *s) for s in shapes]
    found = np.zeros(layer.output.size)
    writer, flat = WRITERS[op.kind], [value.reshape(-1) for value in values]
    if isinstance(writer, MergeWriter):
        by_name = dict(zip(layer.operands, flat, strict=True))
        walks = [(one.walk, [by_name[term.argument] for term in one.terms]) for one in context["passes"]]
    else:
        walks = [(context["walk"], flat)]
    for walk, sources in walks:
        for i in np.ndindex(walk.sizes):
            found[place(walk.target, i)] = sum(x[place(at, i)] for x, at in zip(sources, walk.sources, strict=True))
    assert np.array_equal(found, op.evaluate(*values).reshape(-1))


def place(index: Index, i: tuple[int, ...]) -> int:
    return index.offset + int(np.dot(index.strides, i))


def test_walks_have_as_few_loops_as_possible():
    shape = (4, 3, 2)
    same = Walk.of(shape, broadcast(shape, shape), broadcast(shape, shape))
    assert (same.sizes, str(same.target)) == ((24,), "i0")
    gate = Walk.of(shape, broadcast(shape, shape), broadcast((1, 1, 2), shape))
    assert (gate.sizes, str(gate.target), str(gate.sources[0])) == ((12, 2), "i0 * 2 + i1", "i1")
    single = Walk.of((1, 1), broadcast((1, 1), (1, 1)))
    assert (single.sizes, str(single.target)) == ((1,), "0")


def test_verilog_is_refused_by_name(tmp_path):
    quantized, box = every_operation()
    with pytest.raises(UnsupportedLayerError, match=r"'max_pool' for target 'verilog'.*dense, relu.*target='hls'"):
        export_hls(quantized, tmp_path / "net", box=box, target="verilog")


def test_a_sum_without_a_proved_range_is_refused(tmp_path):
    from dataclasses import replace

    quantized, box = every_operation()
    name = next(node.name for node in quantized.network.nodes if isinstance(node.op, Add))
    kept = {key: value for key, value in quantized.accumulators.items() if key != name}
    with pytest.raises(InputError, match=r"\(add\) has no accumulator format"):
        export_hls(replace(quantized, accumulators=kept), tmp_path / "net", box=box)


def two_ends() -> Claimed:
    """Two inputs, two outputs, one before a softmax."""
    b = Builder(np.random.default_rng(1), (7,))
    image = b.add(Reshape((4,), (2, 2, 1)), b.add(Crop((0,), (3,)), "x"))
    state = b.add(Crop((4,), (0,)), "x")
    y = b.dense(b.add(Concatenate(0), b.flat(b.add(MaxPool((2, 2), (1, 1)), image)), state), 3)
    ends = [b.add(Dense(np.ones((3, n)), np.zeros(n)), y) for n in (2, 3)]
    b.add(Concatenate(0), *ends)
    inputs = (Port("image", image), Port("state", state))
    outputs = (Port("steer", ends[0]), Port("kind", ends[1], "softmax"))
    return random_twin(np.random.default_rng(0), Network(tuple(b.nodes), inputs=inputs, outputs=outputs))


@pytest.mark.parametrize("target", ["hls", "c"])
def test_headers_say_which_slice_is_which(tmp_path, target):
    quantized, box = two_ends()
    folder = export_hls(quantized, tmp_path / "net", box=box, style="loops", target=target)
    header, readme = ((folder / file).read_text(encoding="utf-8") for file in ("src/net.h", "README.md"))
    for line in (
        "// x[0] to x[3]: image, 2x2x1.\n",
        "// x[4] to x[6]: state, 3.\n",
        "// y[0] to y[1]: steer, 2.\n",
        "// y[2] to y[4]: kind, 3, before softmax.\n",
    ):
        assert line in header
    assert "| `x` | image | 0 | 3 | 2 x 2 x 1 |  |\n| `x` | state | 4 | 6 | 3 |  |\n" in readme
    assert "| `y` | kind | 2 | 4 | 3 | softmax |\n" in readme


@pytest.mark.parametrize("target", ["hls", "c"])
@pytest.mark.parametrize("style", BOTH)
class TestCompiled:
    """Whole exports."""

    pytestmark = HEAVY

    @pytest.mark.parametrize("make", [every_operation, two_ends])
    def test_bit_exact(self, tmp_path, make, style, target):
        quantized, box = make()
        result = compile_and_run(export_hls(quantized, tmp_path / "net", box=box, style=style, target=target))
        assert result.passed, result
        assert result.warnings == ""


@pytest.mark.hls
@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 16])
def test_random_graphs_as_hls(tmp_path, start):
    exports, kinds = [], set()
    for index in range(start, start + 16):
        rng = np.random.default_rng(index)
        quantized, box = random_twin(rng, random_graph(rng))
        kinds |= {node.op.kind for node in quantized.network.nodes}
        exports.append(export_hls(quantized, tmp_path / str(index), box=box, style=BOTH[index % 2], vectors=64))
    assert kinds >= {"add", "concatenate", "crop", "max_pool", "multiply", "pad", "permute", "upsample"}
    assert run_together(exports) == [0] * len(exports)


@pytest.mark.hls
@pytest.mark.slow
@settings(FEW, max_examples=2)
@given(st.lists(graphs(), min_size=10, max_size=10))
def test_odd_graphs_as_hls(claimed: list[Claimed]):
    with tempfile.TemporaryDirectory() as scratch:
        exports = [
            export_hls(quantized, Path(scratch) / str(index), box=box, style=BOTH[index % 2], vectors=64)
            for index, (quantized, box) in enumerate(claimed)
        ]
        assert run_together(exports) == [0] * len(exports)


@pytest.mark.hls
@pytest.mark.slow
@settings(FEW, max_examples=25)
@given(graphs(widest=64))
def test_odd_graphs_as_c(claimed: Claimed):
    quantized, box = claimed
    if max(needed_bits(layer) for layer in make_plan(quantized, Options(target="c")).layers) > 64:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = export_hls(quantized, Path(scratch) / "net", box=box, style="loops", target="c", vectors=64)
        clean, sanitized = (compile_and_run(folder, flags=flags) for flags in (["-Werror"], SANITIZED))
        assert clean.passed, clean
        assert sanitized.passed, sanitized
        assert clean.warnings == ""
