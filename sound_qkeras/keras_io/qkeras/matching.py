"""A QKeras model beside its float reference, node by node: layers are matched by their order, their kinds and their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.qkeras.reader import Steps
from sound_qkeras.keras_io.qkeras.unscaling import unscaled
from sound_qkeras.keras_io.read.folding import fold
from sound_qkeras.keras_io.read.outputs import output_ports, step_shapes
from sound_qkeras.keras_io.read.pieces import Diagonal, Gain, Head, Linear, Piece, Rounded, Shape, Step, sharing
from sound_qkeras.keras_io.write.affine_layers import pool_as_conv
from sound_qkeras.network import Network, Node
from sound_qkeras.network.grids import FixedPoint, Grid
from sound_qkeras.network.ops import (
    Affine,
    AveragePool,
    Clip,
    Conv,
    Elementwise,
    Leaky,
    Op,
    Pad,
    Relu,
    Reshape,
    Scale,
    Table,
)
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.pairing import pair_of
from sound_qkeras.network.rewrite.rescale import scaled_like


@dataclass(frozen=True)
class Matched:
    """Two models as one pair of networks.

    Args:
        pair: both as networks.
        quantizers: by node whose result is rounded, the layer that does it and its quantizer as QKeras writes it.
        notes: what was folded, left out and set aside.
        offsets: of normalisations that were not folded, bounds on the terms of their offset, by node name.
    """

    pair: Pair
    quantizers: dict[str, tuple[str, str]]
    notes: tuple[str, ...]
    offsets: dict[str, Reals]


def match(model: Steps, reference: Steps | Network | None) -> Matched:
    """The pair of a quantised model and its reference; without one, of the model and itself without its roundings.

    Normalisations are folded into neighbours in both, or, where that makes them differ, in neither.

    Raises:
        ModelError: a layer of one has no counterpart in the other; says which.
    """
    model = unscaled(model)
    if reference is None:
        return _match(model, model, folded=False)
    if isinstance(reference, Steps):
        reference = unscaled(reference)
        reference = replace(reference, steps=[_cut_off(step, reference.steps) for step in reference.steps])
    try:
        return _match(model, reference, folded=True)
    except ModelError as error:
        try:
            return _match(model, reference, folded=False)
        except ModelError:
            raise error from None


def _match(model: Steps, reference: Steps | Network, *, folded: bool) -> Matched:
    steps, ends, heads = model.with_heads_aside()
    others, other_heads = _float_steps(model, reference)
    notes = list(dict.fromkeys((*model.notes, *(reference.notes if isinstance(reference, Steps) else ()))))
    if folded:
        (steps, one), (others, other) = fold(steps), fold(others)
        notes += [*(f"Quantised model: {note}" for note in one), *(f"Reference: {note}" for note in other)]
    aligned = _Alignment(_saturating(steps), others)
    notes += aligned.notes
    for head in dict.fromkeys(head for head in (*heads, *other_heads) if head is not None):
        notes.append(f"The final {head} is set aside: every number is about its inputs.")
    aligned.round_at_sources()
    head = None if ends else heads[0]
    ports = output_ports(aligned.fixed, ends, heads)
    nodes = sharing({step.name: step.place for step in steps}, aligned.reference, aligned.fixed)
    made = [Network(nodes_of_one, head, tuple(notes), model.inputs, ports) for nodes_of_one in nodes]
    reference = scaled_like(*made)
    if reference is not made[0]:
        notes.append(
            "Hidden units of the reference are multiplied by powers of two, as those of the quantised model are."
        )
        reference = replace(reference, notes=tuple(notes))
    pair = pair_of(reference, made[1], aligned.roundings)
    return Matched(pair, aligned.quantizers, tuple(notes), aligned.offsets)


def _float_steps(model: Steps, reference: Steps | Network) -> tuple[list[Step], Sequence[str | None]]:
    """The reference's steps without quantizers, and what was set aside at its end."""
    if isinstance(reference, Network):
        return [Step(n.name, n.op, n.inputs, n.layer, n.op.kind) for n in reference.nodes], (reference.head,)
    if not model.ends_in_head:
        reference = replace(reference, steps=[_kept(step) for step in reference.steps])
    steps, _, heads = reference.with_heads_aside()
    behind: dict[str, str] = {}
    kept: list[Step] = []
    for step in steps:
        inputs = tuple(behind.get(name, name) for name in step.inputs)
        if isinstance(step.op, Rounded | Gain):
            behind[step.name] = inputs[0]
        else:
            kept.append(replace(step, inputs=inputs))
    return kept, heads


def _kept(step: Step) -> Step:
    """A final sigmoid that the quantised model rounds is compared with it."""
    return replace(step, op=Table("sigmoid")) if step.op == Head("sigmoid") else step


