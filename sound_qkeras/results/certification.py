"""What was proved about a QKeras model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sound_qkeras.fixed_point import MAX_ACCUMULATOR_LENGTH, Format
from sound_qkeras.floating.fixed import FloatReport
from sound_qkeras.interval import Interval, Reals


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
class Certification:
    """A QKeras model beside its float twin, or alone.

    Args:
        tier: "sound", "local" or "statistical".
        claim: what is claimed, in one sentence.
        reference: what the model was compared with; empty where with nothing.
        output_bounds: the bound per output that the claim is about; None without a reference.
        sample_bounds: in other tiers, the bound of every sample and output.
        eps: the tolerance per output, if one was given.
        met: share of the claim that meets it: 1 or 0 in tier "sound", of the samples in others; None without one.
        probability: in tier "statistical", the limit of the share of inputs beyond the bound (or beyond eps).
        observed_error: the largest error found by search (or on the samples), in float64.
        observed_input: where.
        evaluations: inputs tried.
        quantizers: one row per quantizer of an activation.
        sums: one row per layer with weights.
        floating: what Keras computes in the model's own float type beside exact arithmetic.
        dtype: that type.
        box, box_source: the inputs, and where the box came from.
        leaves: parts the box was cut into.
        notes: what was folded, left out and set aside.
        seconds: it took.
    """

    tier: str
    claim: str
    reference: str
    output_bounds: Reals | None
    sample_bounds: Reals | None
    eps: Reals | None
    met: float | None
    probability: float | None
    observed_error: float | None
    observed_input: Reals | None
    evaluations: int
    quantizers: tuple[QuantizerRow, ...]
    sums: tuple[SumRow, ...]
    floating: FloatReport
    dtype: str
    box: Interval
    box_source: str
    leaves: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def bound(self) -> float | None:
        """The largest output bound."""
        return None if self.output_bounds is None else float(self.output_bounds.max())

    @property
    def saturating(self) -> tuple[str, ...]:
        """Nodes of the quantizers that may saturate inside the box."""
        return tuple(row.node for row in self.quantizers if row.may_saturate)

    @property
    def exact(self) -> bool:
        """Whether Keras computes the model without any rounding of its own, for every input of its type in the box."""
        return self.floating.exact

    def summary(self) -> str:
        """A few lines for people."""
        lines = [f"{self.tier}: {self.claim}"]
        if self.bound is not None:
            worst = "" if self.observed_error is None else f", worst error found {self.observed_error:.6g}"
            counted = self.tier == "statistical"
            what = "no bound proved; error of the samples at most" if counted else "bound"
            lines.append(f"{what} {self.bound:.6g} against {self.reference}{worst} ({self.evaluations} inputs tried)")
        if self.met is not None and self.eps is not None:
            ends = " to ".join(dict.fromkeys(f"{end:g}" for end in (self.eps.min(), self.eps.max())))
            lines.append(f"eps {ends}: met on {self.met:.2%}")
        lines += [
            f"'{row.node}' {row.quantizer} may saturate: values in [{row.lower:.6g}, {row.upper:.6g}], it holds "
            f"[{row.minimum:.6g}, {row.maximum:.6g}]; cut off on {row.seen:.2%} of the values tried"
            for row in self.quantizers
            if row.may_saturate
        ]
        if not self.saturating:
            lines.append(f"none of {len(self.quantizers)} quantizers of activations saturates")
        lines.append(f"{self.dtype} evaluation: {self._evaluation()}")
        lines.append(f"box: {self.box_source}, {self.leaves} parts; {self.seconds:.1f} s")
        return "\n".join(lines)

    def _evaluation(self) -> str:
        if self.exact:
            return "exact"
        return f"not exact, proved within {self.floating.error:.6g} of exact arithmetic"

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain json; floats keep every bit, infinities are texts."""
        floating = asdict(self.floating)
        floating["layers"] = list(floating["layers"])
        found = {
            "tier": self.tier,
            "claim": self.claim,
            "reference": self.reference,
            "bound": self.bound,
            "output_bounds": _listed(self.output_bounds),
            "sample_bounds": _listed(self.sample_bounds),
            "eps": _listed(self.eps),
            "met": self.met,
            "probability": self.probability,
            "observed_error": self.observed_error,
            "observed_input": _listed(self.observed_input),
            "evaluations": self.evaluations,
            "quantizers": [asdict(row) for row in self.quantizers],
            "sums": [asdict(row) for row in self.sums],
            "floating": {**floating, "dtype": self.dtype, "exact": self.exact},
            "box": {"lower": self.box.lower.tolist(), "upper": self.box.upper.tolist(), "source": self.box_source},
            "leaves": self.leaves,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }
        return {name: _finite(value) for name, value in found.items()}


def _listed(values: Reals | None) -> Any:
    return None if values is None else values.tolist()


def _finite(value: Any) -> Any:
    """Json has no infinities: they become texts that `float` reads."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return str(float(value))
    return value
