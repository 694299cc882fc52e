"""The same function on a box with fewer units: dead ones dropped, and those that never clip replaced by fewer or none.

A hidden unit `relu(w.x + b)` whose pre-activation is at most 0 on the whole box is the constant 0. Units whose
pre-activation is at least 0 are affine there, and so is what they hand on together; with `A` such units between `n`
inputs and `m` outputs it fits through

    outputs:  m units, one for what each output receives from them,     read with weight 1;
    inputs:   n units, one for each input,                              read with the product of both kernels;
    merged:   none, if no other unit is left: two layers become one.

A replacement unit is shifted by a constant to stay nonnegative, so that its ReLU changes nothing, and the reader's bias
takes the shift back. New parameters are products, which are enclosed. That the units are dead or active, and the
replacements nonnegative, is for `verify` to prove.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval, Reals, matmul, read_only
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.ops import Dense, Relu
from sound_qkeras.types import Indices

FORMS = ("kept", "outputs", "inputs", "merged")


@dataclass(frozen=True, eq=False)
class Reduction:
    """What becomes of one hidden layer.

    Args:
        dead: units that are dropped.
        active: units that are replaced; none with the form "kept".
        form: by what, see above.
        shift: added to each replacement unit.
    """

    dead: Indices
    active: Indices
    form: str
    shift: Reals

    def __post_init__(self) -> None:
        """Freeze the arrays.

        Raises:
            ModelError: the form is unknown, or units are named twice.
        """
        for name in ("dead", "active", "shift"):
            object.__setattr__(self, name, read_only(getattr(self, name)))
        both = np.concatenate([self.dead, self.active])
        if (
            self.form not in FORMS
            or np.unique(both).size != both.size
            or (self.form == "kept") != (not self.active.size)
        ):
            raise ModelError(
                f"a reduction of form '{self.form}' names units {both.tolist()}; accepted: {FORMS}, units once"
            )
        if not np.all(np.isfinite(self.shift)):
            raise ModelError("the shifts of a reduction are not finite")

    def to_json(self) -> dict[str, Any]:
        """Plain json."""
        return {
            "dead": self.dead.tolist(),
            "active": self.active.tolist(),
            "form": self.form,
            "shift": self.shift.tolist(),
        }


@dataclass(frozen=True)
class Path:
    """A hidden Dense node, the ReLU behind it where there is one, and the only Dense node that reads the result."""

    first: Node
    relu: Node | None
    last: Node


def reducible(network: Network) -> dict[str, Path]:
    """Dense nodes whose result goes through at most a ReLU into one Dense node and nowhere else, in graph order.

    Weights that several nodes share stay as they are.
    """
    found: dict[str, Path] = {}
    shared = network.shared
    for node, op in network.affine():
        readers, relu = network.readers[node.name], None
        if len(readers) == 1 and isinstance(readers[0].op, Relu):
            relu = readers[0]
            readers = network.readers[relu.name]
        alone = type(op) is Dense and len(network.shapes[node.name]) == 1  # with several positions units are not alone
        if alone and len(readers) == 1 and type(readers[0].op) is Dense and not {node.name, readers[0].name} & shared:
            found[node.name] = Path(node, relu, readers[0])
    return found


def reduce_units(network: Network, reductions: Mapping[str, Reduction]) -> Network:
    """The network without dead units, and then without active ones, from the last layer to the first.

    Guarantee: where the units named dead, which have a ReLU behind them, never exceed 0, those named active never fall below, and
    the replacement units of the result never fall below, both networks are the same function.

    Raises:
        ModelError: a node cannot be reduced, or a reduction does not fit its layer.
    """
    paths = reducible(network)
    unknown = sorted(set(reductions) - set(paths))
    if unknown:
        raise ModelError(f"nodes {unknown} cannot be reduced; accepted: {sorted(paths)}")
    chosen = {name: reductions[name] for name in reversed(paths) if name in reductions}
    for name, reduction in chosen.items():
        network = _without_dead(network, name, reduction)
    for name, reduction in chosen.items():
        if reduction.form != "kept":
            network = _without_active(network, name, reduction)
    return network


def kept_units(reduction: Reduction, units: int) -> int:
    """How many of a layer's units stay; its replacement units come after them."""
    return units - reduction.dead.size - reduction.active.size


