"""The choice of formats as a multiple-choice knapsack, modelled in Pyomo. The only user of Pyomo.

For each group and each candidate, a cost and an error contribution to every output on every leaf; one binary per
candidate, one candidate per group; contributions sum to at most the tolerance. Products of word lengths become a
transport between the binaries of the two groups they join, which is tight in the relaxation.

Reference: Lohar et al., Sound mixed fixed-point quantization of neural networks (TECS 2023), for the MILP over word
lengths; here the error terms are constants, so the model has no bilinear constraint.
"""

# pyright: standard, reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false
# Pyomo has no type stubs.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.common.errors import ApplicationError
from pyomo.common.log import LoggingIntercept
from pyomo.opt import SolverStatus

from sound_qkeras.errors import DependencyError, SolverError
from sound_qkeras.interval import Reals
from sound_qkeras.tuning.groups import Group

# Rows violated by less than this relative amount are not worth another solve: the verifier has the last word.
ROW_TOLERANCE = 1e-6
# Rows that a model begins with; others follow when they are violated.
FIRST_ROWS = 16
# Time limit of what counts no nodes: a linear relaxation, and solvers that cannot.
MOST_SECONDS = 10.0
# Versions of HiGHS in which a heuristic at the root of some models never ends, and looks at no limit.
HANGING = ("1.16.0",)


@dataclass(frozen=True)
class Choices:
    """The candidates of one group.

    Args:
        bits: fractional bits, fewest first.
        word_lengths: word length of each candidate.
        costs: additive cost of each.
        errors: contribution to each output on each leaf relative to its tolerance, shape `(candidates, rows)`.
    """

    bits: Sequence[int]
    word_lengths: Sequence[int]
    costs: Reals
    errors: Reals

    def undominated(self) -> Choices:
        """Without candidates that another one beats in cost, word length and every error."""
        lengths = np.asarray(self.word_lengths)
        no_worse = (
            (self.costs[:, None] <= self.costs[None])
            & (lengths[:, None] <= lengths[None])
            & np.all(self.errors[:, None] <= self.errors[None], axis=2)
        )
        order = np.arange(len(self.bits))
        better = no_worse & (~no_worse.T | (order[:, None] < order[None]))
        keep = np.flatnonzero(~better.any(axis=0))
        return Choices(
            [self.bits[int(i)] for i in keep],
            [self.word_lengths[int(i)] for i in keep],
            self.costs[keep],
            self.errors[keep],
        )


@dataclass(frozen=True)
class Solution:
    """A choice, the solver's objective and its proved lower bound, and whether it was done or reached its limit."""

    bits: dict[Group, int]
    objective: float
    lower_bound: float
    done: bool = True


@dataclass(frozen=True)
class Limit:
    """Where a solve ends: after so many nodes of its tree, which are the same everywhere, or after so many seconds."""

    nodes: int | None = 2000
    seconds: float | None = None

    @classmethod
    def of_time(cls, seconds: float) -> Limit:
        """After so many seconds."""
        return cls(None, seconds)

    def __str__(self) -> str:
        return f"{self.nodes} nodes" if self.seconds is None else f"{self.seconds:g} s"


@dataclass(frozen=True)
class Joint:
    """Two groups whose word lengths multiply, with the cost of a unit product and the most bits they may have together."""

    weight: Group
    activation: Group
    cost: float
    most_bits: int


