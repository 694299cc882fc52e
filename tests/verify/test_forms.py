"""Forms in float32 and in float64, and where a coefficient does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras.interval import DOUBLE, SINGLE, Interval
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Clip, Dense, Input, Relu
from sound_qkeras.verify import stages
from sound_qkeras.verify.propagation import output_difference, propagate
from tests import networks


def chain(*kernels):
    nodes = [Node("x", Input((kernels[0].shape[0],)), (), "x")]
    for number, kernel in enumerate(kernels):
        dense = Dense(kernel, np.linspace(-0.5, 0.5, kernel.shape[1]))
        nodes.append(Node(f"d{number}", dense, (nodes[-1].name,), f"d{number}"))
        if number < len(kernels) - 1:
            nodes.append(Node(f"r{number}", Relu(), (nodes[-1].name,), f"d{number}"))
    return Network(tuple(nodes))


@pytest.mark.parametrize("size", [1.0, 1e-25, 1e29, 1e31])
def test_coefficients_that_do_not_fit_float32_are_kept_in_float64(size):
    """Of 1e29 the kernels fit, and their product does not; those of 1e31 and 1e-40 do not fit themselves."""
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=shape) * size for shape in ((3, 4), (4, 4), (4, 2))]
    network = chain(*(kernel.astype(np.float32).astype(np.float64) for kernel in kernels))
    boxes = Interval(np.full((5, 3), -1.0), rng.uniform(0.0, 1.0, (5, 3)))
    one, other = (
        propagate(network, boxes, precision=precision).facts[network.output.name].value
        for precision in (SINGLE, DOUBLE)
    )
    assert np.all(np.isfinite([one.lower, one.upper]))
    slack = 1e-4 * (other.upper - other.lower)
    assert np.all(np.abs([one.lower - other.lower, one.upper - other.upper]) <= slack)


@pytest.mark.parametrize("seed", range(3))
def test_float32_is_a_little_looser(seed):
    rng = np.random.default_rng(seed)
    pair, (low, high) = networks.random_quantized(rng, (4, 12, 12, 3))
    middle = 0.5 * (low + high)
    boxes = Interval(np.stack([low, middle]), np.stack([middle, high]))
    single, double = (
        output_difference(propagate(pair.network, boxes, pair, precision=precision)).magnitude
        for precision in (SINGLE, DOUBLE)
    )
    assert np.all(double <= single)
    assert np.all(single <= 1.001 * double)


def test_two_lines_are_tighter_than_two_parallel_ones(monkeypatch):
    pair, (low, high) = networks.random_quantized(np.random.default_rng(4), (3, 20, 20, 20, 1))
    boxes = Interval(low[None], high[None])
    last = pair.network.by_name[pair.network.output.inputs[0]].inputs[0]
    width, bound = [], []
    for _ in range(2):
        result = propagate(pair.network, boxes, pair)
        value = result.facts[last].value
        width.append(float(np.sum(value.upper - value.lower)))
        bound.append(float(output_difference(result).magnitude.max()))
        monkeypatch.setattr(stages, "takes_two_lines", lambda network: False)
    assert width[0] < 0.95 * width[1]
    assert bound[0] < 0.9 * bound[1]


@pytest.mark.parametrize("unit", [Clip(1.0), Relu()], ids=lambda op: op.kind)
def test_every_charge_counts_between_two_lines(unit):
    """Forms alone, met with nothing: the one coarse rounding is before a unit that has two lines, or has not."""
    rng = np.random.default_rng(7)
    network = chain(rng.normal(size=(2, 6)), rng.normal(size=(6, 6)), rng.normal(size=(6, 2)))
    nodes = [replace(node, op=unit) if node.name == "r1" else node for node in network.nodes]
    network, ranges = Network(tuple(nodes)), (np.full(2, -1.0), np.full(2, 1.0))
    parameters = {node.name: networks.nearest(op, 20, 24) for node, op in network.owners()}
    bits = {node.name: 1 if node.name == "d1" else 16 for node in network.nodes}
    pair = networks.with_parameters(network, ranges, parameters, bits)
    points = rng.uniform(-1.0, 1.0, (3000, 2))
    errors = pair.evaluate_all(points)[network.output.name] - network.evaluate(points)
    result = propagate(network, Interval(ranges[0][None], ranges[1][None]), pair)
    found = result.forms.enclose(network.output, np.arange(2), difference=True)
    rounding = 2.0**-16
    assert np.all((found.lower - rounding <= errors) & (errors <= found.upper + rounding))
    assert np.max(found.magnitude) < 40.0 * np.max(np.abs(errors))
