"""What decides whether integers are good enough, and how much each group of values adds to their error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.tuning.build import Parameters
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.tuning.groups import Bits, Group
from sound_qkeras.verify.split_tree import SplitTree

# Relative error to reach: certificates record bounds with a margin and must still meet the tolerance.
TARGET = 1.0 - 2.0**-29


class Evidence(Protocol):
    """What is known about one choice of integers."""

    @property
    def worst(self) -> float:
        """The error in question over the tolerance: 1 meets it."""
        ...


E = TypeVar("E", bound=Evidence)
# The network in which only one group is quantised and the rest is much finer; all of it is, for None.
Alone = Callable[[Group | None], Pair]


# Integers of every affine node for a choice of bits, and of bits that channels have more.
Rounding = Callable[[Bits, Mapping[str, Indices]], dict[str, Parameters]]


class Evaluator(ABC, Generic[E]):
    """Evaluates choices of integers for one network.

    Attributes:
        power: errors of groups add up as their powers with this exponent: bounds as they are, second moments as squares.
        measured: what the smallest error that was reached is, where none meets the tolerance.
        first_tolerance: right-hand side that is tried first, relative to the tolerance.
        ranges: the values every tensor's format is to hold, by node.
        centers: for each affine node the input at which biases make up for weight errors.
    """

    power: ClassVar[int]
    measured: ClassVar[str] = "the best proved bound"
    first_tolerance: ClassVar[float]
    ranges: Mapping[str, Interval]
    centers: Mapping[str, Reals]

    def range_of(self, name: str, bits: int) -> tuple[float, float]:
        """What a format of a node's results with so many fractional bits is to hold."""
        found = self.ranges[name]
        return float(found.lower.min()), float(found.upper.max())

    @abstractmethod
    def rounding(self, effort: Effort, deadline: Deadline) -> Rounding:
        """How weights are best rounded for this evaluator; when the deadline passes, fewer inputs are looked at."""

    @abstractmethod
    def evaluate(self, pair: Pair, deadline: Deadline, start: E | None = None) -> E:
        """Find out how large the error is.

        Args:
            pair: integers in formats of provisional width.
            deadline: when it passes, what is known so far has to do; samples are left out by a firm one or an interrupt alone.
            start: what is known about a similar choice; with it more effort is allowed, and a hopeless choice given up.
        """

    def refuses(self, evidence: E) -> bool:
        """Whether samples that did not choose refuse what those that did accept."""
        return False

    @abstractmethod
    def contributions(
        self, evidence: E, alone: Alone, groups: Sequence[Group | None], deadline: Deadline
    ) -> dict[Group | None, Reals]:
        """What each group adds where the error is largest, relative to the tolerance, to the evaluator's `power`.

        Args:
            evidence: about the whole network.
            alone: networks in which only one group is as coarse as it is.
            groups: what is asked for.
            deadline: when it passes, groups are left out, or fewer inputs are looked at.

        Returns:
            One number per row, the same rows for every group.
        """

    @abstractmethod
    def seconds_to_prove(self, evidence: E) -> float:
        """What has to be done yet where nothing better is found takes about so long, by what was seen in this run."""

    def settle(self, evidence: E) -> E:
        """The evidence in the form in which it will be proved."""
        return evidence

    @abstractmethod
    def narrow(self, pair: Pair, evidence: E) -> Pair:
        """The same integers in the narrowest formats."""

    @abstractmethod
    def boxes(self, evidence: E) -> Interval:
        """The boxes it rests on, worst first where they differ, shape `(n, *input_shape)`."""

    @abstractmethod
    def tree(self, evidence: E) -> SplitTree:
        """The leaves to prove it on."""
