"""Convolutions, pooling, scaling and Dense at several positions against exact fractions, geometry by geometry."""

from dataclasses import replace
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.exact.matrices import coefficients
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Node
from sound_qkeras.network.ops import AffinePair, AveragePool, Facts, Remainder, Rows
from tests.geometries import KINDS, exact_apply, random_affine

from .rationals import (
    RADII,
    WEIGHTS,
    arrays,
    choices,
    draw_codes,
    encloses,
    exact_codes,
    exact_parameters,
    intervals,
    member,
    reals,
    to_fractions,
)

BOXES = 2
PARTS = st.sampled_from([-1.0, 1.0, 0.0, 0.5])
LARGEST = st.sampled_from([1.0, 1e38])
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def operations(draw):
    """An operation of any kind with awkward parameters, its input's shape, and its integers."""
    rng = np.random.default_rng(draw(SEEDS))
    op, shape = random_affine(rng, draw(st.sampled_from(KINDS)), largest=3)
    kernel, bias = draw(arrays(WEIGHTS, *op.kernel.shape)), draw(arrays(WEIGHTS, *op.bias.shape))
    radii = {"kernel_radius": None, "bias_radius": None}
    if draw(st.booleans()):
        radii["kernel_radius"] = draw(arrays(RADII, *op.kernel.shape))
    if draw(st.booleans()):
        radii["bias_radius"] = draw(arrays(RADII, *op.bias.shape))
    return replace(op, kernel=kernel, bias=bias, **radii), shape, draw_codes(draw, kernel, bias)


def draw_case(draw):
    """An operation, its integers, facts about its input, and exact members of all of them."""
    op, shape, codes = draw(operations())
    x, d = draw(intervals(BOXES, *shape)), draw(intervals(BOXES, *shape, largest=draw(LARGEST)))
    value, difference = (member(i, draw(choices(BOXES, *shape))) for i in (x, d))
    return op, codes, Facts(x, x + d, d), value, difference, exact_parameters(op, draw(PARTS))


cases = st.composite(draw_case)


def applied(op, kernel, bias, x):
    """The exact result for every box."""
    return np.stack([exact_apply(op, kernel, sample) for sample in x]) + bias


@pytest.mark.slow
@given(cases())
def test_results_and_differences_are_enclosed(case):
    op, codes, facts, x, d, (kernel, bias) = case
    pair, (fixed_kernel, fixed_bias) = AffinePair(op, codes), exact_codes(codes)
    real, fixed = applied(op, kernel, bias, x), applied(op, fixed_kernel, fixed_bias, x + d)
    assert encloses(op.interval(facts.value), real)
    assert encloses(op.fixed_interval(pair, facts.value), applied(op, fixed_kernel, fixed_bias, x))
    assert encloses(op.difference(pair, facts), fixed - real)


def form(rows, value, difference):
    """The exact value of linear forms at exact members."""
    total = Fraction(0)
    for part, at in ((rows.value, value), (rows.difference, difference)):
        if part is not None:
            total = total + (to_fractions(part) * at[:, None]).reshape(*part.shape[:2], -1).sum(axis=-1)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("which", ["p", "a", "ap"])
@given(data=st.data())
def test_adjoint_keeps_the_value_of_every_form(which, data):
    op, codes, facts, x, d, (kernel, bias) = draw_case(data.draw)
    shape = op.output_shape(x.shape[1:])
    coefficients = [data.draw(arrays(reals(1e30), BOXES, 2, *shape)) for _ in range(2)]
    rows = Rows(coefficients[0] if "p" in which else None, coefficients[1] if "a" in which else None)
    remainder = Remainder.zero(BOXES, 2)
    pair = AffinePair(op, codes) if "a" in which else None
    (pulled,) = op.adjoint(pair, rows, remainder, facts if "a" in which else Facts(facts.value))
    y = applied(op, kernel, bias, x)
    moved = form(rows, y, applied(op, *exact_codes(codes), x + d) - y) - form(pulled, x, d)
    assert encloses(remainder.enclose(), moved)


