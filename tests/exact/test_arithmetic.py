"""Products by limbs, and everything that is rounded outward, against Python's own integers and fractions."""

from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras.exact import dyadic
from sound_qkeras.exact.dyadic import Dyadic, Range, _integers
from sound_qkeras.exact.functions import FUNCTIONS, exact_function


def numbers(rng, shape, bits):
    """Integers of up to so many bits, some of them zero, extremes among them."""
    found = [
        int(rng.choice([0, -1, 1])) * int(rng.integers(0, 2**32)) * 2 ** int(rng.integers(0, bits))
        for _ in range(np.prod(shape))
    ]
    found = [int(n) % 2**bits * (1 if n >= 0 else -1) for n in found]
    found[0], found[-1] = 2**bits - 1, -(2**bits)
    return Dyadic(_integers(found).reshape(shape), 5)


@pytest.mark.parametrize("inner", [1, dyadic.FEWEST_TERMS, 100])
@pytest.mark.parametrize("bits", [(1, 1), (26, 27), (52, 31), (200, 64), (900, 900)])
def test_products_by_limbs_are_those_of_python(inner, bits):
    rng = np.random.default_rng(inner)
    a, b = numbers(rng, (5, inner), bits[0]), numbers(rng, (inner, 4), bits[1])
    b.numbers[:] = np.where(
        rng.random(b.shape) < 0.5, b.numbers, -(2 ** bits[1])
    )  # as large as they may be, all of one sign
    found = a @ b
    wanted = [[sum(a.numbers[i, k] * b.numbers[k, j] for k in range(inner)) for j in range(4)] for i in range(5)]
    assert found.numbers.tolist() == wanted
    assert found.bits == 10
    assert all(type(number) is int for number in found.numbers.ravel())


def test_the_largest_sums_of_limbs_fit():
    """All ones, as many as there may be terms and limbs."""
    for bits in (28, 56, 400):
        a = Dyadic(_integers([2**bits - 1] * 3 * 1024).reshape(3, 1024), 0)
        assert (a @ a.T).numbers.tolist() == [[1024 * (2**bits - 1) ** 2] * 3] * 3
        assert (-a @ a.T).numbers.tolist() == [[-1024 * (2**bits - 1) ** 2] * 3] * 3


def test_rows_of_zeros_are_left_out():
    a = Dyadic(_integers([0] * 60).reshape(2, 30), 0)
    assert (a @ Dyadic.identity(30)).numbers.tolist() == [[0] * 30] * 2


@pytest.mark.parametrize("bits", [3, 95, 97, 300])
def test_what_is_cut_is_rounded_down_by_less_than_the_unit(bits):
    x = numbers(np.random.default_rng(bits), (40,), bits)
    x = Dyadic(x.numbers, 400)
    found, unit = x.cut()
    lost = [a - b for a, b in zip(x.fractions(), found.fractions(), strict=True)]
    assert (unit is None) == (bits <= dyadic.PRECISION - 1)
    limit = Fraction(0) if unit is None else unit.fractions()[0]
    assert all(0 <= one < limit or one == 0 for one in lost)
    assert found.length <= dyadic.PRECISION + 1


def test_a_range_that_is_cut_holds_what_it_held():
    low, high = (Dyadic(numbers(np.random.default_rng(n), (40,), 300).numbers, 310) for n in (0, 1))
    range_ = Range(low.minimum(high), low.maximum(high))
    wide = range_.outward()
    for inner, outer in ((range_.lower, wide.lower), (range_.upper, wide.upper)):
        ends = list(zip(inner.fractions(), outer.fractions(), strict=True))
        assert any(a != b for a, b in ends)
        assert all(abs(a - b) < Fraction(1, 2**100) for a, b in ends)
    assert all(a <= b for a, b in zip(wide.lower.fractions(), range_.lower.fractions(), strict=True))
    assert all(a >= b for a, b in zip(wide.upper.fractions(), range_.upper.fractions(), strict=True))


@pytest.mark.parametrize("name", [*FUNCTIONS, "elu"])
def test_what_a_line_leaves_of_a_function_holds_every_point(name):
    function = exact_function(name, 1.25 if name == "elu" else 1.0)
    rng = np.random.default_rng(0)
    cases = [
        (Fraction(a), Fraction(a + w))
        for a, w in zip(rng.integers(-24, 16, 12) / 8, rng.choice([0, 0.125, 1, 4], 12), strict=True)
    ]
    for low, high in cases:
        chord = Fraction(0)
        if low < high:
            ends = [Fraction(function.values(end, end).low) for end in (low, high)]
            chord = (ends[1] - ends[0]) / (high - low)
        for slope in (chord, Fraction(1, 3), Fraction(-1, 2)):
            found = function.beside(slope, low, high)
            for share in [Fraction(n, 16) for n in range(17)]:
                x = low + share * (high - low)
                value = function.values(x, x)
                assert Fraction(found.low) <= Fraction(value.high) - slope * x
                assert Fraction(value.low) - slope * x <= Fraction(found.high)
