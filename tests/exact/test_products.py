"""Products of two tensors in the exact proof: every enclosure and form, at the members that the facts are made of."""

import numpy as np
import pytest

from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.merges import ExactMatMul, ExactMultiply
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.network import Network
from sound_qkeras.network.ops import MatMul, Multiply, Reshape

from ..graphs import Builder, random_twin
from ..property.rationals import to_fractions
from ..property.test_structural_ops import exact
from .test_norms import around, at, holds

SHAPES = {"matmul": ((2, 3), (3, 2)), "multiply": ((1, 3), (2, 3))}


def meaning(kind):
    """The operation between two tensors of its shapes, and its exact meaning."""
    rng = np.random.default_rng(0)
    b = Builder(rng, (3,))
    flat = [b.dense("x", int(np.prod(shape))) for shape in SHAPES[kind]]
    factors = [b.add(Reshape((int(np.prod(s)),), s), name) for s, name in zip(SHAPES[kind], flat, strict=True)]
    op = MatMul(3) if kind == "matmul" else Multiply()
    name = b.add(op, *factors)
    twin, _ = random_twin(rng, Network(tuple(b.nodes)))
    return op, (ExactMatMul if kind == "matmul" else ExactMultiply)(twin.network.by_name[name], twin)


@pytest.mark.parametrize("kind", SHAPES)
def test_every_enclosure_and_form_holds(kind):
    op, node = meaning(kind)
    rng = np.random.default_rng(1)
    for _ in range(20):
        # Two members: each tensor's values and differences are at ends of their ranges in both.
        members = [[rng.integers(-8, 9, (2, *shape)) / 8.0 for shape in SHAPES[kind]] for _ in range(2)]
        facts = [
            ExactFacts(
                around(*(m[number][0].ravel() for m in members)),
                around(*(m[number].sum(axis=0).ravel() for m in members)),
                around(*(m[number][1].ravel() for m in members)),
                3,
            )
            for number in range(2)
        ]
        rows = ExactRows(*(Dyadic.of(rng.integers(-4, 5, (3, 2 * SHAPES[kind][1][1])) / 2.0) for _ in range(2)))
        pulled, rest = node.pull(rows, 0, *facts)
        for member in members:
            x, d = ([to_fractions(one[part]) for one in member] for part in range(2))
            real = exact(op, [one[None] for one in x]).ravel()
            twin = exact(op, [(a + b)[None] for a, b in zip(x, d, strict=True)]).ravel()
            assert holds(node.real(*(one.value for one in facts)), real)
            assert holds(node.fixed(*(one.fixed for one in facts)), twin)
            assert holds(node.difference(*facts), twin - real)
            form = at(rows, real, twin - real)
            for part, a, b in zip(pulled, x, d, strict=True):
                form = form - at(part, a.ravel(), b.ravel())
            assert holds(rest, form)
            alone = [Range.point(Dyadic.of(one[0].ravel())) for one in member]
            assert node.real(*alone).lower.fractions() == list(real)
