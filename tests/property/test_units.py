"""Clipped and leaky units and tables against exact arithmetic: fractions, and decimal enclosures for the tables."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.errors import InputError, ModelError
from sound_qkeras.exact.functions import exact_function
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import Clip, Facts, Leaky, LeakyPair, Remainder, Rows, Table, TablePair
from sound_qkeras.network.ops import table_pair as tables
from sound_qkeras.network.smooth import NAMES

from .rationals import around, arrays, choices, encloses, intervals, member, reals, to_fractions
from .test_affine import form
from .test_relu_reshape_input import pairs

BOXES, SIZE = 2, 2
CLIPS = [Clip(6.0), Clip(0.375), Clip(1024.0), Clip(float(np.float32(1.1)))]
LEAKIES = [
    Leaky(np.array(slope))
    for slope in ([0.25], [float(np.float32(0.1)), 1.5], [-0.3, 0.0], [[0.7, 1.0]], [256.0, 2.0**-20])
]


def clipped(x, maximum):
    return np.minimum(np.maximum(x, to_fractions(0.0)), Fraction(maximum))


def leaky(x, slope):
    return np.maximum(x, to_fractions(0.0)) + to_fractions(np.asarray(slope, dtype=np.float64)) * np.minimum(
        x, to_fractions(0.0)
    )


def cases(draw):
    """An operation, its parameters, and both its exact meanings."""
    if draw(st.booleans()):
        op = draw(st.sampled_from(CLIPS))
        return op, None, lambda z: clipped(z, op.maximum), lambda z: clipped(z, op.maximum)
    op, bits = draw(st.sampled_from(LEAKIES)), draw(st.integers(0, 24))
    pair = LeakyPair(op.slope, bits)
    return op, pair, lambda z: leaky(z, op.slope), lambda z: leaky(z, pair.slope)


@given(intervals(BOXES, SIZE), choices(BOXES, SIZE), st.data())
def test_intervals_hold_the_image(z, choice, data):
    op, pair, real, fixed = cases(data.draw)
    exact = member(z, choice)
    assert encloses(op.interval(z), real(exact))
    assert encloses(op.fixed_interval(pair, z), fixed(exact))
    slopes = op.slopes(z)
    low, high = to_fractions(z.lower), to_fractions(z.upper)
    rise = real(high) - real(low)
    assert np.all(to_fractions(slopes.lower) * (high - low) <= rise)
    assert np.all(rise <= to_fractions(slopes.upper) * (high - low))


@given(pairs(), st.data())
def test_differences_are_enclosed(case, data):
    facts, members = case
    op, pair, real, fixed = cases(data.draw)
    image = op.difference(pair, facts)
    for z, d in members:
        assert encloses(image, fixed(z + d) - real(z))


@pytest.mark.parametrize("which", ["p", "a", "ap"])
@given(case=pairs(), data=st.data())
def test_adjoints_keep_the_value_of_every_form(which, case, data):
    facts, members = case
    op, pair, real, fixed = cases(data.draw)
    p, a = (data.draw(arrays(reals(1e30), BOXES, 2, SIZE)) for _ in range(2))
    rows = Rows(p if "p" in which else None, a if "a" in which else None)
    remainder = Remainder.zero(BOXES, 2)
    (pulled,) = op.adjoint(pair, rows, remainder, facts)
    for z, d in members:
        moved = form(rows, real(z), fixed(z + d) - real(z)) - form(pulled, z, d)
        assert encloses(remainder.enclose(), moved)


@given(st.integers(-4, 30), st.data())
def test_integers_equal_exact_arithmetic(bits, data):
    op, pair, _, fixed = cases(data.draw)
    codes = data.draw(arrays(np.rint(reals(2.0**20)), 3, SIZE))
    made = op.fractional_bits(pair, bits)
    expected = fixed(to_fractions(codes) * Fraction(2) ** -bits) * Fraction(2) ** made
    for kind in (np.float64, np.int64, object):
        found = op.integer(pair, [bits], codes.astype(np.int64).astype(kind))
        assert [int(value) for value in found.flat] == expected.ravel().tolist()
    largest = op.code_magnitude(pair, [bits], np.abs(codes).max(axis=0, keepdims=True))
    assert np.all(np.abs(expected) <= to_fractions(largest))


@given(st.sampled_from(LEAKIES), st.integers(-30, 30), st.integers(1, 50))
def test_slopes_are_nearest(op, fine, word):
    pair = op.pair([Format(word, word - 1 - fine, True)], None)
    bits = min(max(fine + 6, 0), 24)
    assert np.all(np.abs(to_fractions(pair.slope) - to_fractions(op.slope)) <= Fraction(1, 2 ** (bits + 1)))
    assert pair.bits <= bits


@pytest.mark.parametrize("maximum", [0.0, -1.0, np.inf, np.nan, 0.1, 2.0**-30])
def test_bounds_of_many_bits_are_refused(maximum):
    with pytest.raises(ModelError, match="max_value"):
        Clip(maximum)


def test_slopes_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="do not fit"):
        Leaky(np.ones(3)).output_shape((4,))
    with pytest.raises(ModelError, match="up to 256"):
        Leaky(np.array([np.nan]))


# Tables.

FORMATS = [
    (Format(8, 3, True), Format(8, 4, True)),
    (Format(14, 3, True), Format(9, 4, True)),
    (Format(13, 2, False), Format(12, 3, True)),
    (Format(16, 4, True), Format(6, 5, True)),
    (Format(5, 8, True), Format(10, 9, True)),
]


def value(function, x):
    """Middle of an enclosure narrower than 1e-30 of phi, except beside its turns."""
    spans = [function.values(at, at) for at in x.flat]
    return np.array([(Fraction(s.low) + Fraction(s.high)) / 2 for s in spans], dtype=object).reshape(x.shape)


@st.composite
def lookups(draw):
    """A table, facts around a few members `(z, z_q)`, and the members with both results."""
    name, (source, output) = draw(st.sampled_from(NAMES)), draw(st.sampled_from(FORMATS))
    op = Table(name, 0.7 if name == "elu" else 1.0)
    pair = op.pair([source], output)
    function = exact_function(op.function, op.alpha)
    members = []
    for _ in range(draw(st.integers(1, 3))):
        draws = np.frombuffer(draw(st.binary(min_size=16, max_size=16)), np.uint32).reshape(BOXES, SIZE)
        codes = source.min_code + draws.astype(np.int64) % (source.max_code - source.min_code + 1)
        zq = to_fractions(codes) * Fraction(2) ** -source.fractional_bits
        z = zq + to_fractions(draw(arrays(reals(1.0), BOXES, SIZE)))
        z = np.maximum(np.minimum(z, Fraction(30)), Fraction(-30))
        made = to_fractions(pair.results(codes)) * Fraction(2) ** -pair.result_bits
        members.append((z, zq, value(function, z), made))
    z, zq, d = (around(*parts) for parts in zip(*((z, zq, zq - z) for z, zq, _, _ in members), strict=True))
    return op, pair, Facts(z, zq, d), members


TINY = Fraction(1, 10**25)


def nearly(interval):
    """Wider by more than the enclosures of these tests, and by less than anything a table could be off by."""
    lower, upper = to_fractions(interval.lower) - TINY, to_fractions(interval.upper) + TINY
    return lower, upper


def holds(interval, exact):
    lower, upper = nearly(interval)
    return bool(np.all(lower <= exact) and np.all(exact <= upper))


@pytest.mark.slow
@given(st.sampled_from(NAMES), st.sampled_from(FORMATS), st.integers(0, 2**32 - 1))
def test_what_is_read_is_rounded_to_a_code_again(name, formats, seed):
    """A number that is off by more than half a code may be read as one that is farther off."""
    op, rng = Table(name, 1.0), np.random.default_rng(seed)
    pair = op.pair([formats[0]], formats[1])
    codes = rng.integers(pair.source.min_code, pair.source.max_code + 1, 200)
    off = rng.choice([0.0, 0.4, 0.6, 1.4, 2.5, 7.0]) * rng.uniform(-1.0, 1.0, codes.shape)
    read = np.clip(np.rint(codes + off), pair.source.min_code, pair.source.max_code).astype(np.int64)
    moved = np.abs(pair.results(read) - pair.results(codes)) * 2.0**-pair.result_bits
    assert np.all(moved <= op.carried_error(pair, [np.abs(off) * pair.source.step], np.abs(codes)))


@given(lookups())
def test_tables_are_enclosed(case):
    op, pair, facts, members = case
    real, fixed, difference = op.interval(facts.value), op.fixed_interval(pair, facts.fixed), op.difference(pair, facts)
    for _, _, phi, made in members:
        assert holds(real, phi)
        assert encloses(fixed, made)
        assert holds(difference, made - phi)


@pytest.mark.slow
@given(case=lookups(), data=st.data())
def test_adjoints_of_tables_keep_the_value_of_every_form(case, data):
    op, pair, facts, members = case
    p, a = (data.draw(arrays(reals(1e3), BOXES, 2, SIZE)) for _ in range(2))
    for rows in (Rows(p, None), Rows(None, a), Rows(p, a)):
        remainder = Remainder.zero(BOXES, 2)
        (pulled,) = op.adjoint(pair, rows, remainder, facts)
        for z, zq, phi, made in members:
            assert holds(remainder.enclose(), form(rows, phi, made - phi) - form(pulled, z, zq - z))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "tanh" else pytest.mark.slow) for n in NAMES])
@pytest.mark.parametrize(("source", "output"), FORMATS[:3])
def test_entries_are_nearest_and_their_errors_are_bounded(name, source, output):
    """Every code of the format: what is charged is at least what it is off by, and no more than half a step or so."""
    pair = TablePair(name, 1.0, source, output)
    function = exact_function(name, 1.0)
    codes = np.arange(source.min_code, source.max_code + 1, max(1, (source.max_code - source.min_code) // 1500))
    x = to_fractions(codes) * Fraction(2) ** -source.fractional_bits
    made = to_fractions(pair.results(codes)) * Fraction(2) ** -pair.result_bits
    off = np.abs(made - value(function, x))
    at = codes * source.step
    charged = pair.error(Interval.point(at))
    assert np.all(off <= to_fractions(charged) + TINY)
    if not pair.shift:
        inside = np.abs(pair.results(codes)) < output.max_code
        assert np.all(off[inside] <= Fraction(output.step) / 2 * (1 + Fraction(1, 2**20)))
        assert np.all(to_fractions(charged[inside]) <= Fraction(output.step) / 2 * (1 + Fraction(1, 2**20)))
    elif name != "exponential":
        assert np.max(charged) <= tables.INTERPOLATION_STEPS * output.step


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=70), st.data())
def test_the_largest_error_of_a_run(errors, data):
    held = tables.Entries(np.zeros(len(errors), np.int64), np.array(errors))
    first = np.array(data.draw(st.lists(st.integers(0, len(errors) - 1), min_size=4, max_size=4))).reshape(2, 2)
    last = np.minimum(first + data.draw(st.integers(0, 70)), len(errors) - 1)
    expected = [max(errors[a : b + 1]) for a, b in zip(first.flat, last.flat, strict=True)]
    assert held.largest_error(first, last).ravel().tolist() == expected


def test_tables_too_large_are_refused():
    pair = TablePair("tanh", 1.0, Format(40, 20, True), Format(30, 1, True))
    assert "pieces" in pair.problem
    with pytest.raises(InputError, match=r"2\^36 pieces; accepted: at most 2\^17"):
        _ = pair.entries
    wide = TablePair("tanh", 1.0, Format(28, 3, True), Format(44, 1, True))
    assert "accepted" in wide.problem


def test_codes_outside_saturate():
    pair = TablePair("tanh", 1.0, Format(8, 3, True), Format(8, 0, True))
    assert pair.results(np.array([-500, 500])).tolist() == pair.results(np.array([-128, 127])).tolist()


def test_a_table_reads_what_several_nodes_rounded():
    pair = Table("tanh").pair([Format(6, 2, True), Format(5, 0, False)], Format(8, 0, True))
    assert pair.source == Format(9, 3, True) or pair.source.fractional_bits == 5
    codes = np.array([-32, 31]).astype(np.float64)
    found = Table("tanh").integer(pair, [3], codes)
    assert found.tolist() == pair.results(np.array([-128, 124])).tolist()
