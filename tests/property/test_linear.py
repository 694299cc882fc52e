"""Operations written about points, in float64 and in float32, against exact fractions."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.interval import DOUBLE, SINGLE, sum_up
from sound_qkeras.network.ops import AffinePair, Relu, Remainder, Rows, Upsample
from sound_qkeras.network.ops.linear import About
from sound_qkeras.verify.between import Between

from .rationals import arrays, exact_codes, reals, relu, to_fractions
from .test_affine import BOXES, draw_case
from .test_affine_kinds import form
from .test_relu_reshape_input import SIZE, pairs
from .test_units import cases as units

PRECISIONS = pytest.mark.parametrize("precision", [DOUBLE, SINGLE], ids=["float64", "float32"])
ROWS = 2


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
    """Of a unit's value and of its difference: what is ahead is at most what is behind and the remainder."""
    facts, members = case
    before = np.abs(data.draw(arrays(reals(1e6), BOXES, SIZE)))
    for read, lines, ahead in (
        (facts.value, Relu().value_bounds(facts.value), lambda z, d: (z, relu(z))),
        (facts.difference, Relu().difference_bounds(*facts.pair()), lambda z, d: (d, relu(z + d) - relu(z))),
    ):
        about = About.of(read, data.draw(arrays(reals(1e6), BOXES, SIZE)))
        point = data.draw(arrays(reals(1e6), BOXES, SIZE))
        rows = np.clip(data.draw(arrays(reals(1e9), BOXES, ROWS, SIZE)), -1e9, 1e9).astype(precision.kind)
        remainder = Remainder.zero(BOXES, ROWS)
        pulled = Between.of(lines, about, point, before, precision).pull(rows, remainder, precision)
        remainder.widen(precision.tiny * sum_up(about.size)[:, None])
        bound = to_fractions(remainder.enclose().upper)
        charged = to_fractions(np.abs(pulled).astype(np.float64)) @ to_fractions(before)[..., None]
        for member in members:
            behind, result = ahead(*member)
            left = form(Rows(rows, None), result - to_fractions(point), None)
            right = form(Rows(pulled, None), behind - to_fractions(about.point), None)
            assert np.all(left - right + charged[..., 0] <= bound)


@PRECISIONS
def test_what_two_lines_lose_to_rounding_is_charged(precision):
    """On the lines themselves, where points and constants all but cancel: nothing else is left over that could hide it."""
    rng, count = np.random.default_rng(0), 400
    slopes, size = rng.uniform(0.0, 1.0, (2, count, 1)), rng.choice([1e-6, 1.0], (count, 1))
    about = About(rng.uniform(-1e3, 1e3, (count, 1)) * rng.choice([0.0, 1.0], (count, 1)), size)
    constants = -slopes * about.point
    lines = ((slopes[0], constants[0]), (slopes[1], constants[1]))
    rows = rng.uniform(-1.0, 1.0, (count, ROWS, 1)).astype(precision.kind)
    remainder = Remainder.zero(count, ROWS)
    pulled = Between.of(lines, about, np.zeros((count, 1)), None, precision).pull(rows, remainder, precision)
    bound, at = to_fractions(remainder.enclose().upper), to_fractions(about.point)
    (above, over), (below, under) = ([to_fractions(x) for x in line] for line in lines)
    for behind in (to_fractions(size), -to_fractions(size)):
        line = np.where(rows[..., 0] > 0, above * (at + behind) + over, below * (at + behind) + under)
        assert np.all(to_fractions(rows)[..., 0] * line - to_fractions(pulled)[..., 0] * behind <= bound)
