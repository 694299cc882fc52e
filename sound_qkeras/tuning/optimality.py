"""How good an answer of the MILP is; apart from what finds it out, so that results load without a solver."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Optimality:
    """What is known about an answer of the MILP, in units of the objective.

    It compares choices of the model that was solved: its candidates, its error tables, its right-hand side. The tables are
    estimates and the proof has the last word, so this says how much the solver may have left, and nothing about networks
    that the model does not know; trimming goes below the model's optimum.

    Args:
        cost: of the answer, counted again from the tables.
        lower_bound: no choice that meets the model's rows costs less, proved here with outward rounding.
        claimed_lower_bound: the same as the solver says it; usually higher, for it branches.
    """

    cost: float
    lower_bound: float
    claimed_lower_bound: float

    @property
    def gap(self) -> float:
        """How far above the optimum the cost may be, as a share of the cost, by the bound proved here."""
        return _share(self.cost, self.lower_bound)

    @property
    def claimed_gap(self) -> float:
        """The same by the solver's word."""
        return _share(self.cost, self.claimed_lower_bound)

    def to_json(self) -> dict[str, float]:
        """The three numbers and both gaps."""
        return {**asdict(self), "gap": self.gap, "claimed_gap": self.claimed_gap}


def _share(cost: float, bound: float) -> float:
    if cost == bound:
        return 0.0
    return max(0.0, (cost - bound) / max(abs(cost), 1e-300))
