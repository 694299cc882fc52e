"""The evaluator of the statistical tier: errors on samples, and what each group adds to them by first-order analysis.

With g the gradient of an output in a tensor and r what rounding changes there, a group's error at a sample is `<g, r>`.
Roundings of different groups are hardly correlated, so their second moments add up: the rows of the MILP are mean squares.
What follows from a choice is not left to that model: the integers are run on the samples.

Reference: Lin, Talathi and Annapureddy, Fixed point quantization of deep convolutional networks (ICML 2016), for error
powers that add; Sakr and Shanbhag, Per-tensor fixed-point quantization of the back-propagation algorithm (ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from sound_qkeras.fixed_point import from_codes, to_grid
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network, Node, Pair, size_of
from sound_qkeras.network.classes import outputs_of
from sound_qkeras.network.ops import Affine
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.support.scratch import at_once
from sound_qkeras.tuning.clipping import clipped, narrow_in_box
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.tuning.evaluator import TARGET, Alone, Evaluator, Rounding
from sound_qkeras.tuning.feedback import FeedbackRounding
from sound_qkeras.tuning.groups import Group
from sound_qkeras.tuning.sample_errors import SampleErrors, tolerance_factor
from sound_qkeras.tuning.survey import Survey
from sound_qkeras.verify.propagation import propagate
from sound_qkeras.verify.split_tree import SplitTree

# Samples that choose, and samples that stop.
MOST_CHOOSING = 128
# Outputs whose gradients are taken one by one; of more, so many random sums of all of them.
MOST_OUTPUTS = 16
# Samples at which gradients are taken.
GRADIENT_SAMPLES = 32
# The widest gradients of samples that are worked on together take one of so many parts of the scratch memory.
TILE_PARTS = 16
# Mean square that saturation may add, as a share of that of the rounding beside it, and the most bits it may save.
CLIPPING_SHARE, MOST_CLIPPED = 0.5, 4

# What a held-out sample costs after the search, in terms of simulating one: two counts, each with the reference, and a look.
LATER = 6.0
# What simulating one sample counts as, per product.
SIMULATED_PRODUCTS = 3.0


class SamplingEvaluator(Evaluator[SampleErrors]):
    """Errors on calibration samples; formats as wide as the samples need, or as the box needs."""

    power: ClassVar[int] = 2
    measured: ClassVar[str] = "the smallest error of the calibration samples, with its margin,"
    # Root mean squares, of which the largest of many errors are about three times as large.
    first_tolerance: ClassVar[float] = 0.3

    def __init__(
        self,
        network: Network,
        box: Interval,
        eps: Reals,
        calibration: Reals,
        *,
        coverage: float,
        saturate: bool,
        held_out: int = 0,
        seed: int = 0,
    ) -> None:
        """Evaluate the network on the samples.

        Args:
            network: the network.
            box: all inputs, shape `input_shape`.
            eps: tolerance per output, shape `(outputs,)`.
            calibration: calibration samples, shape `(n, *input_shape)`, in three parts: one shapes roundings and biases; one
                chooses, for on its own samples a rounding looks better than it is; one stops the descent, for the best of
                many choices looks better on the samples that chose it than it is. The last two have at most 128, and as many as
                the first where there are few.
            coverage: share of them that is to meet the tolerance.
            saturate: let formats be as narrow as the samples allow, where the box asks for more.
            held_out: how many other samples there are.
            seed: of the random sums of outputs.
        """
        self.network, self.box, self.eps = network, box, eps
        self.calibration = calibration
        count = min(MOST_CHOOSING, len(calibration) // 3)
        self.choosing, self.stopping = calibration[:count], calibration[count : 2 * count]
        self.shaping = calibration[2 * count :]
        self.coverage, self.saturate, self.held_out, self.seconds = coverage, saturate, held_out, 0.0
        outputs = eps.size
        self.directions: Reals = np.eye(outputs) / eps
        if outputs > MOST_OUTPUTS:
            signs = np.random.default_rng(seed).choice([-1.0, 1.0], (MOST_OUTPUTS, outputs))
            self.directions = signs / (eps * np.sqrt(outputs))
        self.centers, self.ranges = self._observe()
        self.excess = self._excess() if saturate else {}
        self.references = outputs_of(network, self.choosing), outputs_of(network, self.stopping)

    def _observe(self) -> tuple[dict[str, Reals], dict[str, Interval]]:
        """Mean inputs of layers with weights at the shaping samples, and ranges over all."""
        shaping = Survey.of(self.network, self.shaping)
        if self.saturate:
            others = np.concatenate([self.choosing, self.stopping])
            ranges = shaping.ranges_with(Survey.of(self.network, others))
        else:
            found = propagate(self.network, self.box[None], substitute=False).facts
            ranges = {name: facts.value for name, facts in found.items()}
        first = self.network.nodes[0].name
        ranges[first] = Interval(np.array(self.box.lower.min()), np.array(self.box.upper.max()))
        return dict(shaping.mean_inputs), ranges

    def rounding(self, effort: Effort, deadline: Deadline) -> Rounding:
        """With error feedback on what the samples show every layer."""
        return FeedbackRounding(self.network, self.shaping, self.centers, deadline)

    def evaluate(self, pair: Pair, deadline: Deadline, start: SampleErrors | None = None) -> SampleErrors:
        """Run the integers on the choosing samples and, where those accept them, on the stopping ones."""
        narrowed = self._clipped(pair)
        found = self._errors(narrowed, self.choosing, self.references[0], deadline)
        if found.worst > TARGET:
            return found
        return replace(found, later=self._errors(narrowed, self.stopping, self.references[1], deadline))

    def _errors(self, pair: Pair, samples: Reals, reference: Reals, deadline: Deadline) -> SampleErrors:
        name = self.network.output.name
        parts, started = list[Reals](), deadline.now
        for tile in self.network.tiles(samples):
            if parts and deadline.if_firm.passed:
                break
            deadline.count(SIMULATED_PRODUCTS * self.network.products * len(tile))
            parts.append(pair.simulate_all(tile, exact=False)[name])
        codes = np.concatenate([part.reshape(len(part), -1) for part in parts])
        self.seconds = (deadline.now - started) / len(codes)
        error = from_codes(codes, pair.fractional_bits[name]) - reference[: len(codes)]
        relative = np.full(len(samples), np.inf)  # what the deadline leaves out
        relative[: len(codes)] = np.max(np.abs(error) / self.eps, axis=1)
        return SampleErrors(relative, self.coverage, tolerance_factor(len(relative), self.coverage))

    def refuses(self, evidence: SampleErrors) -> bool:
        """Whether the choosing samples accept, and the stopping ones do not."""
        return evidence.later is not None and evidence.worst > TARGET

    def _clipped(self, pair: Pair) -> Pair:
        if not self.saturate:
            # What is looked up has a table only in formats as narrow as they will be; elsewhere wide ones change nothing.
            return narrow_in_box(pair, self.box) if pair.tables else pair
        ends = {name: self.range_of(name, old.fractional_bits) for name, old in pair.formats.items()}
        return clipped(pair, ends)

    def range_of(self, name: str, bits: int) -> tuple[float, float]:
        """The range of the samples, without ends so rarely reached that cutting them off adds little to the rounding's noise."""
        low, high = super().range_of(name, bits)
        noise, step = 4.0**-bits / 12.0, 2.0**-bits
        for limit, excess in self.excess.get(name, ()):
            if excess > CLIPPING_SHARE * noise or limit < 4.0 * step:
                break
            low, high = max(low, -limit), min(high, limit - step)
        return low, high

    def _excess(self) -> dict[str, list[tuple[float, float]]]:
        """For each rounding point, powers of two below the largest magnitude, and the mean square of what lies beyond.

        Over all samples: what only some of them show is not cut off for nothing.
        """
        points = self.network.rounding_points[1:]
        limits = {name: _limits(self.ranges[name].magnitude.max()) for name in points}
        sums = {name: np.zeros(len(found)) for name, found in limits.items()}
        for tile in self.network.tiles(self.calibration):
            values = self.network.evaluate_all(tile)
            for name in points:
                size = np.abs(values[name])
                beyond = (np.mean(np.maximum(size - limit, 0.0) ** 2) for limit in limits[name])
                sums[name] += len(tile) / len(self.calibration) * np.fromiter(beyond, np.float64, len(limits[name]))
        return {name: list(zip(found, sums[name].tolist(), strict=True)) for name, found in limits.items()}

    def contributions(
        self, evidence: SampleErrors, alone: Alone, groups: Sequence[Group | None], deadline: Deadline
    ) -> dict[Group | None, Reals]:
        """Mean squares over samples of what a group adds to each output, or random sum of outputs."""
        wanted = [group for group in groups if group is not None]
        changes = {group: _Change(alone(group), group) for group in wanted}
        by_node: dict[str, list[Group]] = {}
        for group in wanted:
            by_node.setdefault(group.node, []).append(group)
        rows = len(self.directions)
        found: dict[Group | None, Reals] = {group: np.zeros(rows) for group in [None, *wanted]}
        samples = self.shaping[:GRADIENT_SAMPLES]
        widest = max(size_of(shape) for shape in self.network.shapes.values())
        count = at_once(widest * rows, TILE_PARTS)
        for start in range(0, len(samples), count):
            if start and deadline.passed:
                samples = samples[:start]
                break
            deadline.count(2.0 * rows * self.network.products * len(samples[start : start + count]))
            self._add_squares(samples[start : start + count], by_node, changes, found)
        return {group: total / len(samples) for group, total in found.items()}

    def _add_squares(
        self,
        samples: Reals,
        by_node: Mapping[str, list[Group]],
        changes: Mapping[Group, _Change],
        found: Mapping[Group | None, Reals],
    ) -> None:
        network = self.network
        values = network.evaluate_all(samples)
        seed = self.directions.reshape(1, -1, *network.output_shape)
        live = {network.output.name: np.broadcast_to(seed, (len(samples), *seed.shape[1:]))}
        for node in reversed(network.nodes):
            here = live.pop(node.name, None)
            if here is None:
                continue
            for group in by_node.get(node.name, ()):
                change = changes[group].at(node, values).reshape(len(samples), -1, 1)
                error = (here.reshape(len(samples), here.shape[1], -1) @ change)[..., 0]
                found[group][:] += np.sum(error**2, axis=0)
            pulled = node.op.gradient(here, *(values[name] for name in node.inputs)) if node.inputs else ()
            for source, part in zip(node.inputs, pulled, strict=True):
                live[source] = live[source] + part if source in live else part

    def seconds_to_prove(self, evidence: SampleErrors) -> float:
        """Of the samples that are held out."""
        return LATER * self.seconds * self.held_out

    def settle(self, evidence: SampleErrors) -> SampleErrors:
        """As it is."""
        return evidence

    def narrow(self, pair: Pair, evidence: SampleErrors) -> Pair:
        """In formats of the ranges; saturation only where the box asks for a wider format than the samples do."""
        return narrow_in_box(self._clipped(pair), self.box)

    def boxes(self, evidence: SampleErrors) -> Interval:
        """Some samples, as points."""
        return Interval.point(self.shaping[:GRADIENT_SAMPLES])

    def tree(self, evidence: SampleErrors) -> SplitTree:
        """The box as it is."""
        return SplitTree()


def _limits(largest: float) -> list[float]:
    if largest == 0.0:
        return []
    top = int(np.frexp(largest)[1])
    return [2.0 ** (top - k) for k in range(1, 1 + MOST_CLIPPED)]


class _Change:
    """What rounding one group changes at its node."""

    def __init__(self, quantized: Pair, group: Group) -> None:
        """Keep what is needed of a network in which only the group is coarse."""
        self.bits = 0
        self.kernel: Reals | None = None
        self.bias: Reals | None = None
        if group.kind == "activation":
            self.bits = quantized.formats[group.node].fractional_bits
            return
        pair = quantized.pairs[group.node]
        self.bias = pair.bias_residual
        self.kernel = pair.kernel_residual if group.kind == "weight" else None

    def at(self, node: Node, values: Mapping[str, Reals]) -> Reals:
        """The change of the node's result at samples, shape `(n, *shape)`."""
        value = values[node.name]
        if self.bias is None:
            return from_codes(to_grid(value, self.bits), self.bits) - value
        if self.kernel is None or not isinstance(node.op, Affine):
            return np.broadcast_to(self.bias, value.shape)
        return node.op.apply(self.kernel, values[node.inputs[0]]) + self.bias
