"""Staircases and pairs of real networks against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node
from sound_qkeras.network.grids import FixedPoint, fractional_bits_of
from sound_qkeras.network.ops import Clip, Dense, Input, Leaky, Relu, Reshape, Table
from sound_qkeras.network.ops.function_pair import FunctionPair
from sound_qkeras.network.pairing import pair_of
from sound_qkeras.network.smooth import smooth
from sound_qkeras.network.staircases import Staircase
from sound_qkeras.verify.proof import bound_leaves
from sound_qkeras.verify.propagation import propagate

numbers = st.floats(-20.0, 20.0, width=32)
roundings = st.one_of(
    st.builds(
        lambda f, low, size: FixedPoint(f, low, low + size), st.integers(-2, 6), st.integers(-9, 3), st.integers(0, 20)
    ),
    st.lists(st.integers(-12, 12), min_size=1, max_size=3, unique=True).flatmap(
        lambda edges: st.tuples(
            st.lists(st.booleans(), min_size=len(edges), max_size=len(edges)),
            st.lists(numbers, min_size=len(edges) + 1, max_size=len(edges) + 1),
        ).map(lambda p: Staircase(np.sort(np.array(edges) / 4.0), tuple(p[0]), np.sort(np.array(p[1]))))
    ),
)


def exactly(rounding, x):
    """The staircase at a fraction, from its definition."""
    if isinstance(rounding, FixedPoint):
        scale = Fraction(2) ** rounding.fractional_bits
        return max(Fraction(int(rounding.low)), min(Fraction(round(x * scale)), Fraction(int(rounding.high)))) / scale
    steps = zip(rounding.edges, rounding.upper, rounding.values[1:], strict=True)
    values = [value for edge, closed, value in steps if x > Fraction(edge) or (closed and x == Fraction(edge))]
    return Fraction(float(values[-1] if values else rounding.values[0]))


@given(roundings, numbers, numbers, st.fractions(0, 1), st.integers(0, 8))
def test_staircases_stay_within_their_errors(rounding, a, b, share, bits):
    low, high = min(a, b), max(a, b)
    box = Interval(np.array(low), np.array(high))
    image, error = rounding.image(box), Fraction(float(rounding.error(box, None)))
    on_grid = Fraction(round((Fraction(low) + (Fraction(high) - Fraction(low)) * share) * 2**bits), 2**bits)
    points = [Fraction(low), Fraction(high), Fraction(low) + (Fraction(high) - Fraction(low)) * share]
    points += [Fraction(float(edge)) for edge in getattr(rounding, "edges", ()) if low <= edge <= high]
    for x in points:
        found = exactly(rounding, x)
        assert float(image.lower) <= found <= float(image.upper)
        assert abs(found - x) <= error
        if Fraction(float(x)) == x:
            assert exactly(rounding, x) == Fraction(float(rounding.apply(np.array(float(x)))))
    if low <= on_grid <= high:
        assert abs(exactly(rounding, on_grid) - on_grid) <= Fraction(float(rounding.error(box, bits)))


def test_what_is_on_the_grid_is_only_cut_off():
    rounding, box = FixedPoint(3, -8, 7), Interval(np.array([0.0, 0.5]), np.array([0.5, 2.0]))
    assert rounding.error(box, 3)[0] == 0.0 < rounding.error(box, 4)[0]
    assert rounding.error(box, None)[0] == 1 / 16  # reached at a tie
    assert 1.125 <= rounding.error(box, 3)[1] <= 1.125 + 1e-12


def test_staircases_are_checked():
    with pytest.raises(ModelError, match="staircase"):
        Staircase(np.array([0.0]), (True,), np.array([1.0, -1.0]))
    with pytest.raises(ModelError, match="53 bits"):
        FixedPoint(0, -(2**60), 0)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5))
def test_fractional_bits_are_the_fewest(values):
    bits = fractional_bits_of(np.array(values))
    assert bits is not None

    def held(bits):
        return all((Fraction(value) * Fraction(2) ** bits).denominator == 1 for value in values)

    assert held(bits)
    assert not any(values) or not held(bits - 1)


@pytest.mark.parametrize(("one", "other"), [("tanh", "hard_tanh"), ("sigmoid", "half_sigmoid"), ("softsign", "tanh")])
@pytest.mark.parametrize(("low", "high"), [(-40.0, 40.0), (-0.5, 1.5), (0.9, 1.1), (3.0, 9.0), (2.0, 2.0)])
def test_functions_differ_no_more_than_is_said(one, other, low, high):
    error = float(FunctionPair(one, 1.0, other, 1.0).error(Interval(np.array(low), np.array(high))))
    x = np.linspace(low, high, 2001)
    distance = smooth(one).value(x) - smooth(other).value(x)
    seen = float(np.maximum(np.maximum(distance.lower, -distance.upper), 0.0).max())
    assert seen <= error <= 1.3 * seen + 0.02
    assert FunctionPair(one, 1.0, one, 1.0).error(Interval(x[:-1], x[1:])).max() == 0.0


SHAPE, HIDDEN = (3,), 4


def network(kernels, radii, unit):
    """Input, Dense, unit, a place to round, Dense; kernels as `(kernel, bias)` pairs."""
    parts = [Dense(k, b, *(r if np.any(r[0]) else (None, None))) for (k, b), r in zip(kernels, radii, strict=True)]
    nodes = [
        Node("x", Input(SHAPE)),
        Node("x_rounded", Reshape(SHAPE, SHAPE), ("x",)),
        Node("hidden", parts[0], ("x_rounded",)),
        Node("unit", unit, ("hidden",)),
        Node("rounded", Reshape((HIDDEN,), (HIDDEN,)), ("unit",)),
        Node("y", parts[1], ("rounded",)),
    ]
    return Network(tuple(nodes))


def drawn(seed, spread):
    """Parameters near one another, and how far they may be off."""
    rng = np.random.default_rng(seed)
    shapes = (((3, HIDDEN), (HIDDEN,)), ((HIDDEN, 2), (2,)))
    first = [tuple(np.float32(rng.normal(size=s)).astype(np.float64) for s in pair) for pair in shapes]
    second = [tuple(np.rint(part * 16) / 16 for part in pair) for pair in first]
    radii = [[tuple(spread * rng.random(s) for s in pair) for pair in shapes] for _ in range(2)]
    return first, second, radii


def member(rng, pair, radius):
    """Exact parameters within the radii, at their ends."""

    def moved(part, size):
        signs = rng.choice([-1, 1], part.shape)
        return [
            Fraction(float(c)) + int(s) * Fraction(float(r))
            for c, r, s in zip(part.ravel(), size.ravel(), signs.ravel(), strict=True)
        ]

    return tuple(np.array(moved(p, r), object).reshape(p.shape) for p, r in zip(pair, radius, strict=True))


@pytest.mark.parametrize("spread", [0.0, 2.0**-6])
@pytest.mark.parametrize("unit", ["relu", "leaky"])
@pytest.mark.parametrize("seed", range(6))
def test_pairs_stay_within_their_bounds(seed, unit, spread):
    rng = np.random.default_rng(seed)
    first, second, radii = drawn(seed, spread)
    ops = (Relu(), Relu()) if unit == "relu" else (Leaky(np.array([0.3])), Leaky(np.array([0.25])))
    steps = {"x_rounded": FixedPoint(3, -16, 15), "rounded": FixedPoint(2, -4, 5)}
    twin = pair_of(network(first, radii[0], ops[0]), network(second, radii[1], ops[1]), steps)
    width = 2.0 ** -(seed % 3)
    box = Interval(np.full(3, -width), np.full(3, 1.5 * width))
    bounds = bound_leaves(twin, box).output_bounds
    facts = propagate(twin.network, box[None], twin).facts
    slopes = [0.0, 0.0] if unit == "relu" else [0.3, 0.25]

    def run(parameters, x, slope, roundings):
        values = {"x_rounded": [exactly(roundings["x_rounded"], v) for v in x] if roundings else x}
        values["hidden"] = [*(np.array(values["x_rounded"], object) @ parameters[0][0] + parameters[0][1])]
        unit_values = [v if v > 0 else v * Fraction(slope) for v in values["hidden"]]
        values["rounded"] = [exactly(roundings["rounded"], v) for v in unit_values] if roundings else unit_values
        values["y"] = [*(np.array(values["rounded"], object) @ parameters[1][0] + parameters[1][1])]
        return values

    for _ in range(8):
        corner = rng.random() < 0.5
        x = [
            Fraction(float(v))
            for v in (rng.choice([-width, 1.5 * width], 3) if corner else rng.uniform(-width, 1.5 * width, 3))
        ]
        here = run([member(rng, *p) for p in zip(first, radii[0], strict=True)], x, slopes[0], None)
        there = run([member(rng, *p) for p in zip(second, radii[1], strict=True)], x, slopes[1], steps)
        assert all(abs(a - b) <= Fraction(float(e)) for a, b, e in zip(there["y"], here["y"], bounds, strict=True))
        for name in ("hidden", "rounded", "y"):
            value, fixed, difference = facts[name].pair()
            for k, (a, b) in enumerate(zip(here[name], there[name], strict=True)):
                assert value.lower[0, k] <= a <= value.upper[0, k]
                assert fixed.lower[0, k] <= b <= fixed.upper[0, k]
                assert difference.lower[0, k] <= b - a <= difference.upper[0, k]


def test_bounds_are_reached():
    """One weight off by its radius, one value cut off: nothing smaller can be claimed."""
    kernel, zero = np.ones((3, HIDDEN)) / 3, np.zeros(HIDDEN)
    last = np.array([[1.0, 0.0]] * HIDDEN), np.zeros(2)
    flat = [(np.zeros((3, HIDDEN)), zero), (np.zeros((HIDDEN, 2)), np.zeros(2))]
    first = network([(kernel, zero), last], flat, Relu())
    twin = pair_of(first, first, {"rounded": FixedPoint(4, 0, 8)})
    found = bound_leaves(twin, Interval(np.zeros(3), np.full(3, 1.0)))
    assert found.output_bounds[0] == pytest.approx(HIDDEN * 0.5, rel=1e-6)
    wide = [(np.full((3, HIDDEN), 0.125), zero), flat[1]]
    off = pair_of(first, network([(kernel, zero), last], wide, Relu()), {})
    assert bound_leaves(off, Interval(np.zeros(3), np.ones(3))).output_bounds[0] == pytest.approx(
        HIDDEN * 3 / 8, rel=1e-6
    )


def test_enclosed_parameters_meet_the_other_networks_inputs():
    """The reference is zero; the twin's weights are within 1/8 of it, and what they read is 4 where the reference reads 1."""
    flat = np.zeros((3, HIDDEN)), np.zeros(HIDDEN)
    last = np.array([[1.0, 0.0]] * HIDDEN), np.zeros(2)
    none = [(np.zeros((3, HIDDEN)), np.zeros(HIDDEN)), (np.zeros((HIDDEN, 2)), np.zeros(2))]
    off = [(np.full((3, HIDDEN), 0.125), np.zeros(HIDDEN)), (np.zeros((HIDDEN, 2)), np.full(2, 0.25))]
    networks = (network([flat, last], radii, Relu()) for radii in (none, off))
    networks = [*networks]
    networks[1] = replaced_radius(networks[1], off[1])
    twin = pair_of(*networks, {"x_rounded": FixedPoint(0, 4, 4)})
    found = bound_leaves(twin, Interval(np.ones(3), np.ones(3))).output_bounds
    assert found == pytest.approx([HIDDEN * 3 * 4 / 8 + 0.25, 0.25], rel=1e-6)


