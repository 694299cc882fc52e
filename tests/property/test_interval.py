"""Every interval operation and helper encloses the exact result."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from sound_qkeras.errors import VerificationError
from sound_qkeras.interval import (
    Interval,
    down,
    down_sum,
    exact_difference,
    gamma,
    inflate,
    matmul,
    sum_up,
    up,
    up_sum,
)
from sound_qkeras.network.ops import Dense

from .rationals import (
    arrays,
    at_least,
    at_most,
    choices,
    encloses,
    intervals,
    member,
    reals,
    relu,
    scalars,
    to_fractions,
)

SIZE = 3
TINY = np.abs(reals(1e-100))
MAGNITUDES = np.abs(reals(1e30))
any_interval = intervals(SIZE)
any_choice = choices(SIZE)


@given(any_interval, any_interval, any_choice, any_choice)
def test_sums_differences_and_products_enclose(a, b, i, j):
    x, y = member(a, i), member(b, j)
    assert encloses(a + b, x + y)
    assert encloses(a - b, x - y)
    assert encloses(a * b, x * y)
    assert encloses(-a, -x)


CANCELLING = Interval.point([[1e16, 1.0, -1e16], [1e16, 3.0, 1.0]]), Interval.point(np.ones((SIZE, 2)))


@example(*CANCELLING, np.zeros((2, SIZE)), np.zeros((SIZE, 2)))
@given(intervals(2, SIZE), intervals(SIZE, 2), choices(2, SIZE), choices(SIZE, 2))
def test_matrix_products_enclose(a, b, i, j):
    assert encloses(matmul(a, b), member(a, i) @ member(b, j))


def some_zero(interval, kept):
    """With members that are zero alone wherever `kept` is below one."""
    return interval.zero_where(kept < 1.0)


@given(intervals(2, SIZE), intervals(SIZE, 2), choices(2, SIZE), choices(SIZE, 2), choices(2, SIZE), choices(SIZE, 2))
def test_what_is_exactly_zero_is_zero_and_nothing_else(a, b, kept_a, kept_b, i, j):
    a, b = some_zero(a, kept_a), some_zero(b, kept_b)
    x, y = member(a, i), member(b, j)
    layers = [Dense(b.lower, np.zeros(2)), Dense(b.lower, np.array([0.0, 5e-324]), kernel_radius=b.magnitude)]
    total = to_fractions(a.magnitude) @ to_fractions(b.magnitude)
    for found, exact, largest in (
        (matmul(a, b), x @ y, total),
        (a * b[:, 0], x * y[:, 0], to_fractions(a.magnitude) * to_fractions(b.magnitude[:, 0])),
        (a + a, x + x, to_fractions(a.magnitude)),
        (layers[0].interval(a), x @ to_fractions(b.lower), to_fractions(a.magnitude) @ to_fractions(np.abs(b.lower))),
        (layers[1].interval(a), x @ to_fractions(b.lower) + to_fractions(layers[1].bias), total + to_fractions([0, 1])),
    ):
        assert encloses(found, exact)
        assert np.array_equal(found.magnitude == 0.0, largest == 0)


@given(any_interval, any_choice, scalars(reals()))
def test_scaling_encloses(a, i, factor):
    assert encloses(a.scaled(factor), member(a, i) * Fraction(factor))


@given(any_interval, any_choice, arrays(MAGNITUDES, SIZE), st.sampled_from([-1, 1, 0]))
def test_widening_encloses(a, i, radius, sign):
    moved = member(a, i) + sign * to_fractions(radius)
    assert encloses(a.widened(radius), moved)


@given(arrays(reals(), SIZE), arrays(MAGNITUDES, SIZE), choices(SIZE))
def test_around_encloses(center, radius, part):
    moved = to_fractions(center) + to_fractions(2 * np.minimum(part, 1.0) - 1) * to_fractions(radius)
    assert encloses(Interval.around(center, radius), moved)


@example(Interval.point(np.array([5e-324, -5e-324, 1.5 * 2.0**-1022])), np.zeros(SIZE))
@example(Interval(np.array([5e-324, -1e-323, 0.0]), np.array([1e-323, -5e-324, 5e-324])), np.ones(SIZE))
@given(any_interval, any_choice)
def test_center_radius_and_magnitude_cover_every_member(a, i):
    x = member(a, i)
    assert a.contains(a.center).all()
    distance = np.abs(x - to_fractions(a.center))
    assert all(at_least(r, e) for r, e in zip(a.radius, distance, strict=True))
    assert all(at_least(m, abs(e)) for m, e in zip(a.magnitude, x, strict=True))
    assert all(m in (abs(low), abs(high)) for m, low, high in zip(a.magnitude, a.lower, a.upper, strict=True))
    assert (a.radius[a.lower == a.upper] == 0.0).all()


@given(any_interval, any_choice)
def test_mapping_by_a_monotone_function_encloses(a, i):
    x = member(a, i)
    assert encloses(a.mapped(lambda v: np.maximum(v, 0.0)), relu(x))
    assert encloses(a.mapped(lambda v: v.reshape(SIZE, 1)), x)


@given(any_interval, any_interval, any_choice, any_choice)
def test_intersections_keep_what_is_in_both(a, b, i, j):
    if not ((a.lower <= b.upper) & (b.lower <= a.upper)).all():
        with pytest.raises(VerificationError, match="do not meet"):
            a.intersect(b)
        return
    common = a.intersect(b)
    for x in (member(a, i), member(b, j)):
        inside = [encloses(a[k : k + 1], x[k : k + 1]) and encloses(b[k : k + 1], x[k : k + 1]) for k in range(SIZE)]
        assert all(encloses(common[k : k + 1], x[k : k + 1]) == inside[k] for k in range(SIZE))


@given(any_interval, any_choice)
def test_hull_and_contains(a, i):
    x = member(a, i)
    hull = a.hull()
    assert all(at_most(hull.lower, e) and at_least(hull.upper, e) for e in x)
    assert hull.lower in a.lower
    assert hull.upper in a.upper
    near = np.array(x, dtype=np.float64)
    expected = [encloses(a[k : k + 1], to_fractions(near)[k : k + 1]) for k in range(SIZE)]
    assert a.contains(near).tolist() == expected
    assert a.contains(a).all()
    wider = Interval(a.lower, up(a.upper))
    assert wider.contains(a).all()
    assert not a.contains(wider).any()
    assert not a.contains(Interval(down(a.lower), a.upper)).any()


@given(arrays(reals(), 4))
def test_up_and_down_bound_one_operation(x):
    a, b, c, d = x
    for computed, exact in (
        (a + b, Fraction(a) + Fraction(b)),
        (a * b, Fraction(a) * Fraction(b)),
        (c - d, Fraction(c) - Fraction(d)),
    ):
        assert at_least(up(computed), exact)
        assert at_most(down(computed), exact)
    for computed, exact in ((a + b, Fraction(a) + Fraction(b)), (c - d, Fraction(c) - Fraction(d))):
        assert at_least(up_sum(computed), exact)
        assert at_most(down_sum(computed), exact)
        assert (exact == 0) == (up_sum(computed) == 0.0) == (down_sum(computed) == 0.0)


@given(st.integers(1, 12).flatmap(lambda n: arrays(MAGNITUDES, 2, n)), st.sampled_from([-1, 0, (0, 1)]))
def test_sum_up_bounds_a_sum_of_nonnegative_terms(x, axis):
    bound = np.atleast_1d(sum_up(x, axis))
    exact = np.atleast_1d(to_fractions(x).sum(axis=axis))
    assert all(at_least(b, e) for b, e in zip(bound, exact, strict=True))


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(arrays(MAGNITUDES, 1, n), arrays(MAGNITUDES, n))))
def test_inflate_bounds_a_nonnegative_dot_product(pair):
    a, b = pair
    bound = inflate(a @ b, b.size)
    assert at_least(bound[0], (to_fractions(a) @ to_fractions(b))[0])


@given(arrays(TINY, 1, 4), arrays(TINY, 4))
def test_inflate_covers_underflow(a, b):
    bound = inflate(a @ b, b.size)
    assert at_least(bound[0], (to_fractions(a) @ to_fractions(b))[0])


@pytest.mark.parametrize("terms", [1, 2, 10, 1000, 2**20, 2**40])
def test_gamma_is_at_least_highams(terms):
    unit = Fraction(1, 2**53)
    exact = terms * unit / (1 - terms * unit)
    assert Fraction(gamma(terms)) >= exact
    assert Fraction(gamma(terms)) <= 12 * exact
    # Applied to a float, it covers the bound's own roundings too: one sum, one product, the inputs' own relative error.
    assert Fraction(float(inflate(1.0, terms))) >= (1 + unit) ** min(terms, 1000) + 2 * unit


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(arrays(reals(1e30), 1, n), arrays(reals(1e30), n))))
def test_gamma_bounds_the_error_of_a_dot_product(pair):
    a, b = pair
    error = abs((to_fractions(a) @ to_fractions(b))[0] - Fraction(float((a @ b)[0])))
    bound = inflate(gamma(b.size) * (np.abs(a) @ np.abs(b)), b.size)
    assert at_least(bound[0], error)


def test_long_sums_stay_within_their_bounds():
    rng = np.random.default_rng(7)
    for n in (100, 3000):
        x = np.ldexp(np.abs(rng.normal(size=(1, n))), rng.integers(-60, 60, (1, n)))
        assert at_least(sum_up(x)[0], to_fractions(x).sum())
        # The worst case of recursive summation: each small term is lost entirely, n times in a row.
        lost = np.concatenate([[1.0], np.full(n, 2.0**-53)])
        assert at_least(sum_up(np.ascontiguousarray(lost[None]))[0], 1 + Fraction(n, 2**53))
        running = 0.0
        for term in lost:
            running += term
        assert running == 1.0
        assert at_least(inflate(running, lost.size), 1 + Fraction(n, 2**53))


@given(arrays(reals(), SIZE), arrays(reals(), SIZE))
def test_exact_difference_loses_nothing(a, b):
    total, lost = exact_difference(a, b)
    exact = to_fractions(a) - to_fractions(b)
    assert (np.abs(exact - to_fractions(total)) == to_fractions(lost)).all()


def test_point_intervals_have_equal_ends():
    point = Interval.point([1, -0.0])
    assert point.shape == (2,)
    assert point.lower.dtype == np.float64
    assert (point.lower == point.upper).all()
    assert not Interval.point(math.nan).contains(Interval.point(math.nan)).any()
