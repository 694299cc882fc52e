"""Layers, units and outputs that are constant on the box, or next to it: they certify, in words that are no longer than others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.backends import compile_and_run
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Add, Dense, Input, Multiply, Op, Relu
from sound_qkeras.verify.checker import check
from tests.networks import float32, samples

pytestmark = [pytest.mark.solver, pytest.mark.slow]

RELU, MINUS, TIMES = Relu(), Add((False, True)), Multiply()
POINT = np.array([0.25, -0.5, 1.0])


def dense(inputs: int, outputs: int, weight: float = 1.0, bias: float = 0.3) -> Dense:
    """Random weights and biases of about the given sizes."""
    rng = np.random.default_rng(inputs)
    kernel, offset = rng.normal(size=(inputs, outputs)), rng.normal(size=outputs)
    with np.errstate(under="ignore"):
        return Dense(float32(weight * kernel), float32(bias * offset))


def shifted(op: Dense, bias: float) -> Dense:
    """With one bias for every unit."""
    return Dense(op.kernel, np.full(op.bias.shape, bias))


def without_units(op: Dense, *units: int) -> Dense:
    """With weights and biases of some units zero, as pruning with a normalisation leaves them."""
    kernel, bias = op.kernel.copy(), op.bias.copy()
    kernel[:, units], bias[list(units)] = 0.0, 0.0
    return Dense(kernel, bias)


def chain(*ops: Op) -> Network:
    """One operation after the other; those with two inputs read the last result twice."""
    nodes = [Node("x", Input((3,)), (), "x")]
    for number, op in enumerate(ops):
        inputs = (nodes[-1].name,) * (2 if isinstance(op, Add | Multiply) else 1)
        nodes.append(Node(f"{op.kind}_{number}", op, inputs, f"{op.kind}_{number}"))
    return Network(tuple(nodes))


KINDS = {
    "a layer of zeros": chain(dense(3, 4, 0.0, 0.0), RELU, dense(4, 2)),
    "a layer of zeros with biases": chain(dense(3, 4), RELU, dense(4, 4, 0.0), dense(4, 2, bias=0.0)),
    "an output of zeros": chain(dense(3, 4), RELU, dense(4, 3), without_units(dense(3, 2), 1)),
    "merged layers with a dead unit": chain(
        without_units(dense(3, 4, bias=0.0), 1), RELU, dense(4, 3), without_units(dense(3, 2, bias=0.0), 0)
    ),
    "dead units behind one another": chain(shifted(dense(3, 4), -50.0), RELU, without_units(dense(4, 3), 0, 1), RELU),
    "an output that is always zero": chain(dense(3, 4), RELU, shifted(dense(4, 2), -50.0), RELU),
    "an output that is one": chain(dense(3, 4), RELU, Dense(np.zeros((4, 2)), np.ones(2)), TIMES),
    "a difference that is zero": chain(without_units(dense(3, 2), 0, 1), MINUS, RELU, dense(2, 2)),
    "biases next to zero": chain(dense(3, 4, bias=1e-30), RELU, dense(4, 2, bias=1e-35)),
    "weights next to zero": chain(dense(3, 4, 1e-38), RELU, dense(4, 3), RELU, dense(3, 2, 1e-38)),
    "a layer that varies by next to nothing": chain(dense(3, 4, 1e-12, 0.5), RELU, dense(4, 2)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "all options": {"per_channel": True, "round_output": True, "cost": "total_bits"},
    "as it is": {"keep_architecture": True, "rescale_units": False, "cost": "bit_operations"},
    "statistical": {"tier": "statistical", "saturate": False, "round_output": True},
}
TIERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "statistical": {"tier": "statistical"},
    "local": {"tier": "local", "radius": 0.01},
}


def confirm(network: Network, box: tuple[np.ndarray, np.ndarray], directory: Any, **options: Any) -> sq.Result:
    """Quantize, and confirm proof, files, error at samples, and that no word or step is that of something faint."""
    x = samples(np.random.default_rng(0), box, 40)
    if "tier" in options:
        options["samples"] = np.clip(float32(x), *box)[: 6 if options["tier"] == "local" else 40]
    result = sq.quantize(network, 0.05, box, **options, effort="fast")
    check(result.pair, result.certificate)
    result.save(directory)
    loaded = sq.load(directory)
    assert loaded.pair.code_hash == result.pair.code_hash
    assert np.array_equal(result.simulate(x), loaded.simulate(x))
    if "tier" not in options:
        assert np.max(np.abs(result.simulate(x) - network.evaluate(x))) <= result.certificate.bound <= 0.05
    rows = [row for row in result.formats if row.kind != "accumulator"]
    assert max(row.word_length for row in rows) <= 24
    assert max(row.word_length - row.integer_bits - row.signed for row in rows) <= 24
    assert all(row.word_length == 1 for row in rows if row.lower == row.upper == 0.0)
    return result


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("network", KINDS.values(), ids=KINDS)
def test_a_network_with_constants(tmp_path, network, options):
    confirm(network, (np.full(3, -1.0), np.ones(3)), tmp_path / "out", **options)


@pytest.mark.parametrize("options", TIERS.values(), ids=TIERS)
@pytest.mark.parametrize(
    "ends",
    [
        (POINT, POINT),
        (0 * POINT, 0 * POINT),
        (np.minimum(POINT, 0.0), np.zeros(3)),
        (-1e-20 * np.ones(3), 1e-20 * np.ones(3)),
    ],
    ids=["a point", "zero", "a point in some inputs", "next to nothing"],
)
def test_a_box_without_width(tmp_path, ends, options):
    confirm(
        chain(dense(3, 4, bias=0.0), RELU, dense(4, 3, bias=0.0), RELU, dense(3, 2)), ends, tmp_path / "out", **options
    )


def test_biases_of_zero_have_the_step_of_what_they_are_added_to():
    network = chain(dense(3, 4, 1e3, 0.0), RELU, dense(4, 2, 1e3, 0.0))
    result = sq.quantize(network, 1e8, (-1e3, 1e3), effort="fast", rescale_units=False)
    assert not np.any(result.pair.parameters["dense_0"].bias)
    assert result.pair.accumulators["dense_0"].fractional_bits < 0


def test_what_is_next_to_zero_is_kept_where_it_matters():
    network = chain(dense(3, 4, 1e-15, 0.0), RELU, dense(4, 2, 1e15))
    result = sq.quantize(network, 0.05, (-1.0, 1.0), effort="fast", keep_architecture=True, rescale_units=False)
    assert result.certificate.bound <= 0.05
    assert not np.all(result.simulate(np.ones((1, 3))) == result.simulate(-np.ones((1, 3))))


@pytest.mark.keras
@pytest.mark.hls
def test_a_pruned_model_with_normalisations(tmp_path):
    from tests.keras.models import LAYERS, keras, randomise

    x = inputs = LAYERS.Input((4,))
    for _ in range(2):
        branch = LAYERS.ReLU()(LAYERS.BatchNormalization()(LAYERS.Dense(4, use_bias=False)(x)))
        x = LAYERS.Add()([x, branch])
    model = keras.Model(inputs, LAYERS.Dense(2)(x))
    randomise(model)
    for number, layer in enumerate(layer for layer in model.layers if isinstance(layer, LAYERS.BatchNormalization)):
        layer.gamma.assign([0.0, number, 1e-30, 0.0])
        layer.beta.assign([0.0, 0.1, 0.0, -9.0])
    box = np.full(4, -1.0), np.ones(4)
    x = samples(np.random.default_rng(0), box, 40)
    result = sq.quantize(model, 0.05, box, effort="fast", keep_architecture=True)
    check(result.pair, result.certificate)
    assert max(row.word_length - row.integer_bits - row.signed for row in result.formats) <= 24
    with sq.float64():
        assert np.array_equal(result.to_qkeras(dtype="float64")(x), result.simulate(x))
    assert compile_and_run(result.export_hls(tmp_path / "c", target="c")).passed
