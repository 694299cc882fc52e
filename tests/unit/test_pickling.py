"""Operations and networks travel between processes as what they are made of."""

import copy
import pickle

import numpy as np
import pytest

from sound_qkeras.network.ops import (
    OPS,
    Add,
    AveragePool,
    Clip,
    Concatenate,
    Conv,
    Crop,
    Dense,
    Input,
    LayerNorm,
    Leaky,
    MatMul,
    MaxPool,
    Multiply,
    Op,
    Pad,
    Permute,
    Relu,
    Reshape,
    Scale,
    Table,
    Upsample,
)
from tests.graphs import random_graph, random_twin

RNG = np.random.default_rng(4)
# One operation of every kind, with the shapes it reads.
EXAMPLES: list[tuple[Op, list[tuple[int, ...]]]] = [
    (Input((2, 3)), []),
    (Dense(RNG.normal(size=(3, 2)), RNG.normal(size=2)), [(4, 3)]),
    (
        Conv(
            *(RNG.normal(size=(2, 2, 1, 4)), RNG.normal(size=4)),
            input_shape=(4, 5, 2),
            strides=(1, 2),
            dilation=(1, 1),
            padding=((0, 1), (1, 0)),
            groups=2,
        ),
        [(4, 5, 2)],
    ),
    (AveragePool.of((4, 3, 2), (2, 2), (2, 1), ((0, 0), (0, 1))), [(4, 3, 2)]),
    (Scale(RNG.normal(size=3), RNG.normal(size=3)), [(2, 3)]),
    (Relu(), [(3,)]),
    (Clip(6.0), [(3,)]),
    (Leaky(np.array([0.25, 0.5, 0.1])), [(2, 3)]),
    (Table("elu", 0.5), [(3,)]),
    (LayerNorm(3, 1e-3), [(2, 3)]),
    (Reshape((2, 3), (6,)), [(2, 3)]),
    (Permute((1, 0)), [(2, 3)]),
    (Crop((0, 1), (1, 0)), [(2, 3)]),
    (Pad((0, 1), (1, 0)), [(2, 3)]),
    (Upsample((2, 1)), [(2, 3)]),
    (MaxPool((2,), (1,), "same"), [(4, 3)]),
    (Add((True, False), -1), [(2, 3), (1, 3)]),
    (Multiply(), [(2, 3), (1, 3)]),
    (MatMul(3), [(2, 3), (3, 1)]),
    (Concatenate(0), [(2, 3), (1, 3)]),
]


def test_every_kind_has_an_example():
    assert {op.kind for op, _ in EXAMPLES} == set(OPS)


@pytest.mark.parametrize(("op", "shapes"), EXAMPLES, ids=lambda x: getattr(x, "kind", ""))
def test_operations_arrive_as_they_were_sent(op, shapes):
    inputs = [RNG.normal(size=(2, *shape)) for shape in shapes]
    before = len(pickle.dumps(op))
    expected = None if isinstance(op, Input) else op.evaluate(*inputs)
    sent = pickle.dumps(op)
    assert len(sent) == before  # nothing that was derived on the way travels
    for arrived in (pickle.loads(sent), copy.deepcopy(op)):
        assert type(arrived) is type(op)
        assert arrived.settings() == op.settings()
        assert arrived.output_shape(*shapes) == op.output_shape(*shapes)
        assert list(arrived.arrays()) == list(op.arrays())
        for name, array in op.arrays().items():
            other = arrived.arrays()[name]
            assert np.array_equal(other, array)
            assert (other.dtype, other.flags.writeable) == (array.dtype, array.flags.writeable)
        if expected is not None:
            assert np.array_equal(arrived.evaluate(*inputs), expected)


def test_graphs_arrive_as_they_were_sent():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        quantized, _ = random_twin(rng, random_graph(rng))
        x = rng.uniform(-1, 1, (3, *quantized.network.input_shape))
        codes = quantized.simulate_all(x)
        arrived = pickle.loads(pickle.dumps(quantized))
        assert arrived.reference.weight_hash == quantized.reference.weight_hash
        assert arrived.code_hash == quantized.code_hash
        again = arrived.simulate_all(x)
        assert all(np.array_equal(again[name], values) for name, values in codes.items())
