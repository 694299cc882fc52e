"""Candidates for a rounded output."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.errors import InfeasibleError
from sound_qkeras.fixed_point import Format
from sound_qkeras.tuning.groups import SHARE, output_candidates


@given(st.floats(1e-9, 1e6), st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_from_half_a_step_below_the_tolerance_to_one_within_its_share(eps, low, width):
    found = output_candidates(low, low + width, eps, 52)
    assert found == list(range(found[0], found[-1] + 1))
    assert 0.5 * 2.0 ** -found[0] < eps <= 2.0 ** -found[0]
    assert 0.5 * SHARE * eps < 0.5 * 2.0 ** -found[-1] <= SHARE * eps


@pytest.mark.parametrize("longest", [13, 14, 20])
def test_no_longer_word_than_allowed(longest):
    found = output_candidates(-5.0, 3.0, 1e-3, longest)
    assert all(Format.for_range(-5.0, 3.0, bits).word_length <= longest for bits in found)


@pytest.mark.parametrize("longest", [2, 8, 12])
def test_too_short_words_are_refused_with_what_would_do(longest):
    with pytest.raises(InfeasibleError) as caught:
        output_candidates(-5.0, 3.0, 1e-3, longest)
    assert caught.value.word_length == 13
    assert caught.value.best_bound == math.inf  # nothing was proved


def test_too_short_a_word_is_named_with_the_way_out():
    with pytest.raises(InfeasibleError, match=r"at least 13 bits, allowed are 8; .*round_output=False"):
        output_candidates(-5.0, 3.0, 1e-3, 8)
