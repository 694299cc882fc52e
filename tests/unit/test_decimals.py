"""Numbers in few digits are never better than they are, and exact where that takes few digits."""

import re
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.results.model import GivenModel
from sound_qkeras.support.decimals import percent_at_least, percent_at_most


@given(st.floats(0.0, 1.0), st.integers(1, 7))
def test_percentages_are_rounded_one_way(share, digits):
    above, below = (Fraction(text(share, digits)[:-1]) / 100 for text in (percent_at_most, percent_at_least))
    assert below <= Fraction(share) <= above
    assert above - below <= above * Fraction(10) ** (1 - digits)


def test_percentages_of_few_digits_are_exact():
    # 0.01 is a little more than a hundredth.
    assert [percent_at_most(share, 4) for share in (0.0, 0.5, 1.0)] == ["0%", "50%", "100%"]
    assert [percent_at_least(share, 4) for share in (0.0, 0.01, 1.0)] == ["0%", "1%", "100%"]


def test_what_is_said_of_a_given_tolerance_is_no_more_than_what_was_found():
    eps, met = 0.1234567, 20999 / 21000
    model = GivenModel("", "float32", (), (), asked=np.array([eps]), met=met)
    (proved, _), (counted, _) = model.lines(counted=False), model.lines(counted=True)
    shown, share = re.findall(r"[0-9.]+", proved)
    assert float(shown) >= eps
    assert Fraction(share) / 100 <= Fraction(met)
    assert "proved" not in counted
    assert f"counted on {share}%" in counted