def _without_dead(network: Network, name: str, reduction: Reduction) -> Network:
    path = reducible(network)[name]
    if path.relu is None and reduction.dead.size:
        raise ModelError(f"node '{name}' has no ReLU behind it: its units can be replaced, but none is ever zero")
    first, last = _Layer.of(path.first), _Layer.of(path.last)
    left = np.setdiff1d(np.arange(first.units), reduction.dead)
    if left.size != first.units - reduction.dead.size or not np.all(np.isin(reduction.active, left)):
        raise ModelError(f"node '{name}' has {first.units} units, its reduction names others")
    if left.size == 0:
        raise ModelError(f"node '{name}' would lose all of its units; keep one")
    return _with_ops(network, path, first.only(left), last.reading(left))


def _without_active(network: Network, name: str, reduction: Reduction) -> Network:
    path = reducible(network)[name]
    first, last = _Layer.of(path.first), _Layer.of(path.last)
    active = reduction.active - np.searchsorted(np.sort(reduction.dead), reduction.active)
    kept = np.setdiff1d(np.arange(first.units), active)
    if reduction.form == "merged":
        if kept.size:
            raise ModelError(f"node '{name}' keeps {kept.size} units and cannot be merged")
        return _without_layer(network, path, first.only(active).into(last.reading(active)))
    unit, reader = _replacement(reduction, first.only(active), last.reading(active))
    return _with_ops(network, path, first.only(kept).beside(unit), last.reading(kept).below(reader))


def _with_ops(network: Network, path: Path, first: _Layer, last: _Layer) -> Network:
    ops = {path.first.name: first.op(), path.last.name: last.op()}
    return replace(network, nodes=tuple(replace(node, op=ops.get(node.name, node.op)) for node in network.nodes))


def _replacement(reduction: Reduction, first: _Layer, last: _Layer) -> tuple[_Layer, _Layer]:
    """The replacement units, and how the reader reads them; `last` holds the rows and the whole bias of the reader."""
    merged = first.into(last)
    outputs = reduction.form == "outputs"
    size = last.units if outputs else first.kernel.shape[0]
    if reduction.shift.shape != (size,):
        raise ModelError(f"{size} replacement units need as many shifts, received {reduction.shift.shape}")
    shift = Interval.point(reduction.shift)
    unit = Interval.point(np.eye(size))
    if outputs:
        return _Layer(merged.kernel, shift), _Layer(unit, merged.bias - shift)
    return _Layer(unit, shift), _Layer(merged.kernel, merged.bias - matmul(shift[None], merged.kernel)[0])


@dataclass(frozen=True)
class _Layer:
    """A Dense operation with enclosed parameters."""

    kernel: Interval
    bias: Interval

    @classmethod
    def of(cls, node: Node) -> _Layer:
        arrays = node.op.arrays()
        return cls(*(_enclosed(arrays[name], arrays.get(f"{name}_radius")) for name in ("kernel", "bias")))

    @property
    def units(self) -> int:
        return self.bias.shape[0]

    def only(self, units: Indices) -> _Layer:
        """Some of the units."""
        return _Layer(self.kernel[:, units], self.bias[units])

    def reading(self, units: Indices) -> _Layer:
        """The same units, reading only some inputs."""
        return _Layer(self.kernel[units], self.bias)

    def into(self, last: _Layer) -> _Layer:
        """This without a ReLU, and then `last`."""
        return _Layer(matmul(self.kernel, last.kernel), matmul(self.bias[None], last.kernel)[0] + last.bias)

    def beside(self, other: _Layer) -> _Layer:
        """These units and then those of `other`, which reads the same inputs."""
        return _Layer(_joined(self.kernel, other.kernel, 1), _joined(self.bias, other.bias, 0))

    def below(self, other: _Layer) -> _Layer:
        """The same units reading further inputs with the kernel of `other`, and with its bias instead of theirs."""
        return _Layer(_joined(self.kernel, other.kernel, 0), other.bias)

    def op(self) -> Dense:
        def radius(x: Interval) -> Reals | None:
            return x.radius if np.any(x.radius) else None

        return Dense(self.kernel.center, self.bias.center, radius(self.kernel), radius(self.bias))


def _enclosed(center: Reals, radius: Reals | None) -> Interval:
    return Interval.point(center) if radius is None else Interval.around(center, radius)


def _joined(a: Interval, b: Interval, axis: int) -> Interval:
    return Interval(np.concatenate([a.lower, b.lower], axis), np.concatenate([a.upper, b.upper], axis))


def _without_layer(network: Network, path: Path, merged: _Layer) -> Network:
    """The network with one layer in place of two; it bears the second one's name."""
    gone = {path.first.name, *([path.relu.name] if path.relu is not None else [])}
    whole = replace(path.last, op=merged.op(), inputs=path.first.inputs)
    nodes = (whole if node is path.last else node for node in network.nodes if node.name not in gone)
    return replace(network, nodes=tuple(nodes))