@pytest.mark.slow
@given(operations(), st.integers(1, 10), st.integers(-6, 6), st.data())
def test_integers_equal_exact_arithmetic(drawn, word_length, bits, data):
    op, shape, _ = drawn
    formats = [Format(data.draw(st.integers(2, 12)), data.draw(st.integers(-4, 4)), True) for _ in range(2)]
    rng = np.random.default_rng(data.draw(SEEDS))
    kernel, bias = (
        rng.integers(f.min_code, f.max_code + 1, a.shape) for f, a in zip(formats, (op.kernel, op.bias), strict=True)
    )
    codes = AffinePair(
        op, replace(drawn[2], kernel=kernel, kernel_format=formats[0], bias=bias, bias_format=formats[1])
    )
    x = rng.integers(-(2**word_length), 2**word_length + 1, (2, *shape))
    scale = Fraction(2) ** -op.fractional_bits(codes, bits)
    exact = applied(op, *exact_codes(codes.codes), to_fractions(x) * Fraction(2) ** -bits)
    for kind in (np.float64, np.int64, object):
        result = op.integer(codes, [bits], x.astype(kind))
        assert result.dtype == kind
        assert (to_fractions(result) * scale == exact).all()
    magnitude = op.code_magnitude(codes, [bits], np.full((1, *shape), 2.0**word_length))
    assert (np.abs(exact) <= to_fractions(magnitude) * scale).all()


@given(operations(), SEEDS)
def test_transpose_is_the_transpose(drawn, seed):
    """With small integers, so that nothing is rounded."""
    op, shape, _ = drawn
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-9, 10, op.kernel.shape).astype(np.float64)
    x, y = (rng.integers(-9, 10, (2, 3, *s)).astype(np.float64) for s in (shape, op.output_shape(shape)))
    forward, backward = op.apply(kernel, x), op.transpose(kernel, y)
    assert backward.shape == x.shape
    assert forward.shape == y.shape
    assert np.array_equal((forward * y).reshape(6, -1).sum(axis=1), (backward * x).reshape(6, -1).sum(axis=1))


@given(operations(), SEEDS)
def test_every_output_and_input_meets_at_most_as_many_terms_as_the_fans_say(drawn, seed):
    op, shape, _ = drawn
    ones = np.ones(op.kernel.shape)
    assert op.apply(ones, np.ones((1, *shape))).max() <= op.fan_in
    assert op.transpose(ones, np.ones((1, *op.output_shape(shape)))).max() <= op.fan_out


@pytest.mark.slow
@given(operations())
def test_the_matrices_of_the_exact_proof_are_the_operations(drawn):
    op, shape, _ = drawn
    entries = coefficients(Node("n", op, ("x",)), shape, op.output_shape(shape))
    kernel = np.arange(1, op.kernel.size + 1)
    unit = np.eye(int(np.prod(shape)), dtype=np.int64).reshape(-1, *shape)
    images = [exact_apply(op, kernel.reshape(op.kernel.shape), x).reshape(-1) for x in unit]
    assert np.array_equal(np.append(kernel, 0)[entries], np.stack(images, axis=1).astype(np.int64))


@given(SEEDS)
def test_reciprocals_of_window_sizes_are_enclosed(seed):
    op, _ = random_affine(np.random.default_rng(seed), "average_pool")
    assert isinstance(op, AveragePool)
    counts = np.unique(op.window.valid_counts())
    radii = np.zeros(len(counts)) if op.kernel_radius is None else op.kernel_radius
    for count, center, radius in zip(counts, op.kernel, radii, strict=True):
        assert abs(Fraction(center) - Fraction(1, int(count))) <= Fraction(radius)
        assert (radius == 0.0) == (int(count) & (int(count) - 1) == 0)
    ones = op.evaluate(np.ones((1, *op.input_shape)))
    np.testing.assert_allclose(ones, 1.0, rtol=1e-15)
