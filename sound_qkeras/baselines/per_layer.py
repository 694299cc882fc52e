"""The rule of a course project: fewest fractional bits in sum, each layer's rounding step within a bound of its own.

    minimise   sum over layers l of b_l
    subject to 2**-b_l <= bound_l,  5 <= b_l <= 32,  b_l an integer.

Nothing in it carries an error from one layer to the next, so it promises nothing about the output: the verifier says what
comes out. Modelled in Pyomo, as the project did, with one binary for each layer and number of bits.
"""

# pyright: standard, reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false
# Pyomo has no type stubs.
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.common.errors import ApplicationError

from sound_qkeras.baselines.candidate import Candidate, from_quantized
from sound_qkeras.baselines.fixed import with_fractional_bits
from sound_qkeras.errors import InfeasibleError, InputError, SolverError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.tuning.build import nearest
from sound_qkeras.tuning.milp import find_solver

FEWEST_BITS, MOST_BITS = 5, 32


def equal_bounds(network: Network, eps: float) -> dict[str, float]:
    """The same share of a tolerance for every layer with weights: the project leaves open where its bounds come from."""
    names = [node.name for node, _ in network.owners()]
    return dict.fromkeys(names, eps / len(names))


def solve_rule(bounds: Mapping[str, float], *, solver: str = "highs") -> dict[str, int]:
    """Fractional bits of every layer.

    Args:
        bounds: largest rounding step allowed, by layer.
        solver: a MILP solver that Pyomo finds by name; the project used "cbc".

    Raises:
        InputError: a bound is not a positive number.
        InfeasibleError: 32 bits are too few for one of them.
        SolverError: the solver failed.
        DependencyError: the solver is not installed.
    """
    for layer, bound in bounds.items():
        if not 0.0 < bound < math.inf:
            raise InputError(f"layer '{layer}': its bound is {bound}; accepted: positive finite numbers")
        if bound < 2.0**-MOST_BITS:
            raise InfeasibleError(
                f"layer '{layer}': steps of at most {bound:.3g} need more than {MOST_BITS} fractional bits; raise its bound",
                best_bound=2.0**-MOST_BITS,
            )
    model = _model(bounds)
    optimizer = find_solver(solver)
    try:
        results = optimizer.solve(model)
    except (ApplicationError, ValueError, RuntimeError, OSError) as error:
        raise SolverError(f"solver '{solver}' failed: {error}", status="error") from error
    status = str(results.solver.termination_condition)
    if status != "optimal":
        raise SolverError(f"solver '{solver}' did not solve the rule ({status})", status=status)
    choices = range(FEWEST_BITS, MOST_BITS + 1)
    return {
        layer: max(choices, key=lambda bits: pyo.value(model.chosen[number, bits]))
        for number, layer in enumerate(bounds)
    }


def _model(bounds: Mapping[str, float]) -> Any:
    """A step is compared with its bound in floats, exactly, so that no solver's tolerance lets a coarser one pass."""
    model = pyo.ConcreteModel()
    layers, bits = range(len(bounds)), range(FEWEST_BITS, MOST_BITS + 1)
    model.chosen = pyo.Var(layers, bits, domain=pyo.Binary)
    model.one = pyo.ConstraintList()
    model.step = pyo.ConstraintList()
    for number, bound in enumerate(bounds.values()):
        model.one.add(sum(model.chosen[number, b] for b in bits) == 1)
        model.step.add(sum(float(2.0**-b > bound) * model.chosen[number, b] for b in bits) <= 0)
    model.bits = pyo.Objective(expr=sum(b * model.chosen[number, b] for number in layers for b in bits))
    return model


def per_layer_rule(network: Network, box: Interval, bounds: Mapping[str, float], *, solver: str = "highs") -> Candidate:
    """The fixed-point network of the rule: a layer's weights, biases and results share its fractional bits.

    Guarantee: nothing overflows for any input in the box; the rule itself says nothing about the output's error.

    Args:
        network: the trained network.
        box: the inputs, shape `input_shape`. They are rounded with the first layer's bits.
        bounds: by affine node; see `equal_bounds`.
        solver: as in `solve_rule`.

    Raises:
        InputError: a layer has no bound.
        InfeasibleError, SolverError, DependencyError: as `solve_rule`.
    """
    missing = [node.name for node, _ in network.owners() if node.name not in bounds]
    if missing:
        raise InputError(f"layers without a bound: {missing}; accepted: one for each layer with weights")
    bits = solve_rule({node.name: bounds[node.name] for node, _ in network.owners()}, solver=solver)
    parameters: dict[str, AffineCodes] = {}
    current = next(iter(bits.values()))
    values: dict[str, int] = {}
    for node in network.nodes:
        current = bits.get(node.name, max((values[name] for name in node.inputs), default=current))
        values[node.name] = current
    for node, op in network.owners():
        kernel, bias = (nearest(array, bits[node.name]) for array in (op.kernel, op.bias))
        formats = (Format.for_codes(int(np.min(a)), int(np.max(a)), bits[node.name]) for a in (kernel, bias))
        parameters[node.name] = AffineCodes(kernel, next(formats), bias, next(formats))
    pair = with_fractional_bits(network, box, parameters, {name: values[name] for name in network.rounding_points})
    return from_quantized("per-layer rule", pair, notes=(f"Fractional bits: {', '.join(map(str, bits.values()))}.",))