def replaced_radius(whole, radius):
    """The network with another radius at its last layer, whose kernel is exact."""
    last = whole.nodes[-1]
    return Network((*whole.nodes[:-1], Node("y", Dense(last.op.kernel, last.op.bias, None, radius[1]), last.inputs)))


def test_ties_between_numbers_with_a_grid_are_decided():
    """A sum that is a tie is rounded to even, whatever the enclosure of the sum is widened by."""
    first, second = np.full((3, HIDDEN), 0.25), np.array([[1.0, 0.0]] * HIDDEN)
    flat = [(np.zeros((3, HIDDEN)), np.zeros(HIDDEN)), (np.zeros((HIDDEN, 2)), np.zeros(2))]
    made = network([(first, np.zeros(HIDDEN)), (second, np.zeros(2))], flat, Relu())
    twin = pair_of(made, made, {"x_rounded": FixedPoint(0, -8, 8), "rounded": FixedPoint(1, 0, 8)})
    for total, rounded in ((1.0, 0.0), (3.0, 1.0), (5.0, 1.0)):  # quarters of these are ties between halves
        box = Interval.point(np.array([total, 0.0, 0.0]))
        exact = HIDDEN * abs(rounded - total / 4)
        assert bound_leaves(twin, box).output_bounds[0] == pytest.approx(exact, rel=1e-9)
        difference = propagate(twin.network, box[None], twin).facts["rounded"].pair()[2]
        assert np.all(np.abs(difference.center - (rounded - total / 4)) < 1e-9)
        assert difference.radius.max() < 1e-9


