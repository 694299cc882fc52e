"""Results for tests that are about what happens to them afterwards: proved, but not tuned."""

from dataclasses import replace

import numpy as np

from sound_qkeras.examination import examine
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network
from sound_qkeras.network.graph import size_of
from sound_qkeras.result import Result, tool_versions
from sound_qkeras.tuning.optimality import Optimality
from sound_qkeras.verify.certificate import BudgetRow, certify
from sound_qkeras.verify.split_tree import SplitTree
from tests import networks


def make_result(network: Network, *, bits: int = 8, axes: tuple[int, ...] = (0, -1, -1)) -> Result:
    """A result on the box from -1 to 1, the same fractional bits everywhere."""
    low, high = networks.box(network)
    twin = networks.quantized(network, (low * 1.01, high * 1.01), bits, bits)
    box, eps = Interval(low, high), np.full(size_of(network.output_shape), 10.0)
    budget = (BudgetRow("dense_0", "weight", 0.125),)
    proved = certify(
        twin, box, eps, SplitTree(axes), box_source="made up", error_budget=budget, versions=tool_versions()
    )
    return replace(
        examine(twin, proved),
        seconds=0.125,
        optimality=Optimality(120.0, 118.5, 119.75),
        ended_by="time",
    )


def random_result(seed: int = 0, sizes: tuple[int, ...] = (3, 6, 2)) -> Result:
    """The result of a random network."""
    return make_result(networks.random_network(np.random.default_rng(seed), sizes))


def content(result: Result) -> dict:
    """Everything a result says, for comparison without tolerance."""
    return {
        "weights": result.quantized.network.weight_hash,
        "codes": result.quantized.code_hash,
        "certificate": result.certificate.to_json(),
        "formats": result.formats,
        "cost": result.cost,
        "observed": (result.observed_error, result.observed_input.tobytes(), result.evaluations),
        "float32": result.float32,
        "float64": result.float64,
        "seconds": result.seconds,
        "optimality": result.optimality,
        "ended_by": result.ended_by,
        "notes": (result.quantized.network.notes, result.quantized.network.head),
    }
