"""ReLU, Reshape and Input against exact fractions."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import Facts, Input, Relu, Remainder, Reshape, Rows

from .rationals import (
    around,
    arrays,
    choices,
    encloses,
    intervals,
    member,
    reals,
    relu,
    round_down,
    scalars,
    to_fractions,
)
from .test_affine import form

BOXES, SIZE = 2, 2
differences = arrays(reals(1e3), BOXES, SIZE) | arrays(reals(1.0), BOXES, SIZE)
values = arrays(reals(1e3), BOXES, SIZE) | arrays(reals(), BOXES, SIZE)


@st.composite
def pairs(draw):
    """The tightest facts around a few exact members `(z, d)`, those members, and corners of the facts."""
    count = draw(st.integers(1, 3))
    members = [tuple(map(to_fractions, (draw(values), draw(differences)))) for _ in range(count)]
    z, d = around(*(m[0] for m in members)), around(*(m[1] for m in members))
    fixed = around(*(m[0] + m[1] for m in members))
    if draw(st.booleans()):
        near = np.nextafter(fixed.lower, -np.inf), np.nextafter(fixed.upper, np.inf)
        fixed = Interval(*near)
    return Facts(z, fixed, d), [*members, *corners(z, fixed, d)]


def corners(z, fixed, d):
    """Members at the corners of the polygon `z in Z, d in D, z + d in F`, two constraints active in each element."""
    z_ends, f_ends, d_ends = (tuple(map(to_fractions, (i.lower, i.upper))) for i in (z, fixed, d))
    found = [(a, b) for a in z_ends for b in d_ends]
    found += [(a, f - a) for a in z_ends for f in f_ends]
    found += [(f - b, b) for f in f_ends for b in d_ends]
    return [(a, b) for a, b in found if encloses(z, a) and encloses(d, b) and encloses(fixed, a + b)]


@given(intervals(BOXES, SIZE), choices(BOXES, SIZE))
def test_relu_interval_is_the_image(z, choice):
    for image in (Relu().interval(z), Relu().fixed_interval(None, z)):
        assert encloses(image, relu(member(z, choice)))
        assert (image.upper == np.maximum(z.upper, 0.0)).all()


@given(pairs())
def test_relu_difference_encloses(case):
    facts, members = case
    image = Relu().difference(None, facts)
    for z, d in members:
        assert encloses(image, relu(z + d) - relu(z))


@pytest.mark.parametrize("which", ["p", "a", "ap"])
@given(case=pairs(), data=st.data())
def test_relu_adjoint_keeps_the_value_of_every_form(which, case, data):
    facts, members = case
    p, a = (data.draw(arrays(reals(1e30), BOXES, 2, SIZE)) for _ in range(2))
    rows = Rows(p if "p" in which else None, a if "a" in which else None)
    before = data.draw(arrays(reals(1e3), BOXES, 2))
    remainder = Remainder(before, np.abs(before))
    (pulled,) = Relu().adjoint(None, rows, remainder, facts)
    assert (pulled.value is None) == (rows.value is None)
    for z, d in members:
        moved = form(rows, relu(z), relu(z + d) - relu(z)) - form(pulled, z, d)
        for start in (Fraction(0), 2 * to_fractions(before)):
            assert encloses(remainder.enclose(), start + moved)


@pytest.mark.parametrize(
    ("z", "fixed", "d"),
    [
        ((1.0, 2.0), (0.5, 2.5), (-0.5, 0.5)),
        ((-2.0, -1.0), (-2.5, -0.5), (-0.5, 0.5)),
        ((0.0, 2.0), (0.0, 2.5), (0.0, 0.5)),
        ((-2.0, 0.0), (-2.5, 0.0), (-0.5, 0.0)),
    ],
)
def test_a_stable_unit_loses_nothing(z, fixed, d):
    """The unit's slope is 0 or 1 in both networks, so the difference and the forms are exact up to roundings."""
    facts = Facts(*(Interval(np.array([[lower]]), np.array([[upper]])) for lower, upper in (z, fixed, d)))
    image = Relu().difference(None, facts)
    active = z[1] > 0.0
    assert np.isclose(image.lower, d[0] * active, atol=1e-12)
    assert np.isclose(image.upper, d[1] * active, atol=1e-12)
    remainder = Remainder.zero(1, 1)
    (pulled,) = Relu().adjoint(None, Rows(np.ones((1, 1, 1)), np.ones((1, 1, 1))), remainder, facts)
    assert pulled.value == pulled.difference == float(active)
    assert remainder.radius < 1e-14


@given(pairs())
def test_two_lines_are_above_and_below(case):
    facts, members = case
    z, zq, d = facts.pair()
    values, differences = (
        [[to_fractions(x) for x in line] for line in lines]
        for lines in (Relu().value_bounds(z), Relu().difference_bounds(z, zq, d))
    )
    for x, change in members:
        for behind, ahead, lines in (
            (x, relu(x), values),
            (change, relu(x + change) - relu(x), differences),
        ):
            (above, over), (below, under) = lines
            assert np.all(below * behind + under <= ahead)
            assert np.all(ahead <= above * behind + over)


@given(st.integers(1, 3), st.data())
def test_relu_integers_equal_exact_arithmetic(samples, data):
    codes = data.draw(arrays(np.rint(reals(2.0**53)), samples, 2, 2))
    assert (to_fractions(Relu().integer(None, [3], codes)) == relu(to_fractions(codes))).all()
    assert Relu().fractional_bits(None, 3) == 3


RESHAPE = Reshape((2, 3), (3, 2, 1))


