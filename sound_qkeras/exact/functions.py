"""Enclosures of the functions behind tables in decimal interval arithmetic, for the exact proof.

Nothing is shared with `network.elementary`: `exp` and `ln` are those of Python's `decimal` module, which are correctly
rounded to any number of digits; every other operation is rounded outward; erf is its series with a bound on the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from itertools import pairwise

from sound_qkeras.errors import VerificationError

DIGITS = 34
# Ends of an interval that are one number but for its rounding.
CLOSE = Decimal("1e-20")
DOWN, UP, NEAR = (
    Context(prec=DIGITS, rounding=mode, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
    for mode in (ROUND_FLOOR, ROUND_CEILING, ROUND_HALF_EVEN)
)
ERF_END = Decimal(9)
# Pieces of an interval on which a function is compared with a line, halvings where there is one piece of interest, and the
# share of the interval that is left out at its ends.
PARTS, HALVINGS, EDGE = 8, 4, Fraction(1, 2**64)
# Fixed-point unit of the series of erf.
UNIT = 1 << 192


@dataclass(frozen=True)
class Span:
    """A closed interval with decimal ends; every operation encloses the exact result for all members."""

    low: Decimal
    high: Decimal

    @classmethod
    def of(cls, low: Fraction, high: Fraction | None = None) -> Span:
        """The interval between two rationals, rounded outward."""
        high = low if high is None else high
        return cls(
            DOWN.divide(Decimal(low.numerator), Decimal(low.denominator)),
            UP.divide(Decimal(high.numerator), Decimal(high.denominator)),
        )

    def __add__(self, other: Span) -> Span:
        return Span(DOWN.add(self.low, other.low), UP.add(self.high, other.high))

    def __neg__(self) -> Span:
        return Span(self.high.copy_negate(), self.low.copy_negate())

    def __sub__(self, other: Span) -> Span:
        return self + (-other)

    def __mul__(self, other: Span) -> Span:
        if self.low >= 0 and other.low >= 0:
            return Span(DOWN.multiply(self.low, other.low), UP.multiply(self.high, other.high))
        pairs = [(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Span(min(DOWN.multiply(*pair) for pair in pairs), max(UP.multiply(*pair) for pair in pairs))

    def __truediv__(self, other: Span) -> Span:
        """The quotient by a positive interval."""
        if self.low >= 0:
            return Span(DOWN.divide(self.low, other.high), UP.divide(self.high, other.low))
        pairs = [(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Span(min(DOWN.divide(*pair) for pair in pairs), max(UP.divide(*pair) for pair in pairs))

    def hull(self, other: Span) -> Span:
        """The smallest interval around both."""
        return Span(min(self.low, other.low), max(self.high, other.high))

    def same_sign(self, other: Span) -> bool:
        """Whether all members of both are positive, or all negative."""
        return (self.low > 0 and other.low > 0) or (self.high < 0 and other.high < 0)

    def magnitude(self) -> Span:
        """The largest absolute value."""
        size = max(self.low.copy_abs(), self.high.copy_abs())
        return Span(size, size)

    def widened(self, margin: Span) -> Span:
        """The interval and what is no further from it than the margin."""
        return Span((self - margin).low, (self + margin).high)

    def cut(self, low: int, high: int) -> Span:
        """The image under `min(max(x, low), high)`."""
        ends = [min(max(end, Decimal(low)), Decimal(high)) for end in (self.low, self.high)]
        return Span(ends[0], ends[1])

    def exp(self) -> Span:
        """`e**x`; of ends that are close together by one exponential, as `e**w <= 1 + 2 w` for `w` up to 1."""
        found, width = NEAR.exp(self.low), UP.subtract(self.high, self.low)
        top = NEAR.next_plus(found)
        if width > CLOSE:
            top = NEAR.next_plus(NEAR.exp(self.high))
        elif width:
            top = UP.multiply(top, UP.add(Decimal(1), UP.multiply(Decimal(2), width)))
        return Span(max(NEAR.next_minus(found), Decimal(0)), top)

    def log(self) -> Span:
        """`ln x` of a positive interval."""
        return Span(NEAR.next_minus(NEAR.ln(self.low)), NEAR.next_plus(NEAR.ln(self.high)))

    def root(self) -> Span:
        """The square root of a positive interval."""
        return Span(NEAR.next_minus(NEAR.sqrt(self.low)), NEAR.next_plus(NEAR.sqrt(self.high)))

    def meets(self, low: Fraction, high: Fraction) -> bool:
        """Whether a member lies between two rationals."""
        return Fraction(self.low) <= high and low <= Fraction(self.high)


ZERO, ONE, TWO, THREE, FIVE, SIX = (Span(Decimal(number), Decimal(number)) for number in (0, 1, 2, 3, 5, 6))
HALF = ONE / TWO
Formula = Callable[[Span], Span]
Bracket = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class ExactFunction:
    """Formulas for a function and its slope, and brackets of the points where either stops being monotone."""

    value: Formula
    slope: Formula
    turns: Sequence[Bracket] = ()
    bends: Sequence[Bracket] = ()

    def values(self, low: Fraction, high: Fraction) -> Span:
        """Every value on an interval."""
        return _over(self.value, self.turns, low, high)

    def slopes(self, low: Fraction, high: Fraction) -> Span:
        """Every slope on an interval."""
        return _over(self.slope, self.bends, low, high)

    def beside(self, slope: Fraction, low: Fraction, high: Fraction) -> Span:
        """Every `f(x) - slope x` on an interval.

        It lies between its values at the ends of pieces where its own slope has one sign, and else within half the piece's
        width times that slope of them. Where the slope is monotone there is one piece where the sign changes, found by halving.
        """
        line, edge = Span.of(slope), EDGE * (high - low)

        def value(x: Fraction) -> Span:
            at = Span.of(x)
            return self.value(at) - line * at

        def rise(first: Fraction, last: Fraction) -> Span:
            return self.slopes(first, last) - line

        if any(bracket[0] < high and low < bracket[1] for bracket in self.bends):
            cuts = [low + (high - low) * n / PARTS for n in range(PARTS + 1)]
            pieces = [(first, last, rise(first, last)) for first, last in pairwise(cuts)]
        else:
            # A kink at an end is none of the inside's: slopes are taken a little further in.
            start, end = (low + edge, high - edge) if self.bends else (low, high)
            pieces = [(*self._turn(low, high, rise(start, start), rise(end, end), line),)]
        margin = Span.of(edge) * rise(low, high).magnitude() if self.bends else ZERO
        found = value(low).hull(value(high))
        for first, last, there in pieces:
            reach = Span.of((last - first) / 2) * there.magnitude() if there.low < 0 < there.high else ZERO
            found = found.hull(value(first).hull(value(last)).widened(reach))
        return found.widened(margin)

    def _turn(
        self, low: Fraction, high: Fraction, first: Span, last: Span, line: Span
    ) -> tuple[Fraction, Fraction, Span]:
        """The part of an interval where `f' - slope` may change its sign, given what it is at the ends, and what it is there."""
        for _ in range(0 if first.same_sign(last) else HALVINGS):
            middle = (low + high) / 2
            there = self.slope(Span.of(middle)) - line
            if there.same_sign(last):
                high, last = middle, there
            elif there.same_sign(first):
                low, first = middle, there
            else:
                break
        return low, high, first.hull(last)


def _over(formula: Formula, special: Sequence[Bracket], low: Fraction, high: Fraction) -> Span:
    found = formula(Span.of(low))
    if low < high:
        found = found.hull(formula(Span.of(high)))
    for bracket in special:
        if low <= bracket[1] and bracket[0] <= high:
            found = found.hull(formula(Span.of(*bracket)))
    return found


def _sigmoid(x: Span) -> Span:
    return ONE / (ONE + (-x).exp())


def _sigmoid_slope(x: Span) -> Span:
    found = _sigmoid(x)
    return found * (ONE - found).cut(0, 1)


def _tanh(x: Span) -> Span:
    return TWO * _sigmoid(TWO * x) - ONE


def _tanh_slope(x: Span) -> Span:
    return TWO * TWO * _sigmoid_slope(TWO * x)


def _softplus(x: Span) -> Span:
    if x.low > 0:
        return x + (ONE + (-x).exp()).log()
    return (ONE + x.exp()).log()


def _softsign(x: Span) -> Span:
    ends = [_softsign_at(Span(end, end)) for end in (x.low, x.high)]
    return ends[0].hull(ends[1])


def _softsign_at(x: Span) -> Span:
    return x / (ONE + (x if x.low > 0 else -x))


def _softsign_slope(x: Span) -> Span:
    total = ONE + (x if x.low > 0 else -x)
    return ONE / (total * total)


def _elu(alpha: Span, scale: Span) -> Formula:
    def value(x: Span) -> Span:
        parts = [scale * x.cut(0, 10**9)] if x.high >= 0 else []
        if x.low < 0:
            parts.append(scale * alpha * (Span(x.low, min(x.high, Decimal(0))).exp() - ONE))
        return parts[0] if len(parts) == 1 else parts[0].hull(parts[1])

    return value


def _elu_slope(alpha: Span, scale: Span) -> Formula:
    def slope(x: Span) -> Span:
        parts = [scale] if x.high >= 0 else []
        if x.low <= 0:
            parts.append(scale * alpha * Span(x.low, min(x.high, Decimal(0))).exp())
        return parts[0] if len(parts) == 1 else parts[0].hull(parts[1])

    return slope


def _pi() -> Span:
    """Machin's formula, `16 atan(1/5) - 4 atan(1/239)`, by integers: each term floored, so off by less than one unit."""
    unit, terms = 10 ** (DIGITS + 10), 60

    def arctangent(n: int) -> int:
        return sum((-1) ** k * (unit // ((2 * k + 1) * n ** (2 * k + 1))) for k in range(terms))

    total, slack = 16 * arctangent(5) - 4 * arctangent(239), 21 * terms
    return Span.of(Fraction(total - slack, unit), Fraction(total + slack, unit))


ROOT_TWO, ROOT_PI = TWO.root(), _pi().root()


def _erf_at(t: Decimal) -> Span:
    """The error function at a nonnegative point: `2 t / sqrt(pi) e**(-t*t) sum (2 t*t)**n / (2n+1)!!`, terms positive."""
    if t >= ERF_END:  # 1 - erf(t) <= exp(-t*t) <= exp(-81) < 1e-35
        return Span(DOWN.subtract(Decimal(1), Decimal("1e-35")), Decimal(1))
    point = Span(t, t)
    total = Span.of(Fraction(_series(t, -1), UNIT), Fraction(_series(t, 1), UNIT))
    return (TWO * point / ROOT_PI * (-point * point).exp() * total).cut(0, 1)


def _series(t: Decimal, sign: int) -> int:
    """The sum in units of `1 / UNIT`, every term rounded down for `sign` -1 and up for 1, there with what is left out.

    It stops at a term of at most 2**-150 from which on each is less than 0.9 of the one before.
    """
    number, denominator = t.as_integer_ratio()
    square = 2 * number * number * UNIT
    factor = -(-square // denominator**2) if sign > 0 else square // denominator**2
    term = total = UNIT
    n = 0
    while term << 150 > UNIT or 10 * factor > 9 * UNIT * (2 * n + 3):
        n += 1
        term = -(-term * factor // (UNIT * (2 * n + 1))) if sign > 0 else term * factor // (UNIT * (2 * n + 1))
        total += term
    return total + (10 * term if sign > 0 else 0)


def _normal(x: Span) -> Span:
    """The distribution function of the standard normal distribution; increasing."""

    def at(end: Decimal) -> Span:
        t = Span(end.copy_abs(), end.copy_abs()) / ROOT_TWO
        size = Span(_erf_at(t.low).low, _erf_at(t.high).high)
        return (ONE + (size if end >= 0 else -size)) / TWO

    return at(x.low).hull(at(x.high))


def _density(x: Span) -> Span:
    square = Span(Decimal(0), Decimal(0)).hull(x * x) if x.low < 0 < x.high else x * x
    return (-square / TWO).exp() / (ROOT_TWO * ROOT_PI)


def _hard_sigmoid(width: Span) -> Formula:
    return lambda x: (x / width + HALF).cut(0, 1)


def _between(end: int, inside: Formula, outside: tuple[Span, Span]) -> Formula:
    """A slope with kinks at plus and minus `end` halves."""
    low, high = Decimal(-end) / 2, Decimal(end) / 2

    def slope(x: Span) -> Span:
        parts = [outside[0]] if x.low <= low else []
        parts += [outside[1]] if x.high >= high else []
        if x.high >= low and x.low <= high:
            parts.append(inside(Span(max(x.low, low), min(x.high, high))))
        found = parts[0]
        for part in parts[1:]:
            found = found.hull(part)
        return found

    return slope


def _near(text: str) -> Bracket:
    """A bracket of a number given to ten places."""
    return Fraction(text) - Fraction(1, 10**10), Fraction(text) + Fraction(1, 10**10)


def _points(*numbers: Fraction | int) -> tuple[Bracket, ...]:
    return tuple((Fraction(number), Fraction(number)) for number in numbers)


def _exponential(x: Span) -> Span:
    return x.exp()


SELU_ALPHA, SELU_SCALE = (Span.of(Fraction(number)) for number in (1.6732632423543772, 1.0507009873554805))
FUNCTIONS = {
    "exponential": ExactFunction(_exponential, _exponential),
    "gelu": ExactFunction(
        lambda x: x * _normal(x),
        lambda x: _normal(x) + x * _density(x),
        (_near("-0.7517915246"),),
        (_near("-1.4142135624"), _near("1.4142135624")),
    ),
    "hard_sigmoid": ExactFunction(
        _hard_sigmoid(FIVE),
        _between(5, lambda x: ONE / FIVE, (ZERO, ZERO)),
        (),
        _points(Fraction(-5, 2), Fraction(5, 2)),
    ),
    "hard_sigmoid_6": ExactFunction(
        _hard_sigmoid(SIX), _between(6, lambda x: ONE / SIX, (ZERO, ZERO)), (), _points(-3, 3)
    ),
    "hard_swish": ExactFunction(
        lambda x: x * (x + THREE).cut(0, 6) / SIX,
        _between(6, lambda x: (TWO * x + THREE) / SIX, (ZERO, ONE)),
        _points(Fraction(-3, 2)),
        _points(-3, 3),
    ),
    "selu": ExactFunction(_elu(SELU_ALPHA, SELU_SCALE), _elu_slope(SELU_ALPHA, SELU_SCALE), (), _points(0)),
    "sigmoid": ExactFunction(_sigmoid, _sigmoid_slope, (), _points(0)),
    "softplus": ExactFunction(_softplus, _sigmoid),
    "softsign": ExactFunction(_softsign, _softsign_slope, (), _points(0)),
    "swish": ExactFunction(
        lambda x: x * _sigmoid(x),
        lambda x: _sigmoid(x) + x * _sigmoid_slope(x),
        (_near("-1.2784645427"),),
        (_near("-2.3993572805"), _near("2.3993572805")),
    ),
    "tanh": ExactFunction(_tanh, _tanh_slope, (), _points(0)),
}


def exact_function(name: str, alpha: float) -> ExactFunction:
    """The function of a name, in exact terms.

    Raises:
        VerificationError: it is unknown here.
    """
    if name == "elu":
        parameters = Span.of(Fraction(alpha)), ONE
        return ExactFunction(_elu(*parameters), _elu_slope(*parameters), (), _points(0))
    if name not in FUNCTIONS:
        raise VerificationError(f"the exact proof does not know the function '{name}'; rely on the float64 proof")
    return FUNCTIONS[name]
