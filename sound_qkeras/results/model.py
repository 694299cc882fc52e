"""What is proved about a model that somebody else quantised, besides its certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sound_qkeras.fixed_point import MAX_ACCUMULATOR_LENGTH, Format
from sound_qkeras.interval import Reals
from sound_qkeras.support.decimals import interval, percent_at_least, tolerance

# Digits of a share.
DIGITS = 4


@dataclass(frozen=True)
class QuantizerRow:
    """A quantizer of an activation, and what reaches it.

    Args:
        node, layer: where it is.
        quantizer: as QKeras writes it.
        minimum, maximum: its smallest and largest value.
        lower, upper: what is proved to hold every value before it is rounded.
        may_saturate: whether that reaches beyond what is only rounded.
        seen: share of the values on inputs that were tried which it cut off.
    """

    node: str
    layer: str
    quantizer: str
    minimum: float
    maximum: float
    lower: float
    upper: float
    may_saturate: bool
    seen: float


@dataclass(frozen=True)
class SumRow:
    """A layer with weights, and its sums.

    Args:
        node, layer: which.
        lower, upper: what is proved to hold every sum.
        fractional_bits: those of every sum; None where values have no grid, because a parameter or what it reads has none.
        accumulator: the format that holds every sum exactly, where there is a grid.
    """

    node: str
    layer: str
    lower: float
    upper: float
    fractional_bits: int | None
    accumulator: Format | None

    @classmethod
    def of(cls, node: str, layer: str, ends: tuple[float, float], bits: int | None) -> SumRow:
        """The row of a layer whose sums are between `ends`."""
        accumulator = None
        if bits is not None and math.log2(max(1.0, *map(abs, ends))) + bits < MAX_ACCUMULATOR_LENGTH - 8:
            accumulator = Format.for_range(ends[0], ends[1], bits)
        return cls(node, layer, *ends, bits, accumulator)


@dataclass(frozen=True, eq=False)
class GivenModel:
    """A QKeras model that was given, beside its reference or alone.

    Args:
        reference: what the model was compared with.
        dtype: the float type that Keras computes it in.
        quantizers: one row per quantizer of an activation.
        sums: one row per layer with weights.
        asked: the tolerance per output that was asked for, if any.
        met: share of the claim that meets it: 1 or 0 in tier "sound", of the samples in others; None without one.
        narrow: nodes whose quantizer computes in float32 whatever the type.
        as_proved: whether Keras computes the very layers that the certificate is about, so that `verify` can prove again what
            is said of its arithmetic.
    """

    reference: str
    dtype: str
    quantizers: tuple[QuantizerRow, ...]
    sums: tuple[SumRow, ...]
    asked: Reals | None = None
    met: float | None = None
    narrow: frozenset[str] = field(default_factory=frozenset[str])
    as_proved: bool = True

    @property
    def saturating(self) -> tuple[str, ...]:
        """Layers of the quantizers that may saturate inside the box."""
        return tuple(row.layer for row in self.quantizers if row.may_saturate)

    def lines(self, *, counted: bool) -> list[str]:
        """What it says, for people; of a tolerance, whether that was `counted` or proved."""
        found: list[str] = []
        if self.met is not None and self.asked is not None:
            ends = " to ".join(dict.fromkeys(tolerance(end) for end in (self.asked.min(), self.asked.max())))
            share = percent_at_least(self.met, DIGITS)
            found.append(
                f"eps {ends}: counted on {share} of the samples"
                if counted
                else f"eps {ends}: proved on {share} of what is claimed"
            )
        found += [
            f"'{row.layer}' {row.quantizer} may saturate: values in {interval(row.lower, row.upper, 6)}, it holds "
            f"[{row.minimum:.6g}, {row.maximum:.6g}]; cut off on {row.seen:.2%} of the values tried"
            for row in self.quantizers
            if row.may_saturate
        ]
        if not self.saturating:
            found.append(f"none of {len(self.quantizers)} quantizers of activations saturates")
        return found