def test_pairs_are_checked():
    first, second, radii = drawn(0, 0.0)
    one = network(first, radii[0], Relu())
    with pytest.raises(ModelError, match="relu in one network, leaky in the other"):
        pair_of(one, network(second, radii[1], Leaky(np.array([0.5]))), {})
    with pytest.raises(ModelError, match="'unit' is clip in one network, clip in the other"):
        pair_of(network(first, radii[0], Clip(6.0)), network(second, radii[1], Clip(4.0)), {})
    with pytest.raises(ModelError, match="no nodes"):
        pair_of(one, one, {"nowhere": FixedPoint(1, 0, 1)})


def test_grids_are_those_of_the_values():
    first, second, radii = drawn(1, 0.0)
    steps = {"x_rounded": FixedPoint(3, -16, 15), "rounded": FixedPoint(2, -4, 5)}
    twin = pair_of(network(first, radii[0], Relu()), network(second, radii[1], Relu()), steps)
    values = twin.evaluate_all(np.random.default_rng(0).uniform(-1, 1, (50, 3)))
    assert twin.exact_grids["x"] is None
    for name in ("x_rounded", "hidden", "unit", "rounded", "y"):
        scaled = values[name] * 2.0 ** twin.rounded_grids[name]
        assert np.array_equal(scaled, np.rint(scaled))
    table = Network((*one_dense(), Node("t", Table("hard_tanh"), ("d",))))
    assert pair_of(table, table, {}, input_bits=2).rounded_grids == {"x": 2, "d": 3, "t": 3}
    table = Network((*one_dense(2.0**-9), Node("t", Table("half_sigmoid"), ("d",))))
    assert pair_of(table, table, {}, input_bits=2).rounded_grids == {"x": 2, "d": 9, "t": 10}