def solve(
    choices: Mapping[Group, Choices],
    joints: Sequence[Joint],
    tolerance: float,
    *,
    solver: str = "highs",
    limit: Limit | None = None,
    gap: float = 1e-3,
) -> Solution | None:
    """Choose one candidate per group at least cost; rows are added only when violated.

    Args:
        choices: candidates per group.
        joints: pairs of groups with a cost on, or a limit of, their joint word length.
        tolerance: right-hand side of every row (contributions are relative to the tolerance, so about 1).
        solver: any MILP solver Pyomo finds by name.
        limit: where one solve ends.
        gap: relative optimality gap at which a solve stops.

    Returns:
        The choice, or None when no choice meets every row.

    Raises:
        DependencyError: the solver is not available.
        SolverError: it failed or ran out of time without an answer.
    """
    kept = {group: found.undominated() for group, found in choices.items()}
    finest = sum((found.errors.min(axis=0) for found in kept.values()), np.zeros(1))
    if np.any(finest > tolerance):
        return None
    model = _model(kept, joints)
    solution: Solution | None = None
    largest = np.asarray(sum(found.errors.max(axis=0) for found in kept.values()))
    pending = [int(row) for row in np.argsort(-largest, kind="stable")[:FIRST_ROWS]]
    for _ in range(50):
        for row in pending:
            _add_row(model, kept, row, tolerance)
        solution = _run(model, kept, solver, limit or Limit(), gap)
        if solution is None:
            return None
        total = sum(found.errors[list(found.bits).index(solution.bits[group])] for group, found in kept.items())
        over = np.flatnonzero(np.asarray(total) > tolerance * (1 + ROW_TOLERANCE))
        if over.size == 0:
            return solution
        pending = [int(row) for row in over[np.argsort(-np.asarray(total)[over], kind="stable")][:8]]
    return solution


def _model(choices: Mapping[Group, Choices], joints: Sequence[Joint]) -> Any:
    model = pyo.ConcreteModel()
    index = {group: number for number, group in enumerate(choices)}
    pairs = [(number, i) for group, number in index.items() for i in range(len(choices[group].bits))]
    model.z = pyo.Var(pairs, domain=pyo.Binary)
    model.one = pyo.ConstraintList()
    model.rows = pyo.ConstraintList()
    for group, number in index.items():
        model.one.add(sum(model.z[number, i] for i in range(len(choices[group].bits))) == 1)
    cost = sum(
        float(found.costs[i]) * model.z[index[group], i]
        for group, found in choices.items()
        for i in range(len(found.bits))
    )
    model.joint = pyo.ConstraintList()
    model.flows = pyo.VarList(domain=pyo.NonNegativeReals)
    for joint in joints:
        cost = cost + _join(model, choices, index, joint)
    model.cost = pyo.Objective(expr=cost)
    return model


def _join(model: Any, choices: Mapping[Group, Choices], index: Mapping[Group, int], joint: Joint) -> Any:
    """Limit the joint word length of two groups, and return the cost of their product where it has one."""
    w, x = choices[joint.weight], choices[joint.activation]

    def side(group: Group, i: int) -> Any:
        return model.z[index[group], i]

    if joint.cost == 0.0:
        bits = sum(n * side(joint.weight, i) for i, n in enumerate(w.word_lengths))
        model.joint.add(
            bits + sum(n * side(joint.activation, j) for j, n in enumerate(x.word_lengths)) <= joint.most_bits
        )
        return 0.0
    rows: list[Any] = [0.0] * len(w.word_lengths)
    columns: list[Any] = [0.0] * len(x.word_lengths)
    cost: Any = 0.0
    for i, wide in enumerate(w.word_lengths):
        for j, long in enumerate(x.word_lengths):
            if wide + long <= joint.most_bits:
                flow = model.flows.add()
                rows[i], columns[j], cost = rows[i] + flow, columns[j] + flow, cost + joint.cost * wide * long * flow
    for i, row in enumerate(rows):
        model.joint.add(row - side(joint.weight, i) == 0.0)
    for j, column in enumerate(columns):
        model.joint.add(column - side(joint.activation, j) == 0.0)
    return cost


def _add_row(model: Any, choices: Mapping[Group, Choices], row: int, tolerance: float) -> None:
    total = sum(
        float(found.errors[i, row]) * model.z[number, i]
        for number, found in enumerate(choices.values())
        for i in range(len(found.bits))
    )
    model.rows.add(total <= tolerance)


