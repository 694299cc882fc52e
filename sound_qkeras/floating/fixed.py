"""What QKeras computes in float32, its default, or float64: exact where every sum fits the mantissa, bounded elsewhere.

With p bits of mantissa (24, 53), for inputs of that type in the box, per layer: a sum of n products, in any order, is exact
while the sum of absolute terms stays within 2**p steps of the accumulator; otherwise it is off by at most
`gamma(n) * sum |w x|`, where words wider than p bits add their own rounding. A value that is off by e before it is rounded
may land up to `floor(e / step) + 1` steps away, because it may cross a tie. Errors run through the layers by the vector
recursion.

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sound_qkeras.interval import Interval, Reals, inflate, up
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.ops import Affine, AffinePair, Input
from sound_qkeras.verify.propagation import Propagation, propagate

MANTISSA = {"float32": 24, "float64": 53}
# Beyond these powers of two a type loses bits to underflow (some libraries flush subnormals to zero) or overflows.
EXPONENT = {24: 125, 53: 1021}


@dataclass(frozen=True)
class FloatLayer:
    """One layer in floating point: whether it computes the integers exactly, and else how far its result may be off."""

    layer: str
    exact: bool
    error: float


@dataclass(frozen=True)
class FloatReport:
    """A floating-point evaluation beside the exact one.

    Args:
        layers: one row per layer with weights.
        error: bound on |floating-point result - integer result| over the box, for inputs of that type.
        bound: bound on |floating-point result - trained network|: the certificate's bound plus `error`.
    """

    layers: tuple[FloatLayer, ...]
    error: float
    bound: float

    @property
    def exact(self) -> bool:
        """Whether the QKeras model equals the integers bit for bit, for every input of its type in the box."""
        return self.error == 0.0


def float_reports(pair: Pair, box: Interval, bound: float, *, thorough: bool = True) -> tuple[FloatReport, FloatReport]:
    """Prove how far QKeras' evaluation in float32 and in float64 may be from the integer network on the box.

    Args:
        pair: the pair of networks.
        box: the inputs, shape `input_shape`.
        bound: of the integer network's distance to the trained one.
        thorough: pull ranges back to the input, which narrows them.
    """
    result = propagate(pair.network, box[None], pair, substitute=thorough)
    return _report(pair, result, bound, MANTISSA["float32"]), _report(pair, result, bound, MANTISSA["float64"])


def _report(pair: Pair, result: Propagation, bound: float, mantissa: int) -> FloatReport:
    errors: dict[str, Reals] = {}
    layers: list[FloatLayer] = []
    for node in pair.network.nodes:
        if isinstance(node.op, Input):
            errors[node.name] = _after_rounding(pair, node, mantissa, np.zeros(result.facts[node.name].value.shape))
            continue
        error = _computed(pair, result, node, mantissa, [errors[name] for name in node.inputs])
        if isinstance(node.op, Affine):
            layers.append(FloatLayer(node.layer, not np.any(error), float(error.max())))
        errors[node.name] = _after_rounding(pair, node, mantissa, error)
    total = float(errors[pair.network.output.name].max())
    return FloatReport(tuple(layers), total, float(np.nextafter(bound + total, np.inf)) if total else bound)


def _computed(quantized: Pair, result: Propagation, node: Node, mantissa: int, errors: Sequence[Reals]) -> Reals:
    """How far a node's result may be off before its own rounding."""
    op, pair = node.op, quantized.pairs.get(node.name)
    known = (result.facts[name].pair()[1].magnitude for name in node.inputs)
    largest = [up(size + error) for size, error in zip(known, errors, strict=True)]
    if not op.accumulates:
        return op.carried_error(pair, errors, *largest)
    terms = op.absolute_terms(pair, *largest)
    bits = [quantized.exact_bits[node.name], *(quantized.fractional_bits[name] for name in node.inputs)]
    if isinstance(pair, AffinePair):
        bits += [pair.codes.kernel_format.fractional_bits, pair.codes.bias_format.fractional_bits]
    if max(bits) > EXPONENT[mantissa] or not np.all(terms < 2.0 ** EXPONENT[mantissa]):
        return np.full_like(terms, np.inf)
    steps = np.ldexp(terms, quantized.exact_bits[node.name])
    if not any(np.any(error) for error in errors) and np.all(steps <= 2.0**mantissa):
        return np.zeros_like(terms)
    carried = op.carried_error(pair, errors, *largest)
    rounding = 2.0 * (op.terms + 4) * 2.0**-mantissa
    return inflate(carried + rounding * terms, op.terms + 8)


def _after_rounding(pair: Pair, node: Node, mantissa: int, error: Reals) -> Reals:
    """A wrong value may cross ties; a right one is rounded right, and is a floating-point number if its code fits the mantissa."""
    output = pair.formats.get(node.name)
    if output is None:
        return error
    if output.fractional_bits > EXPONENT[mantissa] or output.maximum >= 2.0 ** EXPONENT[mantissa]:
        return np.full_like(error, np.inf)
    crossed = np.where(error > 0.0, (np.floor(error / output.step) + 1.0) * output.step, 0.0)
    if max(output.max_code, -output.min_code) > 2.0**mantissa and not isinstance(node.op, Input):
        crossed = crossed + 2.0**-mantissa * max(output.maximum, -output.minimum)
    return crossed
