"""What fine-tuning did to the task, kept with its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Measures = Mapping[str, float]


@dataclass(frozen=True)
class Finetuning:
    """The loss and metrics of three networks on the same data, and how much training changed.

    Args:
        epochs: how many were trained.
        kept_epoch: the one whose weights are kept, which measured best; 0 where none was better than the start.
        changed, weights: how many integers differ from those before, of how many there are.
        measured_on: "training data" or "validation data".
        trained, before, after: loss and metrics of the float network, and of the fixed-point network before and after, as
            QKeras evaluates it in float32.
    """

    epochs: int
    kept_epoch: int
    changed: int
    weights: int
    measured_on: str
    trained: Measures
    before: Measures
    after: Measures

    @property
    def summary(self) -> str:
        """Every measure before and after, and the float network's."""
        shown = (
            f"{name} {self.before[name]:.4g} -> {self.after[name]:.4g} (float {self.trained[name]:.4g})"
            for name in self.after
        )
        return f"fine-tuned: {', '.join(shown)} on the {self.measured_on}"
