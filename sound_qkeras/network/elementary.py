"""Enclosures of exp, log1p and erf at float64 points, from the five operations IEEE 754 rounds correctly.

No mathematical library is trusted: those differ between machines and promise nothing. Each function is an argument
reduction and a polynomial whose truncation is smaller than its rounding; both are charged, several times over. Only
`+ - * /`, `rint` and exact scaling by powers of two are used, one numpy call each, so every machine gets the same bits.

Reference: Muller, Elementary Functions (2016), sections 3 and 11 (argument reduction after Cody and Waite).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.interval import SMALLEST, Interval, Reals, down, up

# ln 2 = HIGH + LOW up to 2**-90; HIGH has 33 bits, so a multiple of it by 11 bits is exact.
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
TWO_OVER_ROOT_PI = float.fromhex("0x1.20dd750429b6dp+0")
# Beyond these, e**x is below the smallest normal number's neighbourhood, or close to the largest float64.
LOWEST, HIGHEST = -745.0, 709.0
# Relative errors: what is proved in the comments below is at most half of these.
EXP_ERROR = 2.0**-49
LOG_ERROR = 2.0**-47
ERF_ERROR = 2.0**-42
# Beyond, 1 - erf(t) <= exp(-t**2) <= exp(-36) < 2**-51.
ERF_END = 6.0
ERF_TERMS = 160


def exp(x: npt.ArrayLike) -> Interval:
    """An enclosure of `e**x`, elementwise; nonnegative, and infinite above where float64 ends.

    With `x = k ln 2 + r`, |r| < 0.347: r is off by less than 2**-53; the polynomial of degree 14 truncates by less than
    2**-62 and rounds by less than 4.5 units of 2**-53, relative to e**r.
    """
    x = np.asarray(x, dtype=np.float64)
    inside = np.clip(x, LOWEST, HIGHEST)
    power = np.rint(inside * LOG2_E)
    rest = (inside - power * LN2_HIGH) - power * LN2_LOW
    total = np.ones_like(rest)
    for n in range(14, 0, -1):
        total = 1.0 + total * rest / n
    value = np.ldexp(total, power.astype(np.int64))
    slack = EXP_ERROR * value + SMALLEST
    lower = np.where(x < LOWEST, 0.0, np.maximum(down(value - slack), 0.0))
    return Interval(lower, np.where(x > HIGHEST, np.inf, up(value + slack)))


def log1p(t: Interval) -> Interval:
    """An enclosure of `ln(1 + t)` for t in [0, 1].

    `2 atanh(s)` with `s = t / (2 + t)` in [0, 1/3]: 22 terms of its series leave less than 2**-72 relative to the first, all
    of them positive.
    """
    ends: list[Reals] = []
    for end in (t.lower, t.upper):
        s = end / (2.0 + end)
        square, total = s * s, np.zeros_like(s)
        for n in range(43, 0, -2):
            total = 1.0 / n + total * square
        ends.append(2.0 * s * total)
    lower, upper = ends
    return Interval(
        np.maximum(down(lower - LOG_ERROR * lower - SMALLEST), 0.0), up(upper + LOG_ERROR * upper + SMALLEST)
    )


def erf(x: npt.ArrayLike) -> Interval:
    """An enclosure of the error function, elementwise, within [-1, 1].

    `2 / sqrt(pi) e**(-t**2) sum_n 2**n t**(2n+1) / (2n+1)!!`, all terms positive. The rounding of `t**2 <= 36` moves the
    exponential by less than 2**-47, the 640 roundings of terms and sum by less than 2**-43; 160 terms leave 2**-70 of it.
    """
    x = np.asarray(x, dtype=np.float64)
    t = np.minimum(np.abs(x), ERF_END)
    square = t * t
    term, total = t.copy(), t.copy()
    for n in range(1, ERF_TERMS):
        term = term * (2.0 * square) / (2 * n + 1)
        total = total + term
    small = exp(-square)
    lower = TWO_OVER_ROOT_PI * small.lower * total * (1.0 - ERF_ERROR)
    upper = TWO_OVER_ROOT_PI * small.upper * total * (1.0 + ERF_ERROR) + SMALLEST
    lower, upper = np.where(t == ERF_END, 1.0 - 2.0**-51, lower), np.where(t == ERF_END, 1.0, upper)
    lower, upper = np.clip(lower, 0.0, 1.0), np.clip(upper, 0.0, 1.0)
    return Interval(np.where(x < 0.0, -upper, lower), np.where(x < 0.0, -lower, upper))


def quotient(a: Interval, b: Interval) -> Interval:
    """An enclosure of `a / b` for positive `b`."""
    ends = [x / y for x in (a.lower, a.upper) for y in (b.lower, b.upper)]
    return Interval(down(np.minimum.reduce(ends)), up(np.maximum.reduce(ends)))
