"""How hard the search and the proof try, and how much work they may do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sound_qkeras.errors import InputError
from sound_qkeras.support.deadline import Clock, Deadline, WorkClock


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
        seconds: budget of the search, in seconds of counted work, or of the clock where `firm`.
        stability_leaves: most leaves on which units are proved dead or active.
        proof_leaves: most leaves where nothing is searched, for `certify`.
        proof_seconds: budget of that.
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
    proof_leaves: int
    proof_seconds: float
    firm: bool = False

    def deadline(self, seconds: float | None = None) -> Deadline:
        """The end of the search's budget, or of another, from now on."""
        clock = Clock() if self.firm else WorkClock()
        return Deadline.within(self.seconds if seconds is None else seconds, firm=self.firm, clock=clock)


EFFORTS = {
    "fast": Effort(1, 1, 1, 4, 0, 1, 240.0, 1, 1, 5.0),
    "normal": Effort(128, 2048, 2, 4, 384, 16, 20.0, 256, 2048, 20.0),
    "max": Effort(512, 8192, 3, 6, 1024, 32, 600.0, 4096, 8192, 300.0),
}


def effort_of(effort: str | float) -> Effort:
    """The effort of a name, or the one that suits a time budget in seconds.

    Raises:
        InputError: the name is unknown, or the seconds are not usable.
    """
    if isinstance(effort, str) and effort in EFFORTS:
        return EFFORTS[effort]
    if isinstance(effort, bool) or not isinstance(effort, int | float) or not 0.0 < effort < math.inf:
        raise InputError(f"effort is {effort!r}; accepted: {', '.join(EFFORTS)}, or a time budget in seconds")
    name, seconds = "fast" if effort < 2.0 else "normal" if effort < 60.0 else "max", float(effort)
    leaves = EFFORTS["max"].proof_leaves
    return replace(EFFORTS[name], seconds=seconds, proof_leaves=leaves, proof_seconds=seconds, firm=True)
