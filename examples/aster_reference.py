"""The reference tool's formats, found again from its published formulation, and the errors of the code it emits.

Lohar, Jeangoudoux, Volkova, Darulova: Sound Mixed Fixed-Point Quantization of Neural Networks (TECS / EMSOFT 2023). For each
layer the tool chooses the fractional bits of the dot products and of the sums with the bias. With `d`, `b` the steps of the
two and `e` the error of what a layer reads, as released it propagates

    e' = m (d + b + e),     m = max over rows of |sum of the row|,

and the result's error is `d + b + e` of the last layer. Three things are wrong with that, and this module keeps all three:

1. `|sum w|` stands where `sum |w|` belongs: weights of both signs cancel, errors do not;
2. `m` is taken from layer i's weights where it is layer i + 1 that multiplies the error, so the first layer's rounding is
   carried by the wrong weights and the input's rounding by none;
3. `d` and `b` cover rounding to nearest, but the emitted `ap_fixed<W, I>` types truncate, at every product.

What is reconstructed is the optimisation problem and the emitted types, not the tool: ranges are intervals over whole layers,
integer bits those of the real range, weights get `ceil(log2(inputs)) + 1` guard bits and the integer bits of what they
multiply. `agrees` compares with the baseline file, which came from somebody else's run: total weight bits are the same
wherever both are feasible; the claimed error and the products are the same unless the solver chose another of the nearly
equally cheap numbers of bits for the biases, which the objective hardly counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pyomo.environ as pyo

from sound_qkeras.network import Network
from sound_qkeras.search.breakpoints import SearchSpace
from sound_qkeras.search.falsify import search

Array = np.ndarray
Box = tuple[Array, Array]
Rounding = Callable[[Array, int], Array]

# Fewest and most fractional bits, and fractional bits of the input, of the tool's two settings.
SETTINGS = {"A": (5, 32, 20), "B": (10, 32, 32)}
WEIGHT_LENGTH = 32  # the word length of a weight in the tool's objective, whatever it becomes afterwards


@dataclass(frozen=True)
class Layer:
    """A layer's parameters and the intervals of all it reads, of its dot products and of its sums with the bias."""

    kernel: Array
    bias: Array
    relu: bool
    reads: tuple[float, float]
    dots: tuple[float, float]
    sums: tuple[float, float]


@dataclass(frozen=True)
class Formats:
    """Fractional bits per layer, and the error the tool claims for them."""

    input: int
    dot: list[int]
    bias: list[int]
    claimed: float


def layers_of(network: Network, lower: Array, upper: Array) -> list[Layer]:
    """Layers with one interval for all weights, one for all biases and one for all values, as the tool has them."""
    found, reads = [], (lower.min(), upper.max())
    for node, op in network.affine():
        weights = op.kernel.min(), op.kernel.max()
        ends = [weight * value * op.kernel.shape[0] for weight in weights for value in reads]
        dots = min(ends), max(ends)
        sums = dots[0] + op.bias.min(), dots[1] + op.bias.max()
        relu = any(reader.op.kind == "relu" for reader in network.readers[node.name])
        found.append(Layer(op.kernel, op.bias, relu, reads, dots, sums))
        reads = (max(0.0, sums[0]), max(0.0, sums[1])) if relu else sums
    return found


def integer_bits(values: tuple[float, float] | Array) -> int:
    """Integer bits with the sign, for the largest magnitude."""
    return min(int(np.abs(values).max()), 2**31 - 1).bit_length() + 1


def solve(layers: list[Layer], eps: float, setting: str) -> Formats | None:
    """The tool's MILP as released, rows divided by eps; None where it is infeasible."""
    fewest, most, input_bits = SETTINGS[setting]
    candidates = range(fewest, most + 1)
    model = pyo.ConcreteModel()
    model.z = pyo.Var(range(len(layers)), ("dot", "bias"), candidates, domain=pyo.Binary)
    model.longer = pyo.Var(range(len(layers)))
    model.rows = pyo.ConstraintList()

    def bits(number, kind):
        return sum(value * model.z[number, kind, value] for value in candidates)

    def step(number, kind):
        return sum(2.0**-value / eps * model.z[number, kind, value] for value in candidates)

    cost, error, total = 0.0, 2.0**-input_bits / eps, 0.0
    for number, layer in enumerate(layers):
        total = step(number, "dot") + step(number, "bias") + error
        for ends, within in ((layer.dots, step(number, "dot") + error), (layer.sums, total)):
            limit = 2.0 ** (integer_bits(ends) - 1)
            model.rows.add(within <= min(limit - ends[1], limit + ends[0]) / eps)
        for kind in ("dot", "bias"):
            model.rows.add(sum(model.z[number, kind, value] for value in candidates) == 1)
            model.rows.add(model.longer[number] >= bits(number, kind))
        cost += WEIGHT_LENGTH * layer.kernel.size * bits(number, "dot") + model.longer[number] + bits(number, "bias")
        error = float(np.abs(layer.kernel.sum(axis=0)).max()) * total
    model.rows.add(total <= 1.0)
    model.cost = pyo.Objective(expr=cost)
    solver = pyo.SolverFactory("appsi_highs")
    solver.options.update({"mip_rel_gap": 0.0, "time_limit": 60.0})
    results = solver.solve(model, load_solutions=False)
    if len(results.solution) == 0:
        return None
    model.solutions.load_from(results)
    chosen = {kind: [round(pyo.value(bits(i, kind))) for i in range(len(layers))] for kind in ("dot", "bias")}
    return Formats(input_bits, chosen["dot"], chosen["bias"], float(pyo.value(total)) * eps)