@given(intervals(BOXES, 2, 3), choices(BOXES, 2, 3), intervals(BOXES, 2, 3))
def test_reshape_moves_enclosures_unchanged(x, choice, d):
    facts = Facts(x, x, d)
    exact = member(x, choice).reshape(BOXES, 3, 2, 1)
    for image in (RESHAPE.interval(x), RESHAPE.fixed_interval(None, x)):
        assert image.shape == exact.shape
        assert encloses(image, exact)
        assert (image.lower.ravel() == x.lower.ravel()).all()
    moved = RESHAPE.difference(None, facts)
    assert (moved.lower.ravel() == d.lower.ravel()).all()
    assert (moved.upper.ravel() == d.upper.ravel()).all()
    assert moved.shape == exact.shape


@pytest.mark.parametrize("which", ["p", "a", "ap"])
@given(rows=arrays(reals(), 2, BOXES, 4, 3, 2, 1), x=arrays(reals(), 2, BOXES, 2, 3))
def test_reshape_adjoint_is_exact(which, rows, x):
    remainder = Remainder.zero(BOXES, 4)
    given_rows = Rows(rows[0] if "p" in which else None, rows[1] if "a" in which else None)
    facts = Facts(*map(Interval.point, (x[0], x[0], x[1])))
    (pulled,) = RESHAPE.adjoint(None, given_rows, remainder, facts)

    def value(form_rows, tensors):
        parts = zip((form_rows.value, form_rows.difference), tensors, strict=True)
        return sum(
            (to_fractions(c).reshape(BOXES, 4, -1) * to_fractions(t).reshape(BOXES, 1, -1)).sum(axis=-1)
            for c, t in parts
            if c is not None
        )

    assert np.all(value(given_rows, x) == value(pulled, x))
    assert [c.shape for c in (pulled.value, pulled.difference) if c is not None] == [(BOXES, 4, 2, 3)] * len(which)
    assert (remainder.radius == 0.0).all()


def test_reshape_integers_are_the_codes():
    codes = np.arange(12.0).reshape(2, 2, 3)
    assert RESHAPE.integer(None, [4], codes).tolist() == RESHAPE.evaluate(codes).tolist()
    assert RESHAPE.evaluate(codes).shape == (2, 3, 2, 1)
    assert RESHAPE.evaluate(codes).ravel().tolist() == list(range(12))


@given(intervals(BOXES, SIZE), choices(BOXES, SIZE), differences)
def test_input_passes_the_box_on(x, choice, codes):
    op, facts = Input((SIZE,)), Facts(x)
    assert encloses(op.interval(x), member(x, choice))
    assert encloses(op.fixed_interval(None, x), member(x, choice))
    assert encloses(op.difference(None, facts), to_fractions(np.zeros((BOXES, SIZE))))
    assert (op.integer(None, [2], codes) == codes).all()
    remainder = Remainder.zero(BOXES, 1)
    assert op.adjoint(None, Rows(None, None), remainder, facts) == ()


@given(arrays(reals(1e30), 4, BOXES, 2, SIZE), values, differences)
def test_rows_add_as_forms_do(c, z, d):
    z, d = to_fractions(z), to_fractions(d)
    whole, half = Rows(c[0], c[1]), Rows(c[2], None)
    for one, other in ((whole, half), (half, whole), (Rows(None, c[3]), half)):
        total = one.plus(other)
        for name in ("value", "difference"):
            terms = [t for t in (getattr(one, name), getattr(other, name)) if t is not None]
            assert (getattr(total, name) == sum(terms[1:], terms[0])).all()


@given(st.lists(st.tuples(scalars(reals()), scalars(np.abs(reals()))), min_size=1, max_size=8), choices(8))
def test_remainders_add_up(parts, choice):
    remainder = Remainder.zero(1, 1)
    exact = Fraction(0)
    for k, (center, radius) in enumerate(parts):
        t = Fraction(2.0 * min(choice[k], 1.0) - 1.0)
        if k % 3 == 2:
            remainder.widen(np.array([[radius]]))
            exact += t * Fraction(radius)
        else:
            remainder.add(np.array([[center]]), np.array([[radius]]))
            exact += Fraction(center) + t * Fraction(radius)
    assert encloses(remainder.enclose(), np.array([[exact]]))


def test_many_remainders_add_up():
    """A radius that grows by less than half a unit in its last place each time is still not lost."""
    remainder = Remainder.zero(1, 1)
    remainder.widen(np.ones((1, 1)))
    for _ in range(4000):
        remainder.widen(np.full((1, 1), 2.0**-53))
    exact = 1 + Fraction(4000, 2**53)
    assert encloses(remainder.enclose(), np.array([[exact]]))
    assert encloses(remainder.enclose(), np.array([[-exact]]))


def test_centres_that_are_lost_in_adding_are_charged():
    remainder, zero = Remainder(np.ones((1, 1)), np.zeros((1, 1))), np.zeros((1, 1))
    for _ in range(500):
        remainder.add(np.full((1, 1), 2.0**-53), zero)
    assert remainder.center == 1.0
    assert encloses(remainder.enclose(), np.array([[1 + Fraction(500, 2**53)]]))


@given(values)
def test_the_helpers_of_these_tests_are_tight(x):
    assume(np.isfinite(x).all())
    tight = around(to_fractions(x))
    assert (tight.lower == x).all()
    assert (tight.upper == x).all()
    below = round_down(to_fractions(x) - Fraction(1, 10**400))
    assert (below == np.nextafter(x, -np.inf)).all()
