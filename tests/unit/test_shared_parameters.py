"""Two nodes with one kernel and bias: one group, one array in files, one count of bits, in every use the same integers."""

from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras import check, quantize
from sound_qkeras.backends import compile_and_run, estimate, export_hls
from sound_qkeras.errors import ModelError
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.files import load_network, save_network
from sound_qkeras.network.ops import Add, Dense, Input, Relu
from sound_qkeras.network.rewrite.reduce import reducible
from sound_qkeras.network.rewrite.rescale import rescalable
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.tuning.feedback import FeedbackRounding
from sound_qkeras.tuning.groups import groups_of
from tests import networks

BOX = (-1.0, 1.0)


def twice(seed: int = 0) -> Network:
    """`W relu(W x + b) + b`, and a last layer."""
    rng = np.random.default_rng(seed)
    kernel, bias = networks.float32(rng.normal(size=(4, 4)) / 2), networks.float32(rng.normal(size=4) / 4)
    last = Dense(networks.float32(rng.normal(size=(4, 2))), np.zeros(2))
    nodes = (
        Node("x", Input((4,))),
        Node("first", Dense(kernel, bias), ("x",), "dense"),
        Node("relu", Relu(), ("first",), "dense"),
        Node("second", Dense(kernel, bias), ("relu",), "dense", "first"),
        Node("sum", Add((False, False)), ("second", "relu"), "sum"),
        Node("last", last, ("sum",), "last"),
    )
    return Network(nodes)


def unshared(network: Network) -> Network:
    return replace(network, nodes=tuple(replace(node, shares=None) for node in network.nodes))


def test_one_group_and_one_count_of_bits():
    network = twice()
    weights = [group for group in groups_of(network) if group.kind == "weight"]
    assert [(group.node, group.count, group.products) for group in weights] == [("first", 16, 32), ("last", 8, 8)]
    assert network.parameter_count == 16 + 4 + 8 + 2
    pair = networks.quantized(network, networks.box(network), 5, 6)
    alone = networks.quantized(unshared(network), networks.box(network), 5, 6)
    assert cost_of(alone).weight_bits - cost_of(pair).weight_bits == 16 * pair.codes("first").kernel_format.word_length
    assert cost_of(alone).bit_operations == cost_of(pair).bit_operations
    assert estimate(alone).total("products") == estimate(pair).total("products")
    assert estimate(alone).total("memory_bits") > estimate(pair).total("memory_bits")


def test_every_use_has_the_integers_of_the_first():
    network = twice()
    pair = networks.quantized(network, networks.box(network), 5, 6)
    alone = networks.quantized(unshared(network), networks.box(network), 5, 6)
    x = np.random.default_rng(1).uniform(-1, 1, (50, 4))
    assert set(pair.parameters) == {"first", "last"}
    assert pair.codes("second") is pair.codes("first")
    assert np.array_equal(pair.simulate_all(x)["last"], alone.simulate_all(x)["last"])
    assert pair.code_hash != alone.code_hash
    assert network.weight_hash != unshared(network).weight_hash


def test_shared_parameters_that_differ_are_refused():
    network = twice()
    other = Dense(np.zeros((4, 4)), np.zeros(4))
    for changed in ({"op": other}, {"op": Relu()}, {"shares": "sum"}, {"shares": "last"}, {"shares": "none"}):
        nodes = tuple(replace(node, **changed) if node.name == "second" else node for node in network.nodes)
        with pytest.raises(ModelError, match=r"'second' does not have the kernel and bias of '\w+', which it shares"):
            Network(nodes)
    pair = networks.quantized(network, networks.box(network), 5, 6)
    with pytest.raises(ModelError, match="has integers of its own, but shares those of 'first'"):
        Pair(network, {**pair.parameters, "second": pair.codes("first")}, pair.formats, {})
    with pytest.raises(ModelError, match="has no parameters of the subject"):
        Pair(network, {"last": pair.codes("last")}, pair.formats, {})


