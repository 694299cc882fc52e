"""What Keras computes in floating point of a network with quantizers: exact where values have a grid, bounded elsewhere.

As in `fixed`, for any pair: p bits of mantissa (24, 53), inputs of that type. Values that no quantizer has put on a grid
are not exact; every sum of products of them is charged `gamma(n) * sum |w x|`, and a quantizer behind it one step for the tie
that may be crossed. A quantizer returns `x + (q(x) - x)`, which is `q(x)` while `|x|` is at most 2**p of its steps.

Two things are taken on trust: a library's tanh, exp, log and reciprocal square root are within `LIBRARY` units in the last place,
and sums are sums, in any order (no Winograd or Fourier transforms).

Reference: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from sound_qkeras.floating.fixed import EXPONENT, MANTISSA, Evaluation, FloatReport
from sound_qkeras.interval import Interval, Reals, down, up
from sound_qkeras.network import Node, Pair
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.network.ops import AveragePool, Clip, Pad, Relu, Scale, Table
from sound_qkeras.network.rewrite.rewrite import Rewrite
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.verify.propagation import Propagation, propagate

LIBRARY = 16
# The mantissa of float32.
NARROW = MANTISSA["float32"]


def pair_float_reports(
    pair: Pair,
    box: Interval,
    bound: float,
    offsets: Mapping[str, Reals] | None = None,
    narrow: frozenset[str] = frozenset(),
) -> tuple[FloatReport, FloatReport]:
    """Prove how far Keras' evaluation in float32 and in float64 may be from the subject on the box (shape `input_shape`).

    Args:
        pair: with the layers as Keras computes them, nothing folded, but for what `as_computed` puts back.
        box: the inputs.
        bound: of the subject's distance from its reference.
        offsets: for normalisations, by node name, bounds on the terms that their offset is the sum of.
        narrow: nodes whose quantizer computes in float32 whatever the type.
    """
    pair = as_computed(pair)
    facts = propagate(pair.network, box[None], pair, substitute=False)
    single, double = (_Given(pair, facts, dtype, offsets or {}, narrow).report(bound) for dtype in MANTISSA)
    return single, double


def as_computed(pair: Pair) -> Pair:
    """The pair without upper ends of rectifiers that the roundings behind them have too: the same function of the inputs.

    Matching gives a rectifier the upper end of its reference. Keras computes the rectifier alone, whose values are larger, and
    what is cut off behind it is cut off by the quantizer.
    """
    behind = {node.name: _roundings_behind(pair, node) for node in pair.network.nodes if isinstance(node.op, Clip)}
    open_ended = {name for name, roundings in behind.items() if roundings}
    if not open_ended:
        return pair
    nodes = tuple(replace(one, op=Relu()) if one.name in open_ended else one for one in pair.network.nodes)
    cutting = frozenset(name for roundings in behind.values() for name in roundings if name in pair.formats)
    return replace(
        pair,
        reference=replace(pair.network, nodes=nodes),
        rewrite=Rewrite(),
        saturating=pair.saturating | cutting,
    )


def _roundings_behind(pair: Pair, clipped: Node) -> tuple[str, ...]:
    """The nodes that round all there is to see of a clipped node to no more than its upper end; none where something is seen."""
    found: list[str] = []
    to_see = [clipped]
    for node in to_see:
        if node.name in pair.roundings:
            if not isinstance(clipped.op, Clip) or pair.roundings[node.name].maximum > clipped.op.maximum:
                return ()
            found.append(node.name)
            continue
        readers = [one for one in pair.network.nodes if node.name in one.inputs]
        passed_on = all(one.op.moves and len(one.inputs) == 1 and not isinstance(one.op, Pad) for one in readers)
        if not readers or not passed_on:
            return ()
        to_see += readers
    return tuple(found)


class _Given(Evaluation):
    """Of a model that was given."""

    def __init__(
        self, pair: Pair, facts: Propagation, dtype: str, offsets: Mapping[str, Reals], narrow: frozenset[str]
    ) -> None:
        super().__init__(pair, pair.subject.nodes, facts, dtype)
        self.offsets, self.narrow = offsets, narrow if self.mantissa > NARROW else frozenset[str]()

    def carried(self, node: Node, errors: Sequence[Reals], largest: Sequence[Reals]) -> Reals:
        if isinstance(node.op, Table):
            return self._function(node, node.op, errors[0], largest[0])
        return super().carried(node, errors, largest)

    def terms(self, node: Node, largest: Sequence[Reals]) -> tuple[Reals, int]:
        terms, more = super().terms(node, largest)
        return (up(terms + self.offsets[node.name]), LIBRARY) if node.name in self.offsets else (terms, more)

    def is_exact(self, node: Node, terms: Reals) -> bool:
        grid = self.pair.exact_grids[node.name]
        divides = isinstance(node.op, AveragePool) and node.op.fan_in & (node.op.fan_in - 1) != 0
        scales = isinstance(node.op, Scale)  # a quantizer's constant, or a normalisation: several operations
        if grid is None or grid > EXPONENT[self.mantissa] or divides or scales:
            return False
        return bool(np.all(np.ldexp(terms, grid) <= 2.0**self.mantissa))

    def _function(self, node: Node, op: Table, error: Reals, largest: Reals) -> Reals:
        """A function's slope times the error, and its own rounding; lines are exact on a grid."""
        grid = self.pair.exact_grids[node.name]
        if grid is not None and grid + 1 <= self.mantissa and not np.any(error):
            return np.zeros_like(error)
        x = Interval(-largest, largest)
        own = LIBRARY * self.unit * up(1.0 + up(largest + op.smooth.image(x).magnitude))
        return up(up(op.smooth.slopes(x).magnitude * error) + up(own))

    def _jump(self, name: str, rounding: Staircase, exact: Reals, error: Reals) -> Reals:
        """How far apart the steps of a value and of one that is off by `error` may be: both are so near to some edge."""
        found, grid = np.zeros_like(error), self.pair.exact_grids[name]
        for edge in (rounding.edges * rounding.scale.reshape(())).tolist():
            # A logarithm is off by some units of its own size, which is a share of the value.
            blur = LIBRARY * self.unit * (1.0 + abs(np.log2(edge))) * edge if rounding.logarithmic else 0.0
            off = up(error + blur)
            if grid is not None and not np.any(error) and _apart(edge, grid, blur):
                continue
            near = (abs(edge) <= up(exact + off)) & (error + blur > 0.0)
            reach = up(rounding.apply(up(edge + off)) - rounding.apply(down(edge - off)))
            found = np.maximum(found, np.where(near, reach, 0.0))
        return found

    def rounded(self, node: Node, error: Reals) -> Reals:
        """A wrong value may cross ties; a right one is rounded right while its own size leaves room for the steps."""
        name, rounding = node.name, self.pair.roundings.get(node.name)
        if rounding is None:
            return error
        exact = self.facts.exact[name].magnitude
        if name in self.narrow:
            grid = self.pair.exact_grids[name]
            held = grid is not None and not np.any(error) and bool(np.all(np.ldexp(exact, grid) <= 2.0**NARROW))
            error = error if held else up(error + 2.0**-NARROW * up(exact + error))
        span = up(rounding.maximum - rounding.minimum)
        if isinstance(rounding, Staircase):
            largest = max(rounding.maximum, -rounding.minimum, 1.0)
            return up(self._jump(name, rounding, exact, error) + 4.0 * self.unit * up(exact + largest))
        if not isinstance(rounding, FixedPoint):
            raise TypeError(f"nothing is known of floating point before {rounding}")
        steps = np.floor(np.minimum(error, span) / rounding.step) + 1.0
        crossed = np.where(error > 0.0, np.minimum(steps * rounding.step, span), 0.0)
        mantissa = NARROW if name in self.narrow else self.mantissa
        large = up(exact + error) > 2.0**mantissa * rounding.step
        return np.where(large, up(crossed + 4.0 * 2.0**-mantissa * up(exact + error)), crossed)


def _apart(edge: float, grid: int, blur: float) -> bool:
    """Whether no number with so many fractional bits is as near to an edge as floating point may be off."""
    place = Fraction(edge) * Fraction(2) ** grid
    nearest = min(place - math.floor(place), math.ceil(place) - place) / Fraction(2) ** grid
    return nearest > 2 * Fraction(blur)
