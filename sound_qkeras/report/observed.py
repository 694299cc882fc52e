"""What simulated inputs show: ranges beside the proved ones, what saturates, and how errors are distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import VerificationError
from sound_qkeras.fixed_point import Format, from_codes
from sound_qkeras.interval import Reals
from sound_qkeras.network import Node, Pair, size_of
from sound_qkeras.network.ops import Input
from sound_qkeras.report.tables import FRAME, Bar, Segment, Table, count, filled, percent, table
from sound_qkeras.results.result import Result
from sound_qkeras.search.falsify import errors
from sound_qkeras.support.decimals import at_least, at_most, interval

DIGITS = 5
# Values simulated at once, and samples within that; sums of Python integers are a hundred times slower.
BUDGET, WIDE_BUDGET, FEWEST, MOST = 4_000_000, 40_000, 16, 4096
# By how much, of their range, values may leave it where float64 evaluates them: without integers it rounds.
SLACK = 2.0**-36
QUANTILES = (("Half of them", 0.5), ("90% of them", 0.9), ("99% of them", 0.99), ("All of them", 1.0))


@dataclass(frozen=True)
class Observed:
    """What some inputs showed.

    Args:
        source: what they are, in words.
        samples: how many.
        ranges: smallest and largest value before rounding, of every node that has a format.
        beyond: for nodes that saturate, the shares of values and of inputs that do.
        errors: the largest output error of every input over its tolerance, in float64.
    """

    source: str
    samples: int
    ranges: Mapping[str, tuple[float, float]]
    beyond: Mapping[str, tuple[float, float]]
    errors: Reals


def observe(result: Result) -> Observed:
    """Simulate inputs, always the same ones: those the claim rests on or, where it holds everywhere, drawn from the box.

    Raises:
        VerificationError: a value lies outside its proved range: a bug that must stop everything.
    """
    pair, evidence = result.pair, result.certificate.evidence
    if evidence is None:
        samples = _drawn_inputs(result)
        source = f"{count(len(samples))} corners and random points of the box, the worst input found among them"
    else:
        samples = evidence.samples[: _most(result)]
        which = "all" if len(samples) == len(evidence.samples) else f"the first {count(len(samples))} of"
        source = f"{which} {count(len(evidence.samples))} samples of the certificate"
    ranges: dict[str, tuple[float, float]] = {}
    beyond: dict[str, tuple[float, float]] = {}
    for tile in pair.network.tiles(samples):
        share = len(tile) / len(samples)
        for node, values in _before_rounding(pair, tile):
            low, high = _range(result, node, values)
            old = ranges.get(node.name, (low, high))
            ranges[node.name] = min(low, old[0]), max(high, old[1])
            if node.name in pair.saturating:
                found, before = _shares(values, pair.formats[node.name]), beyond.get(node.name, (0.0, 0.0))
                beyond[node.name] = before[0] + share * found[0], before[1] + share * found[1]
    relative = (np.abs(errors(pair, samples)) / result.certificate.eps).max(axis=1)
    return Observed(source, len(samples), ranges, beyond, relative)


def _before_rounding(pair: Pair, samples: Reals) -> Iterator[tuple[Node, Reals]]:
    """The values of every node that has a format, before it is rounded to it."""
    held = (*pair.code_formats, *pair.accumulators)
    nodes = [node for node in pair.network.nodes if node.name in held]
    if pair.has_integers:
        codes = pair.simulate_all(samples)
        for node in nodes:
            real_input = isinstance(node.op, Input)
            bits = pair.exact_bits[node.name]
            yield node, samples if real_input else from_codes(pair.exact_result(node, codes), bits)
        return
    values = pair.evaluate_all(samples)
    for node in nodes:
        read = [values[name] for name in node.inputs]
        yield node, pair.subject.by_name[node.name].op.evaluate(*read) if read else samples


def _range(result: Result, node: Node, values: npt.NDArray[np.float64]) -> tuple[float, float]:
    seen = float(values.min()), float(values.max())
    low, high = result.certificate.ranges[node.name]
    slack = 0.0 if result.pair.has_integers else SLACK * max(abs(low), abs(high))
    if not (low - slack <= seen[0] and seen[1] <= high + slack):
        raise VerificationError(
            f"layer '{node.layer}' ({node.name}): values in {seen} were observed, outside the proved range {(low, high)}: "
            "please report this",
            layer_name=node.layer,
        )
    return seen


def _shares(values: npt.NDArray[np.float64], output: Format) -> tuple[float, float]:
    outside = ((values < output.minimum) | (values > output.maximum)).reshape(len(values), -1)
    return float(outside.mean()), float(outside.any(axis=1).mean())


def _most(result: Result) -> int:
    """How many inputs are simulated."""
    pair = result.pair
    widest = max(map(size_of, pair.network.shapes.values()))
    budget = WIDE_BUDGET if pair.has_integers and pair.wide_layers else BUDGET
    return int(np.clip(budget // widest, FEWEST, MOST))


def _drawn_inputs(result: Result) -> Reals:
    box, number = result.certificate.box, _most(result)
    rng = np.random.default_rng(0)
    samples = box.lower + (box.upper - box.lower) * rng.random((number, *box.shape))
    corners = rng.random((number // 4, *box.shape)) < 0.5
    samples[: number // 4] = np.where(corners, box.lower, box.upper)
    samples[-1] = result.observed_input
    return np.clip(samples, box.lower, box.upper)


def spread_table(observed: Observed) -> Table:
    """How large the errors of the simulated inputs are."""
    found = [(name, float(np.quantile(observed.errors, level, method="higher"))) for name, level in QUANTILES]
    scale = max(1.0, *(error for _, error in found))
    rows = [(name, percent(error, 1.0), filled(error, scale)) for name, error in found]
    columns = "Inputs:name, Of eps at most:number, Drawn to the tolerance:bar"
    return table(f"Errors of {count(observed.samples)} inputs", columns, rows)


def ranges_table(result: Result, observed: Observed) -> Table:
    """Each tensor's proved and observed range, drawn inside what its format holds."""
    rows: list[tuple[str | Bar, ...]] = []
    for name, (low, high) in observed.ranges.items():
        proved = result.certificate.ranges[name]
        used = percent(high - low, proved[1] - proved[0])
        texts = (interval(*proved, DIGITS), f"[{low:.{DIGITS}g}, {high:.{DIGITS}g}]", used)
        rows.append((name, *texts, _drawn(result.pair, name, proved, (low, high))))
    columns = (
        "Layer:name, Proved:number range, Observed:number range, Observed / proved:number, Drawn in the format:bar"
    )
    return table("Ranges before rounding", columns, rows)


