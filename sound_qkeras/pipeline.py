"""The one place that orders the steps: read, tune, prove, falsify, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from sound_qkeras.boxes import make_box, make_tolerance
from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.network.graph import Network, size_of
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.result import Result, tool_versions
from sound_qkeras.tuning.costs import GroupCost, Objective, cost_of, objective
from sound_qkeras.tuning.search import EFFORTS, Effort, Search
from sound_qkeras.verify.certificate import Certificate, certify
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.falsify import falsify
from sound_qkeras.verify.floating import float_report

Progress = Callable[[str, float], None]

# Below this, matrix products are so small that a second BLAS thread costs far more than it brings (10x was measured).
MANY_PARAMETERS = 200_000


def quantize(
    model: Any,
    eps: Any,
    box: Any,
    *,
    margin: float = 0.0,
    cost: str | GroupCost = "weight_bits",
    word_lengths: tuple[int, int] = (2, 40),
    effort: str | float = "normal",
    solver: str = "highs",
    seed: int = 0,
    box_source: str = "given",
    progress: Progress | None = None,
) -> Result:
    """Find the cheapest fixed-point formats that are proved to stay within `eps`, and the integers that go with them.

    Guarantee: for every input in the box, every output of the fixed-point network is within `eps` of the trained network
    in exact arithmetic over its stored float32 parameters, and no value overflows its format. The claim is proved by
    `verify`, which trusts neither the tuner nor the solver.

    Args:
        model: a tf_keras model, a path to one (.h5, .keras, SavedModel), or a `Network`.
        eps: tolerance in units of the output: a number, or one per output.
        box: the inputs: `(lower, upper)` as numbers or arrays, or samples that span it.
        margin: widens a box made from samples (or given) by this share of its width, on every side.
        cost: "weight_bits", "total_bits", "bit_operations", or a callable `(group, word_length) -> float`.
        word_lengths: fewest and most bits of a weight or result.
        effort: "fast", "normal", "max", or a time budget in seconds.
        solver: a MILP solver that Pyomo finds by name: "highs", "cbc", "scip", "gurobi".
        seed: of the search for the worst observed error.
        box_source: where the box came from, for the certificate.
        progress: called with a stage's name and the fraction of it that is done.

    Raises:
        InputError: an argument is not usable.
        ModelError: the model cannot be read.
        InfeasibleError: no allowed word length is proved to reach `eps`; carries the best bound.
        SolverError: the solver failed.
        DependencyError: the solver, or Keras, is missing.
    """
    started = time.monotonic()
    report = progress or _silent
    goal, budget = check_options(cost=cost, word_lengths=word_lengths, effort=effort)
    report("read", 0.0)
    network = read(model)
    region = make_box(box, network.input_shape, margin)
    tolerance = make_tolerance(eps, size_of(network.output_shape))
    with threadpool_limits(1 if network.parameter_count < MANY_PARAMETERS else None, user_api="blas"):
        outcome = Search(network, region, tolerance, goal, budget, word_lengths, solver, report).run()
        report("prove", 0.0)
        certificate = certify(
            outcome.quantized,
            region,
            tolerance,
            outcome.tree,
            box_source=box_source,
            error_budget=outcome.error_budget,
            versions=tool_versions(),
        )
        return _finish(outcome.quantized, certificate, seed, started, report)


def _finish(
    quantized: QuantizedNetwork, certificate: Certificate, seed: int, started: float, report: Progress
) -> Result:
    """Check the certificate as a stranger would, look for the worst error, and put the result together."""
    check(quantized, certificate)
    report("look for the worst error", 0.0)
    worst = falsify(quantized, certificate.box, seed=seed)
    _compare(certificate.bound, worst.error)
    report("done", 1.0)
    return Result(
        quantized=quantized,
        certificate=certificate,
        cost=cost_of(quantized),
        observed_error=worst.error,
        observed_input=worst.sample,
        evaluations=worst.evaluations,
        float32=float_report(quantized, certificate.box, certificate.bound, "float32"),
        float64=float_report(quantized, certificate.box, certificate.bound, "float64"),
        seconds=time.monotonic() - started,
    )


def read(model: Any) -> Network:
    """A `Network` from whatever the user has.

    Raises:
        ModelError: it cannot be read.
    """
    if isinstance(model, Network):
        return model
    from sound_qkeras.keras_io import read_model

    return read_model(model)


def check_options(
    *, cost: str | GroupCost, word_lengths: tuple[int, int], effort: str | float
) -> tuple[Objective, Effort]:
    """What can be checked before there is a model, as `quantize` does.

    Raises:
        InputError: an option is not usable.
    """
    _check_word_lengths(word_lengths)
    return objective(cost), _effort(effort)


def _effort(effort: str | float) -> Effort:
    if isinstance(effort, str):
        if effort not in EFFORTS:
            raise InputError(f"effort '{effort}' is unknown; accepted: {', '.join(EFFORTS)}, or a time budget in seconds")
        return EFFORTS[effort]
    if isinstance(effort, bool) or not isinstance(effort, int | float) or not 0.0 < effort < np.inf:
        raise InputError(f"effort is {effort}; accepted: {', '.join(EFFORTS)}, or a time budget in seconds")
    return Effort.within(float(effort))


def _check_word_lengths(word_lengths: tuple[int, int]) -> None:
    try:
        shortest, longest = (int(value) for value in word_lengths)
    except (TypeError, ValueError) as error:
        raise InputError(f"word_lengths is {word_lengths!r}; accepted: a pair such as (2, 16)") from error
    if not 2 <= shortest <= longest <= 48:
        raise InputError(f"word_lengths is {word_lengths}; accepted: 2 <= fewest <= most <= 48 bits")


def _compare(bound: float, observed: float) -> None:
    """A bound below an observed error is the worst bug there can be: it stops everything."""
    if observed > bound * (1.0 + 1e-9):
        raise VerificationError(f"an error of {observed:.9g} was observed, above the proved bound {bound:.9g}: please report this")


def _silent(stage: str, fraction: float) -> None:
    """Report nothing."""


