"""What an operation is: one class that knows its real, interval, difference, adjoint and integer meaning.

Arrays carry leading batch axes and then the operation's own shape: `(samples, *shape)` for values,
`(boxes, *shape)` for enclosures, `(boxes, rows, *shape)` for the coefficient rows of the adjoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import numpy.typing as npt

from sound_qkeras.fixed_point import MAX_WORD_LENGTH, Format, scaled
from sound_qkeras.interval import TINY, Interval, gamma, inflate, sum_up
from sound_qkeras.network.pickling import Rebuilt
from sound_qkeras.types import Array, Indices, Reals, Shape

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """What is proved about one tensor on each of a batch of boxes, arrays of shape `(boxes, *shape)`.

    `value` encloses the trained network's tensor, `fixed` the fixed-point network's, `difference` the second minus the
    first. The last two are absent while no formats are chosen. `known` keeps what operations worked out from them.
    """

    value: Interval
    fixed: Interval | None = None
    difference: Interval | None = None
    known: dict[Hashable, Any] = field(default_factory=dict[Hashable, Any], compare=False)

    def pair(self) -> tuple[Interval, Interval, Interval]:
        """All three, for steps that compare two networks."""
        if self.fixed is None or self.difference is None:
            raise TypeError("these facts are about one network, not a pair")
        return self.value, self.fixed, self.difference

    def at(self, boxes: Indices) -> Facts:
        """Those of some of the boxes."""
        fixed, difference = (None if part is None else part[boxes] for part in (self.fixed, self.difference))
        return Facts(self.value[boxes], fixed, difference)

    def once(self, key: Hashable, work_out: Callable[[], T]) -> T:
        """What an operation works out from these facts, the first time it is asked for: forms are pulled through many times.

        Args:
            key: names all that it depends on beside the facts: the operation, and the node's parameters where they matter, as two
                nodes may have one operation.
            work_out: does so.
        """
        if key not in self.known:
            self.known[key] = work_out()
        return self.known[key]


@dataclass
class Rows:
    """A batch of linear forms `difference . d + value . x` in a tensor's difference d and float value x.

    Both arrays have shape `(boxes, rows, *shape)`; None stands for zero.
    """

    value: Reals | None
    difference: Reals | None

    def plus(self, other: Rows) -> Rows:
        """The sum of two forms in the same tensor (a tensor with several readers)."""

        def add(a: Reals | None, b: Reals | None) -> Reals | None:
            return b if a is None else a if b is None else a + b

        return Rows(add(self.value, other.value), add(self.difference, other.difference))


@dataclass
class Remainder:
    """The constant part of the linear forms, `center +- radius`, shapes `(boxes, rows)`."""

    center: Reals
    radius: Reals

    @classmethod
    def zero(cls, boxes: int, rows: int) -> Remainder:
        """Nothing added yet."""
        return cls(np.zeros((boxes, rows)), np.zeros((boxes, rows)))

    def add(self, center: Reals, radius: Reals) -> None:
        """Add `center +- radius`; charges the rounding of adding centres, `enclose` that of adding radii."""
        self.center = self.center + center
        self.radius = self.radius + radius + 2.0**-52 * np.abs(self.center)

    def widen(self, radius: Reals) -> None:
        """Add `0 +- radius`."""
        self.radius = self.radius + radius

    def widen_for_underflow(self, *inputs: Facts, tiny: float = TINY) -> None:
        """Pulled-back coefficients may each lose nearly `tiny` to underflow; charge that times what they multiply."""
        for facts in inputs:
            size = (
                facts.value.magnitude
                if facts.difference is None
                else facts.value.magnitude + facts.difference.magnitude
            )
            self.radius = self.radius + tiny * sum_up(size, tuple(range(1, size.ndim)))[:, None]

    def enclose(self) -> Interval:
        """The remainder as an interval. 2**-40 covers the roundings of up to 4,000 radius additions."""
        return Interval.around(self.center, self.radius * (1.0 + 2.0**-40) + TINY)


def contract(rows: Reals, vector: Reals) -> Reals:
    """`rows . vector` per box: `(boxes, rows, *shape)` with `(boxes or 1, *shape)` gives `(boxes, rows)`."""
    boxes, count = rows.shape[:2]
    flat = vector.reshape(vector.shape[0], -1, 1)
    return (rows.reshape(boxes, count, -1) @ flat)[..., 0]


def charge(remainder: Remainder, rows: Reals, constant: Reals, size: Reals) -> None:
    """Add `rows . constant`, and `|rows| . size` for what a step rounded or only encloses.

    Args:
        remainder: what it is added to; the rounding of summing `constant` is charged here.
        rows: the linear forms, `(boxes, rows, *shape)`.
        constant: `(boxes or 1, *shape)`.
        size: nonnegative, `(boxes or 1, *shape)`.
    """
    terms = int(np.prod(size.shape[1:]))
    size = size + gamma(terms) * np.abs(constant)
    remainder.add(contract(rows, constant), inflate(contract(np.abs(rows), size), terms + 4))


def charge_sums(remainder: Remainder, rows: Rows, count: int, value: Reals, difference: Reals | None) -> None:
    """Charge the rounding of adding up to `count` coefficients into one.

    Args:
        remainder: what it is added to.
        rows: the linear forms before they are added up.
        count: how many at most.
        value: largest absolute values of what each coefficient stands before, `(boxes, *shape)` like the rows.
        difference: the same for difference rows.
    """
    for part, size in ((rows.value, value), (rows.difference, difference)):
        if part is not None and size is not None:
            terms = int(np.prod(size.shape[1:]))
            remainder.widen(inflate(gamma(count) * contract(np.abs(part), size), terms + 4))


def shift_codes(codes: npt.NDArray[Any], shift: int) -> npt.NDArray[Any]:
    """`codes * 2**shift` for a shift that is not negative, in the codes' own type.

    Int64 results are known to fit, so what would be shifted further than int64 goes is zero.
    """
    if codes.dtype == np.float64:
        return scaled(codes, shift)
    return codes * (1 << shift if codes.dtype == object or shift < 62 else 0)


class Op(Rebuilt, ABC):
    """One operation of a network. Instances are frozen; parameters are numpy arrays that nobody changes.

    Attributes:
        kind: its name in files, and in the tables of readers, writers and templates.
        multiplies: its inputs are multiplied or looked up, so they are rounded before it reads them.
        rounds: its result is looked up or made of what is, so it has a format of its own wherever it stands.
        derives: its integers follow from the formats around it; see `pair`.
        moves: its results are values of its inputs, or zeros; a rounding before it is one after it, and is put before it.
        accumulates: its exact result may be wider than its inputs, and gets an accumulator's format of its own.
        relaxes: its adjoint is not exact, so that bounds behind it gain from being pulled back through it.
    """

    kind: ClassVar[str]
    multiplies: ClassVar[bool] = False
    rounds: ClassVar[bool] = False
    derives: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    accumulates: ClassVar[bool] = False
    relaxes: ClassVar[bool] = False

    @property
    def longest_input(self) -> int:
        """Most bits that make sense for what it reads, where it `multiplies`."""
        return MAX_WORD_LENGTH

    @abstractmethod
    def output_shape(self, *input_shapes: Shape) -> Shape:
        """Shape of the result; raises `ModelError` on inputs that do not fit."""

    @abstractmethod
    def evaluate(self, *inputs: Reals) -> Reals:
        """The float64 value on a batch of inputs (no guarantee beyond float64's own rounding)."""

    @abstractmethod
    def interval(self, *inputs: Interval) -> Interval:
        """An enclosure of the exact real result over the stored parameters."""

    @abstractmethod
    def fixed_interval(self, parameters: Any, *inputs: Interval) -> Interval:
        """An enclosure of the fixed-point network's exact, not yet rounded, result."""

    @abstractmethod
    def difference(self, parameters: Any, *inputs: Facts) -> Interval:
        """An enclosure of fixed-point result minus real result, before the output is rounded."""

    @abstractmethod
    def adjoint(self, parameters: Any, rows: Rows, remainder: Remainder, *inputs: Facts) -> tuple[Rows, ...]:
        """Pull linear forms in the result back to linear forms in the inputs.

        The guarantee: for all members of the facts, `form(result)` lies in `sum of form(input) + remainder`. What the
        pulled-back rows cannot express, and every rounding of this computation, goes into the remainder.
        """

    @abstractmethod
    def gradient(self, rows: Reals, *inputs: Reals) -> tuple[Reals, ...]:
        """Float64 vector-Jacobian product at sample points: rows `(samples, rows, *shape)` in the result to each input's.

        For heuristics only; nothing proved depends on it.
        """

    @abstractmethod
    def forward_gradient(self, rows: Sequence[Reals], *inputs: Reals) -> Reals:
        """Float64 Jacobian-vector product at sample points: directions `(samples, rows, *shape)`, one per input, to the result's.

        For heuristics only, like `gradient`.
        """

    def ahead(self, directions: Sequence[Reals], *inputs: Reals) -> Reals:
        """How far along its direction the nearest breakpoint of every element lies: a kink, or where its slope turns.

        For heuristics only, like `gradient`.

        Args:
            directions: of the inputs, one for each, `(samples, *shape)`.
            inputs: the points where they start, likewise.

        Returns:
            Shape `(samples, elements)`, infinite where no breakpoint is ahead; no elements where there are no breakpoints.
        """
        return np.empty((len(inputs[0]), 0))

    @abstractmethod
    def integer(self, parameters: Any, fractional_bits: Sequence[int], *codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The exact integer result for input codes with the given fractional bits: float64 or Python integers, as they are."""

    def pair(self, sources: Sequence[Format], output: Format | None) -> Any:
        """What the fixed-point network has in place of the real function, for operations that `derive` it; else None.

        Args:
            sources: the formats of the codes it reads, where it `multiplies`; none otherwise.
            output: the format its result is rounded to, if it is.
        """
        return None

    def fractional_bits(self, parameters: Any, *inputs: int) -> int:
        """Fractional bits of the exact result, given those of the inputs."""
        return inputs[0]

    def code_magnitude(self, parameters: Any, fractional_bits: Sequence[int], *magnitudes: Reals) -> Reals:
        """Largest possible sum of absolute terms of every result, in its own steps, shape `(1, *shape)`.

        While it is at most 2**53 every float64 evaluation of `integer` is exact, in any order of summation.

        Args:
            parameters: the node's parameter pair.
            fractional_bits: of the inputs.
            magnitudes: largest absolute codes of the inputs, each `(1, *shape)`.
        """
        return self.evaluate(*magnitudes)

    def absolute_terms(self, parameters: Any, *magnitudes: Reals) -> Reals:
        """Upper bound of the sum of absolute terms in every result, for inputs of at most these absolute values."""
        return self.evaluate(*magnitudes)

    def carried_error(self, parameters: Any, errors: Sequence[Reals], *magnitudes: Reals) -> Reals:
        """Upper bound of how far an exact evaluation is off when the inputs are off by `errors`.

        Args:
            parameters: the node's parameter pair.
            errors: largest error of each input, `(1, *shape)`.
            magnitudes: largest absolute values of the inputs, their errors included.
        """
        return self.evaluate(*errors)

    def input_products(self, *input_shapes: Shape) -> int:
        """Multiplications of values that it reads with one another, or with what it looks up, per inference."""
        return 0

    @property
    def terms(self) -> int:
        """Products or terms summed into one result."""
        return 1

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Parameters by name, for saving and hashing."""
        return {name: cast(Array, value) for name, value in self._parts() if isinstance(value, np.ndarray)}

    def settings(self) -> Mapping[str, Any]:
        """What else defines the operation, as plain json."""
        return {name: _listed(value) for name, value in self._parts() if not isinstance(value, np.ndarray)}

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """What the operation is made of, without what it has not."""
        parts = ((one.name, getattr(self, one.name)) for one in fields(self))  # type: ignore[arg-type]
        return ((name, value) for name, value in parts if value is not None)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownVariableType]
