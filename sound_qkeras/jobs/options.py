"""Everything a user may ask of a run besides model, tolerance and box, checked before there is a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.tuning.costs import GroupCost, Objective, objective
from sound_qkeras.tuning.effort import EFFORTS, Effort
from sound_qkeras.tuning.milp import find_solver
from sound_qkeras.tuning.search import LONGEST_WORD
from sound_qkeras.verify.certificate import TIERS

TASKS = ("regression", "classifier")
# Largest count and seed: what TensorFlow and numpy both take.
MOST_WHOLE = 2**31 - 1
# Share of the samples that is to meet the tolerance, where nothing else is asked for.
COVERAGE = {"sound": 1.0, "local": 1.0, "statistical": 0.99}


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `sound_qkeras.quantize`, which explains them.

    Raises:
        InputError: an option is not usable.
        DependencyError: the solver is missing.
    """

    cost: str | GroupCost = "weight_bits"
    word_lengths: tuple[int, int] = (2, 48)
    effort: str | float = "normal"
    solver: str = "highs"
    keep_architecture: bool = False
    rescale_units: bool = True
    round_output: bool = False
    per_channel: bool = False
    tier: str = "sound"
    samples: Any = None
    labels: Any = None
    radius: float | None = None
    confidence: float = 0.99
    coverage: float | None = None
    saturate: bool = True
    task: str = "regression"
    keep: float = 0.99
    exact: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be used, whatever the model."""
        _check_word_lengths(self.word_lengths)
        find_solver(self.solver)
        _ = self.goal, self.budget
        _check_choice("tier", self.tier, TIERS)
        _check_choice("task", self.task, TASKS)
        for name in ("confidence", "keep"):
            _check_share(name, getattr(self, name), below_one=name == "confidence")
        if self.coverage is not None:
            _check_share("coverage", self.coverage)
        self._check_samples()
        if self.per_channel and self.tier == "statistical":
            raise InputError("per_channel needs proved bounds; accepted: tier 'sound' or 'local', or per_channel=False")

    def _check_samples(self) -> None:
        if self.samples is None and (self.tier != "sound" or self.task == "classifier"):
            raise InputError(
                f"tier '{self.tier}' of a {self.task} needs samples; accepted: an array (n, *input_shape) of inputs"
            )
        if self.labels is not None and self.task != "classifier":
            raise InputError(
                f"labels are given, but the task is '{self.task}'; accepted: task='classifier' (--task classifier), or no labels"
            )
        if self.samples is not None and self.tier == "sound" and self.task != "classifier":
            raise InputError(
                "samples are given, but the tier 'sound' of a regression has no use for them; accepted: tier 'local' or "
                "'statistical', task 'classifier', or no samples"
            )
        if self.coverage is not None and self.tier == "sound":
            raise InputError(
                f"coverage is {self.coverage} in tier 'sound'; accepted there: None, for every input counts"
            )
        if (self.radius is None) != (self.tier != "local"):
            raise InputError(
                f"radius is {self.radius} in tier '{self.tier}'; accepted: a number for 'local', else None"
            )
        if self.radius is not None and not 0.0 <= self.radius < np.inf:
            raise InputError(f"radius is {self.radius}; accepted: a number >= 0 in units of the input")

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Options by name.

        Raises:
            InputError: one is unknown or not usable.
            DependencyError: the solver is missing.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InputError(f"options {unknown} are unknown; accepted: {', '.join(known)}")
        return cls(**options)

    @property
    def goal(self) -> Objective:
        """What to minimise."""
        return objective(self.cost)

    @property
    def budget(self) -> Effort:
        """How hard to try."""
        return effort_of(self.effort)

    @property
    def share(self) -> float:
        """Share of the samples that is to meet the tolerance."""
        return COVERAGE[self.tier] if self.coverage is None else self.coverage


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise InputError(f"{name} '{value}' is unknown; accepted: {', '.join(accepted)}")


def _check_share(name: str, value: float, *, below_one: bool = False) -> None:
    if not 0.0 < value <= 1.0 or (below_one and value == 1.0):
        raise InputError(f"{name} is {value}; accepted: a share above 0 and {'below' if below_one else 'up to'} 1")


def effort_of(effort: str | float) -> Effort:
    """How hard to try.

    Raises:
        InputError: the name is unknown, or the seconds are not usable.
    """
    if isinstance(effort, str):
        if effort not in EFFORTS:
            raise InputError(
                f"effort '{effort}' is unknown; accepted: {', '.join(EFFORTS)}, or a time budget in seconds"
            )
        return EFFORTS[effort]
    if isinstance(effort, bool) or not isinstance(effort, int | float) or not 0.0 < effort < np.inf:
        raise InputError(f"effort is {effort}; accepted: {', '.join(EFFORTS)}, or a time budget in seconds")
    return Effort.within(float(effort))


def check_whole(name: str, value: Any, least: int = 1, most: int = MOST_WHOLE) -> None:
    """Refuse what is no whole number between two others.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise InputError(f"{name} is {value!r}; accepted: a whole number of at least {least} and at most {most:,}")


def _check_word_lengths(word_lengths: tuple[int, int]) -> None:
    try:
        shortest, longest = (int(value) for value in word_lengths)
    except (TypeError, ValueError) as error:
        raise InputError(f"word_lengths is {word_lengths!r}; accepted: a pair such as (2, 16)") from error
    if not 2 <= shortest <= longest <= LONGEST_WORD:
        raise InputError(f"word_lengths is {word_lengths}; accepted: 2 <= fewest <= most <= {LONGEST_WORD} bits")
