"""Fixed-point formats, and the one rounding rule: round half to even.

A format is `(word_length, integer_bits, signed)`. `integer_bits` excludes the sign bit, as in QKeras; a number is
stored as an integer *code* and has the value `code * step`. The sign bit moves in exactly two methods,
`to_quantized_bits` and `to_ap_fixed`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.types import Codes, Reals

# Stored codes are int64 and their values float64: 53 bits is where both are exact.
MAX_WORD_LENGTH = 53
# Accumulators are never stored; beyond 53 bits the simulator sums them as Python integers.
MAX_ACCUMULATOR_LENGTH = 256
# Int64 codes stay below 2**62 and are shifted by less than that.
INT64_SHIFTS = 62


@dataclass(frozen=True, order=True)
class Format:
    """A fixed-point number format.

    Args:
        word_length: all bits, the sign included; 1 to 53 for stored values, up to 256 for accumulators.
        integer_bits: bits left of the point without the sign; may be negative or above `word_length`.
        signed: whether one bit is the sign (two's complement).

    Raises:
        InputError: the word length is outside 1 to 256.

    >>> Format(8, 3, True).fractional_bits, Format(8, 3, True).step
    (4, 0.0625)
    >>> Format(8, 3, True).to_quantized_bits()
    'quantized_bits(8,3,keep_negative=1,alpha=1.0)'
    """

    word_length: int
    integer_bits: int
    signed: bool

    def __post_init__(self) -> None:
        """Refuse word lengths no tensor can have."""
        if not 1 <= self.word_length <= MAX_ACCUMULATOR_LENGTH:
            raise InputError(
                f"word_length {self.word_length} is outside 1 to {MAX_ACCUMULATOR_LENGTH}; ask for a larger eps or a smaller box"
            )

    @property
    def fractional_bits(self) -> int:
        """Bits right of the point; negative when the step is above one."""
        return self.word_length - self.integer_bits - self.signed

    @property
    def step(self) -> float:
        """One unit in the last place, `2**-fractional_bits`, exactly."""
        return math.ldexp(1.0, -self.fractional_bits)

    @property
    def min_code(self) -> int:
        """The smallest code."""
        return -(1 << (self.word_length - 1)) if self.signed else 0

    @property
    def max_code(self) -> int:
        """The largest code."""
        return (1 << (self.word_length - self.signed)) - 1

    @property
    def minimum(self) -> float:
        """The smallest value, exactly."""
        return math.ldexp(self.min_code, -self.fractional_bits)

    @property
    def maximum(self) -> float:
        """The largest value, exactly."""
        return math.ldexp(self.max_code, -self.fractional_bits)

    @property
    def saturation(self) -> str:
        """How hardware types call the mode in which values beyond the ends become these; empty where there is none."""
        return "SAT"

    def contains(self, lower: float | Reals, upper: float | Reals) -> bool:
        """Whether every value between `lower` and `upper`, rounded to this format's grid, is a code of it."""
        low, high = to_grid(np.min(lower), self.fractional_bits), to_grid(np.max(upper), self.fractional_bits)
        if not (np.isfinite(low) and np.isfinite(high)):
            return False
        return int(low) >= self.min_code and int(high) <= self.max_code

    def quantize(self, x: npt.ArrayLike) -> Codes:
        """Codes of `x`, rounded half to even and saturated at the ends of the format, as QKeras does."""
        return np.clip(to_grid(x, self.fractional_bits), self.min_code, self.max_code).astype(np.int64)

    @property
    def widened(self) -> Format:
        """The same step without negative integer bits: `(b, -k)` becomes `(b + k, 0)`, with the same values on a wider range."""
        wider = max(0, -self.integer_bits)
        return Format(self.word_length + wider, self.integer_bits + wider, self.signed) if wider else self

    def to_quantized_bits(self) -> str:
        """The QKeras quantizer of the `widened` format, because QKeras refuses negative `integer`.

        It gives the same values wherever the narrow format does not overflow.
        """
        wide = self.widened
        return f"quantized_bits({wide.word_length},{wide.integer_bits},keep_negative={int(wide.signed)},alpha=1.0)"

    def to_ap_fixed(self, overflow: str = "AP_WRAP") -> str:
        """The Vitis HLS type: convergent rounding, and `AP_WRAP` because overflow is proved impossible."""
        kind = "ap_fixed" if self.signed else "ap_ufixed"
        return f"{kind}<{self.word_length}, {self.integer_bits + self.signed}, AP_RND_CONV, {overflow}>"

    def to_json(self) -> dict[str, Any]:
        """The three defining numbers."""
        return {"word_length": self.word_length, "integer_bits": self.integer_bits, "signed": self.signed}

    @classmethod
    def for_codes(cls, low: int, high: int, fractional_bits: int) -> Format:
        """The narrowest format with the given fractional bits that holds every code from `low` to `high`.

        A signed format has at least two bits, because QKeras reads one signed bit as `sign(x)`.

        >>> Format.for_codes(-3, 4, 2)
        Format(word_length=4, integer_bits=1, signed=True)
        >>> Format.for_codes(0, 0, 5)
        Format(word_length=1, integer_bits=-4, signed=False)
        """
        signed = low < 0
        magnitude = max(int(high), -int(low) - 1, 0).bit_length()
        magnitude = max(magnitude, 1)
        return cls(magnitude + signed, magnitude - fractional_bits, signed)

    @classmethod
    def for_range(cls, lower: float | Reals, upper: float | Reals, fractional_bits: int) -> Format:
        """The narrowest format that holds every value of `[lower, upper]` rounded to the grid."""
        low = to_grid(np.min(lower), fractional_bits)
        high = to_grid(np.max(upper), fractional_bits)
        return cls.for_codes(int(low), int(high), fractional_bits)


@dataclass(frozen=True, order=True)
class CutFormat(Format):
    """A format of which only the codes from `low` to `high` are used: one without its most negative code, or cut at an upper end.

    >>> CutFormat(4, 0, True, -7, 7).minimum
    -0.875
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        """Refuse codes that the word does not have."""
        super().__post_init__()
        if not super().min_code <= self.low <= self.high <= super().max_code:
            raise InputError(f"codes {self.low} to {self.high} are none of {self.word_length} bits")

    @property
    def min_code(self) -> int:
        """The smallest code."""
        return self.low

    @property
    def max_code(self) -> int:
        """The largest code."""
        return self.high

    @property
    def saturation(self) -> str:
        """Hardware types can leave out the most negative code, and no others."""
        return "SAT_SYM" if self.signed and self.low == -self.high == 1 + super().min_code else ""

    def to_json(self) -> dict[str, Any]:
        """The defining numbers."""
        return {**super().to_json(), "low": self.low, "high": self.high}


def to_grid(x: npt.ArrayLike, fractional_bits: int) -> Reals:
    """`x * 2**fractional_bits` rounded half to even, as a float64 holding an integer.

    Exact: scaling by a power of two only loses bits when the result is below 2**-1022, which rounds to zero anyway.
    """
    return np.rint(scaled(np.asarray(x, dtype=np.float64), fractional_bits))


def scaled(x: Reals, exponent: int) -> Reals:
    """`x * 2**exponent`; as a product where that power is a float64, which is much faster than `np.ldexp`."""
    return x * 2.0**exponent if abs(exponent) < 1000 else np.ldexp(x, exponent)


def from_codes(codes: npt.ArrayLike, fractional_bits: int) -> Reals:
    """Values of integer codes: `codes * 2**-fractional_bits`, exact while codes stay within 53 bits."""
    return scaled(np.asarray(codes).astype(np.float64), -fractional_bits)


def round_integers(codes: npt.NDArray[Any], shift: int) -> npt.NDArray[Any]:
    """`codes * 2**shift` rounded half to even, for integers as float64, int64 (below 2**62) or Python integers."""
    if codes.dtype == np.float64:
        return to_grid(codes, shift)
    if codes.dtype != object and not -INT64_SHIFTS < shift <= 0:
        codes = codes.astype(object)  # int64 would wrap, or cannot shift that far
    if shift >= 0:
        return codes * (1 << shift)
    floor = codes >> -shift
    rest, half = codes - (floor << -shift), 1 << (-shift - 1)
    up = (rest > half) | ((rest == half) & (floor % 2 == 1))
    return floor + up.astype(codes.dtype)
