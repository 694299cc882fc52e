"""How QKeras 0.9.0 is told what it has no names for: formats with negative integer bits, and one format for each channel.

`quantized_bits` returns `alpha * Q(x)` for what is stored, `Q` the rounding to `bits` with `integer >= 0`. Here `alpha` is a
power of two, one for all or one for each channel, and `x` the weight divided by it: so AutoQKeras, which counts `bits` for every
weight, counts the word length of the format. A kernel has one `bits`, that of its channels' longest word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.session.environment import import_qkeras
from sound_qkeras.keras_io.write.representable import MAX_INTEGER_BITS
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.types import Reals


@dataclass(frozen=True)
class Word:
    """A `quantized_bits` whose scale is a power of two, for a whole array or for each channel, its last axis.

    Args:
        bits: word length, the sign included.
        integer: bits left of the point, without the sign; not negative.
        signed: whether one bit is the sign.
        exponents: of the scales, none positive; one for all, or one for each channel.
    """

    bits: int
    integer: int
    signed: bool
    exponents: tuple[int, ...] = (0,)

    @classmethod
    def widened(cls, output: Format) -> Word:
        """The same step and at least the range of a format, without a scale."""
        wide = output.widened
        return cls(wide.word_length, wide.integer_bits, wide.signed)

    @classmethod
    def scaled(cls, formats: Sequence[Format]) -> Word:
        """The steps and at least the ranges of formats, of a whole array or one for each channel, in their longest word."""
        signed = any(output.signed for output in formats)
        bits = max(output.word_length + (signed and not output.signed) for output in formats)
        integers = [bits - signed - output.fractional_bits for output in formats]
        integer = max(0, *integers)
        exponents = [each - integer for each in integers]
        alike = len(set(exponents)) == 1
        return cls(bits, integer, signed, tuple(exponents[:1] if alike else exponents))

    @property
    def scales(self) -> Reals:
        """The scales, which broadcast against the array."""
        return np.exp2(np.array(self.exponents, dtype=np.float64))

    def quantizer(self, scales: Reals) -> Any:
        """The quantizer of QKeras, with scales that broadcast against what Keras stores."""
        # A list, not an array: QKeras asks whether it is true, and Keras writes it to json.
        alpha = float(scales.flat[0]) if np.all(scales == scales.flat[0]) else scales.tolist()
        return import_qkeras().quantized_bits(self.bits, self.integer, keep_negative=int(self.signed), alpha=alpha)

    def returns(self, values: Reals, dtype: str) -> bool:
        """Whether QKeras, which adds and subtracts what is stored, returns exactly these values of the formats in `dtype`."""
        wanted = values.astype(dtype)
        stored = wanted / self.scales.astype(dtype)
        return self.integer <= MAX_INTEGER_BITS and np.array_equal(stored + (wanted - stored), wanted)


def words_of(codes: AffineCodes, dtype: str, *, scaled: bool) -> tuple[Word, Word]:
    """The words of a kernel and a bias, with scales where QKeras is exact with them.

    Args:
        codes: the integers.
        dtype: "float32" or "float64".
        scaled: False for wider words without scales, the kernel's one for all channels.
    """
    return (
        _word(codes.kernel_value, codes.kernel_format, codes.own_formats, dtype, scaled=scaled),
        _word(codes.bias_value, codes.bias_format, (codes.bias_format,), dtype, scaled=scaled),
    )


def _word(values: Reals, whole: Format, own: Sequence[Format], dtype: str, *, scaled: bool) -> Word:
    found = Word.scaled(own)
    return found if scaled and found.returns(values, dtype) else Word.widened(whole)
