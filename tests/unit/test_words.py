"""Words that weights are stored in: never longer than those that hold them all, and never with a larger error."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.tuning.build import Parameters
from sound_qkeras.tuning.words import Words

WEIGHTS = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), min_size=1, max_size=5)
BITS = st.one_of(st.integers(-4, 20), st.lists(st.integers(-4, 20), min_size=3, max_size=3).map(np.array))


def square(words: Words, kernel: np.ndarray) -> list[Fraction]:
    """The exact sum of squares of errors, of every channel or of all."""
    value = words.value(words.nearest(kernel))
    exact = np.vectorize(Fraction, otypes=[object])
    return (
        ((exact(value) - exact(kernel)) ** 2).sum(axis=0 if words.bits.ndim else None, keepdims=True).ravel().tolist()
    )


@given(WEIGHTS, BITS)
def test_words_reach_the_next_power_of_two_and_lose_no_more_than_with_its_step(weights, bits):
    kernel = np.array(weights)
    found = Words.of(kernel, bits)
    ends = zip(np.ravel(found.low).tolist(), np.ravel(found.high).tolist(), strict=True)
    for (column, after), (low, high) in zip(columns(kernel, bits), ends, strict=True):
        least, most = Fraction(float(column.min())), Fraction(float(column.max()))

        def within(code: int, least=least, most=most, step=Fraction(2) ** -int(after)) -> bool:
            return most < code * step and -least <= code * step

        signed = low < 0
        assert low == (-high - 1 if signed else 0)
        assert within(high + 1) or not (least or most)
        assert high == 1 or not within((high + 1) // 2) or not (least or most)
        assert signed == (least < 0 and not (high == 1 and within(1)))
    plain = Words(np.asarray(bits), found.low, found.high)
    tiny = Fraction(1, 2**40)  # what float64 sums may be off by
    for lost, before in zip(square(found, kernel), square(plain, kernel), strict=True):
        assert lost <= before * (1 + tiny)
    codes = Parameters(found.nearest(kernel), found, np.zeros(3, np.int64), 0).to_codes()
    own = [output.word_length for output in codes.channel_formats or (codes.kernel_format,)]
    longest = [
        Format.for_codes(int(low), int(high), 0).word_length
        for low, high in zip(np.ravel(found.low), np.ravel(found.high), strict=True)
    ]
    assert all(length <= most for length, most in zip(own, longest, strict=True))


def columns(kernel: np.ndarray, bits: object) -> list[tuple[np.ndarray, int]]:
    return [(kernel, bits)] if np.ndim(bits) == 0 else list(zip(kernel.T, bits, strict=True))


@given(WEIGHTS, BITS)
def test_every_weight_has_the_nearest_code_of_its_word(weights, bits):
    kernel = np.array(weights)
    found = Words.of(kernel, bits)
    steps, low, high = (np.broadcast_to(array, (3,)).tolist() for array in (found.bits, found.low, found.high))
    for column, values in enumerate(kernel.T.tolist()):
        expected = [round(Fraction(value) * Fraction(2) ** steps[column]) for value in values]
        near = [min(max(code, low[column]), high[column]) for code in expected]
        assert found.nearest(kernel)[:, column].tolist() == near


def test_one_large_weight_among_many_is_cut_off():
    kernel = np.append(np.linspace(-1.0, 1.0, 201), 1.1).reshape(-1, 1)
    words = Words.of(kernel, 2)  # 2.0 is the next power of two: a word of four bits has steps of 1/4
    assert int(words.bits) == 3
    assert words.nearest(kernel)[-1] == 7
    assert words.error(kernel) < 0.6 * Words.holding(kernel, 2).error(kernel)


def test_a_word_with_a_sign_has_a_bit_beside_it():
    """The shortest format with a sign has two bits, and every code of them is used."""
    kernel = np.array([[-0.6], [0.4]])
    words = Words.of(kernel, 1)
    assert (int(words.low), int(words.high)) == (-2, 1)
    assert np.abs(words.value(words.nearest(kernel)) - kernel).max() <= 0.5 * 2.0 ** -int(words.bits)


def test_channels_too_far_apart_for_one_step_are_refused():
    words = Words(np.array([0, 26]), np.array([-(2**41), -2]), np.array([2**41 - 1, 1]))
    codes = Parameters(np.array([[2**40, 1]]), words, np.zeros(2, np.int64), 0)
    with pytest.raises(InputError, match="26 fractional bits need more than 53 bits"):
        codes.to_codes()


def test_long_words_are_as_they_were():
    kernel = np.random.default_rng(0).normal(size=(50, 4))
    assert int(Words.of(kernel, 12).bits) == 12


def test_a_word_that_is_too_long_is_refused():
    with pytest.raises(InputError, match="60 fractional bits need more than 53 bits"):
        Words.of(np.ones((2, 2)), 60)
