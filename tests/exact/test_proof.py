"""The exact proof: never below an error that occurs, equal to hand computations, and refusing what may overflow."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.exact import dyadic
from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.ops import ABOVE, BELOW, Lines, between
from sound_qkeras.exact.proof import (
    FORWARD,
    QUICK,
    THOROUGH,
    Proof,
    box_of,
    exact_bound,
    exact_error,
    exact_error_range,
)
from sound_qkeras.exact.tensors import ExactFacts
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Op, Relu, Reshape
from sound_qkeras.network.simulate import simulate
from sound_qkeras.verify.proof import prove
from sound_qkeras.verify.propagation import propagate

from ..networks import box, quantized, random_network, random_quantized, samples, with_parameters


def real_output(network, x, shift=Fraction(0), stop=None):
    """The trained network by the book: exact, one sum at a time; folded parameters moved by a part of their radii."""
    values = [Fraction(float(v)) for v in x.ravel()]
    for node in network.nodes[:stop]:
        if isinstance(node.op, Dense):
            op, outputs = node.op, range(node.op.kernel.shape[1])
            moved = [] if op.kernel_radius is None else [[Fraction(r) * shift for r in row] for row in op.kernel_radius]
            values = [
                sum(v * (Fraction(op.kernel[i, j]) + (moved[i][j] if moved else 0)) for i, v in enumerate(values))
                + Fraction(op.bias[j])
                for j in outputs
            ]
        elif isinstance(node.op, Relu):
            values = [max(v, Fraction(0)) for v in values]
    return values


def ties(rng, twin, ranges, count):
    """Points of the box half way between two codes of the input format."""
    step = twin.formats[twin.network.nodes[0].name].step
    low, high = ranges
    codes = np.floor(rng.uniform(low, high, (count, *low.shape)) / step) + 0.5
    return np.clip(codes * step, low, high)


@pytest.mark.parametrize("seed", range(12))
def test_no_error_exceeds_the_bound(seed):
    rng = np.random.default_rng(seed)
    twin, ranges = random_quantized(rng)
    bound = exact_bound(twin, *ranges)
    points = np.concatenate([samples(rng, ranges, 24), ties(rng, twin, ranges, 12)])
    for x, fixed in zip(points, simulate(twin, points), strict=True):
        error = exact_error(twin, x)
        assert error == [Fraction(q) - r for q, r in zip(fixed.ravel(), real_output(twin.network, x), strict=True)]
        assert all(abs(e) <= b for e, b in zip(error, bound, strict=True))


def value_of(code, bits):
    """What a code stands for."""
    return Fraction(int(code)) * Fraction(2) ** -bits


def roomy(twin):
    """The same with room for ranges that are far too wide."""
    wide = {name: Format(f.word_length + 30, f.integer_bits + 30, f.signed) for name, f in twin.accumulators.items()}
    formats = {name: Format(f.word_length + 20, f.integer_bits + 20, f.signed) for name, f in twin.formats.items()}
    return replace(twin, accumulators=wide, formats=formats)


@pytest.mark.parametrize("precision", [dyadic.PRECISION, 6])
@pytest.mark.parametrize("effort", [FORWARD, QUICK, THOROUGH])
@pytest.mark.parametrize("seed", range(10))
def test_every_fact_holds_at_every_node(seed, effort, precision, monkeypatch):
    """Not only of the output: the float value, the fixed-point value and their difference, and the grid.

    With rows and ranges cut to a few bits, too: whatever that leaves out is charged.
    """
    monkeypatch.setattr(dyadic, "PRECISION", precision)
    rng = np.random.default_rng(seed)
    twin, ranges = random_quantized(rng, [int(n) for n in rng.integers(1, 6, rng.integers(3, 6))])
    facts = Proof(roomy(twin), Range(*(Dyadic.of(end.reshape(-1)) for end in ranges)), effort=effort).facts
    points = np.concatenate([samples(rng, ranges, 8), ties(rng, twin, ranges, 4)])
    codes = twin.simulate_all(points)
    for index, x in enumerate(points):
        for k, node in enumerate(twin.network.nodes):
            real = real_output(twin.network, x, stop=k + 1)
            fixed = [value_of(code, twin.fractional_bits[node.name]) for code in codes[node.name][index].ravel()]
            error = [q - r for q, r in zip(fixed, real, strict=True)]
            proved = facts[node.name]
            for found, enclosure in ((real, proved.value), (fixed, proved.fixed), (error, proved.difference)):
                ends = zip(enclosure.lower.fractions(), found, enclosure.upper.fractions(), strict=True)
                assert all(low <= v <= high for low, v, high in ends)
            bits = twin.fractional_bits[node.name]
            assert proved.grid == bits
            ends = proved.fixed.lower.fractions() + proved.fixed.upper.fractions()
            assert all((end * Fraction(2) ** bits).denominator == 1 for end in ends)


def tiny(kernel, code, *, bias=0.0, relu=False, low=0.0, high=1.0, kernel_bits=1, input_bits=1):
    """One input, one neuron, one ReLU perhaps, and formats as wide as they must be."""
    nodes = [Node("x", Input((1,)), (), "x"), Node("d", Dense(np.full((1, 1), kernel), np.full(1, bias)), ("x",), "d")]
    if relu:
        nodes.append(Node("r", Relu(), ("d",), "d"))
    zero = (np.array([0]), Format(2, 1, True))
    parameters = {"d": AffineCodes(np.array([[code]]), Format.for_codes(code, code, kernel_bits), *zero)}
    ranges = np.full(1, low), np.full(1, high)
    return with_parameters(Network(tuple(nodes)), ranges, parameters, {"x": input_bits}), ranges


def test_one_linear_neuron_by_hand():
    """Kernel 3/4 stored as 1/2, input steps of 1/2: `|d| <= 1/2 * 1/4 + |-1/4| * 1`."""
    twin, ranges = tiny(0.75, 1)
    assert exact_bound(twin, *ranges) == [Fraction(3, 8)]


def test_a_bias_enters_exactly():
    """The bias of 1/16 is stored as zero and opposes nothing where the kernel error has its sign."""
    twin, ranges = tiny(0.75, 1, bias=0.0625)
    assert exact_bound(twin, *ranges) == [Fraction(3, 8) + Fraction(1, 16)]


def test_a_point_on_the_grid_has_no_input_error():
    twin, _ = tiny(0.75, 1)
    assert exact_bound(twin, [0.5], [0.5]) == [Fraction(1, 8)]
    assert exact_error(twin, [0.5]) == [Fraction(-1, 8)]


def test_a_point_off_the_grid_has_its_own_input_error():
    """3/4 is a tie between 1/2 and 1 and becomes 1: `1/2 - 9/16`."""
    twin, _ = tiny(0.75, 1)
    assert exact_error(twin, [0.75]) == [Fraction(-1, 16)]
    assert exact_bound(twin, [0.75], [0.75]) == [Fraction(1, 16)]


def test_a_dead_unit_has_no_error():
    twin, ranges = tiny(0.75, 1, relu=True, low=-1.0, high=0.0)
    assert exact_bound(twin, *ranges) == [0]


def test_a_live_unit_keeps_its_error():
    twin, ranges = tiny(0.75, 1, relu=True)
    assert exact_bound(twin, *ranges) == [Fraction(3, 8)]


def test_an_undecided_unit_cannot_err_by_more_than_its_values():
    """`z <= 1/8` and `z_q <= 1/4` on [-1, 1/4], though the difference before the unit may be larger."""
    twin, ranges = tiny(0.5, 2, relu=True, low=-1.0, high=0.25, input_bits=2)
    assert exact_bound(twin, *ranges) == [Fraction(1, 4)]


@pytest.mark.parametrize("policy", [ABOVE, BELOW])
@pytest.mark.parametrize("ends", [(-3, 1), (-1, 3), (-2, 2), (1, 3), (-3, -1), (0, 0)])
def test_two_lines_leave_all_that_may_be_left(ends, policy):
    """A value of so many halves; and a difference, wherever the unit stands."""
    some = Range(*(Dyadic.codes(np.array([end]), 1) for end in ends))
    wide = Range.symmetric(Dyadic.codes(np.array([9]), 1))
    rows = Dyadic.codes(np.array([[2], [-3]]), 0)
    value, rest = between(rows, Lines(ExactFacts(some, some, some, None)).around_value, policy)
    change, left = between(rows, Lines(ExactFacts(wide, wide, some, None)).around_difference, policy)

    def half(number):
        return Dyadic.codes(np.array([[number]]), 1)

    for x in range(ends[0], ends[1] + 1):
        rest.intersect(Range.point((rows * half(max(x, 0)) - value * half(x))[:, 0]))
        for z in range(-9, 10):
            left.intersect(Range.point((rows * half(max(z + x, 0) - max(z, 0)) - change * half(x))[:, 0]))


def test_dropping_one_bit_may_err_by_half_a_step():
    """`1/2 * 1/4` from the input, and a tie of `1/4` where two fractional bits become one."""
    twin, ranges = tiny(0.5, 1)
    output = Format.for_range(np.zeros(1), np.ones(1), 1)
    twin = Pair(twin.network, twin.parameters, {**twin.formats, "d": output}, {})
    assert exact_bound(twin, *ranges) == [Fraction(3, 8)]
    assert exact_error(twin, [0.5]) == [Fraction(-1, 4)]


def test_steps_above_one_are_exact():
    """Kernels and inputs in steps of 8 and 4."""
    twin, ranges = tiny(21.0, 3, high=40.0, kernel_bits=-3, input_bits=-2)
    assert exact_bound(twin, *ranges) == [24 * 2 + 3 * 40]
    assert exact_error(twin, [39.0]) == [24 * 40 - 21 * 39]


def test_radii_of_an_earlier_layer_reach_through_a_later_residual():
    """A folded kernel of 0 +- 1 stored as 0, behind it 3 stored as 1: `0 * 1 - 3 x` for all `|x| <= 1`."""
    first, last = (Dense(np.full((1, 1), k), np.zeros(1), np.full((1, 1), r)) for k, r in ((0.0, 1.0), (3.0, 0.0)))
    nodes = Node("x", Input((1,))), Node("a", first, ("x",), "a"), Node("b", last, ("a",), "b")
    zero = np.array([0]), Format(2, 1, True)
    codes = {k: AffineCodes(np.array([[c]]), Format(2, 1, True), *zero) for k, c in (("a", 0), ("b", 1))}
    ranges = np.full(1, -1.0), np.full(1, 1.0)
    twin = with_parameters(Network(nodes), ranges, codes, {"x": 3, "a": 3})
    assert exact_bound(twin, *ranges) == [3]


def test_correlated_neurons_cancel():
    """The sum of two neurons that see the same rounding error with opposite signs."""
    kernel = np.array([[1.0, -1.0]])
    codes = AffineCodes(np.array([[1, -1]]), Format(2, 1, True), np.array([0, 0]), Format(2, 1, True))
    last = AffineCodes(np.array([[1], [1]]), Format(1, 1, False), np.array([0]), Format(2, 1, True))
    layers = Dense(kernel, np.zeros(2)), Dense(np.ones((2, 1)), np.zeros(1))
    nodes = [Node("x", Input((1,))), Node("a", layers[0], ("x",), "a"), Node("b", layers[1], ("a",), "b")]
    ranges = np.full(1, -1.0), np.full(1, 1.0)
    twin = with_parameters(Network(tuple(nodes)), ranges, {"a": codes, "b": last}, {"x": 3, "a": 3})
    assert exact_bound(twin, *ranges) == [0]


@pytest.mark.parametrize("seed", range(6))
def test_both_proofs_agree_where_every_unit_is_decided(seed):
    """On a narrow box both networks are linear; what is left between the proofs is the rounding of float64."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, (3, 5, 4, 2))
    center = rng.uniform(-1, 1, 3)
    ranges = center - 2.0**-12, center + 2.0**-12
    twin = quantized(network, ranges, 14, 14, 20)
    exact, proved = exact_bound(twin, *ranges), prove(twin, Interval(*ranges)).output_bounds.ravel()
    assert np.allclose(np.array(exact, dtype=np.float64), proved, rtol=1e-9, atol=0.0)
    assert all(e <= Fraction(p) for e, p in zip(exact, proved, strict=True))