def totals(layers: list[Layer], formats: Formats, lower: Array, upper: Array) -> tuple[int, int]:
    """Total weight bits, and the sum over multiplications of weight bits times input bits, of the emitted types."""
    weight_bits = products = 0
    for number, layer in enumerate(layers):
        own = integer_bits(layer.kernel) + formats.dot[number] + guard_bits(layer)
        for row in range(len(layer.kernel)):
            reads = (lower[row], upper[row]) if number == 0 else layer.reads
            word = own + integer_bits(reads) - 1
            read = formats.input + integer_bits(reads)
            if number > 0:
                read = formats.bias[number - 1] + integer_bits(layers[number - 1].sums)
            weight_bits += layer.kernel.shape[1] * word
            products += layer.kernel.shape[1] * word * read
    return weight_bits, products


def guard_bits(layer: Layer) -> int:
    """Fractional bits of products and partial sums beyond those of the dot product."""
    return math.ceil(math.log2(len(layer.kernel))) + 1


def agrees(layers: list[Layer], formats: Formats, lower: Array, upper: Array, released: dict) -> dict:
    """Whether the reconstruction is what the baseline file has."""
    weight_bits, products = totals(layers, formats, lower, upper)
    return {
        "weight_bits": weight_bits == released["total_weight_bits"],
        "products": products == released["mult_bit_products"],
        "claimed": math.isclose(formats.claimed, released["claimed_error"], rel_tol=1e-6),
    }


def parameters(layers: list[Layer], formats: Formats, box: Box, rounded: Rounding) -> list[tuple[Array, Array]]:
    """Kernel and bias of every layer as the emitted types hold them."""
    found = []
    for number, layer in enumerate(layers):
        reads = list(zip(*box, strict=True)) if number == 0 else [layer.reads] * len(layer.kernel)
        # Weights have as many bits more as their input has before the point, so that all products are equally fine.
        fine = [formats.dot[number] + guard_bits(layer) + integer_bits(ends) - 1 for ends in reads]
        kernel = np.stack([rounded(row, bits) for row, bits in zip(layer.kernel, fine, strict=True)])
        found.append((kernel, rounded(layer.bias, formats.bias[number])))
    return found


def emitted(layers: list[Layer], formats: Formats, box: Box, x: Array, rounded: Rounding) -> Array:
    """What the emitted code computes for samples `(n, inputs)`, or would compute if its types rounded otherwise.

    Exact for arrays of fractions; in float64 a value within 2**-53 of a grid point may fall to its other side.
    """
    x = rounded(x, formats.input)
    for number, (kernel, bias) in enumerate(parameters(layers, formats, box, rounded)):
        layer = layers[number]
        kernel, bias = (values if x.dtype != object else fractions(values) for values in (kernel, bias))
        products = rounded(x[:, :, None] * kernel, formats.dot[number] + guard_bits(layer))
        dots = rounded(products.sum(axis=1), formats.dot[number])
        sums = rounded(dots + bias, formats.bias[number])
        x = np.maximum(sums, 0 * sums) if layer.relu else sums
    return x


def fractions(values: Array) -> Array:
    """The same numbers, exactly."""
    return np.vectorize(Fraction, otypes=[object])(values)


def truncated(values: Array, bits: int) -> Array:
    """As `ap_fixed` does unless told otherwise: towards minus infinity."""
    return _on_grid(values, bits, np.floor, math.floor)


def nearest(values: Array, bits: int) -> Array:
    """To the nearest value, half to even."""
    return _on_grid(values, bits, np.rint, round)


def _on_grid(values: Array, bits: int, of_floats: Callable, of_fraction: Callable) -> Array:
    if values.dtype == object:
        return np.frompyfunc(lambda value: Fraction(of_fraction(value * 2**bits), 2**bits), 1, 1)(values)
    return np.ldexp(of_floats(np.ldexp(values, bits)), -bits)


def exact(network: Network, x: Array) -> Array:
    """The trained network on samples of fractions."""
    for node in network.nodes[1:]:
        arrays = {name: fractions(values) for name, values in node.op.arrays().items()}
        x = x @ arrays["kernel"] + arrays["bias"] if arrays else np.maximum(x, 0 * x)
    return x


def violation(network: Network, box: Box, formats: Formats, *, evaluations: int = 200_000, seed: int = 0) -> dict:
    """The input at which the emitted code errs most, found by the same search that judges our own networks.

    Returns the input, the claimed error, and, both exact at that input, the error of the emitted code (`truncated`) and of
    the same formats with types that round (`nearest`).
    """
    layers = layers_of(network, *box)

    def errors(samples: Array) -> Array:
        parts = np.array_split(samples, 1 + samples.shape[0] * max(layer.kernel.size for layer in layers) // 4_000_000)
        return np.concatenate(
            [emitted(layers, formats, box, part, truncated) - network.evaluate(part) for part in parts]
        )

    space = SearchSpace(
        network, _unrounded(network, parameters(layers, formats, box, truncated)), *box, 2.0**-formats.input
    )
    worst = search(errors, space, evaluations, seed).sample
    x = fractions(worst)[None]
    truth = exact(network, x)
    found = {
        way.__name__: float(np.abs(emitted(layers, formats, box, x, way) - truth).max()) for way in (truncated, nearest)
    }
    return {"input": worst, "claimed": formats.claimed, **found}


def _unrounded(network: Network, values: list[tuple[Array, Array]]) -> Network:
    """The same graph with other kernels and biases."""
    found = dict(zip((node.name for node, _ in network.affine()), values, strict=True))
    nodes = [
        replace(node, op=replace(node.op, kernel=found[node.name][0], bias=found[node.name][1]))
        if node.name in found
        else node
        for node in network.nodes
    ]
    return Network(tuple(nodes))