def row_prices(
    choices: Mapping[Group, Choices], joints: Sequence[Joint], tolerance: float, rows: Sequence[int]
) -> Reals:
    """What one unit of each row's right-hand side is worth in the linear relaxation with only the given rows.

    One price per row, zero for the others and wherever the solver has none: nothing that is proved depends on them.
    """
    kept = {group: found.undominated() for group, found in choices.items()}
    prices = np.zeros(next(iter(kept.values())).errors.shape[1])
    model = _model(kept, joints)
    for row in rows:
        _add_row(model, kept, row, tolerance)
    for choice in model.z.values():
        choice.domain = pyo.UnitInterval
    model.dual = pyo.Suffix(direction=pyo.Suffix.IMPORT)
    try:
        results = _solver("highs", Limit.of_time(MOST_SECONDS), gap=0.0).solve(model, load_solutions=False)
        if str(results.solver.termination_condition) != "optimal":
            return prices
        model.solutions.load_from(results)
        prices[list(rows)] = [-model.dual.get(constraint, 0.0) for constraint in model.rows.values()]
    except (ApplicationError, ValueError, RuntimeError, OSError):
        prices[:] = 0.0
    return prices


def _run(model: Any, choices: Mapping[Group, Choices], solver: str, limit: Limit, gap: float) -> Solution | None:
    optimizer = _solver(solver, limit, gap)
    try:
        results = optimizer.solve(model, load_solutions=False)
    except (ApplicationError, ValueError, RuntimeError, OSError) as error:
        raise SolverError(f"solver '{solver}' failed: {error}", status="error") from error
    status = str(results.solver.termination_condition)
    if "infeasible" in status.lower():
        return None
    if len(results.solution) == 0 and status not in {"optimal", "feasible", "maxTimeLimit", "maxIterations"}:
        raise SolverError(
            f"solver '{solver}' gave no answer within {limit} ({status}); allow more with another effort", status=status
        )
    if len(results.solution) > 0:
        # Its condition is one of those above: an answer found before the time was up is one, and no reason for Pyomo to warn.
        results.solver.status = SolverStatus.ok
    try:
        model.solutions.load_from(results)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise SolverError(f"solver '{solver}' gave no usable answer ({status})", status=status) from error
    chosen = {}
    for number, (group, found) in enumerate(choices.items()):
        values = [pyo.value(model.z[number, i], exception=False) for i in range(len(found.bits))]
        if any(value is None or not np.isfinite(value) for value in values):
            raise SolverError(f"solver '{solver}' left values open ({status})", status=status)
        chosen[group] = found.bits[int(np.argmax(values))]
    lower = results.problem.lower_bound
    value = float(pyo.value(model.cost))
    bound = float(lower) if lower is not None and np.isfinite(lower) else float("-inf")
    return Solution(chosen, value, bound, done=status == "optimal")


def find_solver(name: str) -> Any:
    """A Pyomo solver by name.

    Raises:
        DependencyError: it is not installed, Pyomo does not know it, or it is a version that can run forever.
    """
    if name == "highs" and _version_of_highs() in HANGING:
        raise DependencyError(
            f"HiGHS {_version_of_highs()} can solve a small model forever, whatever its limits; install another version: "
            f"pip install 'highspy!={_version_of_highs()}'"
        )
    with LoggingIntercept(module="pyomo"):  # Pyomo logs a traceback when it does not know a name
        optimizer = pyo.SolverFactory({"highs": "appsi_highs"}.get(name, name))
        found = optimizer is not None and optimizer.available(exception_flag=False)
    if not found:
        raise DependencyError(
            f"MILP solver '{name}' is not available; install it or use solver='highs' (pip install highspy)"
        )
    return optimizer


def _version_of_highs() -> str | None:
    try:
        return version("highspy")
    except PackageNotFoundError:
        return None


def _solver(name: str, limit: Limit, gap: float) -> Any:
    """A solver with its own spelling of limits and of the gap; one that cannot count nodes, such as GLPK, has a time limit."""
    optimizer = find_solver(name)
    time, nodes, gap_name = {
        "highs": ("time_limit", "mip_max_nodes", "mip_rel_gap"),
        "cbc": ("sec", "maxN", "ratio"),
        "scip": ("limits/time", "limits/nodes", "limits/gap"),
        "gurobi": ("TimeLimit", "NodeLimit", "MIPGap"),
        "glpk": ("tmlim", None, "mipgap"),
    }.get(name, (None, None, None))
    seconds = limit.seconds if nodes is not None or limit.seconds is not None else MOST_SECONDS
    values = ((time, seconds), (nodes, limit.nodes), (gap_name, gap))
    for key, value in values:
        if key is not None and value is not None:
            optimizer.options[key] = int(value) if key == "tmlim" else value
    return optimizer