def test_a_controller_takes_less_than_two_seconds_and_is_about_as_tight_as_the_float_proof():
    rng = np.random.default_rng(0)
    network = random_network(rng, (3, 25, 25, 1))
    twin = quantized(network, box(network), 12, 12)
    (bound,) = exact_bound(twin, *box(network))
    assert bound <= Fraction(1.001 * prove(twin, Interval(*box(network))).bound)


def test_awkward_parameters_stay_exact():
    """Subnormal, huge and unrounded numbers side by side."""
    kernel = np.array([[1e-40, 1e30, 0.1], [5e-324, -1e30, 1 / 3]])
    op = Dense(kernel, np.array([1e-300, 0.0, -0.0]))
    codes = AffineCodes(
        np.array([[0, 1, 2], [0, -1, 3]]), Format(4, 2, True), np.zeros(3, np.int64), Format(2, 1, True)
    )
    network = Network((Node("x", Input((2,))), Node("d", op, ("x",), "d")))
    ranges = np.array([-1.0, 1e-310]), np.array([1.0, 3e-310])
    twin = with_parameters(network, ranges, {"d": codes}, {"x": 4})
    bound = exact_bound(twin, *ranges)
    for x in ranges:
        fixed = simulate(twin, x[None])[0]
        error = exact_error(twin, x)
        assert error == [Fraction(q) - r for q, r in zip(fixed, real_output(network, x), strict=True)]
        assert all(abs(e) <= b for e, b in zip(error, bound, strict=True))


