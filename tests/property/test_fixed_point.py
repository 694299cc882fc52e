"""Formats and rounding against exact fractions."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format, from_codes, to_grid

from .rationals import reals, scalars

fractional = st.integers(-40, 200)
wide_formats = st.builds(Format, st.integers(54, 256), st.integers(-60, 60), st.booleans())
formats = st.builds(Format, st.integers(1, 53), st.integers(-60, 60), st.booleans())


def half_even(x, bits):
    """`x` in steps of 2**-bits, rounded half to even by Python's own exact rule."""
    return round(Fraction(x) * Fraction(2) ** bits)


@st.composite
def near_grid(draw, bits):
    """A float on the grid, on a tie, or next to one."""
    x = math.ldexp(draw(st.integers(-(2**30), 2**30)), -bits - 1)
    return draw(st.sampled_from([x, np.nextafter(x, np.inf), np.nextafter(x, -np.inf)]))


@given(st.data(), fractional)
def test_the_grid_rounds_half_to_even(data, bits):
    x = data.draw(near_grid(bits) | scalars(reals()))
    assert int(to_grid(x, bits)) == half_even(x, bits)


@given(st.data(), formats)
def test_quantize_saturates_and_rounds_half_to_even(data, output):
    x = data.draw(near_grid(output.fractional_bits) | scalars(reals()))
    expected = min(max(half_even(x, output.fractional_bits), output.min_code), output.max_code)
    code = output.quantize(x)
    assert code.dtype == np.int64
    assert int(code) == expected


@given(formats)
def test_ends_and_step_are_exact(output):
    step = Fraction(2) ** (output.integer_bits + output.signed - output.word_length)
    assert Fraction(output.step) == step
    assert output.max_code - output.min_code + 1 == 2**output.word_length
    assert Fraction(output.minimum) == output.min_code * step
    assert Fraction(output.maximum) == output.max_code * step
    assert (output.min_code < 0) == output.signed


@given(formats, st.data())
def test_values_of_codes_are_exact_and_come_back(output, data):
    code = data.draw(
        st.integers(output.min_code, output.max_code) | st.sampled_from([output.min_code, output.max_code])
    )
    value = from_codes(np.array([code]), output.fractional_bits)
    assert Fraction(value[0]) == code * Fraction(2) ** -output.fractional_bits
    assert output.quantize(value).tolist() == [code]


@given(formats, st.data())
def test_contains_means_that_nothing_saturates(output, data):
    ends = st.sampled_from([output.minimum, output.maximum]) | near_grid(output.fractional_bits) | scalars(reals())
    half = output.step / 2
    ends = ends | st.sampled_from(
        [output.maximum + half, output.minimum - half, np.nextafter(output.maximum + half, 0.0)]
    )
    low, high = sorted([data.draw(ends), data.draw(ends)])
    fits = all(output.min_code <= half_even(x, output.fractional_bits) <= output.max_code for x in (low, high))
    assert output.contains(low, high) == fits


@given(wide_formats, st.integers(-3, 3), st.booleans())
def test_contains_is_exact_for_accumulators_wider_than_float64(output, neighbours, at_upper):
    """The largest code of more than 53 bits is no float64; the next float64 above it does not fit."""
    end = (output.max_code + 1) if at_upper else output.min_code
    value = math.ldexp(end, -output.fractional_bits)
    for _ in range(abs(neighbours)):
        value = np.nextafter(value, math.copysign(math.inf, neighbours))
    fits = output.min_code <= half_even(value, output.fractional_bits) <= output.max_code
    assert output.contains(value, value) == fits


def test_contains_refuses_nan():
    assert not Format(8, 3, True).contains(math.nan, 1.0)
    assert not Format(8, 3, True).contains(0.0, math.nan)


def narrower(output):
    """The same grid with one bit less, if there is such a format."""
    if output.word_length == 1 + output.signed:
        return None
    return Format(output.word_length - 1, output.integer_bits - 1, output.signed)


@given(st.integers(-(2**52), 2**52 - 1) | st.integers(-9, 9), st.integers(0, 2**52) | st.integers(0, 9), fractional)
def test_for_codes_is_the_narrowest(low, width, bits):
    high = min(low + width, 2**52 - 1)
    output = Format.for_codes(low, high, bits)
    assert output.fractional_bits == bits
    assert output.min_code <= low
    assert high <= output.max_code
    assert output.signed == (low < 0)
    less = narrower(output)
    if less is not None and (low, high) != (0, 0):
        assert low < less.min_code or high > less.max_code


@given(st.data(), st.integers(-10, 20))
def test_for_range_is_the_narrowest(data, bits):
    ends = near_grid(bits) | scalars(reals(1e6))
    low, high = sorted([data.draw(ends), data.draw(ends)])
    output = Format.for_range(np.array([low, high]), np.array([low, high]), bits)
    assert output.fractional_bits == bits
    assert output.contains(low, high)
    less = narrower(output)
    if less is not None and not to_grid(low, bits) == to_grid(high, bits) == 0:
        assert not less.contains(low, high)


@given(formats)
def test_ap_fixed_counts_the_sign_as_an_integer_bit(output):
    text = output.to_ap_fixed()
    kind = "ap_fixed" if output.signed else "ap_ufixed"
    integer = output.word_length - output.fractional_bits
    assert text == f"{kind}<{output.word_length}, {integer}, AP_RND_CONV, AP_WRAP>"
    assert output.to_ap_fixed("AP_SAT") == text.replace("AP_WRAP", "AP_SAT")


@given(formats)
def test_quantized_bits_has_the_same_grid_and_at_least_the_range(output):
    inside = output.to_quantized_bits().removeprefix("quantized_bits(").removesuffix(")")
    bits, integer, sign, alpha = inside.split(",")
    assert alpha == "alpha=1.0"
    assert sign == f"keep_negative={int(output.signed)}"
    bits, integer = int(bits), int(integer)
    assert integer == max(0, output.integer_bits)
    assert bits - output.signed - integer == output.fractional_bits
    assert bits >= output.word_length


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Format(8, 3, True), "quantized_bits(8,3,keep_negative=1,alpha=1.0)"),
        (Format(6, 0, False), "quantized_bits(6,0,keep_negative=0,alpha=1.0)"),
        (Format(6, -2, True), "quantized_bits(8,0,keep_negative=1,alpha=1.0)"),
    ],
)
def test_quantized_bits_text(output, expected):
    assert output.to_quantized_bits() == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Format(8, 3, True), "ap_fixed<8, 4, AP_RND_CONV, AP_WRAP>"),
        (Format(6, -2, False), "ap_ufixed<6, -2, AP_RND_CONV, AP_WRAP>"),
    ],
)
def test_ap_fixed_text(output, expected):
    assert output.to_ap_fixed() == expected


@pytest.mark.parametrize("word_length", [-1, 0, 257])
def test_word_lengths_beyond_exact_ones_are_refused(word_length):
    with pytest.raises(InputError, match=f"word_length {word_length}"):
        Format(word_length, 0, True)
