"""What a comparison tries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import whole
from sound_qkeras.keras_io.autoqkeras.search import MODES, SPACES
from sound_qkeras.keras_io.autoqkeras.training import METRICS, Training
from sound_qkeras.tuning.costs import COSTS

# Settings that a preset changes; options given beside it go before.
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "trials": 10,
        "modes": ("random",),
        "spaces": ("fair",),
        "search_epochs": 5,
        "epochs": 20,
        "retrained": 2,
        "bits": (8,),
        "effort": "fast",
    },
    "full": {},
}
METHODS = ("ours", "uniform", "rule", "rounding", "straight_through", "hgq2", "autoqkeras")

TIERS = ("sound", "statistical")


@dataclass(frozen=True)
class Plan:
    """The settings of a comparison; everything in it is seeded.

    Args:
        eps: tolerances, in units of the outputs before a softmax or sigmoid.
        methods: which ways to choose formats, of `METHODS`.
        metric: of the task: "accuracy" of a classifier; "mse" or "mae" of a regression, which is the loss as well. Rows have the
            negative of those, so that higher is better.
        costs: what ours minimises: "weight_bits", "total_bits", "bit_operations".
        our_tiers: in which ours chooses formats, "sound" or "statistical"; () for `tier` alone.
        sparsities: shares of zeros that ours is also tried with: the network is pruned while it trains for half of the epochs, and
            fine-tuned for the others with its zeros kept.
        trials: of each AutoQKeras search.
        modes: of keras-tuner: "random", "bayesian", "hyperband".
        spaces: of AutoQKeras: "shipped", "fair".
        search_epochs: of a trial.
        epochs: that AutoQKeras' best trials are trained again for, and that ours are fine-tuned for.
        retrained: how many of the best trials of a search are trained again.
        bits: word lengths of the uniform formats and of the rounding families.
        batch_size, learning_rate: of all training.
        effort: of `quantize`, and of proving what others made: "fast", "normal", "max", or seconds.
        tier: of all bounds: "sound", proved for the whole box; or "statistical", for networks too deep for that: the largest
            error on the test samples.
        seed: of everything.
        hgq_python: a Python of another environment, which has HGQ2, as a path; None for no rows of HGQ2 but those that the
            directory holds already.
    """

    eps: tuple[float, ...]
    methods: tuple[str, ...] = METHODS
    metric: str = "accuracy"
    costs: tuple[str, ...] = ("total_bits",)
    our_tiers: tuple[str, ...] = ()
    sparsities: tuple[float, ...] = ()
    trials: int = 50
    modes: tuple[str, ...] = MODES
    spaces: tuple[str, ...] = SPACES
    search_epochs: int = 10
    epochs: int = 30
    retrained: int = 3
    bits: tuple[int, ...] = (4, 8, 16)
    batch_size: int = 32
    learning_rate: float = 1e-3
    effort: str | float = "normal"
    tier: str = "sound"
    seed: int = 1
    hgq_python: str | None = None

    @classmethod
    def of(cls, preset: str, eps: Iterable[float], settings: Mapping[str, Any]) -> Plan:
        """The settings of a preset, "quick" or "full", with others in their place.

        Raises:
            InputError: a name or a value cannot be used; says what is accepted.
        """
        if preset not in PRESETS:
            raise InputError(f"preset '{preset}' is unknown; accepted: {', '.join(PRESETS)}")
        known = [declared.name for declared in fields(cls) if declared.name != "eps"]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise InputError(f"settings {unknown} are unknown; accepted: {', '.join(known)}")
        return cls(eps=tuple(float(value) for value in eps), **(PRESETS[preset] | dict(settings)))

    def __post_init__(self) -> None:
        """Refuse what cannot be used.

        Raises:
            InputError: says what is accepted.
        """
        lists = {"methods": METHODS, "modes": MODES, "spaces": SPACES, "costs": COSTS, "our_tiers": TIERS}
        for name, accepted in lists.items():
            unknown = [value for value in getattr(self, name) if value not in accepted]
            if unknown:
                raise InputError(f"{name} {unknown} are unknown; accepted: {', '.join(accepted)}")
        if self.tier not in TIERS:
            raise InputError(f"tier '{self.tier}' is unknown; accepted: {', '.join(TIERS)}")
        if self.metric not in METRICS:
            raise InputError(f"metric '{self.metric}' is unknown; accepted: {', '.join(METRICS)}")
        if not self.eps or not all(0.0 < value < math.inf for value in self.eps):
            raise InputError(f"eps is {self.eps}; accepted: one or more positive numbers")
        for name in ("trials", "search_epochs", "epochs", "retrained", "batch_size", "seed"):
            whole()(name, getattr(self, name))
        if not all(0.0 < share < 1.0 for share in self.sparsities) or (self.sparsities and self.epochs < 2):
            raise InputError(
                f"sparsities are {self.sparsities}, epochs {self.epochs}; accepted: shares above 0 and below 1, and 2 epochs"
            )
        if not 0.0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; accepted: a positive number")
        if not all(2 <= bits <= 16 for bits in self.bits):
            raise InputError(f"bits are {self.bits}; accepted: 2 to 16")

    @property
    def training(self) -> Training:
        """How candidates are trained."""
        return Training(self.epochs, self.batch_size, self.learning_rate, self.seed, self.metric)

    def to_json(self) -> dict[str, Any]:
        """All settings; where HGQ2 is found changes nothing."""
        return {name: value for name, value in asdict(self).items() if name != "hgq_python"}
