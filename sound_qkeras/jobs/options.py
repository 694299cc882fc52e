"""Every option of the jobs, declared once: name, type, default, what is accepted, and the sentence that explains it.

The command line is made from these declarations, and a test compares the signatures with them. They are checked before there is
a model. Nothing here imports numpy at once: the command line shows its help without.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

from sound_qkeras.errors import InputError
from sound_qkeras.jobs.walk import networks
from sound_qkeras.tuning.effort import Effort, effort_of

if TYPE_CHECKING:
    from sound_qkeras.tuning.costs import GroupCost, Objective

Check = Callable[[str, Any], None]

# Largest count and seed: what TensorFlow and numpy both take.
MOST_WHOLE = 2**31 - 1
# Tier -> the share of the samples that is to meet the tolerance, where nothing else is asked for.
COVERAGE = {"sound": 1.0, "local": 1.0, "statistical": 0.99}


def option(default: Any, explanation: str, metavar: str | None = None, check: Check | None = None) -> Any:
    """A field of declared options.

    Args:
        default: its value where nothing is said.
        explanation: one sentence, for the command line; nothing where it is not on that.
        metavar: what stands for the value on the command line.
        check: called with name and value; refuses what is not accepted.
    """
    return field(default=default, metadata={"help": explanation, "metavar": metavar, "check": check})


def one_of(*accepted: str) -> Check:
    """Accept these."""

    def check(name: str, value: Any) -> None:
        if value not in accepted:
            raise InputError(f"{name} '{value}' is unknown; accepted: {', '.join(accepted)}")

    return check


def fraction(*, below_one: bool = False) -> Check:
    """Accept a share above 0."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, Real) or not 0.0 < float(value) <= 1.0 or (below_one and value == 1.0):
            raise InputError(f"{name} is {value}; accepted: a share above 0 and {'below' if below_one else 'up to'} 1")

    return check


