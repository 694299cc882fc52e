"""What fine-tuning did to the task, kept with its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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

    def to_json(self) -> dict[str, Any]:
        """Plain json, which has no infinity: such a number becomes a text that `float` reads."""
        content = asdict(self)
        for name in ("trained", "before", "after"):
            content[name] = {key: x if math.isfinite(x) else str(x) for key, x in content[name].items()}
        return content

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finetuning:
        """Read what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: a part is missing or of the wrong type.
        """

        def measures(name: str) -> Measures:
            return {str(key): float(value) for key, value in data[name].items()}

        return cls(
            epochs=int(data["epochs"]),
            kept_epoch=int(data["kept_epoch"]),
            changed=int(data["changed"]),
            weights=int(data["weights"]),
            measured_on=str(data["measured_on"]),
            trained=measures("trained"),
            before=measures("before"),
            after=measures("after"),
        )
