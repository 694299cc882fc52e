"""How weights are stored in words of some length: the step that loses least, even where it cuts the largest weights off.

A word that holds the largest weight spends its first bit on few of many. With a step half as large and the largest weights at the
ends of the word, the mean square of all errors is often smaller.

Reference: Sung, Shin and Hwang, Resiliency of deep neural networks under quantization (2015), for steps of least mean square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH
from sound_qkeras.interval import Reals
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.types import Codes

# Steps are at most so many times halved, in words of at most so many bits: longer ones lose by it.
MOST_HALVED, LONGEST_CUT = 3, 10


@dataclass(frozen=True)
class Words:
    """Words of a kernel, one kind for all weights or one for every output channel, its last axis.

    Args:
        bits: fractional bits, shape `()` or `(channels,)`.
        low, high: the smallest and the largest code, in steps of these bits, of the same shape.
        levels: the codes that there are, ascending, where these are not all from the smallest to the largest.
    """

    bits: Codes
    low: Codes
    high: Codes
    levels: Codes | None = None

    @classmethod
    def few(cls, bits: Codes, levels: Codes) -> Words:
        """Those of few codes."""
        return cls(bits, np.full(bits.shape, levels[0]), np.full(bits.shape, levels[-1]), levels)

    @classmethod
    def of(cls, kernel: Reals, bits: Codes | int) -> Words:
        """Words of the length in which all of a kernel has so many fractional bits or nearly so, with the step that loses least.

        Args:
            kernel: the weights.
            bits: fractional bits, one number or one for every output channel.

        Raises:
            InputError: a code would need more than 53 bits.
        """
        given = np.asarray(bits, np.int64)
        axes = tuple(range(kernel.ndim - given.ndim))
        lengths, signed = lengths_of(kernel.min(axis=axes), kernel.max(axis=axes), given)
        check_words(np.ldexp(kernel, given), kernel, int(given.max()))
        ends = np.int64(1) << (lengths - signed)
        found = cls(given, np.where(signed, -ends, 0), ends - 1)
        flat = cls(*(array.reshape(-1) for array in (found.bits, found.low, found.high)))
        columns = kernel.reshape(-1, len(flat.bits))
        # Only those that a smaller step may help; the others are long, and there are many of them.
        chosen = np.flatnonzero(flat.high < 2 ** (LONGEST_CUT - 1))
        tried = columns[:, chosen]
        least, halved = flat._at(chosen, 0)._error(tried), np.zeros(chosen.shape, np.int64)
        for more in range(1, 1 + MOST_HALVED if chosen.size else 1):
            error = flat._at(chosen, more)._error(tried)
            better = error < least
            least, halved = np.where(better, error, least), np.where(better, more, halved)
        steps = flat.bits.copy()
        steps[chosen] += halved
        return cls(steps.reshape(found.bits.shape), found.low, found.high)

    @classmethod
    def holding(cls, kernel: Reals, bits: Codes | int) -> Words:
        """The shortest words that hold all of a kernel at exactly so many fractional bits; arguments and errors as of `of`."""
        given = np.asarray(bits, np.int64)
        codes = np.rint(np.ldexp(kernel, given))
        axes = tuple(range(kernel.ndim - given.ndim))
        low, high = codes.min(axis=axes), codes.max(axis=axes)
        check_words(codes, kernel, int(given.max()))
        signed = low < 0
        # A word has a bit beside its sign.
        length = np.frexp(np.maximum(high, np.where(signed, np.maximum(-low - 1.0, 1.0), 1.0)))[1].astype(np.int64)
        ends = np.int64(1) << length
        return cls(given, np.where(signed, -ends, 0), ends - 1)

    def _at(self, columns: Codes, halved: int) -> Words:
        """Those of some columns, with the step so many times halved."""
        return Words(self.bits[columns] + halved, self.low[columns], self.high[columns])

    def _error(self, columns: Reals) -> Reals:
        return np.sum((self.value(self.nearest(columns)) - columns) ** 2, axis=0)

    @property
    def length(self) -> int:
        """Bits of the longest."""
        if self.levels is not None:
            return (len(self.levels) - 1).bit_length()
        return int(np.max(np.frexp(self.high.astype(np.float64))[1] + (self.low < 0)))

    @property
    def grid(self) -> Staircase | None:
        """The values that words of few codes have."""
        if self.levels is None:
            return None
        return Staircase(
            self._middles, (True,) * self._middles.size, self.levels.astype(np.float64), exponent=-self.bits
        )

    @property
    def _middles(self) -> Reals:
        levels = np.zeros(1) if self.levels is None else self.levels.astype(np.float64)
        return 0.5 * (levels[:-1] + levels[1:])

    def nearest(self, kernel: Reals) -> Codes:
        """The nearest codes, each in its own steps."""
        return self.held(np.ldexp(kernel, self.bits)).astype(np.int64)

    def held(self, numbers: Reals) -> Reals:
        """The nearest codes of numbers in their own steps, shape `(..., channels)`: half to even, of few codes to the larger."""
        if self.levels is None:
            return np.clip(np.rint(numbers), self.low, self.high)
        return self.levels[np.searchsorted(self._middles, numbers, side="right")].astype(np.float64)

    def beside(self, codes: Codes, upward: npt.NDArray[np.bool_]) -> Codes:
        """The next codes upward or downward; the same where there is none."""
        step = np.where(upward, 1, -1)
        if self.levels is None:
            return np.clip(codes + step, self.low, self.high)
        return self.levels[np.clip(np.searchsorted(self.levels, codes) + step, 0, len(self.levels) - 1)]

    def value(self, codes: Codes) -> Reals:
        """What codes in their own steps stand for."""
        return np.ldexp(codes.astype(np.float64), -self.bits)

    def error(self, kernel: Reals) -> float:
        """The root of the sum of squares of what a kernel loses."""
        return float(np.linalg.norm(self.value(self.nearest(kernel)) - kernel))


def span(low: Reals, high: Reals) -> tuple[Codes, Codes]:
    """Bits left of the point up to the power of two that no weight is beyond, and bits for the sign.

    >>> [part.tolist() for part in span(np.array([-1.0, 0.0, -1.2]), np.array([0.7, 0.3, 1.0]))]
    [[0, -1, 1], [1, 0, 1]]
    """
    signed = (low < 0.0).astype(np.int64)
    mantissa, downward = np.frexp(-low)
    none = np.iinfo(np.int32).min
    ends = np.where(signed, downward - (mantissa == 0.5), none), np.where(high > 0.0, np.frexp(high)[1], none)
    return np.where((low == 0.0) & (high == 0.0), 0, np.maximum(*ends)).astype(np.int64), signed


def lengths_of(low: Reals, high: Reals, bits: Codes) -> tuple[Codes, Codes]:
    """Lengths of words with so many fractional bits, and bits of them for the sign.

    A word whose step is beyond all weights has one bit, and no sign.
    """
    whole, signed = span(low, high)
    lengths = whole + bits + signed
    none = lengths < 1 + signed
    return np.where(none, 1, lengths), np.where(none, 0, signed)


def check_words(codes: Reals, values: Reals, bits: int) -> None:
    """Refuse codes of numbers at so many fractional bits that are too long for a word.

    Raises:
        InputError: one needs more than 53 bits.
    """
    if np.any(np.abs(codes) >= 2.0 ** (MAX_WORD_LENGTH - 1)):
        raise InputError(
            f"{bits} fractional bits need more than {MAX_WORD_LENGTH} bits for weights up to {np.abs(values).max():.3g}"
        )
