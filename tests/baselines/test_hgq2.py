"""HGQ2 in another environment: what it is given, what it answers, and what is said where it cannot be had."""

import json
import os
import sys

import numpy as np
import pytest

from sound_qkeras import quantize
from sound_qkeras.baselines import Row
from sound_qkeras.baselines.candidate import Candidate, from_quantized
from sound_qkeras.baselines.enclosed import ebops, enclosed
from sound_qkeras.baselines.hgq2 import RUNNER, find_hgq2, hgq2, layers_of, read_answer
from sound_qkeras.errors import DependencyError, FileFormatError, ModelError, UnsupportedLayerError
from sound_qkeras.keras_io.autoqkeras.training import Training
from sound_qkeras.keras_io.hgq2.runner import front
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Conv, Dense, Input, MaxPool, Relu, Reshape, Table
from tests.networks import random_network

RNG = np.random.default_rng(0)
X = RNG.uniform(-1.0, 1.0, (400, 8)).astype(np.float32)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
SAID = {
    "beta": 1e-4,
    "epoch": 3,
    "validation": 0.75,
    "ebops": 120,
    "enclosed": 100,
    "weight_bits": 30,
    "bias_bits": 4,
    "value_bits": 20,
    "bit_operations": 150,
    "nonzero": 9,
    "seconds": 1.5,
}


def parted():
    """A network that knows the classes: the first unit of the last layer falls where the second grows."""
    kernel = np.zeros((8, 4))
    kernel[:2, 0], kernel[:2, 1] = (1.0, 0.5), (-1.0, -0.5)
    last = np.zeros((4, 2))
    last[0, 1] = last[1, 0] = 4.0
    nodes = [Node("x", Input((8,))), Node("a", Dense(kernel, np.zeros(4)), ("x",)), Node("r", Relu(), ("a",))]
    return Network((*nodes, Node("y", Dense(last, np.zeros(2)), ("r",))))


def stand_in(tmp_path, status=0):
    """A program that is called like a Python with HGQ2, keeps what it is given, and answers what was recorded."""
    said = json.dumps({"version": "0.2.0", "rows": [SAID]})
    np.savez(tmp_path / "recorded.npz", said=said, outputs=np.tile([0.0, 1.0], (1, 5, 1)))
    lines = ["#!/bin/sh", '[ "$3" = "-c" ] && exit 0', f'cp "$4" "{tmp_path}/given.npz"']
    lines += [f'cp "{tmp_path}/recorded.npz" "$5"', "echo first >&2; echo it is broken >&2", f"exit {status}"]
    program = tmp_path / "python"
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    return program


def test_the_bits_of_a_constant_are_those_between_the_first_and_the_last_that_is_set():
    codes = np.arange(-300, 300)
    expected = [len(bin(abs(code))[2:].strip("0")) for code in codes.tolist()]
    assert enclosed(codes).tolist() == expected


def test_ebops_are_counted_weight_by_weight():
    result = quantize(random_network(np.random.default_rng(1), (4, 5, 3)), 0.05, (-1.0, 1.0), effort="fast")
    pair, expected, whole = result.pair, 0, 0
    for node, op in pair.network.affine():
        codes, (source,) = pair.parameters[node.name], pair.network.sources(node.inputs[0])
        read = pair.formats[source]
        for out in range(op.kernel.shape[1]):
            for code in codes.kernel[:, out].tolist():
                expected += len(bin(abs(code))[2:].strip("0")) * (read.word_length - read.signed)
                whole += bool(code) * codes.kernel_format.word_length * read.word_length
            expected += len(bin(abs(int(codes.bias.reshape(-1)[out])))[2:].strip("0"))
    assert ebops(pair) == expected > 0
    row = Row.of(from_quantized("ours", pair))
    assert (row.ebops, row.nonzero_operations) == (expected, whole)
    assert Row.of(Candidate("floats", pair.network, result.cost)).ebops is None


def test_the_network_is_told_layer_by_layer():
    conv = {"input_shape": (6, 2), "strides": (2,), "dilation": (1,), "padding": ((1, 0),)}
    kernel = np.ones((3, 2, 4))
    nodes = (
        Node("x", Input((6, 2))),
        Node("c", Conv(kernel, np.zeros(4), **conv), ("x",)),
        Node("r", Relu(), ("c",)),
        Node("m", MaxPool((2,), (1,)), ("r",)),
        Node("f", Reshape((2, 4), (8,)), ("m",)),
        Node("y", Dense(np.ones((8, 3)), np.zeros(3)), ("f",)),
    )
    found = json.loads(json.dumps(list(layers_of(Network(nodes)))))
    assert [layer["kind"] for layer in found] == ["conv", "relu", "max_pool", "reshape", "dense"]
    assert found[0] == {
        "kind": "conv",
        "outputs": 4,
        "window": [3],
        "strides": [2],
        "dilation": [1],
        "padding": [[1, 0]],
    }
    assert found[2] == {"kind": "max_pool", "window": [2], "strides": [1], "padding": "valid"}
    assert (found[3]["shape"], found[4]["outputs"]) == ([8], 3)


