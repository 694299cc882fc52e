"""The fixed-point twin of a network: the same graph, integer parameters, and a format wherever a value is rounded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format, from_codes, to_grid
from sound_qkeras.interval import Interval, up
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.ops import Affine, AffineCodes, AffinePair, Input, TablePair
from sound_qkeras.network.pickling import Rebuilt
from sound_qkeras.network.rewrite.rewrite import Rewrite

Reals = npt.NDArray[np.float64]

# Up to here every float64 sum of integers is exact, in any order.
EXACT_LIMIT = 2.0**53
# Below this, int64 sums cannot wrap, with a bit to spare.
INT64_LIMIT = 2.0**62
INT64_SHIFTS = 62
MOST_FRACTIONAL_BITS = 300


@dataclass(frozen=True, eq=False)
class QuantizedNetwork(Rebuilt):
    """Integers and formats for every node of a network.

    Args:
        trained: the network it stands for, as it was trained.
        parameters: codes of each affine node, by node name.
        formats: the format each rounding point rounds to (half to even, saturating), by node name.
        accumulators: formats of exact results that may be wider than what they are made of (sums, products), as wide as
            their proved ranges, by node name.
        rewrite: what was changed about the trained network first; node names are those of the outcome, `network`.
        saturating: rounding points whose format may be too narrow for some input in the box: values beyond it become its
            ends, in every execution, and proofs charge that. Everywhere else overflow is to be proved impossible.

    Raises:
        ModelError: a node lacks its integers or its format, shapes differ, or a code does not fit its format.
    """

    trained: Network
    parameters: Mapping[str, AffineCodes]
    formats: Mapping[str, Format]
    accumulators: Mapping[str, Format]
    rewrite: Rewrite = field(default_factory=Rewrite)
    saturating: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Freeze the mappings, and check that integers, formats and graph belong together."""
        for name in ("parameters", "formats", "accumulators"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        missing = [name for name in self.network.rounding_points if name not in self.formats]
        unknown = [
            name for name in (*self.formats, *self.parameters, *self.accumulators) if name not in self.network.by_name
        ]
        if missing or unknown:
            raise ModelError(f"rounding points without a format: {missing}; names that are no node: {unknown}")
        if not self.saturating <= set(self.formats):
            raise ModelError(f"{sorted(self.saturating - set(self.formats))} saturate but are not rounded")
        for name, output in self.formats.items():
            if output.word_length > MAX_WORD_LENGTH:
                raise ModelError(f"node '{name}': a stored value has at most {MAX_WORD_LENGTH} bits, received {output}")
            _check_scale(name, output)
        for name, output in self.accumulators.items():
            _check_scale(name, output)
        for node, op in self.network.affine():
            if node.name not in self.parameters:
                raise ModelError(f"layer '{node.layer}' ({op.kind}) has no integer parameters")
            _check_codes(node, op, self.parameters[node.name])
        for name, output in self.accumulators.items():
            node, bits = self.network.by_name[name], self.exact_bits[name]
            if output.fractional_bits != bits:
                raise ModelError(
                    f"layer '{node.layer}': its accumulator has {bits} fractional bits, its format says otherwise"
                )

    @cached_property
    def network(self) -> Network:
        """The network whose tensors the formats are for: the trained one, rewritten to the same function on the box."""
        return self.rewrite.apply(self.trained)

    @cached_property
    def pairs(self) -> dict[str, Any]:
        """What each node's integer meaning takes: float parameters beside their integers, slopes, tables."""
        made = ((node.name, self._pair(node)) for node in self.network.nodes)
        return {name: pair for name, pair in made if pair is not None}

    def _pair(self, node: Node) -> Any:
        if isinstance(node.op, Affine):
            return AffinePair(node.op, self.parameters[node.name])
        names = [name for name in node.inputs if node.op.multiplies]
        sources = [self.formats[source] for name in names for source in self.network.sources(name)]
        return node.op.pair(sources, self.formats.get(node.name))

    @property
    def tables(self) -> dict[str, TablePair]:
        """The tables, by node name."""
        return {name: pair for name, pair in self.pairs.items() if isinstance(pair, TablePair)}

    @cached_property
    def exact_bits(self) -> dict[str, int]:
        """Fractional bits of every node's result before its own rounding."""
        exact: dict[str, int] = {}
        rounded: dict[str, int] = {}
        for node in self.network.nodes:
            if isinstance(node.op, Input):
                exact[node.name] = self.formats[node.name].fractional_bits
            else:
                inputs = (rounded[name] for name in node.inputs)
                exact[node.name] = node.op.fractional_bits(self.pairs.get(node.name), *inputs)
            output = self.formats.get(node.name)
            rounded[node.name] = exact[node.name] if output is None else output.fractional_bits
        return exact

    @cached_property
    def fractional_bits(self) -> dict[str, int]:
        """Fractional bits of every node's result as its readers see it, after rounding where there is one."""
        return {
            name: self.formats[name].fractional_bits if name in self.formats else bits
            for name, bits in self.exact_bits.items()
        }

    def rounded(self, name: str, exact: Interval) -> tuple[Interval, Reals] | None:
        """What a result in `exact` becomes by its node's rounding, and the largest error of that; None without a format."""
        if name not in self.formats:
            return None
        output = self.formats[name]
        real_input = isinstance(self.network.by_name[name].op, Input)
        dropped = real_input or self.exact_bits[name] > output.fractional_bits
        always_zero = (exact.lower == 0.0) & (exact.upper == 0.0)
        roundoff = np.where(always_zero | (not dropped), 0.0, 0.5 * output.step)
        rounded = exact.mapped(lambda x: from_codes(to_grid(x, output.fractional_bits), output.fractional_bits))
        if name in self.saturating:
            rounded = rounded.mapped(lambda x: np.clip(x, output.minimum, output.maximum))
            excess = np.maximum(up(exact.upper - output.maximum), up(output.minimum - exact.lower))
            roundoff = up(roundoff + np.maximum(excess, 0.0))
        return rounded, roundoff

    @cached_property
    def code_hash(self) -> str:
        """SHA-256 over every integer, every format, those of tables included, where they saturate, and the rewrite.

        Raises:
            InputError: a table is too large to exist.
        """
        digest = hashlib.sha256()
        for name, codes in sorted(self.parameters.items()):
            digest.update(repr((name, codes.kernel_format, codes.bias_format, codes.kernel.shape)).encode())
            if codes.channel_formats is not None:
                digest.update(repr(codes.channel_formats).encode())
            digest.update(np.ascontiguousarray(codes.kernel).tobytes() + np.ascontiguousarray(codes.bias).tobytes())
        for name, table in sorted(self.tables.items()):
            digest.update(repr((name, table.source)).encode() + np.ascontiguousarray(table.entries.codes).tobytes())
        digest.update(repr((sorted(self.formats.items()), sorted(self.accumulators.items()))).encode())
        digest.update(json.dumps([self.rewrite.to_json(), sorted(self.saturating)], sort_keys=True).encode())
        return digest.hexdigest()

    def simulate_all(self, x: Any, *, exact: bool = True) -> dict[str, npt.NDArray[Any]]:
        """Codes of every node for samples `(n, *input_shape)`; see `simulate`.

        Arrays of float64 holding integers; behind a layer whose sums may exceed 53 bits of int64, and behind one whose sums
        may exceed 63 bits of Python integers, which are slow. `exact=False` keeps float64 everywhere, for searches.
        """
        samples = self.network.input_arrays(x)
        codes: dict[str, npt.NDArray[Any]] = {}
        for node in self.network.nodes:
            if isinstance(node.op, Input):
                output = self.formats[node.name]
                codes[node.name] = np.clip(to_grid(samples, output.fractional_bits), output.min_code, output.max_code)
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
        if name not in self.formats:
            return exact
        output = self.formats[name]
        shift = output.fractional_bits - self.exact_bits[name]
        scaled = to_grid(exact, shift) if exact.dtype == np.float64 else round_integers(exact, shift)
        return np.clip(scaled, output.min_code, output.max_code).astype(np.float64)

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
            output = self.formats.get(node.name)
            if output is not None:
                largest = float(max(output.max_code, -output.min_code))
                found[node.name] = np.full((1, *self.network.shapes[node.name]), largest)
        return magnitudes


def _check_scale(name: str, output: Format) -> None:
    """Steps must stay far from the ends of float64, or scaling by them would not be exact."""
    if abs(output.fractional_bits) > MOST_FRACTIONAL_BITS:
        raise ModelError(
            f"node '{name}': {output} has {output.fractional_bits} fractional bits; accepted: between "
            f"{-MOST_FRACTIONAL_BITS} and {MOST_FRACTIONAL_BITS}; scale the model's inputs or weights"
        )


def _check_codes(node: Node, op: Affine, codes: AffineCodes) -> None:
    for kind, array, output, expected in (
        ("kernel", codes.kernel, codes.kernel_format, op.kernel.shape),
        ("bias", codes.bias, codes.bias_format, op.bias.shape),
    ):
        if array.shape != expected or array.dtype != np.int64:
            raise ModelError(
                f"layer '{node.layer}' {kind} codes are {array.dtype}{array.shape}, expected int64{expected}"
            )
        _check_scale(node.name, output)
        if output.word_length > MAX_WORD_LENGTH:
            raise ModelError(
                f"layer '{node.layer}' {kind}: a stored value has at most {MAX_WORD_LENGTH} bits, received {output}"
            )
        if not _fits(array, output):
            raise ModelError(f"layer '{node.layer}' {kind}: a code does not fit {output}")
    _check_channels(node, codes)


def _check_channels(node: Node, codes: AffineCodes) -> None:
    """Every channel's own format must hold exactly the values of its column."""
    if codes.channel_formats is None:
        return
    channels = codes.kernel.shape[-1]
    if len(codes.channel_formats) != channels:
        raise ModelError(f"layer '{node.layer}': {len(codes.channel_formats)} channel formats, expected {channels}")
    columns = codes.kernel.reshape(-1, channels).T
    for number, (output, column) in enumerate(zip(codes.channel_formats, columns, strict=True)):
        shift = codes.kernel_format.fractional_bits - output.fractional_bits
        fits = output.word_length <= MAX_WORD_LENGTH and 0 <= shift < INT64_SHIFTS
        own = column >> shift if fits else column
        if not (fits and np.array_equal(own << shift, column) and _fits(own, output)):
            raise ModelError(
                f"layer '{node.layer}' channel {number}: {output} does not hold the values that its codes have in "
                f"{codes.kernel_format}"
            )


def _fits(codes: npt.NDArray[Any], output: Format) -> bool:
    return not codes.size or (output.min_code <= int(codes.min()) and int(codes.max()) <= output.max_code)


def as_integers(codes: npt.NDArray[Any], kind: type[Any]) -> npt.NDArray[Any]:
    """The same integers as int64 or, with `kind=object`, as Python integers, whose arithmetic never wraps."""
    return codes.astype(np.int64).astype(kind) if codes.dtype != object else codes.astype(kind)


def round_integers(codes: npt.NDArray[Any], shift: int) -> npt.NDArray[Any]:
    """`codes * 2**shift` rounded half to even, for int64 (below 2**62) or Python integers."""
    if codes.dtype != object and not -INT64_SHIFTS < shift <= 0:
        codes = codes.astype(object)  # int64 would wrap, or cannot shift that far
    if shift >= 0:
        return codes * (1 << shift)
    floor = codes >> -shift
    rest, half = codes - (floor << -shift), 1 << (-shift - 1)
    up = (rest > half) | ((rest == half) & (floor % 2 == 1))
    return floor + up.astype(codes.dtype)
