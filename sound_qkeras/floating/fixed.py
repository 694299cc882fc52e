"""What QKeras computes in float32, its default, or float64: exact where every sum fits the mantissa, bounded elsewhere.

With p bits of mantissa (24, 53), for inputs of that type in the box, per layer: a sum of n products, in any order, is exact
while the sum of absolute terms stays within 2**p steps of the accumulator; otherwise it is off by at most
`gamma(n) * sum |w x|`, where words wider than p bits add their own rounding. A value that is off by e before it is rounded
may land up to `floor(e / step) + 1` steps away, because it may cross a tie. Errors run through the layers by the vector
recursion.

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
        error: bound on `|floating-point result - integer result|` over the box, for inputs of that type.
        bound: bound on `|floating-point result - trained network|`: the certificate's bound plus `error`.
    """

    layers: tuple[FloatLayer, ...]
    error: float
    bound: float

    @property
    def exact(self) -> bool:
        """Whether the QKeras model equals the integers bit for bit, for every input of its type in the box."""
        return self.error == 0.0


# Where nothing is known.
UNBOUNDED = FloatReport((), np.inf, np.inf)


def float_reports(pair: Pair, box: Interval, bound: float, *, thorough: bool = True) -> tuple[FloatReport, FloatReport]:
    """Prove how far QKeras' evaluation in float32 and in float64 may be from the integer network on the box.

    Args:
        pair: the pair of networks.
        box: the inputs, shape `input_shape`.
        bound: of the integer network's distance to the trained one.
        thorough: pull ranges back to the input, which narrows them.

    Returns:
        Both; unbounded where a result is rounded to several formats, or to few values.
    """
    if pair.grids:  # no QKeras layer is written for those
        return UNBOUNDED, UNBOUNDED
    facts = propagate(pair.network, box[None], pair, substitute=thorough)
    single, double = (_Integers(pair, pair.network.nodes, facts, dtype).report(bound) for dtype in MANTISSA)
    return single, double


class Evaluation(ABC):
    """How far a floating-point evaluation may be off at every node, shape `(1, *shape)`."""

    def __init__(self, pair: Pair, nodes: Sequence[Node], facts: Propagation, dtype: str) -> None:
        """For what `nodes` compute in `dtype`, "float32" or "float64", within ranges that are proved."""
        self.pair, self.nodes, self.facts, self.mantissa = pair, nodes, facts, MANTISSA[dtype]
        self.unit = 2.0**-self.mantissa
        self.errors: dict[str, Reals] = {}

    def report(self, bound: float) -> FloatReport:
        """The report, for what is within `bound` of the trained network."""
        layers: list[FloatLayer] = []
        for node in self.nodes:
            error = self._computed(node)
            if isinstance(node.op, Affine):
                layers.append(FloatLayer(node.layer, not np.any(error), float(error.max())))
            self.errors[node.name] = self.rounded(node, error)
        total = float(self.errors[self.pair.network.output.name].max())
        return FloatReport(tuple(layers), total, float(np.nextafter(bound + total, np.inf)) if total else bound)

    def _computed(self, node: Node) -> Reals:
        """How far a node's result may be off before its own rounding."""
        if isinstance(node.op, Input):
            return np.zeros(self.facts.facts[node.name].value.shape)
        errors = [self.errors[name] for name in node.inputs]
        if not all(np.all(np.isfinite(error)) for error in errors):
            return np.full((1, *self.pair.network.shapes[node.name]), np.inf)
        known = (self.facts.facts[name].pair()[1].magnitude for name in node.inputs)
        largest = [up(size + error) for size, error in zip(known, errors, strict=True)]
        if not node.op.accumulates:
            return self.carried(node, errors, largest)
        parameters = self.pair.pairs.get(node.name)
        terms, more = self.terms(node, largest)
        if self.loses_range(node) or not np.all(terms < 2.0 ** EXPONENT[self.mantissa]):
            return np.full_like(terms, np.inf)
        if not any(np.any(error) for error in errors) and self.is_exact(node, terms):
            return np.zeros_like(terms)
        rounding = 2.0 * (node.op.terms + 4 + more) * self.unit
        return inflate(node.op.carried_error(parameters, errors, *largest) + rounding * terms, node.op.terms + 8)

    def carried(self, node: Node, errors: Sequence[Reals], largest: Sequence[Reals]) -> Reals:
        """The error of a node that adds nothing up, for inputs of at most `largest` that are off by `errors`."""
        return node.op.carried_error(self.pair.pairs.get(node.name), errors, *largest)

    def terms(self, node: Node, largest: Sequence[Reals]) -> tuple[Reals, int]:
        """The sum of absolute terms of every result, and how many more roundings than terms there are."""
        return node.op.absolute_terms(self.pair.pairs.get(node.name), *largest), 0

    def loses_range(self, node: Node) -> bool:
        """Whether numbers of a node are so small that the type loses bits of them."""
        return False

    @abstractmethod
    def is_exact(self, node: Node, terms: Reals) -> bool:
        """Whether sums of exact inputs are exact."""

    @abstractmethod
    def rounded(self, node: Node, error: Reals) -> Reals:
        """The error behind the node's own rounding, if it has one."""


class _Integers(Evaluation):
    """Of the QKeras model that is made of integers."""

    def loses_range(self, node: Node) -> bool:
        pair, parameters = self.pair, self.pair.pairs.get(node.name)
        bits = [pair.exact_bits[node.name], *(pair.fractional_bits[name] for name in node.inputs)]
        if isinstance(parameters, AffinePair):
            bits += [parameters.codes.kernel_format.fractional_bits, parameters.codes.bias_format.fractional_bits]
        return max(bits) > EXPONENT[self.mantissa]

    def is_exact(self, node: Node, terms: Reals) -> bool:
        return bool(np.all(np.ldexp(terms, self.pair.exact_bits[node.name]) <= 2.0**self.mantissa))

    def rounded(self, node: Node, error: Reals) -> Reals:
        """A wrong value may cross ties; a right one is rounded right, and is a number of the type if its code fits the mantissa."""
        output, mantissa = self.pair.formats.get(node.name), self.mantissa
        if output is None:
            return error
        if output.fractional_bits > EXPONENT[mantissa] or output.maximum >= 2.0 ** EXPONENT[mantissa]:
            return np.full_like(error, np.inf)
        crossed = np.where(error > 0.0, (np.floor(error / output.step) + 1.0) * output.step, 0.0)
        if max(output.max_code, -output.min_code) > 2.0**mantissa and not isinstance(node.op, Input):
            crossed = crossed + self.unit * max(output.maximum, -output.minimum)
        return crossed