def test_what_is_cut_off_has_the_grid_of_the_ends():
    """Inputs of two fractional bits that saturate at 127/128 have seven: a sum of them is no multiple of a quarter."""
    made = network([(np.eye(3, HIDDEN), np.zeros(HIDDEN)), (np.ones((HIDDEN, 2)), np.zeros(2))], NO_RADII, Relu())
    steps = {"x_rounded": FixedPoint(7, -128, 127), "rounded": FixedPoint(2, 0, 32)}
    pair = pair_of(made, made, steps, input_bits=2)
    assert (pair.rounded_grids["x"], pair.rounded_grids["x_rounded"], pair.exact_grids["rounded"]) == (2, 7, 7)
    box = Interval(np.full(3, 0.75), np.full(3, 2.0))
    facts = propagate(pair.network, box[None], pair).facts
    values = pair.evaluate_all(np.full((1, 3), 2.0))
    for name in ("x_rounded", "hidden", "rounded", "y"):
        fixed = facts[name].pair()[1]
        assert np.all(fixed.lower <= values[name])
        assert np.all(values[name] <= fixed.upper)
    assert pair_of(made, made, {"x_rounded": FixedPoint(7, -128, 128)}, input_bits=2).rounded_grids["x_rounded"] == 2


def test_steps_have_the_grid_of_their_values():
    """Whole numbers that become halves are no whole numbers any more."""
    made = network([(np.eye(3, HIDDEN), np.zeros(HIDDEN)), (np.ones((HIDDEN, 2)), np.zeros(2))], NO_RADII, Relu())
    halves = Staircase(np.array([0.0]), (True,), np.array([-0.5, 0.5]))
    assert pair_of(made, made, {"x_rounded": halves}, input_bits=0).rounded_grids["x_rounded"] == 1


NO_RADII = [(np.zeros((3, HIDDEN)), np.zeros(HIDDEN)), (np.zeros((HIDDEN, 2)), np.zeros(2))]


def one_dense(bias=0.0):
    return Node("x", Input((1,))), Node("d", Dense(np.array([[0.5]]), np.array([bias])), ("x",))