def test_rewrites_leave_shared_weights_alone():
    """Behind the second use alone there is a ReLU and one reader: neither units nor scales may change there."""
    network = twice()
    nodes = (*network.nodes[:4], Node("unit", Relu(), ("second",)), replace(network.nodes[5], inputs=("unit",)))
    shared = Network(nodes)
    assert set(reducible(unshared(shared))) == {"first", "second"}
    assert set(rescalable(unshared(shared))) == {"first", "second"}
    assert reducible(shared) == rescalable(shared) == {}


def test_files_hold_them_once(tmp_path):
    network = twice()
    pair = networks.quantized(network, networks.box(network), 5, 6)
    save_network(tmp_path, network, pair)
    with np.load(tmp_path / "parameters.npz") as arrays:
        assert sorted(name for name in arrays.files if name.endswith("kernel")) == ["1.kernel", "5.kernel"]
        assert sorted(name for name in arrays.files if name.endswith("kernel_codes")) == [
            "1.kernel_codes",
            "5.kernel_codes",
        ]
    again, other = load_network(tmp_path)
    assert other is not None
    assert (again.weight_hash, other.code_hash) == (network.weight_hash, pair.code_hash)
    assert again.uses("first") == ("first", "second")


def test_feedback_sees_what_every_use_reads():
    """Rounding follows the covariance of all inputs, and the bias makes up for the mean over the uses."""
    network, rng = twice(), np.random.default_rng(2)
    samples = rng.uniform(0.5, 1.0, (200, 4))
    values = network.evaluate_all(samples)
    centers = {
        name: values[source].mean(axis=0) for name, source in (("first", "x"), ("second", "relu"), ("last", "sum"))
    }
    bits = {group: 20 if group.kind == "bias" else 2 for group in groups_of(network)}
    found = FeedbackRounding(network, samples, centers)(bits, {})
    assert set(found) == {"first", "last"}
    op = network.by_name["first"].op
    assert isinstance(op, Dense)
    residual = found["first"].value - op.kernel
    absorbed = op.bias - (centers["first"] + centers["second"]) / 2 @ residual
    assert np.ldexp(found["first"].bias.astype(float), -20) == pytest.approx(absorbed, abs=2.0**-20)


@pytest.mark.parametrize("cost", ["weight_bits", "bit_operations"])
def test_tuned_proved_and_checked(cost):
    network = twice()
    result = quantize(network, 0.02, BOX, effort="fast", cost=cost, exact=True, per_channel=cost == "weight_bits")
    assert result.certificate.bound <= 0.02
    assert [row.node for row in result.formats if row.kind == "weight"] == ["first", "last"]
    check(result.pair, result.certificate, exact=True)
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 4))
    assert np.abs(result.simulate(x) - network.evaluate(x)).max() <= result.certificate.bound


@pytest.mark.hls
@pytest.mark.parametrize("target", ["c", "hls"])
@pytest.mark.parametrize("style", ["loops", "unrolled"])
def test_exported_code_has_the_arrays_once(tmp_path, target, style):
    network = twice()
    pair = networks.quantized(network, networks.box(network), 5, 6)
    box = networks.box(network)
    folder = export_hls(pair, tmp_path, box=box, target=target, style=style)
    weights = next(tmp_path.rglob("weights.h")).read_text()
    assert weights.count("static const") == 3  # two kernels and a bias: the last one has none
    assert compile_and_run(folder).passed


def test_a_node_without_a_name_shares_with_nobody():
    """An empty name is a name, and an empty `shares` says that a node has its own."""
    network = unshared(twice())
    names = {"first": ""}
    nodes = (
        replace(n, name=names.get(n.name, n.name), inputs=tuple(names.get(i, i) for i in n.inputs))
        for n in network.nodes
    )
    assert replace(network, nodes=tuple(nodes)).uses("") == ("",)