def _cut_off(step: Step, steps: Sequence[Step]) -> Step:
    """A rectifier without its quantizer keeps the upper end of that, which is part of the function that was trained."""
    ends = [one.op.rounding.maximum for one in steps if step.name in one.inputs and isinstance(one.op, Rounded)]
    if not isinstance(step.op, Relu) or not ends:
        return step
    return replace(step, op=Clip(max(ends)))


def _saturating(steps: Sequence[Step]) -> list[Step]:
    """Steps with the upper ends of clipped rectifiers in the roundings behind them, where those say the same.

    So says `to_qkeras` that a format ends where QKeras has none so narrow.
    """
    made = {step.name: step for step in steps}
    for step in steps:
        cut = _ends_behind(steps, step, step.op.maximum) if isinstance(step.op, Clip) else None
        if cut:
            made |= {step.name: replace(step, op=Relu())} | cut
    return list(made.values())


def _ends_behind(steps: Sequence[Step], step: Step, maximum: float) -> dict[str, Step] | None:
    """All that reads a step, as roundings that end where it is clipped; None where something is no such rounding."""
    found: dict[str, Step] = {}
    for one in _readers(steps, step.name):
        ending = _ending(one.op.rounding, maximum) if isinstance(one.op, Rounded) else None
        if ending is None or not isinstance(one.op, Rounded):
            return None
        found[one.name] = replace(one, op=replace(one.op, rounding=ending))
    return found


def _readers(steps: Sequence[Step], name: str) -> list[Step]:
    """What reads a step's results; rectifiers, which change nothing behind one, are looked through."""
    found: list[Step] = []
    for step in (step for step in steps if name in step.inputs):
        found += _readers(steps, step.name) if isinstance(step.op, Relu) else [step]
    return found


def _ending(rounding: Grid, maximum: float) -> Grid | None:
    """A rounding that goes no further than `maximum`; None where that is none of its values."""
    if not isinstance(rounding, FixedPoint) or rounding.apply(np.array(maximum)) != maximum:
        return None
    return replace(rounding, high=np.rint(maximum / rounding.step).astype(np.int64))


def _is_unsigned(op: Piece) -> bool:
    """Whether it rounds what is negative to the least of its values, none of which is."""
    return isinstance(op, Rounded) and isinstance(op.rounding, FixedPoint) and bool(np.all(op.rounding.low >= 0))


