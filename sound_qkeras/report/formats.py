"""Formats per tensor, and their bits beside those of 32 bits everywhere and of the smallest single format."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sound_qkeras.backends.render import ap_fixed
from sound_qkeras.fixed_point import Format
from sound_qkeras.network.graph import size_of
from sound_qkeras.report.tables import Bar, Cell, Mark, Segment, Table, count, percent, share, table
from sound_qkeras.results.result import FormatRow, Result
from sound_qkeras.tuning.uniform import Uniform, smallest_uniform
from sound_qkeras.verify.evidence import Statistical

NAIVE = 32
LEAVES = 64
# Multiplications times inputs, or parts of the box, up to which the smallest uniform format is found in seconds: by
# proofs, and by running samples.
CHEAP_PROOFS, CHEAP_RUNS = 20_000_000, 2_000_000_000
# Nodes beyond which a proof, which goes back from every node to the input, takes long.
DEEP = 64
KINDS = ("weight", "bias", "activation", "accumulator")


def uniform_of(result: Result) -> Uniform | None:
    """The smallest uniform format for the same claim, or None where none was found or finding it would take long."""
    if result.model is not None or not affordable(result):
        return None
    trained, saturate = result.pair.reference, bool(result.pair.saturating)
    return smallest_uniform(trained, result.certificate, saturate=saturate, max_leaves=_boxes(result))


def affordable(result: Result) -> bool:
    """Whether the smallest uniform format is looked for. Depends on the result only, so that a page can be made again."""
    trained = result.pair.reference
    products = trained.products * _boxes(result)
    if isinstance(result.certificate.evidence, Statistical):
        return products <= CHEAP_RUNS
    return products <= CHEAP_PROOFS and len(trained.nodes) <= DEEP


def _boxes(result: Result) -> int:
    evidence = result.certificate.evidence
    return max(LEAVES, result.certificate.tree.leaf_count) if evidence is None else len(evidence.samples)


def kinds_table(result: Result) -> Table:
    """How many bits each kind of tensor has: fewest, as half of its values have at most, and most."""
    rows = list(_kinds(result))
    columns = "Kind:name, Tensors:number, Values:number, Fewest bits:number, Median of values:number, Most bits:number"
    return table("Word lengths by kind", columns, rows)


def _kinds(result: Result) -> Iterator[tuple[str, ...]]:
    for kind in KINDS:
        found = [row for row in result.formats if row.kind == kind]
        if not found:
            continue
        lengths = np.array([row.word_length for row in found])
        sizes = np.array([values_in(result, row) for row in found])
        order = np.argsort(lengths, kind="stable")
        half = int(np.searchsorted(np.cumsum(sizes[order]), sizes.sum() / 2))
        numbers = (len(found), int(sizes.sum()), int(lengths.min()), int(lengths[order][half]), int(lengths.max()))
        yield kind, *map(count, numbers)


def formats_table(result: Result, uniform: Uniform | None) -> Table:
    """One row per tensor: how many values, bits, type, and a bar of its bits."""
    longest = max([NAIVE, *(row.word_length for row in result.formats)])
    rows = [
        (
            row.node,
            row.kind,
            count(values_in(result, row)),
            _length(result, row),
            ap_fixed(Format(row.word_length, row.integer_bits, row.signed)),
            _bits(row, longest, uniform),
        )
        for row in result.formats
    ]
    columns = "Layer:name, Tensor, Values:number, Bits:number, Type:code, Bits drawn:bar"
    return table("Formats, one per tensor", columns, rows)


def _length(result: Result, row: FormatRow) -> str:
    """The word length; behind it those of single channels where they have formats of their own."""
    codes = result.pair.parameters.get(row.node)
    if row.kind == "weight" and codes is not None and codes.kernel_grid is not None:
        return f"{row.word_length} (stored as {codes.kernel_grid})"
    if row.kind != "weight" or codes is None or codes.channel_formats is None:
        return str(row.word_length)
    own = [output.word_length for output in codes.channel_formats]
    return f"{row.word_length} (channels {min(own)} to {max(own)})"


def values_in(result: Result, row: FormatRow) -> int:
    """How many numbers a tensor holds."""
    if row.kind in ("weight", "bias"):
        codes = result.pair.parameters[row.node]
        return int((codes.kernel if row.kind == "weight" else codes.bias).size)
    return size_of(result.pair.network.shapes[row.node])


def _bits(row: FormatRow, longest: int, uniform: Uniform | None) -> Bar:
    """Sign and integer bits, then fractional bits; the lines are what others would spend on every stored tensor."""
    whole, end = row.whole_bits / longest, row.word_length / longest
    segments = (Segment(0.0, whole, "inner"), Segment(whole, end, "outer"))
    if row.kind == "accumulator":
        return Bar(segments)
    marks = [Mark(NAIVE / longest, "line")]
    if uniform is not None:
        marks.append(Mark(share(uniform.format.word_length, longest), "dashed"))
    return Bar(segments, tuple(marks))


def comparison_table(result: Result, uniform: Uniform | None) -> Table:
    """Bits in total: chosen, one format for everything, 32 bits for everything."""
    rows = list(_comparison(result, uniform))
    bits = ", ".join(f"{name} bits:number" for name in ("Weight", "Bias", "Value", "Table"))
    return table("Stored bits", f"Choice:name, {bits}, Total:number, Of 32 bits:number, Drawn:bar", rows)


def totals(result: Result, uniform: Uniform | None = None) -> dict[str, tuple[int, int, int, int]]:
    """Bits of weights, biases, values and tables, by choice."""
    trained = result.pair.reference
    weights = sum(op.kernel.size for _, op in trained.owners())
    values = sum(size_of(trained.shapes[name]) for name in trained.rounding_points)
    costs = {"chosen": result.cost}
    if uniform is not None:
        costs[f"uniform: {ap_fixed(uniform.format)}"] = uniform.cost
    rows = {
        name: (cost.weight_bits, cost.bias_bits, cost.activation_bits, cost.table_bits) for name, cost in costs.items()
    }
    rows[f"{NAIVE} bits"] = NAIVE * weights, NAIVE * (trained.parameter_count - weights), NAIVE * values, 0
    return rows


def _comparison(result: Result, uniform: Uniform | None) -> Iterator[tuple[Cell, ...]]:
    rows = totals(result, uniform)
    naive = sum(rows[f"{NAIVE} bits"])
    for name, bits in rows.items():
        total = sum(bits)
        bar = Bar((Segment(0.0, share(total, naive), "inner"), Segment(0.0, 1.0, "frame")))
        yield (name, *map(count, bits), count(total), percent(total, naive), bar)
