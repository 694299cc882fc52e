"""The lines by which the exact proof replaces a ReLU, against exact members of what is known of it."""

from fractions import Fraction

import numpy as np
from hypothesis import given

from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.ops import Lines
from sound_qkeras.exact.tensors import ExactFacts

from .rationals import relu
from .test_relu_reshape_input import pairs


def exact(interval):
    """A float interval as an exact range, flattened."""
    return Range(Dyadic.of(interval.lower.ravel()), Dyadic.of(interval.upper.ravel()))


def inside(found, x):
    """Whether every exact element lies in its range."""
    ends = zip(found.lower.fractions(), x, found.upper.fractions(), strict=True)
    return all(low <= v <= high for low, v, high in ends)


@given(pairs())
def test_lines_and_rests_stand_for_the_unit(case):
    facts, members = case
    z, zq, d = map(exact, facts.pair())
    lines = Lines(ExactFacts(z, zq, d, None))
    slope, rest = lines.value
    for value, difference in members:
        value, difference = value.ravel(), difference.ravel()
        after = relu(value + difference) - relu(value)
        assert inside(lines.image(), after)
        assert inside(rest, relu(value) - np.array(slope.fractions()) * value)
        for difference_slope, difference_rest in lines.differences:
            assert inside(difference_rest, after - np.array(difference_slope.fractions()) * difference)


@given(pairs())
def test_units_decided_in_both_networks_leave_nothing(case):
    facts, _ = case
    z, zq, d = map(exact, facts.pair())
    lines = Lines(ExactFacts(z, zq, d, None))
    ends = [r.fractions() for r in (z.lower, z.upper, zq.lower, zq.upper, d.lower, d.upper)]
    image = zip(lines.image().lower.fractions(), lines.image().upper.fractions(), strict=True)
    for k, (z_low, z_high, q_low, q_high, d_low, d_high) in enumerate(zip(*ends, strict=True)):
        low, high = next(image)
        widths = [rest.width.fractions()[k] for _, rest in (lines.value, *lines.differences)]
        if z_low >= 0 and q_low >= 0:
            assert (low, high) == (d_low, d_high)
            assert widths == [Fraction(0)] * 3
        if z_high <= 0 and q_high <= 0:
            assert low == high == 0
            assert widths == [Fraction(0)] * 3