class _Alignment:
    """The nodes of both networks, under the names of the quantised model."""

    def __init__(self, steps: Sequence[Step], others: Sequence[Step]) -> None:
        self.shapes = step_shapes(steps)
        self.steps, self.others = steps, others
        self.reference: list[Node] = []
        self.fixed: list[Node] = []
        self.roundings: dict[str, Grid] = {}
        self.quantizers: dict[str, tuple[str, str]] = {}
        self.offsets: dict[str, Reals] = {}
        self.counterpart: dict[str, str] = {}
        self.used: set[str] = set()
        self.notes: list[str] = []
        for step in steps:
            self._place(step)
        left = [step for step in others if step.name not in self.used]
        if left:
            raise ModelError(
                f"the reference's layer {_described(left[0])} has no counterpart in the quantised model; the two must have "
                "the same layers in the same order"
            )

    def _place(self, step: Step) -> None:
        if isinstance(step.op, Rounded):
            self._round(step, step.op)
        elif isinstance(step.op, Gain):
            size = self.shapes[step.name][-1:]
            factors = Scale(np.ones(size), np.zeros(size)), Scale(np.full(size, step.op.factor), np.zeros(size))
            self._add(step, *factors, self.counterpart[step.inputs[0]])
        elif self._changes_nothing(step):
            same = Reshape(self.shapes[step.name], self.shapes[step.name])
            self._add(step, same, same, self.counterpart[step.inputs[0]])
        else:
            other, ops = self._partner(step)
            self.used.add(other.name)
            self._add(step, *ops, other.name)
            if isinstance(step.op, Diagonal) and step.op.offset_terms is not None:
                self.offsets[step.name] = step.op.offset_terms[None]

    def _round(self, step: Step, op: Rounded) -> None:
        """A rounding; one that is never negative is a ReLU too, if the reference has one there."""
        source = self.counterpart[step.inputs[0]]
        rectifier = next((one for one in self._unused((source,)) if isinstance(one.op, Relu)), None)
        if op.rounding.minimum == 0.0 and rectifier is not None and not self._is_positive(step.inputs[0]):
            relu = replace(step, name=f"{step.name}_rectified", op=Relu())
            self.used.add(rectifier.name)
            self._add(relu, Relu(), Relu(), rectifier.name)
            step, source = replace(step, inputs=(relu.name,)), rectifier.name
        shape = self.shapes[step.name]
        self._add(step, Reshape(shape, shape), Reshape(shape, shape), source)
        self.roundings[step.name], self.quantizers[step.name] = op.rounding, (step.layer, op.text)

    def round_at_sources(self) -> None:
        """Values that only a rounding reads are rounded where they are made, which is the same and needs no node of its own."""
        for name in list(self.roundings):
            source = self._source(name)
            if source is not None:
                self.roundings[source] = self.roundings.pop(name)
                self.quantizers[source] = self.quantizers.pop(name)
                before = next(node.inputs[0] for node in self.fixed if node.name == name)
                self.reference, self.fixed = (_without(nodes, name, before) for nodes in (self.reference, self.fixed))

    def _source(self, name: str) -> str | None:
        """The node that makes the values of a rounding's node, if nothing else reads or rounds them on the way."""
        made = {node.name: node for node in self.fixed}
        while True:
            before = made[name].inputs[0]
            alone = sum(before in node.inputs for node in self.fixed) == 1
            if not alone or before in self.roundings:
                return None
            if not made[before].op.moves or isinstance(made[before].op, Pad) or len(made[before].inputs) != 1:
                return before
            name = before

    def _is_positive(self, name: str) -> bool:
        """Whether a step's results are known not to be negative."""
        op = next(step.op for step in self.steps if step.name == name)
        return isinstance(op, Relu | Clip) or (isinstance(op, Rounded) and op.rounding.minimum >= 0.0)

    def _changes_nothing(self, step: Step) -> bool:
        """Whether it is a rectifier behind another one or of an unsigned quantizer, and the reference has none there."""
        if not isinstance(step.op, Relu):
            return False
        if any(isinstance(one.op, Elementwise) for one in self._unused((self.counterpart[step.inputs[0]],))):
            return False
        if self._is_positive(step.inputs[0]):
            return True
        readers = _readers(self.steps, step.name)
        if not readers or not all(_is_unsigned(one.op) for one in readers):
            return False
        self.notes.append(
            f"The reference has no rectifier where '{step.layer}' is: it counts as an unsigned quantizer, "
            "which makes what is negative zero."
        )
        return True

    def _add(self, step: Step, first: Op, second: Op, counterpart: str) -> None:
        for nodes, op in ((self.reference, first), (self.fixed, second)):
            nodes.append(Node(step.name, op, step.inputs, step.layer))
        self.counterpart[step.name] = counterpart

    def _unused(self, inputs: tuple[str, ...]) -> list[Step]:
        return [one for one in self.others if one.name not in self.used and one.inputs == inputs]

    def _partner(self, step: Step) -> tuple[Step, tuple[Op, Op]]:
        """The reference's step that stands where this one does, and both operations."""
        found = self._unused(tuple(self.counterpart[name] for name in step.inputs))
        for other in found:
            ops = _reconciled(_operation(other), _operation(step), self._limit(step))
            if ops is not None:
                return other, ops
        where = f"its layer {_described(found[0])}" if found else "nothing more"
        raise ModelError(
            f"layer {_described(step)} of the quantised model stands where the reference has {where}; the two must have the "
            "same layers in the same order"
        )

    def _limit(self, step: Step) -> float:
        """What no value behind a step exceeds, because all that reads it rounds it."""
        ends: list[float] = []
        for reader in (one for one in self.steps if step.name in one.inputs):
            through = self._limit(reader) if isinstance(reader.op, Relu) else np.inf
            ends.append(reader.op.rounding.maximum if isinstance(reader.op, Rounded) else through)
        return max(ends, default=np.inf)


def _without(nodes: list[Node], name: str, before: str) -> list[Node]:
    """The nodes without one that changes nothing."""
    kept = [node for node in nodes if node.name != name]
    return [replace(node, inputs=tuple(before if one == name else one for one in node.inputs)) for node in kept]


def _operation(step: Step) -> Op:
    if isinstance(step.op, Linear | Diagonal):
        return step.op.to_op()
    if isinstance(step.op, Head | Rounded | Gain):
        raise TypeError(f"step '{step.name}' is no operation")
    return step.op


def _reconciled(reference: Op, op: Op, limit: float) -> tuple[Op, Op] | None:
    """Both as operations of one kind that mean the same; None where they are too different."""
    if isinstance(op, Relu) and isinstance(reference, Clip) and limit <= reference.maximum:
        return reference, reference
    if isinstance(op, Relu | Leaky) and isinstance(reference, Relu | Leaky) and type(op) is not type(reference):
        return _leaky(reference), _leaky(op)
    if isinstance(op, Conv) and isinstance(reference, AveragePool):
        reference = pool_as_conv(reference) or reference
    if type(op) is not type(reference):
        return None
    if isinstance(op, Leaky | Table):
        return reference, op
    alike = op.settings() == reference.settings()
    if isinstance(op, Affine) and isinstance(reference, Affine):
        alike = alike and op.kernel.shape == reference.kernel.shape
    return (reference, op) if alike else None


def _leaky(op: Relu | Leaky) -> Leaky:
    return Leaky(np.zeros(1)) if isinstance(op, Relu) else op


def _described(step: Step) -> str:
    shape: Shape = step.op.kernel.shape if isinstance(step.op, Linear | Affine) else ()
    return f"'{step.layer}' ({step.kind}{f', kernel {shape}' if shape else ''})"
