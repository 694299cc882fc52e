"""Linear forms in a tensor, pulled back to the input of the network on a batch of boxes.

A form has a row `p` on the trained network's values x and a row `a` on differences d, because the residual of a layer turns
a difference row into a value row: this is the dual of a zonotope in which values and differences share their noise symbols.

Every tensor has a point near its values and one near its differences: where the lines in place of the operations lead from
the middle of the box. Forms are written about these points, so a step back leaves nothing over but `|row| . radius`, and the
rest at the input is the box about its middle. Which rows arrive makes no difference to points and radii: they are found once.

Reference: Singh et al., An abstract domain for certifying neural networks (POPL 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from sound_qkeras.interval import DOUBLE, Interval, Precision, Reals, gamma, inflate
from sound_qkeras.network import Network, Node, Pair, size_of
from sound_qkeras.network.ops import Elementwise, Facts, Input, Remainder, Rows
from sound_qkeras.network.ops.base import contract
from sound_qkeras.network.ops.linear import LinearOp
from sound_qkeras.types import Indices
from sound_qkeras.verify.stages import Stage, Stages, linear

# All boxes of the batch.
ALL = None
Boxes = Indices | None


class Forms:
    """What single elements are, in terms of the input, on boxes whose facts become known node by node."""

    def __init__(
        self,
        network: Network,
        pair: Pair | None,
        facts: Mapping[str, Facts],
        roundoff: Mapping[str, Reals],
        precision: Precision = DOUBLE,
    ) -> None:
        """For facts and largest roundings that the caller goes on adding to.

        Args:
            network: the float network.
            pair: what stands for it, or None.
            facts: of every node that comes before what is asked about.
            roundoff: largest error of rounding, of those that are rounded.
            precision: of coefficients, where everything they meet fits it; else float64.
        """
        self.network, self.facts, self.takes_some_boxes = network, facts, linear(network)
        self.precision = precision if self._fits(pair, precision) else DOUBLE
        self.stages = Stages(network, pair, facts, roundoff, self.precision)

    def _fits(self, pair: Pair | None, precision: Precision) -> bool:
        """Whether all operations are linear, so that bounds know about precisions, and no parameter is too large or small."""
        return self.takes_some_boxes and all(
            node.op.fits(None if pair is None else pair.pairs.get(node.name), precision)
            for node in self.network.nodes
            if isinstance(node.op, LinearOp)
        )

    @cached_property
    def _double(self) -> Forms:
        return Forms(self.network, self.stages.pair, self.facts, self.stages.roundoff)

    @property
    def takes_two_lines(self) -> bool:
        """Whether functions are between two lines, with slopes of their own."""
        return self.stages.two_lines

    def enclose(
        self,
        node: Node,
        chosen: Indices,
        *,
        difference: bool,
        boxes: Boxes = ALL,
        two_lines: bool = True,
        arrived: dict[str, Rows] | None = None,
    ) -> Interval:
        """Enclosures of elements of a node's value, or of its difference, before they are rounded.

        Args:
            node: whose elements; what comes before it is known.
            chosen: their flat numbers, shape `(rows,)`, or `(boxes, rows)` where every box has its own.
            difference: whether differences are asked for.
            boxes: numbers of the boxes, if not all are asked about.
            two_lines: whether functions may be between two lines; else there is one line for each.
            arrived: takes the rows as they arrive at every node, where there is one line for each function.

        Returns:
            Shape `(boxes, rows)`.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if two_lines and self.takes_two_lines and not isinstance(node.op, Elementwise):
                found = self._between(node, chosen, difference, boxes)
            else:
                found = self._enclose(node, chosen, difference, boxes, arrived)
        if self.precision is not DOUBLE and not _finite(found):
            return self._double.enclose(
                node, chosen, difference=difference, boxes=boxes, two_lines=two_lines, arrived=arrived
            )
        return _known(found)

    def _enclose(
        self, node: Node, chosen: Indices, difference: bool, boxes: Boxes, arrived: dict[str, Rows] | None
    ) -> Interval:
        stage = self.stages.of(node)
        count = len(self.facts[self.network.nodes[0].name].value.lower if boxes is None else boxes)
        remainder = Remainder.zero(count, chosen.shape[-1])
        if isinstance(node.op, LinearOp):
            written, radius = stage.value, stage.value_radius
            if difference:
                written, radius = stage.difference, stage.difference_radius
            if written is None:
                raise TypeError("differences are of a pair of networks")
            remainder.add(_elements(written.point, boxes, chosen), np.zeros(1))
            if radius is not None:
                remainder.widen(_elements(radius, boxes, chosen))
            self._charge_underflow(stage, boxes, remainder)
        if arrived is not None:
            arrived[node.name] = self._unit_rows(node, count, chosen, difference)
        pulled = self._first_step(node, count, chosen, difference, remainder, boxes)
        pending = dict[str, Rows]()
        self._pass_on(node, pulled, pending, remainder, boxes)
        charged = {node.inputs[0]} if stage.folds else set[str]()
        for other in reversed(self.network.nodes[: self.stages.positions[node.name]]):
            if other.name not in pending:
                continue
            current = pending.pop(other.name)
            if arrived is not None:
                arrived[other.name] = current
            here = self.stages[other.name]
            if other.name not in charged:
                self._charge(here, current, boxes, remainder)
            if here.folds:
                charged.add(other.inputs[0])
            if not isinstance(other.op, Input):
                self._pass_on(other, self._step(other, current, remainder, boxes), pending, remainder, boxes)
        return remainder.enclose()

    def _between(self, node: Node, chosen: Indices, difference: bool, boxes: Boxes) -> Interval:
        """Enclosures as `enclose` has them, by bounds from above of the elements and of their negatives."""
        stage = self.stages.of(node)
        written = stage.difference if difference else stage.value
        if written is None:
            raise TypeError(f"node '{node.name}' is not linear, or differences are asked of no pair of networks")
        point = _elements(written.point, boxes, chosen)
        remainder = Remainder(_with_negatives(point), np.zeros((len(point), 2 * point.shape[1])))
        if written.radius is not None:
            remainder.widen(np.tile(_elements(written.radius, boxes, chosen), 2))
        (rows,) = self._first_step(node, len(point), chosen, difference, remainder, boxes)
        self._charge_underflow(stage, boxes, remainder)
        part = self.network.by_name[node.inputs[0]]
        self._follow(part, Rows(_with_negatives(rows.value), _with_negatives(rows.difference)), boxes, remainder)
        upper, count = remainder.enclose().upper, point.shape[1]
        return Interval(-upper[:, count:], upper[:, :count])

    def _follow(self, node: Node, rows: Rows, boxes: Boxes, remainder: Remainder) -> None:
        """Pull rows that bound from above back to the input."""
        charged = False
        while True:
            stage = self.stages[node.name]
            if not charged:
                self._charge_parts(rows, stage.alone, boxes, remainder)
            if isinstance(node.op, Input):
                return
            if stage.between is None:
                (rows,) = self._step(node, rows, remainder, boxes)
            else:
                pulled = (
                    None if row is None or lines is None else lines.at(boxes).pull(row, remainder, self.precision)
                    for row, lines in zip((rows.value, rows.difference), stage.between, strict=True)
                )
                rows = Rows(*pulled)
            self._charge_underflow(stage, boxes, remainder)
            charged = stage.between is not None and stage.folds
            node = self.network.by_name[node.inputs[0]]

    def _unit_rows(self, node: Node, count: int, chosen: Indices, difference: bool) -> Rows:
        """Rows that are one at the chosen elements, shape `(boxes, rows, *shape)`."""
        shape = self.network.shapes[node.name]
        rows = np.zeros((*chosen.shape, size_of(shape)), self.precision.kind)
        np.put_along_axis(rows, chosen[..., None], 1.0, axis=-1)
        rows = np.broadcast_to(rows.reshape(*chosen.shape, *shape), (count, chosen.shape[-1], *shape))
        return Rows(None, rows) if difference else Rows(rows, None)

    def _first_step(
        self, node: Node, count: int, chosen: Indices, difference: bool, remainder: Remainder, boxes: Boxes
    ) -> tuple[Rows, ...]:
        """Of unit rows."""
        if isinstance(node.op, LinearOp) and len(self.network.shapes[node.name]) == 1:
            known = node.op.unit_rows(self.stages.parameters(node) if difference else None, chosen, self.precision)
            if known is not None:
                return (_for_all(known, count) if chosen.ndim == 1 else known,)
        return self._step(node, self._unit_rows(node, count, chosen, difference), remainder, boxes)

    def _step(self, node: Node, rows: Rows, remainder: Remainder, boxes: Boxes) -> tuple[Rows, ...]:
        """The rows in the inputs; of operations that are not linear, what their lines leave over is charged here."""
        parameters, stage = self.stages.parameters(node), self.stages[node.name]
        if isinstance(node.op, LinearOp):
            value, difference = (
                None if found is None or found.slope is None else _of(found.slope, boxes)
                for found in (stage.value, stage.difference)
            )
            return (node.op.pull(parameters, rows, value, difference),)
        inputs = [self.facts[name] if boxes is None else self.facts[name].at(boxes) for name in node.inputs]
        pulled = node.op.adjoint(parameters, rows, remainder, *inputs)
        for name, part in zip(node.inputs, pulled, strict=True):
            for row, about in zip((part.value, part.difference), self.stages.about[name], strict=True):
                if row is not None and about is not None:
                    point = _of(about.point, boxes)
                    rounding = gamma(point[0].size) * np.abs(point)
                    remainder.add(contract(row, point), self._weighed(row, rounding))
        return pulled

    def _pass_on(
        self, node: Node, pulled: tuple[Rows, ...], pending: dict[str, Rows], remainder: Remainder, boxes: Boxes
    ) -> None:
        """To the inputs; rows of several readers of one tensor are added, and the rounding of that is charged."""
        for name, part in zip(node.inputs, pulled, strict=True):
            if name not in pending:
                pending[name] = part
                continue
            total = pending[name] = pending[name].plus(part)
            for row, about in zip((total.value, total.difference), self.stages.about[name], strict=True):
                if row is not None and about is not None:
                    size = _of(about.size, boxes)
                    remainder.widen(self._weighed(row, self.precision.above(2.0 * self.precision.unit * size)))

    def _charge(self, stage: Stage, rows: Rows, boxes: Boxes, remainder: Remainder) -> None:
        self._charge_parts(rows, stage.charges, boxes, remainder)
        self._charge_underflow(stage, boxes, remainder)

    def _charge_parts(
        self, rows: Rows, charges: tuple[Reals | None, Reals | None], boxes: Boxes, remainder: Remainder
    ) -> None:
        for row, radius in zip((rows.value, rows.difference), charges, strict=True):
            if row is not None and radius is not None:
                remainder.widen(self._weighed(row, _of(radius, boxes)))

    def _weighed(self, rows: Reals, radius: Reals) -> Reals:
        """An upper bound of `|rows| . radius`."""
        boxes, count = rows.shape[:2]
        if boxes > 1 and rows.strides[0] == 0:  # the same rows for every box
            found = radius.reshape(boxes, -1) @ np.abs(rows[0]).reshape(count, -1).T
        else:
            found = contract(np.abs(rows), radius)
        return inflate(found, radius[0].size, self.precision)

    def _charge_underflow(self, stage: Stage, boxes: Boxes, remainder: Remainder) -> None:
        if stage.lost is not None:
            remainder.widen(_of(stage.lost, boxes)[:, None])


