"""Layer normalisation against exact arithmetic: fractions, and roots of 200 bits."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.errors import InputError, ModelError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import Facts, LayerNorm, LayerNormPair, Remainder, Rows
from sound_qkeras.network.ops.layer_norm_pair import derived, measured

from .rationals import around, arrays, at_least, at_most, choices, intervals, member, reals, to_fractions
from .test_affine import form

BOXES = 2
# What a root of 200 bits leaves over, relative to any result here.
TINY = Fraction(1, 2**150)
OPS = st.sampled_from([LayerNorm(3, 1e-3), LayerNorm(2, 1e-6), LayerNorm(4, 0.5), LayerNorm(3, 2.0**-24)])


def root(x):
    """The square root of a fraction, off by less than `2**-170` of it."""
    shift = 200 + max(0, (x.denominator.bit_length() - x.numerator.bit_length()))
    return Fraction(math.isqrt((x.numerator << 2 * shift) // x.denominator), 1 << shift)


def exact(op, x):
    """Normalised rows, exact but for the root."""
    rows = x.reshape(-1, op.size)
    found = []
    for row in rows:
        mean = sum(row, Fraction(0)) / op.size
        variance = sum(((v - mean) ** 2 for v in row), Fraction(0)) / op.size
        found.append([(v - mean) / root(variance + Fraction(op.epsilon)) for v in row])
    return np.array(found, dtype=object).reshape(x.shape)


def nearly_encloses(interval, x):
    """Whether every element lies in its interval, up to what the roots leave over."""
    elements = zip(interval.lower.flat, interval.upper.flat, np.asarray(x, object).flat, strict=True)
    return all(
        at_most(low, v + abs(v) * TINY + TINY) and at_least(high, v - abs(v) * TINY - TINY) for low, high, v in elements
    )


@st.composite
def cases(draw):
    """An operation, facts about its input, and members `(z, d)` of them."""
    op = draw(OPS)
    sizes = reals(draw(st.sampled_from([1e-6, 2.0, 64.0, 1e10])))
    near = reals(draw(st.sampled_from([2.0**-30, 2.0**-6, 2.0])))
    members = [
        (to_fractions(draw(arrays(sizes, BOXES, op.size))), to_fractions(draw(arrays(near, BOXES, op.size))))
        for _ in range(draw(st.integers(1, 3)))
    ]
    z, d, fixed = (around(*(pick(m) for m in members)) for pick in (lambda m: m[0], lambda m: m[1], sum))
    mixed = [(to_fractions(z.center), members[0][1])] if len(members) > 1 else []
    return op, Facts(z, fixed, d), members, mixed


@given(OPS, st.data())
def test_intervals_hold_the_image(op, data):
    z = data.draw(intervals(BOXES, op.size, largest=1e10))
    points = member(z, data.draw(choices(BOXES, op.size)))
    image = op.interval(z)
    assert nearly_encloses(image, exact(op, points))
    assert np.all(image.magnitude <= math.sqrt(op.size - 1) * (1.0 + 1e-12))


@given(cases())
def test_differences_are_enclosed(case):
    op, facts, members, _ = case
    image = op.difference(None, facts)
    for z, d in members:
        assert nearly_encloses(image, exact(op, z + d) - exact(op, z))


@given(st.sampled_from(["p", "a", "ap"]), cases(), st.data())
def test_adjoints_keep_the_value_of_every_form(which, case, data):
    op, facts, members, mixed = case
    p, a = (data.draw(arrays(reals(1e10), BOXES, 2, op.size)) for _ in range(2))
    rows = Rows(p if "p" in which else None, a if "a" in which else None)
    remainder = Remainder.zero(BOXES, 2)
    (pulled,) = op.adjoint(None, rows, remainder, facts)
    enclosure = remainder.enclose()
    for z, d in [*members, *(mixed if which == "p" else ())]:
        moved = form(rows, exact(op, z), exact(op, z + d) - exact(op, z)) - form(pulled, z, d)
        assert nearly_encloses(enclosure.widened(1e-20), moved)


SOURCES = st.sampled_from([Format(6, 2, True), Format(9, 0, False), Format(12, 5, True), Format(4, 9, True)])
OUTPUTS = st.sampled_from([Format(8, 1, True), Format(14, 2, True), Format(4, 1, True), Format(11, 3, True)])


@given(OPS, SOURCES, OUTPUTS, st.data())
def test_integers_are_within_their_error(op, source, output, data):
    """Codes of any kind, equal ones and neighbours too: the integers against the definition, and against the proved error."""
    pair = op.pair([source], output)
    table = np.concatenate([np.arange(-3, 4), np.array([source.min_code, source.max_code, source.max_code - 1])])
    codes = np.clip(data.draw(arrays(table, 4, op.size)), source.min_code, source.max_code)
    found = op.integer(pair, [source.fractional_bits], codes.astype(np.float64))
    made = to_fractions(found) * Fraction(2) ** -pair.result_bits
    expected = exact(op, to_fractions(codes) * Fraction(2) ** -source.fractional_bits)
    assert np.all(abs(made - expected) <= abs(expected) * (Fraction(pair.relative_error) + TINY))
    assert pair.relative_error * math.sqrt(op.size) <= 0.25 * output.step
    facts = Facts(*(3 * [Interval.point(codes * source.step)]))
    facts = Facts(facts.value, facts.value, Interval.point(np.zeros(codes.shape)))
    assert nearly_encloses(op.difference(pair, facts), made - expected)
    assert nearly_encloses(op.fixed_interval(pair, facts.value), made)


def test_a_wrong_entry_costs_what_it_is_off_by():
    codes = derived(5, 12, 14).copy()
    fine = measured(codes, 5, 12, 14)
    codes[40] += 64
    assert measured(codes, 5, 12, 14) > fine + 0.9 * 64 / codes[40]
    codes[40] = 0
    assert measured(codes, 5, 12, 14) == math.inf


def test_codes_of_unlike_steps_are_read_at_the_finest():
    op = LayerNorm(4, 1e-3)
    pair = op.pair([Format(5, 2, True), Format(8, 3, True)], Format(10, 1, True))
    assert pair.source == Format(8, 3, True)


@pytest.mark.parametrize(("size", "epsilon"), [(1, 1e-3), (4, 0.0), (4, -1.0), (4, math.nan), (4, 1e9)])
def test_what_cannot_be_normalised_is_refused(size, epsilon):
    with pytest.raises(ModelError, match="normalised with epsilon"):
        LayerNorm(size, epsilon)


def test_rows_of_another_size_are_refused():
    with pytest.raises(ModelError, match="rows of 4 values"):
        LayerNorm(4, 1e-3).output_shape((4, 3))


@pytest.mark.parametrize(
    ("source", "output", "match"),
    [(Format(40, 3, True), Format(8, 1, True), "needs"), (Format(8, 3, True), Format(40, 1, True), "at most 27")],
)
def test_integers_that_do_not_fit_are_refused(source, output, match):
    pair = LayerNormPair(16, 1e-3, source, output)
    with pytest.raises(InputError, match=match):
        _ = pair.codes
