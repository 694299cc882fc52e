"""The one place that orders the steps: read, tune, prove, falsify, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from sound_qkeras.boxes import make_tolerance, network_box
from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.interval import Reals
from sound_qkeras.network.graph import Network, size_of
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.network.rewrite import Rewrite
from sound_qkeras.result import Result, tool_versions
from sound_qkeras.tuning.costs import GroupCost, Objective, cost_of, objective
from sound_qkeras.tuning.effort import EFFORTS, Effort
from sound_qkeras.tuning.milp import find_solver
from sound_qkeras.tuning.proving import ProvingJudge
from sound_qkeras.tuning.reductions import reductions_of
from sound_qkeras.tuning.scaling import scaling
from sound_qkeras.tuning.search import LONGEST_WORD, Outcome, Search
from sound_qkeras.tuning.space import Space
from sound_qkeras.verify.certificate import Certificate, certify
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.exact import exact_error
from sound_qkeras.verify.falsify import falsify
from sound_qkeras.verify.floating import float_report
from sound_qkeras.verify.split_tree import SplitTree

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
    word_lengths: tuple[int, int] = (2, 48),
    effort: str | float = "normal",
    solver: str = "highs",
    keep_architecture: bool = False,
    rescale_units: bool = True,
    round_output: bool = False,
    per_channel: bool = False,
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
        word_lengths: fewest and most bits of a weight or result; with `per_channel`, single channels may have fewer.
        effort: "fast", "normal", "max", or a time budget in seconds.
        solver: a MILP solver that Pyomo finds by name: "highs", "cbc", "scip", "gurobi".
        keep_architecture: keep every layer and unit; otherwise hidden units that are proved dead on the box are dropped,
            and those proved always active are replaced by fewer where that saves weights. The function is the same.
        rescale_units: let hidden units be multiplied by powers of two, which changes no output and saves bits; False keeps
            every weight as it was trained.
        round_output: round the output too, to the fewest bits that leave the weights as they are or nearly so; without it the
            last layer returns its exact sum.
        per_channel: give the weights of every output channel a format of their own, for C++, C and Verilog. QKeras, which has
            one format for a kernel, gets the same values in the one that holds them all.
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
    goal, budget = check_options(cost=cost, word_lengths=word_lengths, effort=effort, solver=solver)
    report("read", 0.0)
    trained = read(model)
    region = network_box(trained, box, margin)
    tolerance = make_tolerance(eps, size_of(trained.output_shape))
    with threadpool_limits(1 if trained.parameter_count < MANY_PARAMETERS else None, user_api="blas"):
        report("simplify", 0.0)
        reductions, phase_tree = {}, SplitTree()
        if not keep_architecture:
            reductions, phase_tree = reductions_of(trained, region, max_leaves=budget.phase_leaves)
        rewrite = Rewrite(reductions)
        if rescale_units:
            rewrite = replace(rewrite, exponents=scaling(rewrite.apply(trained), region, tolerance))
        network = rewrite.apply(trained)
        judge = ProvingJudge(network, region, tolerance, budget)
        space = Space(network, judge.ranges, goal, word_lengths, tolerance, round_output=round_output)
        outcome = Search(space, judge, tolerance, budget, solver, report, per_channel=per_channel).run()
        quantized = replace(outcome.quantized, trained=trained, rewrite=rewrite)
        report("prove", 0.0)
        certificate = certify(
            quantized,
            region,
            tolerance,
            outcome.tree,
            box_source=describe_box(box_source, margin),
            error_budget=outcome.error_budget,
            versions=tool_versions(),
            phase_tree=phase_tree,
        )
        return _finish(replace(outcome, quantized=quantized), certificate, seed, started, report)


def _finish(outcome: Outcome, certificate: Certificate, seed: int, started: float, report: Progress) -> Result:
    """Check the certificate as a stranger would, look for the worst error, and put the result together."""
    quantized = outcome.quantized
    check(quantized, certificate)
    report("look for the worst error", 0.0)
    worst = falsify(quantized, certificate.box, seed=seed)
    observed = _exact_error(quantized, worst.sample, certificate)
    report("done", 1.0)
    return Result(
        quantized=quantized,
        certificate=certificate,
        cost=cost_of(quantized),
        observed_error=observed,
        observed_input=worst.sample,
        evaluations=worst.evaluations,
        float32=float_report(quantized, certificate.box, certificate.bound, "float32"),
        float64=float_report(quantized, certificate.box, certificate.bound, "float64"),
        seconds=time.monotonic() - started,
        optimality=outcome.optimality,
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


def describe_box(source: str, margin: float) -> str:
    """Where a box came from, for its certificate."""
    return f"{source}, widened by {margin:g} of its width on every side" if margin else source


def check_options(
    *, cost: str | GroupCost, word_lengths: tuple[int, int], effort: str | float, solver: str
) -> tuple[Objective, Effort]:
    """What can be checked before there is a model, as `quantize` does.

    Raises:
        InputError: an option is not usable.
        DependencyError: the solver is missing.
    """
    _check_word_lengths(word_lengths)
    find_solver(solver)
    return objective(cost), _effort(effort)


def _effort(effort: str | float) -> Effort:
    if isinstance(effort, str):
        if effort not in EFFORTS:
            raise InputError(
                f"effort '{effort}' is unknown; accepted: {', '.join(EFFORTS)}, or a time budget in seconds"
            )
        return EFFORTS[effort]
    if isinstance(effort, bool) or not isinstance(effort, int | float) or not 0.0 < effort < np.inf:
        raise InputError(f"effort is {effort}; accepted: {', '.join(EFFORTS)}, or a time budget in seconds")
    return Effort.within(float(effort))


def _check_word_lengths(word_lengths: tuple[int, int]) -> None:
    try:
        shortest, longest = (int(value) for value in word_lengths)
    except (TypeError, ValueError) as error:
        raise InputError(f"word_lengths is {word_lengths!r}; accepted: a pair such as (2, 16)") from error
    if not 2 <= shortest <= longest <= LONGEST_WORD:
        raise InputError(f"word_lengths is {word_lengths}; accepted: 2 <= fewest <= most <= {LONGEST_WORD} bits")


def _exact_error(quantized: QuantizedNetwork, sample: Reals, certificate: Certificate) -> float:
    """The error at the worst input found, in exact arithmetic, compared with the bound.

    Raises:
        VerificationError: it exceeds the proved bound: the worst bug there can be, so it stops everything.
    """
    errors = [abs(error) for error in exact_error(quantized, sample)]
    for k, error in enumerate(errors):
        if error > Fraction(float(certificate.output_bounds[k])):
            raise VerificationError(
                f"output {k}: an error of {float(error):.9g} was observed, above the proved bound "
                f"{certificate.output_bounds[k]:.9g}: please report this"
            )
    return float(max(errors))


def _silent(stage: str, fraction: float) -> None:
    """Report nothing."""
