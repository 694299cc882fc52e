"""How hard the search tries, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Args:
        leaves: most leaves of the split tree while formats are searched.
        most_leaves: most leaves while single bits are trimmed.
        rounds: rounds of measuring and solving.
        solves: right-hand sides tried in a round.
        samples: points at which error-aware rounding looks; 0 keeps nearest rounding.
        rows: worst leaves that become rows of the MILP.
        seconds: time budget of the search.
        stability_leaves: most leaves on which units are proved dead or active.
        firm: whether the budget was asked for in seconds and is to be kept; others see a first round through.
    """

    leaves: int
    most_leaves: int
    rounds: int
    solves: int
    samples: int
    rows: int
    seconds: float
    stability_leaves: int
    firm: bool = False

    @classmethod
    def within(cls, seconds: float) -> Effort:
        """The effort that suits a time budget."""
        name = "fast" if seconds < 2.0 else "normal" if seconds < 60.0 else "max"
        return replace(EFFORTS[name], seconds=seconds, firm=True)


EFFORTS = {
    "fast": Effort(1, 1, 1, 4, 0, 1, 240.0, 1),
    "normal": Effort(64, 768, 2, 4, 384, 16, 16.0, 256),
    "max": Effort(512, 8192, 3, 6, 1024, 32, 600.0, 4096),
}
