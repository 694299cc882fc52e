"""A network and what stands for it: the same graph with other parameters, and grids that results are rounded to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format, from_codes, scaled, to_grid
from sound_qkeras.interval import Interval
from sound_qkeras.network.code_checks import check_codes, check_grid, check_scale
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.grids import FixedPoint, Grid, covering
from sound_qkeras.network.ops import (
    Affine,
    AffineCodes,
    AffinePair,
    Input,
    Lookup,
    Op,
)
from sound_qkeras.network.pickling import Rebuilt
from sound_qkeras.network.real_ops import check_alike, compare, grid_of, why_real
from sound_qkeras.network.rewrite.rewrite import Rewrite
from sound_qkeras.types import Reals

# Up to here every float64 sum of integers is exact, in any order.
EXACT_LIMIT = 2.0**53
# Below this, int64 sums cannot wrap, with a bit to spare.
INT64_LIMIT = 2.0**62


@dataclass(frozen=True, eq=False)
class Pair(Rebuilt):
    """A network, the reference, and what stands for it, the subject: node by node the same graph.

    A subject of integers (`has_integers`) can be simulated and exported bit for bit; whatever the subject is, its distance from
    the reference can be proved.

    Args:
        reference: the network that is stood for, as it was trained.
        parameters: integers of the subject's affine nodes, by the name of the node that has them; see `codes`.
        formats: the format a node's result is rounded to (half to even, saturating), by node name, where all its elements have one.
        accumulators: formats of exact results that may be wider than what they are made of (sums, products), as wide as
            their proved ranges, by node name.
        rewrite: what was changed about the reference first; node names are those of the outcome, `network`.
        saturating: nodes whose format may be too narrow for some input in the box: values beyond it become its
            ends, in every execution, and proofs charge that. Everywhere else with a format overflow is to be proved impossible.
        real: operations of the subject with parameters of its own that are no integers, by node name.
        grids: what results are rounded to where that is no one format, by node name; every value becomes one of its element's,
            and proofs charge that.
        input_bits: fractional bits that all inputs are known to have, or None; what is proved holds for such inputs.

    Raises:
        ModelError: a node lacks its parameters or its format, shapes differ, or a code does not fit its format.
    """

    reference: Network
    parameters: Mapping[str, AffineCodes]
    formats: Mapping[str, Format]
    accumulators: Mapping[str, Format]
    rewrite: Rewrite = field(default_factory=Rewrite)
    saturating: frozenset[str] = frozenset()
    real: Mapping[str, Op] = field(default_factory=dict[str, Op])
    grids: Mapping[str, Grid] = field(default_factory=dict[str, Grid])
    input_bits: int | None = None

    def __post_init__(self) -> None:
        """Freeze the mappings, and check that parameters, formats and graph belong together."""
        for name in ("parameters", "formats", "accumulators", "real", "grids"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        named = (self.formats, self.parameters, self.accumulators, self.real, self.grids)
        unknown = [name for part in named for name in part if name not in self.network.by_name]
        if unknown:
            raise ModelError(f"a pair has parameters or formats of {unknown}, which are no nodes")
        if not self.saturating <= set(self.formats):
            raise ModelError(f"{sorted(self.saturating - set(self.formats))} saturate but are not rounded")
        for name, output in self.formats.items():
            if output.word_length > MAX_WORD_LENGTH:
                raise ModelError(f"node '{name}': a stored value has at most {MAX_WORD_LENGTH} bits, received {output}")
            check_scale(name, output)
        for name, output in self.accumulators.items():
            check_scale(name, output)
        for name, grid in self.grids.items():
            check_grid(self.network.by_name[name], self.network.shapes[name], grid)
            if name in self.formats:
                raise ModelError(
                    f"node '{name}' is rounded to {self.formats[name]} and to {grid}; accepted: one of them"
                )
        for name, op in self.real.items():
            check_alike(self.network.by_name[name], op)
        for node, op in self.network.affine():
            if (self.network.owner(node.name) in self.parameters) == (node.name in self.real):
                raise ModelError(
                    f"layer '{node.layer}' ({op.kind}) has no parameters of the subject, or two kinds of them"
                )
            if node.name in self.parameters:
                if node.shares is not None:
                    raise ModelError(
                        f"layer '{node.layer}' has integers of its own, but shares those of '{node.shares}'"
                    )
                check_codes(node, op, self.parameters[node.name])
        for node in self.network.nodes:
            sources = [source for name in node.inputs for source in self.network.sources(name)]
            derived = node.op.derives and node.name not in self.real
            if derived and not all(name in self.code_formats for name in sources):
                raise ModelError(f"layer '{node.layer}' ({node.op.kind}) reads values that have no format")
            if derived and node.op.rounds and node.name in self.grids:
                raise ModelError(
                    f"layer '{node.layer}' ({node.op.kind}): its results are rounded as they are made, to one format"
                )
        for name, output in self.accumulators.items():
            node, bits = self.network.by_name[name], self.exact_bits[name]
            if output.fractional_bits != bits:
                raise ModelError(
                    f"layer '{node.layer}': its accumulator has {bits} fractional bits, its format says otherwise"
                )

    def codes(self, name: str) -> AffineCodes:
        """The integers of an affine node: its own, or those that it shares.

        Raises:
            KeyError: the node has none.
        """
        return self.parameters[self.network.owner(name)]

    def __repr__(self) -> str:
        """One line."""
        return (
            f"<Pair of {self.reference!r} and {'integers' if self.has_integers else 'real numbers'} that stand for it>"
        )

    @cached_property
    def network(self) -> Network:
        """The reference as the subject follows it: as trained, or rewritten to the same function on the box."""
        return self.rewrite.apply(self.reference)

    @cached_property
    def subject(self) -> Network:
        """The network with the subject's parameters, nothing rounded."""
        return replace(self.network, nodes=tuple(map(self._of_subject, self.network.nodes)))

    def _of_subject(self, node: Node) -> Node:
        if node.name in self.real:
            return replace(node, op=self.real[node.name])
        if not isinstance(node.op, Affine):
            return node
        values = self.pairs[node.name]
        op = replace(node.op, kernel=values.kernel, bias=values.bias, kernel_radius=None, bias_radius=None)
        return replace(node, op=op)

    @cached_property
    def obstacles(self) -> tuple[str, ...]:
        """Why the subject is no network of integers, a sentence for each tensor; none where it is one."""
        found = [f"layer '{self._layer(name)}' ({op.kind}) {why_real(op)}" for name, op in self.real.items()]
        found += [
            f"layer '{self._layer(name)}' rounds its result to {grid} from {grid.minimum:g} to {grid.maximum:g}, which no "
            f"integers of {MAX_WORD_LENGTH} bits hold"
            for name, grid in self.grids.items()
            if grid.codes is None
        ]
        missing = [name for name in self.network.rounding_points if name not in self.roundings]
        first = self.network.nodes[0].name
        if first in missing:
            found.append(
                f"inputs ('{self._layer(first)}') are rounded to no format; say with input_bits how fine they are"
            )
        return (
            *found,
            *(f"the result of '{self._layer(name)}' is rounded to no format" for name in missing if name != first),
        )

    def _layer(self, name: str) -> str:
        return self.network.by_name[name].layer or name

    @property
    def has_integers(self) -> bool:
        """Whether the subject is a network of integers, which can be simulated and exported bit for bit."""
        return not self.obstacles

    def check_integers(self) -> None:
        """Refuse a subject that is no network of integers.

        Raises:
            ModelError: names the tensor that stands in the way.
        """
        if self.obstacles:
            raise ModelError(
                f"the network has no integers to simulate or export: {self.obstacles[0]}; accepted: weights, biases and results "
                "that are all rounded to fixed point or to few values"
            )

    @cached_property
    def pairs(self) -> dict[str, Any]:
        """What each operation of the subject has in place of the reference's parameters: integers, slopes, tables, functions."""
        made = ((node.name, self._pair(node)) for node in self.network.nodes)
        return {name: pair for name, pair in made if pair is not None}

    def _pair(self, node: Node) -> Any:
        if node.name in self.real:
            return compare(node.op, self.real[node.name])
        if isinstance(node.op, Affine):
            return AffinePair(node.op, self.codes(node.name))
        names = [source for name in node.inputs if node.op.multiplies for source in self.network.sources(name)]
        if not all(name in self.code_formats for name in names):
            return None
        return node.op.pair([self.code_formats[name] for name in names], self.formats.get(node.name))

    @property
    def tables(self) -> dict[str, Lookup]:
        """What looks results up, by node name."""
        return {name: pair for name, pair in self.pairs.items() if isinstance(pair, Lookup)}

    @cached_property
    def roundings(self) -> dict[str, Grid]:
        """What results are rounded to, by node name."""
        return {**{name: FixedPoint.of(output) for name, output in self.formats.items()}, **self.grids}

    @cached_property
    def code_formats(self) -> dict[str, Format]:
        """The format that has the codes of a rounded result, by node name: its own, or that of the finest step and both ends.

        Zero is among the codes of those without one, as moving values may add zeros.
        """
        found = dict(self.formats)
        for name, grid in self.grids.items():
            held = grid.codes
            if held is not None:
                found[name] = covering(min(held.min_code, 0), max(held.max_code, 0), held.fractional_bits)
        return found

    @cached_property
    def exact_grids(self) -> dict[str, int | None]:
        """Fractional bits that every value of a node of the subject has before its own rounding; None where it has no grid."""
        exact: dict[str, int | None] = {}
        for node in self.network.nodes:
            before = [self.grid_after(name, exact[name]) for name in node.inputs]
            known = [bits for bits in before if bits is not None]
            if not before:
                exact[node.name] = self.input_bits
            elif len(known) < len(before):
                exact[node.name] = None
            elif node.name in self.real:
                exact[node.name] = grid_of(self.real[node.name], known)
            else:
                exact[node.name] = node.op.fractional_bits(self.pairs.get(node.name), *known)
        return exact

    def grid_after(self, name: str, exact: int | None) -> int | None:
        """Fractional bits of a node's values as its readers see them, given those before its rounding."""
        if name in self.grids:
            return self.grids[name].fractional_bits
        if name not in self.formats:
            return exact
        output = self.formats[name]
        bits = output.fractional_bits
        if exact is None or exact >= bits:
            return bits
        # Rounding to a finer grid changes nothing, but what is cut off becomes an end of the format, coarse or not.
        ends = (output.min_code, output.max_code) if name in self.saturating else ()
        return exact if all(code % (1 << (bits - exact)) == 0 for code in ends) else bits

    @cached_property
    def rounded_grids(self) -> dict[str, int | None]:
        """Fractional bits that every node's values have as its readers see them; None where they have no grid."""
        return {name: self.grid_after(name, exact) for name, exact in self.exact_grids.items()}

    @cached_property
    def exact_bits(self) -> dict[str, int]:
        """Fractional bits of the codes of every node's result before its own rounding.

        Raises:
            ModelError: the subject is no network of integers.
        """
        self.check_integers()
        exact: dict[str, int] = {}
        rounded: dict[str, int] = {}
        for node in self.network.nodes:
            if isinstance(node.op, Input):
                exact[node.name] = self.code_formats[node.name].fractional_bits
            else:
                inputs = (rounded[name] for name in node.inputs)
                exact[node.name] = node.op.fractional_bits(self.pairs.get(node.name), *inputs)
            output = self.code_formats.get(node.name)
            rounded[node.name] = exact[node.name] if output is None else output.fractional_bits
        return exact

    @cached_property
    def fractional_bits(self) -> dict[str, int]:
        """Fractional bits of the codes of every node's result as its readers see it, after rounding where there is one."""
        return {
            name: self.code_formats[name].fractional_bits if name in self.code_formats else bits
            for name, bits in self.exact_bits.items()
        }

    def rounded(self, name: str, exact: Interval) -> tuple[Interval, Reals] | None:
        """What a result in `exact` becomes by its node's rounding, and the largest error of that; None where nothing is rounded.

        Where a format may not saturate, the result stays as wide as it is: that it fits is proved apart.
        """
        if name not in self.roundings:
            return None
        bits, rounding = self.exact_grids[name], self.roundings[name]
        if name in self.formats and name not in self.saturating:
            output = self.formats[name]
            dropped = bits is None or bits > output.fractional_bits
            always_zero = (exact.lower == 0.0) & (exact.upper == 0.0)
            roundoff = np.where(always_zero | (not dropped), 0.0, 0.5 * output.step)
            return exact.mapped(
                lambda x: from_codes(to_grid(x, output.fractional_bits), output.fractional_bits)
            ), roundoff
        if bits is not None:
            exact = _on_grid(exact, bits)
        return rounding.image(exact), rounding.error(exact, bits)

    @cached_property
    def code_hash(self) -> str:
        """SHA-256 over all that makes the subject: parameters, formats, those of tables included, where they saturate, the rewrite.

        Raises:
            InputError: a table is too large to exist.
        """
        digest = hashlib.sha256()
        for name, codes in sorted(self.parameters.items()):
            digest.update(repr((name, codes.kernel_format, codes.bias_format, codes.kernel.shape)).encode())
            if codes.channel_formats is not None:
                digest.update(repr(codes.channel_formats).encode())
            if codes.kernel_grid is not None:
                _digest_part(digest, name, codes.kernel_grid)
            digest.update(np.ascontiguousarray(codes.kernel).tobytes() + np.ascontiguousarray(codes.bias).tobytes())
        for name, table in sorted(self.tables.items()):
            digest.update(repr((name, table.source)).encode() + np.ascontiguousarray(table.codes).tobytes())
        digest.update(repr((sorted(self.formats.items()), sorted(self.accumulators.items()))).encode())
        digest.update(json.dumps([self.rewrite.to_json(), sorted(self.saturating)], sort_keys=True).encode())
        for name, part in [*sorted(self.real.items()), *sorted(self.grids.items())]:
            _digest_part(digest, name, part)
        if self.input_bits is not None:
            digest.update(repr(("input_bits", self.input_bits)).encode())
        return digest.hexdigest()

    def evaluate_all(self, x: Any) -> dict[str, Reals]:
        """Every node's value in the subject, in float64, after its rounding: `(n, *shape)`.

        Exact where values have grids and sums stay within 2**53 of their steps; `simulate_all` always is.
        """
        values: dict[str, Reals] = {}
        for node in self.subject.nodes:
            inputs = [values[name] for name in node.inputs] or [self.network.input_arrays(x)]
            found = node.op.evaluate(*inputs)
            rounding = self.roundings.get(node.name)
            values[node.name] = found if rounding is None else rounding.apply(found)
        return values

    def evaluate(self, x: Any) -> Reals:
        """The subject's output, `(n, *output_shape)`; see `evaluate_all`."""
        tiles = self.network.tiles(self.network.input_arrays(x))
        return np.concatenate([self.evaluate_all(tile)[self.network.output.name] for tile in tiles])

    def simulate_all(self, x: Any, *, exact: bool = True) -> dict[str, npt.NDArray[Any]]:
        """Codes of every node for samples `(n, *input_shape)`; see `simulate`.

        Arrays of float64 holding integers; behind a layer whose sums may exceed 53 bits of int64, and behind one whose sums
        may exceed 63 bits of Python integers, which are slow. `exact=False` keeps float64 everywhere, for searches.
        """
        self.check_integers()
        samples = self.network.input_arrays(x)
        codes: dict[str, npt.NDArray[Any]] = {}
        for node in self.network.nodes:
            if isinstance(node.op, Input):
                rounded = self.roundings[node.name].apply(samples)
                codes[node.name] = scaled(rounded, self.fractional_bits[node.name])
                continue
            codes[node.name] = self._round(node.name, self.exact_result(node, codes, exact=exact))
        return codes

    def exact_result(
        self, node: Node, codes: Mapping[str, npt.NDArray[Any]], *, exact: bool = True
    ) -> npt.NDArray[Any]:
        """A node's integers before its own rounding, from the codes of what it reads; see `simulate_all`."""
        bits = [self.fractional_bits[name] for name in node.inputs]
        inputs = [codes[name] for name in node.inputs]
        if exact and node.name in self.wide_layers:
            wide = np.int64 if self.accumulator_magnitudes[node.name] < INT64_LIMIT else object
            inputs = [as_integers(array, wide) for array in inputs]
        kinds = {array.dtype for array in inputs}
        if len(kinds) > 1:  # what one of them needs, float64 would not keep for all
            widest = object if np.dtype(object) in kinds else np.int64
            inputs = [as_integers(array, widest) for array in inputs]
        return node.op.integer(self.pairs.get(node.name), bits, *inputs)

    def _round(self, name: str, exact: npt.NDArray[Any]) -> npt.NDArray[Any]:
        grid = self.roundings.get(name)
        return exact if grid is None else grid.round_codes(exact, self.exact_bits[name])

    @cached_property
    def wide_layers(self) -> frozenset[str]:
        """Nodes whose sums or products may need more than 53 bits: neither float64 nor QKeras is exact there."""
        return frozenset(name for name, size in self.accumulator_magnitudes.items() if not size <= EXACT_LIMIT)

    @cached_property
    def accumulator_magnitudes(self) -> dict[str, float]:
        """For each node that accumulates, the largest sum of absolute terms in steps, over every code its inputs may have.

        While all are at most 2**53, float64 evaluation (of the simulator and of QKeras) is exact for every input at all.
        """
        found: dict[str, Reals] = {}
        magnitudes: dict[str, float] = {}
        for node in self.network.nodes:
            if node.inputs:
                bits = [self.fractional_bits[name] for name in node.inputs]
                inputs = (found[name] for name in node.inputs)
                found[node.name] = node.op.code_magnitude(self.pairs.get(node.name), bits, *inputs)
                if node.op.accumulates:
                    magnitudes[node.name] = float(np.max(found[node.name]))
            output = self.code_formats.get(node.name)
            if output is not None:
                largest = float(max(output.max_code, -output.min_code))
                found[node.name] = np.full((1, *self.network.shapes[node.name]), largest)
        return magnitudes


def _digest_part(digest: Any, name: str, part: Op | Grid) -> None:
    """An operation or a grid, all that it is."""
    digest.update(repr((name, part.kind, sorted(part.settings().items()))).encode())
    for kind, array in sorted(part.arrays().items()):
        array = np.asarray(array, order="C")
        digest.update(repr((kind, array.dtype.str, array.shape)).encode() + array.tobytes())


def _on_grid(x: Interval, bits: int) -> Interval:
    """The hull of the numbers with so many fractional bits in intervals that hold one: sums that are ties stay ties."""
    lower, upper = np.ceil(scaled(x.lower, bits)), np.floor(scaled(x.upper, bits))
    return Interval(from_codes(np.minimum(lower, upper), bits), from_codes(np.maximum(lower, upper), bits))


def as_integers(codes: npt.NDArray[Any], kind: type[Any]) -> npt.NDArray[Any]:
    """The same integers as int64 or, with `kind=object`, as Python integers, whose arithmetic never wraps."""
    return codes.astype(np.int64).astype(kind) if codes.dtype != object else codes.astype(kind)
