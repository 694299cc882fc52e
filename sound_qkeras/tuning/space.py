"""What can be chosen: the groups of a network, the candidates of each, what they cost, and which go together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.graph import Network
from sound_qkeras.tuning.costs import Objective
from sound_qkeras.tuning.families import FIXED
from sound_qkeras.tuning.groups import (
    Bits,
    Group,
    candidates,
    extent,
    groups_of,
    output_candidates,
    output_group,
    products_of,
    sources_of,
)
from sound_qkeras.tuning.milp import Joint
from sound_qkeras.tuning.words import lengths_of

# Bits that a group is finer than others by where formats are uniform.
FINER = {"weight": 0, "activation": 3, "bias": 6}
# Values below this, in whatever unit, are faint: a word for them has far more fractional bits than others.
FAINT = 2.0**-24
# Fewer and more fractional bits than the base that the MILP may choose.
WINDOW = (12, 8)


class Space:
    """All choices of formats for one network.

    Attributes:
        network: the network.
        ranges: the values every tensor's format is to hold, by node.
        groups: values that share a format.
        candidates: fractional bits of each group, fewest first.
        output: the group of the results, where they are rounded.
        word_lengths: fewest and most bits of a word.
        families: kinds of numbers that weights may be.
    """

    def __init__(
        self,
        network: Network,
        ranges: Mapping[str, Interval],
        goal: Objective,
        word_lengths: tuple[int, int],
        eps: Reals,
        *,
        range_of: Callable[[str, int], tuple[float, float]] | None = None,
        round_output: bool = False,
        families: tuple[str, ...] = FIXED,
    ) -> None:
        """Prepare groups and candidates.

        Args:
            network: the network.
            ranges: the values every tensor may have, by node.
            goal: what to minimise.
            word_lengths: fewest and most bits of a word.
            eps: tolerance per output.
            range_of: what a node's format is to hold at so many fractional bits, if that is less than its range.
            round_output: whether results are rounded.
            families: kinds of numbers that weights may be.

        Raises:
            InfeasibleError: the output cannot be rounded within its tolerance in words of the allowed length.
        """
        self.network, self.ranges, self.goal, self.word_lengths = network, ranges, goal, word_lengths
        self.range_of, self.families = range_of, families
        self.output = output_group(network) if round_output else None
        self.groups = groups_of(network, round_output=round_output, families=families)
        self.candidates = {group: self._candidates(group, float(eps.min())) for group in self.groups}
        self._products = products_of(network)

    def _candidates(self, group: Group, eps: float) -> list[int]:
        if group == self.output:
            return output_candidates(*extent(self.network, group, self.ranges), eps, self.word_lengths[1])
        return candidates(self.network, group, self.ranges, self.word_lengths)

    @property
    def weights(self) -> int:
        """How many the network has."""
        return sum(op.kernel.size for _, op in self.network.owners())

    @property
    def faint(self) -> list[Group]:
        """Groups whose values are all next to nothing, but not all zero; the largest first."""
        sizes = {group: max(map(abs, extent(self.network, group, self.ranges))) for group in self.groups}
        found = [group for group, size in sizes.items() if 0.0 < size < FAINT and group != self.output]
        return sorted(found, key=lambda group: -sizes[group])

    def drop(self, groups: Iterable[Group]) -> None:
        """Leave groups no choice but to be rounded to zero."""
        self.candidates.update({group: [0] for group in groups})

    def holds(self, bits: Bits) -> bool:
        """Whether every group has one of its candidates."""
        return all(value in self.candidates[group] for group, value in bits.items())

    def word_length(self, group: Group, bits: int) -> int:
        """Bits of a group's values at so many fractional ones."""
        ends = extent(self.network, group, self.ranges)
        if group.kind == "weight":
            return int(lengths_of(np.array(ends[0]), np.array(ends[1]), np.array(bits))[0])
        if group.kind == "activation" and self.range_of is not None:
            ends = self.range_of(group.node, bits)
        return Format.for_range(*ends, bits).word_length

    def near(self, group: Group, base: int) -> list[int]:
        """Candidates near a base: error tables are only good there, and the model stays small."""
        found = [value for value in self.candidates[group] if base - WINDOW[0] <= value <= base + WINDOW[1]]
        return found or [min(self.candidates[group], key=lambda value: abs(value - base))]

    def uniform(self, bits: int) -> dict[Group, int]:
        """About `bits` fractional bits everywhere, within each group's candidates; finer where it costs little."""
        return {
            group: int(np.clip(bits + FINER[group.kind], min(found), max(found)))
            for group, found in self.candidates.items()
        }

    def finer(self, bits: Bits, which: Callable[[Group], bool]) -> dict[Group, int]:
        """One more bit for some groups, where they have a candidate for it."""
        return {
            group: min(value + 1, max(self.candidates[group])) if which(group) else value
            for group, value in bits.items()
        }

    def cost(self, bits: Bits) -> float:
        """The objective at a choice of bits."""
        lengths = {group: self.word_length(group, value) for group, value in bits.items()}
        total = sum(self.goal.groups(group, lengths[group]) for group in self.groups)
        if self.goal.products:
            by_node = {group.node: lengths[group] for group in self.groups if group.kind == "activation"}
            for group in self.groups:
                if group.kind == "weight":
                    read = sum(count * by_node[name] for name, count in self._reads(group).items())
                    total += self.goal.products * lengths[group] * read
        return total

    def _reads(self, group: Group) -> dict[str, float]:
        """Multiplications of a group of weights with the values of each rounding point, over all nodes that have them."""
        found: dict[str, float] = {}
        for node in self.network.uses(group.node):
            for name, share in sources_of(self.network, node).items():
                found[name] = found.get(name, 0.0) + share * self._products[node]
        return found

    def saving(self, bits: Bits, group: Group) -> float:
        """What one bit less in a group saves."""
        return self.cost(bits) - self.cost({**bits, group: bits[group] - 1})

    def joints(self, accumulator_bits: int) -> list[Joint]:
        """Weights and the activations they multiply: their product's cost, and the bits of the sum."""
        activations = {group.node: group for group in self.groups if group.kind == "activation"}
        found: list[Joint] = []
        for group in self.groups:
            if group.kind == "weight":
                most = accumulator_bits - 1 - int(np.ceil(np.log2(self.network.by_name[group.node].op.terms + 1)))
                for name, count in self._reads(group).items():
                    found.append(Joint(group, activations[name], self.goal.products * count, most))
        return found
