"""What one step back over a node leaves over on a batch of boxes, whatever the rows: found once for all that are pulled back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sound_qkeras.interval import Precision, Reals, inflate, sum_up
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import Elementwise, Facts, Input, Relu
from sound_qkeras.network.ops.linear import About, Linear, LinearOp
from sound_qkeras.verify.between import Between

Parts = tuple[Reals | None, Reals | None]


@dataclass
class Stage:
    """What a step back over one node leaves over, whatever the rows.

    Args:
        value, difference: the operation written about points; None where it is not linear.
        value_radius, difference_radius: left over per unit of a row's coefficient, shape `(boxes, *shape)`; None for zero.
        lost: what coefficients lose to underflow, shape `(boxes,)`.
        folds: whether the step before, over the operation that this one reads, is charged here too.
        read_radius: `difference_radius` for those who read the result: with its rounding, once that is known.
        charges: `value_radius` and `read_radius` in the precision of rows.
        alone: the same without the step before, nor what `between` charges itself.
        between: two lines in place of the operation's value and difference, where it has them.
    """

    value: Linear | None = None
    difference: Linear | None = None
    value_radius: Reals | None = None
    difference_radius: Reals | None = None
    lost: Reals | None = None
    folds: bool = False
    read_radius: Reals | None = None
    charges: tuple[Reals | None, Reals | None] = (None, None)
    alone: tuple[Reals | None, Reals | None] = (None, None)
    between: tuple[Between | None, Between | None] | None = None


class Stages:
    """The steps back over all nodes of a network, as their facts become known."""

    def __init__(
        self,
        network: Network,
        pair: Pair | None,
        facts: Mapping[str, Facts],
        roundoff: Mapping[str, Reals],
        precision: Precision,
    ) -> None:
        """For the arguments of `Forms`."""
        self.network, self.pair, self.facts, self.roundoff, self.precision = network, pair, facts, roundoff, precision
        self.positions = {node.name: position for position, node in enumerate(network.nodes)}
        self.about: dict[str, tuple[About, About | None]] = {}
        self.two_lines = takes_two_lines(network)
        self._known: dict[str, Stage] = {}

    def __getitem__(self, name: str) -> Stage:
        return self._known[name]

    def parameters(self, node: Node) -> Any:
        """The node's parameter pair."""
        return None if self.pair is None else self.pair.pairs.get(node.name)

    def of(self, node: Node) -> Stage:
        """The step back over a node, after those over all that come before it."""
        for other in self.network.nodes[len(self.about) : self.positions[node.name]]:
            self._complete(other)
        if node.name not in self._known:
            self._known[node.name] = self._stage(node)
        return self._known[node.name]

    def _complete(self, node: Node) -> None:
        """What readers need to know about a node all of whose facts are known."""
        stage, facts = self._known.get(node.name) or self._stage(node), self.facts[node.name]
        difference = None if facts.difference is None else About.zero(facts.difference)
        if isinstance(node.op, Input):
            value = About(facts.value.center, facts.value.radius)
            stage.value_radius = value.size
        elif stage.value is None:
            value = About.zero(facts.value)
        else:
            value = About.of(facts.value, stage.value.point)
            if facts.difference is not None and stage.difference is not None:
                difference = About.of(facts.difference, stage.difference.point)
        stage.read_radius = _sum(stage.difference_radius, self.roundoff.get(node.name))
        stage.charges = self._above(stage.value_radius, stage.read_radius)
        self._known[node.name], self.about[node.name] = stage, (value, difference)
        if self.two_lines:
            self._add_lines(node, stage)

    def _above(self, *radii: Reals | None) -> Parts:
        value, difference = (None if radius is None else self.precision.above(radius) for radius in radii)
        return value, difference

    def _add_lines(self, node: Node, stage: Stage) -> None:
        """Two lines, where the operation has them, and what is left over beside them."""
        rounding = self.roundoff.get(node.name)
        if isinstance(node.op, Input):
            stage.alone = self._above(stage.value_radius, rounding)
            return
        (name,) = node.inputs
        facts, before = self.facts[name], self._known[name]
        lines = node.op.value_bounds(facts.value) if isinstance(node.op, Elementwise) else None
        if lines is None or not isinstance(node.op, Elementwise) or stage.value is None:
            own = (None if written is None else written.radius for written in (stage.value, stage.difference))
            value, difference = own
            stage.alone = self._above(value, _sum(difference, rounding))
            return
        stage.alone = self._above(None, rounding)
        value_about, difference_about = self.about[name]
        value_before, read_before = before.alone if stage.folds else (None, None)
        value = Between.of(lines, value_about, stage.value.point, value_before, self.precision)
        change = None
        if stage.difference is not None and difference_about is not None:
            lines = node.op.difference_bounds(*facts.pair())
            if lines is None:
                raise TypeError(f"node '{node.name}' has two lines for values alone")
            change = Between.of(lines, difference_about, stage.difference.point, read_before, self.precision)
        stage.between = value, change

    def _stage(self, node: Node) -> Stage:
        if not isinstance(node.op, LinearOp):
            return Stage()
        (name,) = node.inputs
        facts, (value, difference) = self.facts[name], self.about[name]
        stage = Stage(node.op.linear_value(facts.value, value, self.precision))
        size = value.size
        if difference is not None:
            stage.difference = node.op.linear_difference(
                self.parameters(node), facts, value, difference, self.precision
            )
            size = size + difference.size
        before = self._known[name]
        stage.folds = isinstance(node.op, Elementwise) and len(self.network.readers[name]) == 1
        for written, kind, radius in (
            (stage.value, "value_radius", before.value_radius),
            (stage.difference, "difference_radius", before.read_radius),
        ):
            found = None if written is None else written.radius
            if written is not None and written.slope is not None and stage.folds and radius is not None:
                found = _sum(found, inflate(np.abs(written.slope) * radius, 4))
            setattr(stage, kind, found)
        if stage.value is not None and stage.value.radius is not None:
            stage.lost = self.precision.tiny * sum_up(size, tuple(range(1, size.ndim)))
        if stage.folds:
            stage.lost = _sum(stage.lost, before.lost)
        return stage


def linear(network: Network) -> bool:
    """Whether every operation is: others find their lines anew for every row, and know float64 alone."""
    return all(isinstance(node.op, LinearOp | Input) for node in network.nodes)


def takes_two_lines(network: Network) -> bool:
    """Whether every operation has one input, and some are between two lines."""
    return linear(network) and any(isinstance(node.op, Relu) for node in network.nodes)


def _sum(a: Reals | None, b: Reals | None) -> Reals | None:
    """At least the sum of nonnegative numbers."""
    return b if a is None else a if b is None else inflate(a + b, 4)