def folded(radius):
    """A twin whose first layer is known only up to a radius."""
    rng = np.random.default_rng(3)
    network = random_network(rng, (2, 4, 2))
    first, dense = next(network.affine())
    op = replace(dense, kernel_radius=np.full(dense.kernel.shape, radius))
    nodes = tuple(replace(node, op=op) if node is first else node for node in network.nodes)
    return quantized(Network(nodes), box(network)), box(network)


def test_radii_of_folded_parameters_are_covered():
    twin, ranges = folded(2.0**-10)
    bound = exact_bound(twin, *ranges)
    exact = exact_bound(folded(0.0)[0], *ranges)
    assert all(b > e for b, e in zip(bound, exact, strict=True))
    for x in samples(np.random.default_rng(0), ranges, 12):
        fixed = [Fraction(q) for q in simulate(twin, x[None])[0]]
        enclosure = exact_error_range(twin, x)
        for part in (Fraction(-1), Fraction(1), Fraction(1, 3)):
            real = real_output(twin.network, x, part)
            errors = [q - r for q, r in zip(fixed, real, strict=True)]
            assert all(low <= e <= high for e, (low, high) in zip(errors, enclosure, strict=True))
            assert all(abs(e) <= b for e, b in zip(errors, bound, strict=True))
            certain = exact_error(twin, x)
            assert all(abs(c) <= abs(e) for c, e in zip(certain, errors, strict=True))