def whole(least: int = 1, most: int = MOST_WHOLE) -> Check:
    """Accept a whole number between two others."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
            raise InputError(f"{name} is {value!r}; accepted: a whole number of at least {least} and at most {most:,}")

    return check


def _check_jobs(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value == 0:
        raise InputError(
            f"{name} is {value!r}; accepted: None, a number of processes from 1, or -1 for all cores, -2 for all but one, ..."
        )


def or_none(check: Check) -> Check:
    """Accept None besides."""
    return lambda name, value: None if value is None else check(name, value)


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; accepted: True or False")


def _check_effort(name: str, value: Any) -> None:
    effort_of(value)


def _check_cost(name: str, value: Any) -> None:
    from sound_qkeras.tuning.costs import objective

    objective(value)


def _check_solver(name: str, value: Any) -> None:
    from sound_qkeras.tuning.milp import find_solver

    find_solver(value)


def _check_word_lengths(name: str, value: Any) -> None:
    from sound_qkeras.tuning.search import LONGEST_WORD

    try:
        shortest, longest = (operator.index(length) for length in value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {value!r}; accepted: a pair such as (2, 16)") from error
    if not 2 <= shortest <= longest <= LONGEST_WORD:
        raise InputError(f"{name} is {value}; accepted: 2 <= fewest <= most <= {LONGEST_WORD} bits")


def _check_families(name: str, value: Any) -> None:
    from sound_qkeras.tuning.families import families_of

    families_of(value)


def _check_names(name: str, value: Any) -> None:
    from sound_qkeras.network.labels import names_of

    names_of(value)


def _check_units(name: str, value: Any) -> None:
    from sound_qkeras.network.labels import units_of

    units_of(value)


@dataclass(frozen=True)
class Options:
    """Options of any job, each checked when they are made.

    Raises:
        InputError: an option is not usable.
        DependencyError: the solver is missing.
    """

    effort: str | float = option("normal", "fast, normal, max, or a time budget in seconds.", "EFFORT", _check_effort)
    seed: int = option(0, "Of the search for the worst error, and of the order of samples.", "N", whole(0))
    n_jobs: int | None = option(
        None, "Processes that share the parts of the box: 1 for one core, -1 for all.", "N", or_none(_check_jobs)
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be used, whatever the model."""
        for one in fields(self):
            if one.metadata["check"] is not None:
                one.metadata["check"](one.name, getattr(self, one.name))

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """The options among the arguments of a call, `locals()` at its beginning."""
        return cls(**{one.name: arguments[one.name] for one in fields(cls)})

    @classmethod
    def named(cls, given: Mapping[str, Any]) -> Self:
        """Options by name, those that are not given by default.

        Raises:
            InputError: one is unknown or not usable.
            DependencyError: the solver is missing.
        """
        known = [one.name for one in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise InputError(f"options {unknown} are unknown; accepted: {', '.join(known)}")
        return cls(**given)

    @property
    def budget(self) -> Effort:
        """How hard to try."""
        return effort_of(self.effort)


@dataclass(frozen=True)
class ProofOptions(Options):
    """What is proved, and how: for `quantize` and `certify`."""

    margin: float = option(0.0, "Widens the box by this share of its width, on every side.", "SHARE")
    tier: str = option("sound", "Strength of the guarantee: sound, local or statistical.", "TIER", one_of(*COVERAGE))
    samples: Any = option(None, "Inputs for other tiers and classifiers: FILE.npy, or FILE.npz:NAME.", "FILE")
    radius: float | None = option(None, "Of the tier local, in units of the input.", "R")
    confidence: float = option(0.99, "Of the tier statistical.", "SHARE", fraction(below_one=True))
    input_names: Any = option(None, "Names of the inputs in order, with commas, for the report.", "NAMES", _check_names)
    output_names: Any = option(None, "Names of the outputs in order, with commas.", "NAMES", _check_names)
    units: Any = option(None, "Units by name, with commas: angle=rad,torque=Nm.", "NAME=UNIT", _check_units)
    exact: bool = option(False, "Prove it again in exact arithmetic, without BLAS, leaf by leaf on all cores.")

    def __post_init__(self) -> None:
        """Refuse besides what does not go with the tier."""
        super().__post_init__()
        if self.samples is None and self.tier != "sound":
            raise InputError(
                f"tier '{self.tier}' needs samples; accepted: an array (n, *input_shape) of inputs in the box"
            )
        usable = self.radius is None or 0.0 <= self.radius < math.inf
        if (self.radius is None) != (self.tier != "local") or not usable:
            raise InputError(
                f"radius is {self.radius} in tier '{self.tier}'; accepted: a number >= 0 in units of the input for 'local', "
                "else None"
            )


@dataclass(frozen=True)
class QuantizeOptions(ProofOptions):
    """The options of `sound_qkeras.quantize`, which explains them."""

    tier: str | None = option(  # pyright: ignore[reportIncompatibleVariableOverride]
        None,
        "Strength of the guarantee: sound, local or statistical; if not given sound, with --max-drop statistical.",
        "TIER",
        or_none(one_of(*COVERAGE)),
    )
    max_drop: float | None = option(
        None,
        "In place of --eps: the accuracy that may be lost, 0.01 for one point.",
        "SHARE",
        or_none(fraction(below_one=True)),
    )
    cost: str | GroupCost = option(
        "weight_bits", "What to minimise: weight_bits, total_bits or bit_operations.", "COST", _check_cost
    )
    word_lengths: tuple[int, int] = option(
        (2, 48), "Bits a weight of fixed point or a result may have.", "FEWEST MOST", _check_word_lengths
    )
    solver: str = option(
        "highs", "A MILP solver that Pyomo finds: highs, cbc, scip, gurobi, ...", "NAME", _check_solver
    )
    keep_architecture: bool = option(False, "Keep units that are proved dead, and layers that could be merged.")
    rescale_units: bool = option(True, "Let hidden units be multiplied by powers of two, which saves bits.")
    round_output: bool = option(False, "Round the output too, to the fewest bits.")
    families: Any = option(
        "fixed", "Numbers that weights may be: fixed, po2, ternary, binary, with commas.", "NAMES", _check_families
    )
    per_channel: bool = option(False, "Formats of its own for each output channel of a layer.")
    labels: Any = option(None, "The samples' classes, for accuracies: FILE.npy, or FILE.npz:NAME.", "FILE")
    train: Any = option(None, "")
    epochs: int = option(10, "", None, whole())
    coverage: float | None = option(None, "Share of the samples formats are chosen for.", "SHARE", or_none(fraction()))
    saturate: bool = option(True, "In other tiers than sound: results may saturate far from the samples.")
    task: str = option("regression", "regression or classifier.", "TASK", one_of("regression", "classifier"))
    keep: float = option(0.99, "For --eps auto: share of the samples whose class is to stay.", "SHARE", fraction())

    def __post_init__(self) -> None:
        """Refuse besides what does not go with the task, which with `max_drop` is a classifier's."""
        if self.tier is None:
            object.__setattr__(self, "tier", "sound" if self.max_drop is None else "statistical")
        if self.max_drop is not None:
            object.__setattr__(self, "task", "classifier")
            if self.samples is None or self.labels is None:
                raise InputError("max_drop needs samples and their labels; accepted: samples=x, labels=y")
        if self.train is not None and self.max_drop is None:
            raise InputError("train is given without max_drop; accepted: finetune(result, train) after quantize")
        super().__post_init__()
        classifier = self.task == "classifier"
        if self.samples is None and classifier:
            raise InputError(
                "task 'classifier' needs samples; accepted: an array (n, *input_shape) of inputs in the box"
            )
        if self.labels is not None and not classifier:
            raise InputError(
                f"labels are given, but the task is '{self.task}'; accepted: task='classifier', or no labels"
            )
        if self.samples is not None and self.tier == "sound" and not classifier:
            raise InputError(
                "samples are given, but the tier 'sound' of a regression has no use for them; accepted: tier 'local' or "
                "'statistical', task 'classifier', or no samples"
            )
        if self.coverage is not None and self.tier == "sound":
            raise InputError(
                f"coverage is {self.coverage} in tier 'sound'; accepted there: None, for every input counts"
            )

    def check_goal(self, eps: Any) -> None:
        """Either a tolerance or an accuracy is asked for.

        Raises:
            InputError: both, or none.
        """
        if (eps is None) == (self.max_drop is None):
            given = "neither eps nor max_drop is given" if eps is None else "eps and max_drop are both given"
            raise InputError(f"{given}; accepted: one of them")

    @property
    def looks(self) -> int:
        """How many networks held-out samples may choose from."""
        return 1 if self.max_drop is None else networks()

    @property
    def goal(self) -> Objective:
        """What to minimise."""
        from sound_qkeras.tuning.costs import objective

        return objective(self.cost)

    @property
    def share(self) -> float:
        """Share of the samples that is to meet the tolerance."""
        return COVERAGE[self.tier or "sound"] if self.coverage is None else self.coverage


@dataclass(frozen=True)
class CertifyOptions(ProofOptions):
    """The options of `sound_qkeras.certify`, which explains them."""

    input_bits: int | None = option(None, "Fractional bits that inputs are known to have.", "BITS")
    freeze: Any = option(None, "Samples on which scales that depend on the batch are frozen.", "FILE")


@dataclass(frozen=True)
class FinetuneOptions(Options):
    """The options of `sound_qkeras.finetune`, which explains them."""

    epochs: int = option(10, "How often to go through the data.", "N", whole())
    teacher: bool = option(
        False, "Train towards the float network's outputs: no targets are needed.", check=_check_switch
    )
    blocks: bool = option(
        False, "With a teacher: train layer by layer, for deep networks and few inputs.", check=_check_switch
    )
    loss: Any = option(None, "A loss of Keras by name; chosen by the task if not given.", "NAME")
    optimizer: Any = option(None, "An optimizer of Keras by name; Adam if not given.", "NAME")
    metrics: Any = option(None, "")
    monitor: str = option("loss", "What the epoch is chosen by: loss, accuracy or mae.", "NAME")
    batch_size: int = option(32, "Samples in a batch.", "N", whole())

    def __post_init__(self) -> None:
        """Refuse besides blocks without a teacher."""
        super().__post_init__()
        if self.blocks and not self.teacher:
            raise InputError("blocks need a teacher; accepted: teacher=True, or blocks=False")
