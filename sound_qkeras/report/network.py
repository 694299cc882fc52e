"""The network before and after its rewrite, what it costs in hardware, and how exactly its executions agree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sound_qkeras.floating.fixed import FloatReport
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.rewrite.reduce import Reduction
from sound_qkeras.report.claim import DIGITS
from sound_qkeras.report.tables import Table, count, shape, table
from sound_qkeras.results.result import Result
from sound_qkeras.support.decimals import at_most, interval

# Layers that are named in a sentence.
MOST_NAMES = 24
COSTS = ("products", "multiplier_bits", "constant_adders", "sum_adders", "adder_bits", "memory_bits", "bram", "dsp")
FORMS = {
    "kept": "",
    "outputs": "one unit per output of the next layer",
    "inputs": "one unit per input of the layer",
    "merged": "nothing: merged into the next layer",
}


def layers_table(pair: Pair) -> Table:
    """Every layer with weights, as trained and as it is in fixed point."""
    rows = [
        (node.name, node.op.kind, shape(pair.reference.shapes[node.name]), *_sizes(pair, node.name))
        for node, _ in pair.reference.owners()
    ]
    columns = (
        "Layer:name, Kind, Trained output:number, Trained weights:number, Fixed-point output:number, "
        "Fixed-point weights:number"
    )
    return table("Layers before and after", columns, rows)


def _sizes(pair: Pair, name: str) -> tuple[str, str, str]:
    before, after = _weights(pair.reference, name), "merged"
    if name not in pair.network.by_name:
        return count(before), after, "0"
    return count(before), shape(pair.network.shapes[name]), count(_weights(pair.network, name))


def _weights(network: Network, name: str) -> int:
    return next(op.kernel.size for node, op in network.affine() if node.name == name)


def rewrite_table(pair: Pair) -> Table | None:
    """What was done to the units of each layer; None where nothing was."""
    rewrite = pair.rewrite
    names = [node.name for node, _ in pair.reference.affine() if node.name in {*rewrite.reductions, *rewrite.exponents}]
    if not names:
        return None
    rows = []
    for name in names:
        rescaled = int(np.count_nonzero(rewrite.exponents.get(name, np.zeros(0))))
        rows.append((name, *_reduction(rewrite.reductions.get(name)), count(rescaled)))
    columns = (
        "Layer:name, Never active (dropped):number, Always active (replaced):number, Replaced by, "
        "Rescaled by powers of two:number"
    )
    return table("What was rewritten", columns, rows)


def _reduction(reduction: Reduction | None) -> tuple[str, str, str]:
    if reduction is None:
        return "0", "0", ""
    return count(reduction.dead.size), count(reduction.active.size), FORMS[reduction.form]


def cost_table(result: Result) -> Table | None:
    """The analytic estimate per layer, and its total; None where there are no integers to build from."""
    if not result.pair.has_integers:
        return None
    estimate = result.estimate_hardware()
    rows = [
        (layer.node, *(count(getattr(layer, quantity)) for quantity in COSTS))
        for layer in estimate.layers
        if any(getattr(layer, quantity) for quantity in COSTS)
    ]
    rows.append(("total", *(count(estimate.total(quantity)) for quantity in COSTS)))
    columns = ", ".join(["Layer:name", *(f"{_heading(quantity)}:number" for quantity in COSTS)])
    return table("Cost estimate", columns, rows, total=True)


def total_costs(result: Result) -> list[tuple[str, str]]:
    """The totals of the estimate, each with a name; none where there are no integers."""
    if not result.pair.has_integers:
        return []
    estimate = result.estimate_hardware()
    return [(_heading(quantity), count(estimate.total(quantity))) for quantity in COSTS]


def _heading(quantity: str) -> str:
    text = quantity.replace("_", " ")
    return text.upper() if quantity in ("bram", "dsp") else text.capitalize()


def executions_table(result: Result) -> Table:
    """How the executions agree with the integers: what each adds to the error of the claim."""
    rows = [
        ("Integer simulator", "the reference", "0"),
        ("Exported C++; C; Verilog", "bit for bit; every code is compared by their test bench", "0"),
    ]
    if not result.pair.has_integers:
        rows = [("Exact arithmetic", f"no integers: {result.pair.obstacles[0]}", "0")]
    name = "QKeras" if result.model is None else "The model"
    rows += [
        (f"{name} in float64", *_float(result.float64)),
        (f"{name} in float32{' (the default)' if result.model is None else ''}", *_float(result.float32)),
    ]
    return table("Executions", "Execution:name, Agrees with the integers, Adds to the error at most:number", rows)


def model_table(result: Result) -> Table | None:
    """The quantizers of a model that was given; None where the library chose them."""
    if result.model is None:
        return None
    rows = [
        (
            row.layer,
            row.quantizer,
            interval(row.lower, row.upper, DIGITS),
            interval(row.minimum, row.maximum, DIGITS),
            "may saturate" if row.may_saturate else "never saturates",
        )
        for row in result.model.quantizers
    ]
    columns = "Layer:name, Quantizer:code, Values proved in:number range, It holds:number range, So it"
    return table(f"Quantizers of the model, compared with {result.model.reference}", columns, rows)


def _float(report: FloatReport) -> tuple[str, str]:
    if report.exact:
        return "bit for bit; proved", "0"
    error = at_most(report.error, DIGITS)
    return f"within {error}; proved", error


def inexact_layers(result: Result) -> Iterator[tuple[str, list[str]]]:
    """For each floating-point type that is not exact, the layers where it is not."""
    for name, report in (("float64", result.float64), ("float32", result.float32)):
        if not report.exact:
            found = [layer.layer for layer in report.layers if not layer.exact]
            rest = [f"and {len(found) - MOST_NAMES} more"] if len(found) > MOST_NAMES else []
            yield name, found[:MOST_NAMES] + rest
