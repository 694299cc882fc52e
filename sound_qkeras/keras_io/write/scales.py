"""How QKeras 0.9.0 is told what it has no names for: formats with negative integer bits, formats of channels, and few values.

`quantized_bits` returns `alpha * Q(x)` for what is stored, `Q` the rounding to `bits` with `integer >= 0`. Here `alpha` is a
power of two, one for all or one for each channel, and `x` the weight divided by it: so AutoQKeras, which counts `bits` for every
weight, counts the word length of the format. A kernel has one `bits`, that of its channels' longest word. Of one bit, `Q` is the
sign; of two without the most negative code, it is ternary. Powers of two are `quantized_po2`, which has no scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.session.environment import import_qkeras
from sound_qkeras.keras_io.write.representable import MAX_INTEGER_BITS
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.types import Array, Reals


class Quantizer(ABC):
    """What QKeras rounds weights with.

    Attributes:
        kind: what QKeras calls it.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def scales(self) -> Reals:
        """What is stored is divided by these, which broadcast against the array."""

    @abstractmethod
    def quantizer(self, scales: Reals) -> Any:
        """The quantizer of QKeras, with scales that broadcast against what Keras stores."""

    @abstractmethod
    def returns(self, values: Reals, dtype: str) -> bool:
        """Whether QKeras, which adds and subtracts what is stored, returns exactly these values in `dtype`."""

    @abstractmethod
    def is_saved_as(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is a quantizer of QKeras with these settings, whose scales show in what it returns."""

    @abstractmethod
    def returned(self, settings: Mapping[str, Any], stored: Array) -> Array:
        """What QKeras makes of a stored array in float32, flat; NaN where that is not what is stored times its scale."""


@dataclass(frozen=True)
class Word(Quantizer):
    """A `quantized_bits` whose scale is a power of two, for a whole array or for each channel, its last axis.

    Args:
        bits: word length, the sign included.
        integer: bits left of the point, without the sign; not negative.
        signed: whether one bit is the sign.
        exponents: of the scales; one for all, or one for each channel.
        symmetric: without the most negative code.
    """

    kind: ClassVar[str] = "quantized_bits"
    bits: int
    integer: int
    signed: bool
    exponents: tuple[int, ...] = (0,)
    symmetric: bool = False

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

    @classmethod
    def signs(cls, grid: Staircase) -> Word:
        """Binary or ternary values of ones and a scale."""
        zero = int(grid.levels > 1)
        return cls(1 + zero, zero, True, tuple(grid.exponent.reshape(-1).tolist()), symmetric=bool(zero))

    @property
    def scales(self) -> Reals:
        """Powers of two."""
        return np.exp2(np.array(self.exponents, dtype=np.float64))

    def quantizer(self, scales: Reals) -> Any:
        """A `quantized_bits`."""
        # A list, not an array: QKeras asks whether it is true, and Keras writes it to json.
        alpha = float(scales.flat[0]) if np.all(scales == scales.flat[0]) else scales.tolist()
        return import_qkeras().quantized_bits(
            self.bits, self.integer, keep_negative=int(self.signed), symmetric=int(self.symmetric), alpha=alpha
        )

    def returns(self, values: Reals, dtype: str) -> bool:
        """As long as 1 divided by the scale is a number of the type, and so is what is added and subtracted."""
        wanted = values.astype(dtype)
        stored = wanted / self.scales.astype(dtype)
        return self.integer <= MAX_INTEGER_BITS and np.array_equal(stored + (wanted - stored), wanted)

    def is_saved_as(self, settings: Mapping[str, Any]) -> bool:
        """It is plain, and has these bits."""
        plain = _is_deterministic(settings) and isinstance(settings.get("alpha"), float | list)
        # QKeras computes with switches as numbers: 2 is no True.
        numbers = [settings.get(name, 0) for name in ("bits", "integer", "keep_negative", "symmetric")]
        return plain and numbers == [self.bits, self.integer, self.signed, self.symmetric]

    def returned(self, settings: Mapping[str, Any], stored: Array) -> Array:
        """Codes times the scale."""
        x, one = stored.astype(np.float32), np.float32(1.0)
        end, unit = one * 2.0 ** (self.bits - self.signed), one * 2.0**self.integer
        codes = np.clip(np.rint(x * end / unit), -end * self.signed + self.symmetric, end - one)
        kept = unit * codes / end if self.bits > self.signed else np.where(x < 0.0, -one, one)
        made = np.array(settings["alpha"], np.float32) * kept
        return np.where(kept == x, x + (made - x), np.nan).reshape(-1)


@dataclass(frozen=True)
class Powers(Quantizer):
    """A `quantized_po2`: exponents are negative, or have a sign of their own.

    Args:
        bits: word length, the sign included.
        largest: the largest value; None where exponents have a sign.
    """

    kind: ClassVar[str] = "quantized_po2"
    bits: int
    largest: float | None

    @classmethod
    def of(cls, grid: Staircase) -> Powers | None:
        """That which has these values; None where there is none."""
        exponents = np.frexp(grid.values[grid.values > 0.0])[1] - 1 + int(grid.exponent.max())
        ends = int(exponents.min()), int(exponents.max())
        bits = 1 + (len(exponents) - 1).bit_length()
        if grid.exponent.size != 1 or 2 * len(exponents) != len(grid.values):
            return None
        for largest, window in ((0.5, (-(1 << (bits - 1)), -1)), (None, (-(1 << bits >> 2), (1 << bits >> 2) - 1))):
            if ends == window:
                return cls(bits, largest)
        return None

    @property
    def scales(self) -> Reals:
        """None but one."""
        return np.ones(1)

    def quantizer(self, scales: Reals) -> Any:
        """A `quantized_po2`."""
        return import_qkeras().quantized_po2(self.bits, self.largest)

    def returns(self, values: Reals, dtype: str) -> bool:
        """In float32: it computes in nothing else, and powers of two stay what they are."""
        return dtype == "float32"

    def is_saved_as(self, settings: Mapping[str, Any]) -> bool:
        """It is plain, and has these bits."""
        plain = (
            _is_deterministic(settings)
            and not settings.get("quadratic_approximation")
            and settings.get("log2_rounding", "rnd") == "rnd"
        )
        return plain and (settings.get("bits"), settings.get("max_value")) == (self.bits, self.largest)

    def returned(self, settings: Mapping[str, Any], stored: Array) -> Array:
        """What is stored, where that is a power of two."""
        x = stored.astype(np.float32).reshape(-1)
        return np.where(np.abs(np.frexp(x)[0]) == 0.5, x, np.nan)


def _is_deterministic(settings: Mapping[str, Any]) -> bool:
    """Whether a saved quantizer always rounds, and rounds all of a number."""
    return not settings.get("use_stochastic_rounding") and settings.get("qnoise_factor", 1.0) == 1.0


def words_of(codes: AffineCodes, dtype: str, *, scaled: bool) -> tuple[Quantizer, Quantizer]:
    """The quantizers of a kernel and a bias, with scales where QKeras is exact with them.

    Args:
        codes: the integers.
        dtype: "float32" or "float64".
        scaled: False for wider words without scales, the kernel's one for all channels and of fixed point.
    """
    few = _of_few(codes.kernel_grid) if scaled else None
    kernel = few if few is not None and few.returns(codes.kernel_value, dtype) else None
    return (
        kernel or _word(codes.kernel_value, codes.kernel_format, codes.own_formats, dtype, scaled=scaled),
        _word(codes.bias_value, codes.bias_format, (codes.bias_format,), dtype, scaled=scaled),
    )


def _of_few(grid: Any) -> Quantizer | None:
    """What has the values of a grid, where that is binary, ternary or powers of two."""
    if not isinstance(grid, Staircase):
        return None
    values = grid.values.tolist()
    return Word.signs(grid) if values in ([-1.0, 1.0], [-1.0, 0.0, 1.0]) else Powers.of(grid)


def _word(values: Reals, whole: Format, own: Sequence[Format], dtype: str, *, scaled: bool) -> Word:
    found = Word.scaled(own)
    return found if scaled and found.returns(values, dtype) else Word.widened(whole)
