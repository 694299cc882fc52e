"""That the rewritten network is the trained one, in exact rational arithmetic: its parameters, and the signs of hidden units.

Parameters of layers that were joined are worked out again as exact products and must lie in the enclosures that the rewritten
network has; what units were dropped and replaced for is proved on boxes. The structure (which layer reads which) is the network's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.proof import Proof, meanings_of, with_any_integers
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.ops import Op
from sound_qkeras.network.rewrite.reduce import Reduction, kept_units, reduce_units, reducible
from sound_qkeras.network.rewrite.rescale import input_axis, rescalable


@dataclass(frozen=True)
class Layer:
    """Enclosed parameters of an affine layer; where units are reduced, a kernel `(inputs, units)`."""

    kernel: Range
    bias: Range

    @classmethod
    def of(cls, op: Op) -> Layer:
        """Of an operation, from its numbers and radii."""
        arrays = op.arrays()
        ends: list[Range] = []
        for name in ("kernel", "bias"):
            middle, radius = Dyadic.of(arrays[name]), arrays.get(f"{name}_radius")
            reach = Dyadic.zeros() if radius is None else Dyadic.of(radius)
            ends.append(Range(middle - reach, middle + reach))
        return cls(*ends)

    def only(self, units: npt.NDArray[np.int64]) -> Layer:
        """Some of the units."""
        return Layer(self.kernel[:, units], self.bias[units])

    def reading(self, units: npt.NDArray[np.int64]) -> Layer:
        """The same units, reading only some inputs."""
        return Layer(self.kernel[units], self.bias)

    def times(self, kernel: Dyadic, bias: Dyadic) -> Layer:
        """Multiplied by positive numbers."""
        return Layer(*(Range(x.lower * f, x.upper * f) for x, f in ((self.kernel, kernel), (self.bias, bias))))

    def holds(self, other: Layer) -> bool:
        """Whether every parameter of another lies in this one's enclosure."""
        pairs = ((self.kernel, other.kernel), (self.bias, other.bias))
        return not any(np.any(x.lower.less(own.lower) | own.upper.less(x.upper)) for own, x in pairs)


def check_parameters(quantized: Pair) -> None:
    """Work out the rewritten network's parameters again.

    Raises:
        VerificationError: one is not where the rewritten network has it.
    """
    trained, rewrite, network = quantized.reference, quantized.rewrite, quantized.network
    layers = {node.name: Layer.of(op) for node, op in trained.affine()}
    reduced = reduce_units(trained, rewrite.reductions) if rewrite.reductions else trained
    _reduce(trained, rewrite.reductions, layers)
    readers = rescalable(reduced)
    for name, shifts in rewrite.exponents.items():
        layers[name] = layers[name].times(_powers(shifts), _powers(shifts))
        for reader in readers[name]:
            op = reduced.by_name[reader].op
            axis, ndim = input_axis(op), op.arrays()["kernel"].ndim  # type: ignore[arg-type]
            shape = [shifts.size if at == axis else 1 for at in range(ndim)]
            layers[reader] = layers[reader].times(_powers(-shifts.reshape(shape)), Dyadic.power(0))
    for node, op in network.affine():
        if not Layer.of(op).holds(layers[node.name]):
            raise VerificationError(
                f"layer '{node.layer}': the rewritten network's parameters do not enclose those that follow from the trained one",
                layer_name=node.layer,
            )


def _powers(shifts: npt.NDArray[np.int64]) -> Dyadic:
    return Dyadic.of(np.ldexp(1.0, shifts))