@pytest.mark.parametrize("kind", ["table", "branch", "groups"])
def test_what_is_no_row_of_such_layers_is_refused(kind):
    first = (Node("x", Input((4,))), Node("a", Dense(np.ones((4, 4)), np.zeros(4)), ("x",)))
    last = Node("y", Table("tanh"), ("a",))
    if kind == "branch":
        last = Node("y", Dense(np.ones((4, 4)), np.zeros(4)), ("x",))
    elif kind == "groups":
        first = (Node("x", Input((4, 2))),)
        conv = {"input_shape": (4, 2), "strides": (1,), "dilation": (1,), "padding": ((0, 0),), "groups": 2}
        last = Node("y", Conv(np.ones((2, 1, 2)), np.zeros(2), **conv), ("x",))
    with pytest.raises(UnsupportedLayerError, match=r"layer 'y'.*accepted.*in a row"):
        list(layers_of(Network((*first, last))))


def test_what_is_given_and_answered(tmp_path):
    network, training = parted(), Training(epochs=7, batch_size=16, seed=5)
    data = (X[:50], Y[:50]), (X[50:60], Y[50:60])
    answer = hgq2(network, *data, X[:5], training, stand_in(tmp_path), betas=(0.5,))
    assert answer.version == "0.2.0"
    (found,) = answer.networks
    assert found.outputs.tolist() == [[0.0, 1.0]] * 5
    assert {name: getattr(found, name) for name in SAID} == SAID
    with np.load(tmp_path / "given.npz") as given:
        plan = json.loads(str(given["plan"]))
        assert (plan["epochs"], plan["batch_size"], plan["seed"], plan["betas"]) == (7, 16, 5, [0.5])
        np.testing.assert_array_equal(given["kernel_1"], network.by_name["y"].op.kernel)
        np.testing.assert_array_equal(given["train_x"], X[:50])
        np.testing.assert_array_equal(given["validation_y"], Y[50:60])
        assert not any(name.startswith("test_y") for name in given)


def test_a_python_without_hgq2_is_refused_before_the_work(tmp_path):
    for python in (sys.executable, tmp_path / "none"):
        with pytest.raises(DependencyError, match=r"accepted: .* with (it|HGQ2), made by .*pip install HGQ2"):
            find_hgq2(python)


def test_what_hgq2_says_last_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"status 3 .*: it is broken"):
        hgq2(parted(), (X, Y), (X, Y), X, Training(), stand_in(tmp_path, status=3))


@pytest.mark.parametrize("damage", [{"rows": [{**SAID, "more": 1}]}, {"version": "1"}, {"version": "1", "rows": []}])
def test_a_damaged_answer_is_refused(tmp_path, damage):
    file = tmp_path / "answer.npz"
    np.savez(
        file,
        said=json.dumps({"version": "1", "rows": [SAID], **damage} if "rows" in damage else damage),
        outputs=np.ones((1, 5, 2)),
    )
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_answer(file)


def test_an_epoch_that_is_beaten_in_both_is_not_kept():
    found = [{"ebops": e, "validation": v} for e, v in ((9, 0.9), (5, 0.9), (5, 0.8), (7, 0.85), (2, 0.1), (20, 0.95))]
    assert [(one["ebops"], one["validation"]) for one in front(found)] == [(2, 0.1), (5, 0.9), (20, 0.95)]


def test_the_runner_imports_nothing_of_ours():
    assert RUNNER.is_file()
    assert "sound_qkeras" not in RUNNER.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def python():
    """That of an environment with HGQ2."""
    if "PYTHON_WITH_HGQ2" not in os.environ:
        pytest.skip("needs PYTHON_WITH_HGQ2")
    return os.environ["PYTHON_WITH_HGQ2"]


@pytest.mark.slow
def test_hgq2_itself_trains_on_from_our_weights(python):
    training, betas = Training(epochs=2, batch_size=50), (1e-6, 1e-2)
    answer = hgq2(parted(), (X[:200], Y[:200]), (X[200:300], Y[200:300]), X[300:], training, python, betas)
    assert answer.version
    best = max(answer.networks, key=lambda one: one.ebops)
    assert np.mean(best.outputs.argmax(axis=1) == Y[300:]) > 0.9  # eight steps do not find the classes from nothing
    assert {one.beta for one in answer.networks} == set(betas)
    for one in answer.networks:
        assert 1 <= one.epoch <= 2
        assert 0 < one.enclosed <= one.ebops
        assert one.enclosed < one.bit_operations  # signs are in one and not in the other
        assert 0 < one.nonzero <= min(40, one.weight_bits)


@pytest.mark.slow
def test_hgq2_itself_trains_convolutions_and_regressions(python):
    conv = {"input_shape": (8, 1), "strides": (1,), "dilation": (1,), "padding": ((1, 1),)}
    nodes = (
        Node("x", Input((8,))),
        Node("s", Reshape((8,), (8, 1)), ("x",)),
        Node("c", Conv(RNG.normal(size=(3, 1, 4)), np.zeros(4), **conv), ("s",)),
        Node("r", Relu(), ("c",)),
        Node("m", MaxPool((2,), (2,)), ("r",)),
        Node("f", Reshape((4, 4), (16,)), ("m",)),
        Node("y", Dense(RNG.normal(size=(16, 1)), np.zeros(1)), ("f",)),
    )
    network = Network(nodes)
    wanted = network.evaluate(X).reshape(-1, 1)
    data = (X[:200], wanted[:200]), (X[200:300], wanted[200:300])
    answer = hgq2(network, *data, X[300:], Training(epochs=2, metric="mse"), python, (1e-7,))
    best = answer.networks[-1]
    assert np.mean((best.outputs - wanted[300:]) ** 2) < 0.1 * np.var(wanted)
    assert best.validation < 0.0
