"""Numbers as people read them, in few digits: a proved limit is never shown better than it is."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

# More digits than a hundred times any float64 has.
EVERY_DIGIT = 800


def at_most(value: float, digits: int) -> str:
    """`value` in at most so many digits, rounded up.

    >>> at_most(1 / 3, 3), at_most(-1 / 3, 3), at_most(2.5, 3), at_most(123456.0, 3)
    ('0.334', '-0.333', '2.5', '1.24e+5')
    """
    return _short(Decimal(float(value)), Context(prec=digits, rounding=ROUND_CEILING))


def at_least(value: float, digits: int) -> str:
    """`value` in at most so many digits, rounded down.

    >>> at_least(1 / 3, 3), at_least(-1 / 3, 3)
    ('0.333', '-0.334')
    """
    return _short(Decimal(float(value)), Context(prec=digits, rounding=ROUND_FLOOR))


def percent_at_most(share: float, digits: int) -> str:
    """A share as a percentage in at most so many digits, rounded up.

    >>> percent_at_most(1 / 3, 3), percent_at_most(1.0, 3), percent_at_most(0.0, 3)
    ('33.4%', '100%', '0%')
    """
    return f"{_short(_hundredfold(share), Context(prec=digits, rounding=ROUND_CEILING))}%"


def percent_at_least(share: float, digits: int) -> str:
    """A share as a percentage in at most so many digits, rounded down.

    >>> percent_at_least(1 / 3, 3), percent_at_least(1.0, 3), percent_at_least(0.99999, 3)
    ('33.3%', '100%', '99.9%')
    """
    return f"{_short(_hundredfold(share), Context(prec=digits, rounding=ROUND_FLOOR))}%"


def rounded_up(bound: float, limit: float, digits: int) -> str:
    """A bound in few digits, rounded up; in more where that would exceed what it is at most.

    >>> rounded_up(1 / 3, 0.5, 3), rounded_up(1 / 3, 0.3333339, 3)
    ('0.334', '0.3333334')
    """
    shown = (at_most(bound, more) for more in range(digits, 18))
    return next((text for text in shown if bound > limit or float(text) <= limit), repr(bound))


def tolerance(eps: float, digits: int = 4) -> str:
    """A tolerance as it was given or, where that is long, rounded up.

    >>> tolerance(0.05), tolerance(1 / 3)
    ('0.05', '0.3334')
    """
    exact, short = repr(float(eps)), at_most(eps, digits)
    return exact if len(exact) <= len(short) else short


def interval(lower: float, upper: float, digits: int = 7) -> str:
    """`[lower, upper]` in few digits, rounded outward.

    >>> interval(-1 / 3, 2.5)
    '[-0.3333334, 2.5]'
    """
    return f"[{at_least(lower, digits)}, {at_most(upper, digits)}]"


def _hundredfold(share: float) -> Decimal:
    """A hundred times a number, exactly."""
    return Context(prec=EVERY_DIGIT).multiply(Decimal(float(share)), Decimal(100))


def _short(exact: Decimal, context: Context) -> str:
    number = context.create_decimal(exact)
    mantissa, exponent, power = f"{abs(number) if number == 0 else number:g}".partition("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa) + exponent + power