def _reduce(trained: Network, reductions: Mapping[str, Reduction], layers: dict[str, Layer]) -> None:
    """Take dead units away, and then active ones, from the last layer to the first."""
    paths = reducible(trained)
    chosen = [(name, reductions[name]) for name in reversed(paths) if name in reductions]
    last_of = {name: path.last.name for name, path in paths.items()}
    for name, reduction in chosen:
        left = np.setdiff1d(np.arange(layers[name].bias.lower.shape[0]), reduction.dead)
        layers[name] = layers[name].only(left)
        layers[last_of[name]] = layers[last_of[name]].reading(left)
    for name, reduction in chosen:
        if reduction.form == "kept":
            continue
        first, last = layers[name], layers[last_of[name]]
        active = reduction.active - np.searchsorted(np.sort(reduction.dead), reduction.active)
        kept = np.setdiff1d(np.arange(first.bias.lower.shape[0]), active)
        merged = _into(first.only(active), last.reading(active))
        if reduction.form == "merged":
            layers[last_of[name]] = merged
            last_of = {source: last_of[name] if end == name else end for source, end in last_of.items()}
            del layers[name]
            continue
        shift = Range.point(Dyadic.of(reduction.shift))
        unit = Range.point(Dyadic.identity(reduction.shift.size))
        one, other = (merged.kernel, unit) if reduction.form == "outputs" else (unit, merged.kernel)
        layers[name] = Layer(_joined(first.kernel[:, kept], one, 1), _joined(first.bias[kept], shift, 0))
        layers[last_of[name]] = Layer(_joined(last.kernel[kept], other, 0), merged.bias - _times(shift[None], other)[0])


def _into(first: Layer, last: Layer) -> Layer:
    """One layer and then another, with nothing between."""
    return Layer(_times(first.kernel, last.kernel), _times(first.bias[None], last.kernel)[0] + last.bias)


def _times(a: Range, b: Range) -> Range:
    """The matrix product of matrices that are enclosed."""
    reach_a, reach_b = a.width.halved(), b.width.halved()
    middle = a.middle @ b.middle
    reach = a.middle.magnitude() @ reach_b + reach_a @ (b.middle.magnitude() + reach_b)
    return Range(middle - reach, middle + reach)


def _joined(a: Range, b: Range, axis: int) -> Range:
    def both(first: Dyadic, second: Dyadic) -> Dyadic:
        bits = max(first.bits, second.bits)
        return Dyadic(np.concatenate([first.at(bits), second.at(bits)], axis), bits)

    return Range(both(a.lower, b.lower), both(a.upper, b.upper))


class Signs:
    """That units which were dropped never exceed zero on a box, and that those replaced and replacing never fall below."""

    def __init__(self, quantized: Pair) -> None:
        """Prepare both networks, of which only the real values matter."""
        self.reductions = {
            name: quantized.rewrite.reductions[name]
            for name, path in reducible(quantized.reference).items()
            if path.relu is not None and name in quantized.rewrite.reductions
        }
        self.trained, self.rewritten = with_any_integers(quantized.reference), with_any_integers(quantized.network)
        self.meanings = meanings_of(self.trained), meanings_of(self.rewritten)

    def check(self, box: Range, effort: int) -> None:
        """Prove it on one box.

        Raises:
            VerificationError: names the layer and the unit.
        """
        before = Proof(self.trained, box, self.meanings[0], effort=effort, values=True)
        for name, reduction in self.reductions.items():
            value = before.facts[name].value
            self._refuse(name, "dropped", Dyadic.zeros().less(value.upper[reduction.dead]))
            self._refuse(name, "replaced", value.lower[reduction.active].less(Dyadic.zeros()))
        shifted = [name for name, reduction in self.reductions.items() if reduction.form in {"outputs", "inputs"}]
        if shifted:
            after = Proof(self.rewritten, box, self.meanings[1], effort=effort, values=True)
            for name in shifted:
                first = kept_units(self.reductions[name], before.facts[name].value.lower.shape[0])
                self._refuse(name, "replacement", after.facts[name].value.lower[first:].less(Dyadic.zeros()))

    def _refuse(self, name: str, what: str, wrong: npt.NDArray[np.bool_]) -> None:
        if np.any(wrong):
            layer = self.trained.network.by_name[name].layer
            raise VerificationError(
                f"layer '{layer}': its {what} unit {int(np.argmax(wrong))} is not proved in exact arithmetic to stay on one side "
                "of zero, so the rewritten network may differ from the trained one",
                layer_name=layer,
            )
