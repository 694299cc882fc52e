"""How weights are stored in words of some length: the step that loses least, even where it cuts the largest weights off.

A word that holds the largest weight spends its first bit on few of many. With a step half as large and the largest weights at the
ends of the word, the mean square of all errors is often smaller.

Reference: Sung, Shin and Hwang, Resiliency of deep neural networks under quantization (2015), for steps of least mean square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH
from sound_qkeras.interval import Reals
from sound_qkeras.types import Codes

# Steps are at most so many times halved, in words of at most so many bits: longer ones lose by it.
MOST_HALVED, LONGEST_CUT = 3, 10


@dataclass(frozen=True)
class Words:
    """Words of a kernel, one kind for all weights or one for every output channel, its last axis.

    Args:
        bits: fractional bits, shape `()` or `(channels,)`.
        low, high: the smallest and the largest code, in steps of these bits, of the same shape.
    """

    bits: Codes
    low: Codes
    high: Codes

    @classmethod
    def of(cls, kernel: Reals, bits: Codes | int) -> Words:
        """Words as long as those that hold all of a kernel at so many fractional bits, with the step that loses least.

        Args:
            kernel: the weights.
            bits: fractional bits, one number or one for every output channel.

        Raises:
            InputError: a code would need more than 53 bits.
        """
        found = cls.holding(kernel, bits)
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
        """The shortest words that hold all of a kernel at so many fractional bits; arguments and errors as of `of`."""
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

    def nearest(self, kernel: Reals) -> Codes:
        """The nearest codes, half to even, each in its own steps."""
        return np.clip(np.rint(np.ldexp(kernel, self.bits)), self.low, self.high).astype(np.int64)

    def value(self, codes: Codes) -> Reals:
        """What codes in their own steps stand for."""
        return np.ldexp(codes.astype(np.float64), -self.bits)

    def error(self, kernel: Reals) -> float:
        """The root of the sum of squares of what a kernel loses."""
        return float(np.linalg.norm(self.value(self.nearest(kernel)) - kernel))


def check_words(codes: Reals, values: Reals, bits: int) -> None:
    """Refuse codes of numbers at so many fractional bits that are too long for a word.

    Raises:
        InputError: one needs more than 53 bits.
    """
    if np.any(np.abs(codes) >= 2.0 ** (MAX_WORD_LENGTH - 1)):
        raise InputError(
            f"{bits} fractional bits need more than {MAX_WORD_LENGTH} bits for weights up to {np.abs(values).max():.3g}"
        )