def _finite(x: Interval) -> bool:
    return bool(np.all(np.isfinite(x.lower) & np.isfinite(x.upper)))


def _known(x: Interval) -> Interval:
    """Nothing is known where a coefficient overflowed."""
    return Interval(np.where(np.isnan(x.lower), -np.inf, x.lower), np.where(np.isnan(x.upper), np.inf, x.upper))


def _of(x: Reals, boxes: Boxes) -> Reals:
    """What is known of some of the boxes."""
    return x if boxes is None else x[boxes]


def _elements(x: Reals, boxes: Boxes, chosen: Indices) -> Reals:
    """The chosen elements of every box, shape `(boxes, rows)`."""
    some = _of(x, boxes)
    flat = some.reshape(len(some), -1)
    return flat[:, chosen] if chosen.ndim == 1 else np.take_along_axis(flat, chosen, axis=1)


def _with_negatives(x: Reals | None) -> Any:
    """Rows, or numbers about them, and their negatives; those that are the same for every box stay so."""
    if x is None:
        return None
    if len(x) > 1 and x.strides[0] == 0:
        return np.broadcast_to(np.concatenate([x[:1], -x[:1]], axis=1), (len(x), 2 * x.shape[1], *x.shape[2:]))
    return np.concatenate([x, -x], axis=1)


def _for_all(rows: Rows, boxes: int) -> Rows:
    """The same rows for every box."""
    value, difference = (
        None if part is None else np.broadcast_to(part, (boxes, *part.shape)) for part in (rows.value, rows.difference)
    )
    return Rows(value, difference)
