"""Operations written about points, in float64 and in float32, against exact fractions."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.interval import DOUBLE, SINGLE
from sound_qkeras.network.ops import AffinePair, Relu, Remainder, Rows, Upsample
from sound_qkeras.network.ops.linear import About
from sound_qkeras.verify.forms import Forms
from tests.networks import random_network

from .rationals import arrays, exact_codes, reals, relu, to_fractions
from .test_affine import BOXES, draw_case
from .test_affine_kinds import form
from .test_relu_reshape_input import SIZE, pairs
from .test_units import cases as units

PRECISIONS = pytest.mark.parametrize("precision", [DOUBLE, SINGLE], ids=["float64", "float32"])
ROWS = 2
CHAIN = random_network(np.random.default_rng(0), (SIZE, 2, 1))


def step(draw, op, parameters, facts, members, results, precision):
    """One step back, of rows on values and on differences, about any points."""
    shape = facts.value.shape[1:]
    value, difference = (
        About.of(part, draw(arrays(reals(1e6), BOXES, *shape))) for part in (facts.value, facts.difference)
    )
    written = op.linear_value(facts.value, value, precision)
    moved = op.linear_difference(parameters, facts, value, difference, precision)
    p, a = (
        np.clip(draw(arrays(reals(1e9), BOXES, ROWS, *written.point.shape[1:])), -1e9, 1e9).astype(precision.kind)
        for _ in range(2)
    )
    for rows in (Rows(p, None), Rows(None, a), Rows(p, a)):
        pulled = op.pull(parameters, rows, written.slope, moved.slope)
        radius = precision.tiny * to_fractions(value.size + difference.size).reshape(BOXES, 1, -1).sum(axis=-1)
        for row, found in ((rows.value, written), (rows.difference, moved)):
            if row is not None and found.radius is not None:
                size = np.abs(to_fractions(row)) * to_fractions(found.radius)[:, None]
                radius = radius + size.reshape(BOXES, ROWS, -1).sum(axis=-1)
        for (z, d), (y, e) in zip(members, results, strict=True):
            ahead = form(rows, y - to_fractions(written.point), e - to_fractions(moved.point))
            behind = form(pulled, z - to_fractions(value.point), d - to_fractions(difference.point))
            assert np.all(np.abs(ahead - behind) <= radius)


@PRECISIONS
@given(st.data())
def test_affine_steps(precision, data):
    op, codes, facts, x, d, (kernel, bias) = draw_case(data.draw)
    pair = AffinePair(op, codes)
    if not op.fits(pair, precision):
        return
    fixed_kernel, fixed_bias = exact_codes(codes)
    y = x @ kernel + bias
    step(data.draw, op, pair, facts, [(x, d)], [(y, (x + d) @ fixed_kernel + fixed_bias - y)], precision)


@PRECISIONS
@given(pairs(), st.data())
def test_unit_steps(precision, case, data):
    facts, members = case
    op, parameters, real, fixed = (
        data.draw(st.sampled_from([(Relu(), None, relu, relu)])) if data.draw(st.booleans()) else units(data.draw)
    )
    results = [(real(z), fixed(z + d) - real(z)) for z, d in members]
    step(data.draw, op, parameters, facts, members, results, precision)


@PRECISIONS
@given(pairs(), st.data())
def test_steps_of_copies(precision, case, data):
    """A value that goes to several places: its coefficients are added up."""
    facts, members = case
    op = Upsample((3,))
    results = [(np.repeat(z, 3, axis=1), np.repeat(d, 3, axis=1)) for z, d in members]
    step(data.draw, op, None, facts, members, results, precision)


@given(arrays(np.abs(reals()), 50))
def test_what_is_rounded_up_is_not_below(x):
    found = SINGLE.above(x)
    assert found.dtype == np.float32
    assert np.all((found == 0.0) == (x == 0.0))
    assert all(f == np.inf or Fraction(float(f)) >= Fraction(v) for f, v in zip(found, x.tolist(), strict=True))


@PRECISIONS
@given(pairs(), st.data())
def test_steps_between_two_lines(precision, case, data):
    """Of a unit, for bounds from above: what is ahead is at most what is behind and the remainder."""
    facts, members = case
    lines = Relu().bounding_lines(facts.value)
    about = About.of(facts.value, data.draw(arrays(reals(1e6), BOXES, SIZE)))
    point = data.draw(arrays(reals(1e6), BOXES, SIZE))
    rows = np.clip(data.draw(arrays(reals(1e9), BOXES, ROWS, SIZE)), -1e9, 1e9).astype(precision.kind)
    forms, remainder = Forms(CHAIN, None, {}, {}, precision), Remainder.zero(BOXES, ROWS)
    pulled = forms._by_lines(rows, lines, about, point, remainder)
    forms._charge_size(about.size, remainder)
    bound = to_fractions(remainder.enclose().upper)
    for z, _ in members:
        ahead = form(Rows(rows, None), relu(z) - to_fractions(point), None)
        behind = form(Rows(pulled, None), z - to_fractions(about.point), None)
        assert np.all(ahead - behind <= bound)
