"""What simulated inputs show: the ranges of every tensor beside the proved ones, and the usual size of the error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sound_qkeras.decimals import interval
from sound_qkeras.errors import VerificationError
from sound_qkeras.fixed_point import from_codes
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.ops import Input
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.report.tables import Bar, Segment, Table, percent, table
from sound_qkeras.result import Result
from sound_qkeras.verify.falsify import errors

DIGITS = 5
# Values simulated at once, and samples within that; sums of Python integers are a hundred times slower.
BUDGET, WIDE_BUDGET, FEWEST, MOST = 4_000_000, 40_000, 16, 4096


@dataclass(frozen=True)
class Observed:
    """What samples of the box showed.

    Args:
        samples: how many: corners of the box, random points, and the worst input found.
        ranges: smallest and largest value before rounding, of every node that has a format.
        median: of the largest output error of a sample, in float64.
    """

    samples: int
    ranges: Mapping[str, tuple[float, float]]
    median: float


def observe(result: Result) -> Observed:
    """Simulate samples drawn from the box, always the same ones.

    Raises:
        VerificationError: a value lies outside its proved range: a bug that must stop everything.
    """
    quantized = result.quantized
    samples = _samples(result)
    codes = quantized.simulate_all(samples)
    ranges: dict[str, tuple[float, float]] = {}
    for node in quantized.network.nodes:
        if node.name not in quantized.formats and node.name not in quantized.accumulators:
            continue
        values = samples
        if not isinstance(node.op, Input):
            values = from_codes(quantized.exact_result(node, codes), quantized.exact_bits[node.name])
        ranges[node.name] = float(values.min()), float(values.max())
        low, high = result.certificate.ranges[node.name]
        if not (low <= ranges[node.name][0] and ranges[node.name][1] <= high):
            raise VerificationError(
                f"layer '{node.layer}' ({node.name}): values in {ranges[node.name]} were observed, outside the proved "
                f"range {(low, high)}: please report this",
                layer_name=node.layer,
            )
    typical = float(np.median(errors(quantized, samples).max(axis=1)))
    return Observed(len(samples), ranges, typical)


def _samples(result: Result) -> Reals:
    box, quantized = result.certificate.box, result.quantized
    widest = max(map(size_of, quantized.network.shapes.values()))
    budget = WIDE_BUDGET if quantized.wide_layers else BUDGET
    number = int(np.clip(budget // widest, FEWEST, MOST))
    rng = np.random.default_rng(0)
    samples = box.lower + (box.upper - box.lower) * rng.random((number, *box.shape))
    corners = rng.random((number // 4, *box.shape)) < 0.5
    samples[: number // 4] = np.where(corners, box.lower, box.upper)
    samples[-1] = result.observed_input
    return np.clip(samples, box.lower, box.upper)


def ranges_table(result: Result, observed: Observed) -> Table:
    """Each tensor's proved and observed range, drawn inside what its format holds."""
    rows = []
    for name, (low, high) in observed.ranges.items():
        proved = result.certificate.ranges[name]
        used = percent(high - low, proved[1] - proved[0])
        texts = (interval(*proved, DIGITS), f"[{low:.{DIGITS}g}, {high:.{DIGITS}g}]", used)
        rows.append((name, *texts, _drawn(result.quantized, name, proved, (low, high))))
    columns = "Layer:name, Proved:number, Observed:number, Observed / proved:number, Drawn in the format:bar"
    return table("Ranges before rounding", columns, rows)


def _drawn(quantized: QuantizedNetwork, name: str, proved: tuple[float, float], seen: tuple[float, float]) -> Bar:
    output = quantized.formats.get(name) or quantized.accumulators[name]
    start, width = output.minimum, output.maximum - output.minimum or 1.0

    def segment(ends: tuple[float, float], style: str) -> Segment:
        low, high = (min(1.0, max(0.0, (end - start) / width)) for end in ends)
        return Segment(low, high, style)

    return Bar((segment(proved, "outer"), segment(seen, "inner"), Segment(0.0, 1.0, "frame")))