def _drawn(pair: Pair, name: str, proved: tuple[float, float], seen: tuple[float, float]) -> Bar:
    output = pair.code_formats.get(name) or pair.accumulators[name]
    start, width = output.minimum, output.maximum - output.minimum or 1.0

    def segment(ends: tuple[float, float], style: str) -> Segment:
        low, high = (min(1.0, max(0.0, (end - start) / width)) for end in ends)
        return Segment(low, high, style)

    return Bar((segment(proved, "outer"), segment(seen, "core"), FRAME))


def saturation_table(result: Result, observed: Observed) -> Table | None:
    """Rounded results that may exceed their formats, and how often they do; None where none may."""
    rows: list[tuple[str | Bar, ...]] = []
    for name, (values, inputs) in observed.beyond.items():
        output = result.pair.formats[name]
        holds = f"[{at_most(output.minimum, DIGITS)}, {at_least(output.maximum, DIGITS)}]"
        proved = interval(*result.certificate.ranges[name], DIGITS)
        rows.append((name, holds, proved, percent(values, 1.0), percent(inputs, 1.0), filled(inputs)))
    if not rows:
        return None
    columns = (
        "Layer:name, Format holds:number range, May reach in the box:number range, Values beyond:number, Inputs with one:number, "
        "Share of inputs:bar"
    )
    return table("Results that saturate", columns, rows)