def test_an_error_that_may_be_zero_is_not_certain():
    twin, _ = folded(10.0)
    assert exact_error(twin, [[0.5, 0.5]]) == [0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_any_format_one_bit_narrower_than_the_range_is_refused(seed):
    """Formats of hull ranges may be wider than needed: narrowed until samples overflow, they must be refused."""
    rng = np.random.default_rng(seed)
    twin, ranges = random_quantized(rng, (2, 5, 3))
    for kind in ("formats", "accumulators"):
        for name, output in getattr(twin, kind).items():
            reached = largest_codes(twin, ranges, name, output)
            while True:
                output = Format(output.word_length - 1, output.integer_bits - 1, output.signed)
                if output.word_length == output.signed or not all(
                    output.min_code <= code <= output.max_code for code in reached
                ):
                    break
            if output.word_length == output.signed:
                continue
            narrow = replace(twin, **{kind: {**getattr(twin, kind), name: output}})
            with pytest.raises(VerificationError, match="codes reach") as caught:
                exact_bound(narrow, *ranges)
            assert caught.value.layer_name == twin.network.by_name[name].layer


def largest_codes(twin, ranges, name, output):
    """The extreme codes samples reach at a node."""
    codes = twin.simulate_all(samples(np.random.default_rng(0), ranges, 400))[name]
    assert codes.min() >= output.min_code
    return int(codes.min()), int(codes.max())


def test_a_sum_that_just_fits_is_accepted_and_one_code_more_is_refused():
    """Beyond 53 bits too, where the largest code is no float64."""
    network = Network((Node("x", Input((1,))), Node("d", Dense(np.ones((1, 1)), np.zeros(1)), ("x",), "d")))
    bias_format, input_format = Format(53, 0, True), Format(31, 1, False)
    for bias, fits in ((-1, True), (0, False)):
        codes = AffineCodes(np.array([[2**30]]), Format(31, 1, False), np.array([bias]), bias_format)
        accumulator = Format(60, 0, False)
        bits = accumulator.fractional_bits
        codes = replace(codes, bias_format=Format(53, 53 - 1 - bits, True))
        twin = Pair(network, {"d": codes}, {"x": input_format}, {"d": accumulator})
        if fits:
            assert exact_bound(twin, [1.0], [1.0]) == [Fraction(1, 2**60)]
        else:
            with pytest.raises(VerificationError, match=f"codes reach {2**60}"):
                exact_bound(twin, [1.0], [1.0])


def test_an_input_beyond_its_format_is_refused():
    twin, _ = tiny(0.75, 1)
    with pytest.raises(VerificationError, match="layer 'x'"):
        exact_bound(twin, [0.0], [1.75])


def test_errors_saturate_as_the_simulator_does():
    twin, _ = tiny(0.75, 1)
    assert exact_error(twin, [100.0]) == [Fraction(simulate(twin, [[100.0]])[0, 0]) - 75]


@pytest.mark.parametrize(
    ("lower", "upper"), [([0.0, 1.0], [1.0, 1.0]), ([math.nan], [1.0]), ([0.0], [math.inf]), ([1.0], [0.0])]
)
def test_boxes_that_are_none_are_refused(lower, upper):
    twin, _ = tiny(0.75, 1)
    with pytest.raises(InputError, match="the box"):
        exact_bound(twin, lower, upper)


def test_large_networks_are_refused():
    network = random_network(np.random.default_rng(0), (9, 90, 2))
    twin = quantized(network, box(network))
    with pytest.raises(InputError, match="up to 1000 parameters, this one has 1082"):
        exact_bound(twin, *box(network))
    assert len(exact_bound(twin, *box(network), max_parameters=1082)) == 2


class Doubled(Relu):
    """An operation nobody told the exact proof about."""

    kind = "doubled"


def test_unknown_operations_are_refused_by_name():
    network = random_network(np.random.default_rng(0), (3, 4, 2))
    nodes = tuple(replace(n, op=Doubled()) if isinstance(n.op, Relu) else n for n in network.nodes)
    twin = quantized(Network(nodes), box(network))
    for call in (lambda: exact_bound(twin, *box(network)), lambda: exact_error(twin, np.zeros(3))):
        with pytest.raises(VerificationError, match=r"'dense_0'.*kind 'doubled'"):
            call()


def test_no_arithmetic_of_the_operations_is_used(monkeypatch):
    """A bug in an operation's own enclosures cannot reach this proof."""
    twin, ranges = random_quantized(np.random.default_rng(8), (4, 5, 3, 2))
    x = samples(np.random.default_rng(0), ranges, 1)[0]
    expected = exact_bound(twin, *ranges), exact_error(twin, x)
    twin = Pair(twin.network, twin.parameters, twin.formats, twin.accumulators)

    def forbidden(*_args):
        raise AssertionError

    for op in (Input, Dense, Relu, Reshape):
        for name in ("interval", "fixed_interval", "difference", "adjoint", "integer", "evaluate"):
            monkeypatch.setattr(op, name, forbidden)
    monkeypatch.setattr(Op, "fractional_bits", forbidden)
    for name in ("__add__", "__mul__", "__sub__", "around", "mapped"):
        monkeypatch.setattr(Interval, name, forbidden)
    assert (exact_bound(twin, *ranges), exact_error(twin, x)) == expected


def test_ranges_that_do_not_meet_are_refused():
    one, other = (
        Range(Dyadic.of(np.array(low)), Dyadic.of(np.array(high)))
        for low, high in (([0.0, 0.0], [1.0, 1.0]), ([0.5, 1.5], [2.0, 2.0]))
    )
    with pytest.raises(VerificationError, match="do not meet"):
        one.intersect(other)


@pytest.mark.parametrize("bits", [-3, 0, 2, 5])
def test_dyadic_rounding_equals_fractions(bits):
    rng = np.random.default_rng(bits + 9)
    x = np.concatenate([rng.integers(-200, 200, 60) / 2.0**4, rng.normal(size=20) * 20, [0.0, -0.5, 0.5, 1.5, -1.5]])
    exact, scale = [Fraction(v) for v in x], Fraction(2) ** bits
    dyadic = Dyadic.of(x)
    assert dyadic.fractions() == exact
    assert dyadic.rounded(bits).tolist() == [round(v * scale) for v in exact]
    assert dyadic.floor(bits).fractions() == [math.floor(v * scale) / scale for v in exact]
    assert dyadic.ceil(bits).fractions() == [math.ceil(v * scale) / scale for v in exact]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_are_no_looser_where_units_are_centred(seed):
    """Without biases on a box about zero the identity and zero leave the same below every unit: both proofs take the same one."""
    network = random_network(np.random.default_rng(seed), (4, 5, 4, 2))
    without = [
        replace(node, op=replace(node.op, bias=np.zeros_like(node.op.bias))) if isinstance(node.op, Dense) else node
        for node in network.nodes
    ]
    ends = tuple(np.full(network.input_shape, end) for end in (-1.0, 1.0))
    pair = quantized(replace(network, nodes=tuple(without)), ends, 4, 8)
    first, exact = propagate(pair.network, Interval(*ends)[None], pair), Proof(pair, box_of(pair, *ends))
    for node in pair.network.nodes:
        value, found = first.facts[node.name].value, exact.facts[node.name].value
        assert all(
            end <= Fraction(float(one)) for end, one in zip(found.upper.fractions(), value.upper.flat, strict=True)
        )
        assert all(
            end >= Fraction(float(one)) for end, one in zip(found.lower.fractions(), value.lower.flat, strict=True)
        )
