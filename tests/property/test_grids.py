"""Grids against exact rational arithmetic: values, neighbours, bits, and integer codes, element by element."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.errors import FileFormatError, ModelError
from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.grids import image, largest_error
from sound_qkeras.exact.proof import exact_bound
from sound_qkeras.fixed_point import Format
from sound_qkeras.floating.fixed import float_reports
from sound_qkeras.floating.pair import pair_float_reports
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, files
from sound_qkeras.network.files import load_network, save_network
from sound_qkeras.network.grids import FixedPoint
from sound_qkeras.network.ops import Dense, Input, Relu
from sound_qkeras.network.pairing import pair_of
from sound_qkeras.network.staircases import Staircase, few_values
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.verify.proof import bound_leaves
from tests.results import edit

ELEMENTS = 4
whole = st.integers(-6, 9)


@st.composite
def fixed_points(draw):
    """A format for every element: zero bits, negative integer bits, codes that do not reach zero."""
    bits = draw(st.lists(whole, min_size=ELEMENTS, max_size=ELEMENTS))
    low = draw(st.lists(st.sampled_from([-8, -7, -1, 0, 0, 2]), min_size=ELEMENTS, max_size=ELEMENTS))
    size = draw(st.lists(st.sampled_from([0, 0, 1, 7, 15]), min_size=ELEMENTS, max_size=ELEMENTS))
    return FixedPoint(np.array(bits), np.array(low), np.array(low) + size)


@st.composite
def staircases(draw):
    """Edges on and beside codes, that belong to either side."""
    edges = sorted(draw(st.lists(st.integers(-12, 12).map(lambda k: k / 4), min_size=1, max_size=4, unique=True)))
    beside = draw(st.lists(st.sampled_from([-np.inf, 0.0, np.inf]), min_size=len(edges), max_size=len(edges)))
    edges = np.array([np.nextafter(e, s) if s else e for e, s in zip(edges, beside, strict=True)])
    upper = tuple(draw(st.lists(st.booleans(), min_size=len(edges), max_size=len(edges))))
    values = sorted(
        draw(st.lists(st.integers(-9, 9).map(lambda k: k / 8), min_size=len(edges) + 1, max_size=len(edges) + 1))
    )
    return Staircase(edges, upper, np.array(values), exponent=np.array(draw(st.integers(-3, 3))))


def values_of(grid):
    """Every value of every element, from the definition."""
    if isinstance(grid, Staircase):
        return [[Fraction(v) * Fraction(2) ** int(grid.exponent) for v in grid.values]] * ELEMENTS
    parts = zip(grid.fractional.tolist(), grid.low.tolist(), grid.high.tolist(), strict=True)
    return [[Fraction(code) / Fraction(2) ** bits for code in range(low, high + 1)] for bits, low, high in parts]


def becomes(grid, element, x):
    """What a number becomes, from the definition."""
    if isinstance(grid, FixedPoint):
        scale = Fraction(2) ** int(grid.fractional[element])
        return max(int(grid.low[element]), min(round(x * scale), int(grid.high[element]))) / scale
    scale, found = Fraction(2) ** int(grid.exponent), grid.values[0]
    for edge, closed, value in zip(grid.edges, grid.upper, grid.values[1:], strict=True):
        if x > Fraction(edge) * scale or (closed and x == Fraction(edge) * scale):
            found = value
    return Fraction(found) * scale


@given(staircases(), st.integers(-4, 12), st.integers(-1, 1))
def test_codes_on_and_beside_an_edge_are_on_the_right_side(grid, bits, beside):
    scale = Fraction(2) ** (bits + int(grid.exponent))
    codes = [math.floor(Fraction(edge) * scale) + beside for edge in grid.edges]
    wanted = [becomes(grid, 0, Fraction(code) / Fraction(2) ** bits) for code in codes]
    for kind in (np.float64, np.int64, object):
        found = grid.round_codes(np.array(codes, kind), bits)
        assert [Fraction(int(code)) / Fraction(2) ** grid.codes.fractional_bits for code in found] == wanted


grids = st.one_of(fixed_points(), staircases())
codes_of_elements = st.lists(st.integers(-(2**9), 2**9), min_size=ELEMENTS, max_size=ELEMENTS)


@given(grids, codes_of_elements, st.integers(-4, 12))
def test_integers_become_what_numbers_become(grid, codes, bits):
    """Zero tolerance, in every type that codes come in, and in the arithmetic of the second proof."""
    exact = [Fraction(code) / Fraction(2) ** bits for code in codes]
    wanted = [becomes(grid, element, x) for element, x in enumerate(exact)]
    numbers = np.array([float(x) for x in exact])
    assert [Fraction(x) for x in grid.apply(numbers)] == wanted
    held = grid.codes
    for kind in (np.float64, np.int64, object):
        found = grid.round_codes(np.array([codes], kind), bits)[0]
        assert [Fraction(int(code)) / Fraction(2) ** held.fractional_bits for code in found] == wanted
        assert np.all((held.min_code <= found) & (found <= held.max_code))
    assert image(grid, Dyadic.codes(np.array(codes), bits), (ELEMENTS,)).fractions() == wanted


@given(grids, codes_of_elements)
def test_neighbours_and_bits_are_those_of_the_values(grid, codes):
    x = np.array(codes) / 64
    below, above = grid.neighbours(x)
    for element, values in enumerate(values_of(grid)):
        exact = Fraction(x[element])
        lower, upper = [v for v in values if v <= exact], [v for v in values if v >= exact]
        assert Fraction(below[element]) == max(lower, default=min(values))
        assert Fraction(above[element]) == min(upper, default=max(values))
        distance = abs(Fraction(grid.nearest(x)[element]) - exact)
        assert distance == min(abs(v - exact) for v in values)
    lengths = np.broadcast_to(grid.word_lengths, (ELEMENTS,)).tolist()
    assert grid.bits((3, ELEMENTS)) == 3 * sum(lengths)
    if isinstance(grid, FixedPoint):
        parts = zip(lengths, grid.low.tolist(), grid.high.tolist(), strict=True)
        for length, low, high in parts:
            assert (
                length == 0
                if low == high == 0
                else -(2 ** (length - 1)) * (low < 0) <= low <= high < 2 ** (length - (low < 0))
            )
    else:
        assert 2 ** lengths[0] >= len(set(grid.values)) > 2 ** (lengths[0] - 1) - (lengths[0] == 0)


@given(grids, codes_of_elements, codes_of_elements, st.integers(0, 9), st.fractions(0, 1))
def test_no_element_is_farther_off_than_its_error(grid, first, second, bits, share):
    low, high = np.minimum(first, second) / 64, np.maximum(first, second) / 64
    box = Interval(low, high)
    for known in (None, bits):
        error, reached = grid.error(box, known), grid.image(box)
        exact = largest_error(grid, Range(Dyadic.of(low), Dyadic.of(high)), known, (ELEMENTS,)).fractions()
        for element in range(ELEMENTS):
            ends = Fraction(low[element]), Fraction(high[element])
            x = ends[0] + (ends[1] - ends[0]) * share
            x = x if known is None else Fraction(round(x * 2**known), 2**known)
            for point in (x, *(ends if known is None else ())):
                if ends[0] <= point <= ends[1]:
                    found = becomes(grid, element, point)
                    assert abs(found - point) <= min(Fraction(float(error[element])), exact[element])
                    assert reached.lower[element] <= found <= reached.upper[element]


def test_grids_that_are_none_are_refused():
    with pytest.raises(ModelError, match="53 bits"):
        FixedPoint(np.array([0, 60]), np.array(-1), np.array(1))
    with pytest.raises(ModelError, match="whole"):
        FixedPoint(np.array(1.5), np.array(-1), np.array(1))
    with pytest.raises(ModelError, match="staircase"):
        Staircase(np.array([0.0]), (True,), np.array([-1.0, 1.0]), exponent=np.array(400))
    far = FixedPoint(np.array([0, 60]), np.array([-1, 0]), np.array([1, 0]))  # the second is nothing but zero
    assert (far.fractional_bits, far.bits((2,))) == (0, 2)


SHAPE, HIDDEN = (3,), 4
SIGNS = Staircase(np.array([0.0]), (True,), np.array([-0.5, 0.5]))
DEAD = Staircase(np.array([-0.375, 0.375]), (False, True), np.array([-1.0, 0.0, 1.0]))
EACH = FixedPoint(np.array([4, 0, -2, 6]), np.array([-8, 0, -1, 0]), np.array([7, 3, 1, 0]))
POWERS = Staircase(2.0 ** np.array([-1.5, -0.5, 0.5]), (True, False, True), 2.0 ** np.arange(-2, 2), logarithmic=True)
INPUTS = FixedPoint(np.array([5, 2, 0]), np.array([-32, -4, -1]), np.array([31, 3, 1]))


def networks(seed):
    """A trained network, and one with other weights on a grid."""
    rng = np.random.default_rng(seed)
    arrays = [
        rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in ((3, HIDDEN), HIDDEN, (HIDDEN, 2), 2)
    ]
    made = []
    for part in (arrays, [np.rint(array * 8) / 8 for array in arrays]):
        nodes = [
            Node("x", Input(SHAPE)),
            Node("hidden", Dense(*part[:2]), ("x",)),
            Node("unit", Relu(), ("hidden",)),
            Node("y", Dense(*part[2:]), ("unit",)),
        ]
        made.append(Network(tuple(nodes)))
    return made


def with_grids(seed, inputs=INPUTS, hidden=EACH):
    pair = pair_of(*networks(seed), {"x": inputs, "unit": hidden})
    sums = {name: Format.for_range(-4096.0, 4096.0, pair.exact_bits[name]) for name in ("hidden", "y")}
    return replace(pair, accumulators=sums)


def in_float32(pair, x):
    """What sums of float32 numbers give, in whatever order numpy takes them; a rounding itself is exact."""
    values = {}
    for node in pair.subject.nodes:
        if isinstance(node.op, Dense):
            kernel, bias = (array.astype(np.float32) for array in (node.op.kernel, node.op.bias))
            found = values[node.inputs[0]].astype(np.float32) @ kernel + bias
        else:
            found = node.op.evaluate(*(values[name] for name in node.inputs)) if node.inputs else x.astype(np.float32)
        rounding = pair.roundings.get(node.name)
        values[node.name] = found if rounding is None else rounding.apply(found.astype(np.float64))
    return values["y"]


CASES = {
    "each": EACH,
    "signs": SIGNS,
    "dead": DEAD,
    "powers": POWERS,
    "channels": replace(EACH, fractional=np.array([1, 0, -2, 3])),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_pairs_with_grids_are_simulated_exactly_and_stay_within_both_bounds(kind, seed):
    pair = with_grids(seed, hidden=CASES[kind])
    assert pair.has_integers
    box = Interval(np.full(3, -1.25), np.full(3, 1.5))
    rng = np.random.default_rng(seed)
    x = rng.uniform(box.lower, box.upper, (200, 3))
    x[:100] = np.rint(x[:100] * 8) / 8  # on ties and edges
    codes, values = pair.simulate_all(x), pair.evaluate_all(x)
    for name, bits in pair.fractional_bits.items():
        assert np.array_equal(np.ldexp(codes[name].astype(np.float64), -bits), values[name])
    wide = pair.simulate_all(x[:5] * 2.0**40, exact=True)["y"]
    assert np.array_equal(np.ldexp(wide.astype(np.float64), -pair.fractional_bits["y"]), pair.evaluate(x[:5] * 2.0**40))
    errors = np.abs(pair.evaluate(x) - pair.reference.evaluate(x)).max(axis=0)
    assert np.all(errors <= bound_leaves(pair, box).output_bounds)
    assert np.all(errors <= [float(bound) for bound in exact_bound(pair, box.lower, box.upper)])
    assert float_reports(pair, box, 0.0)[1].error == math.inf  # of a QKeras model that cannot be written
    off = np.abs(pair.evaluate(x.astype(np.float32)) - in_float32(pair, x)).max()
    assert off <= pair_float_reports(pair, box, 0.0)[0].error
    hidden = [becomes(CASES[kind], k, Fraction(v)) for k, v in enumerate(np.maximum(values["hidden"][7], 0.0))]
    assert [Fraction(v) for v in values["unit"][7]] == hidden


def test_what_stays_within_every_element_costs_half_a_step_of_its_own():
    """Nothing is cut off, so the finest element does not pay for the coarsest."""
    pair = with_grids(0, hidden=FixedPoint(np.array([6, 0, 6, 6]), np.array(0), np.array(2**9)))
    inside = Interval(np.full((1, HIDDEN), 0.3), np.full((1, HIDDEN), 0.4))
    assert pair.rounded("unit", inside)[1][0].tolist() == [2.0**-7, 0.5, 2.0**-7, 2.0**-7]


@pytest.mark.parametrize("kind", CASES)
def test_grids_are_saved_and_hashed(kind, tmp_path):
    pair = with_grids(0, hidden=CASES[kind])
    save_network(tmp_path, pair.reference, pair)
    _, again = load_network(tmp_path)
    assert again.code_hash == pair.code_hash
    assert repr(again.grids) == repr(pair.grids)
    hashes = {pair.code_hash, with_grids(0, hidden=CASES[kind], inputs=replace(INPUTS, high=INPUTS.high + 1)).code_hash}
    for name, array in CASES[kind].arrays().items():
        step = np.zeros_like(array)
        step.reshape(-1)[0] = -1
        hashes.add(with_grids(0, hidden=replace(CASES[kind], **{name: array + step})).code_hash)
    assert len(hashes) == 2 + len(CASES[kind].arrays())


def test_results_saved_before_there_were_grids_say_how_to_make_them_anew(tmp_path, monkeypatch):
    pair = with_grids(0)
    save_network(tmp_path, pair.reference, pair)
    edit(tmp_path / "network.json", lambda document: document["fixed_point"].update(staircases={}))
    monkeypatch.setattr(files, "check_header", lambda *_: None)
    with pytest.raises(FileFormatError, match="certify the model again"):
        load_network(tmp_path)


def test_grids_must_fit_their_results():
    short, several = FixedPoint(np.arange(3), np.array(0), np.array(1)), replace(SIGNS, exponent=np.arange(HIDDEN))
    for grid, says in ((short, "shape"), (several, "one scale")):
        with pytest.raises(ModelError, match=says):
            with_grids(0, hidden=grid)
    pair = with_grids(0)
    with pytest.raises(ModelError, match="accepted: one of them"):
        replace(pair, formats={"unit": Format(4, 1, False)})
    wide = Staircase(np.array([0.0]), (True,), np.array([2.0**-40, 2.0**40]))
    assert "'unit' rounds its result to binary values" in with_grids_alone(wide).obstacles[0]


def with_grids_alone(hidden):
    return pair_of(*networks(0), {"x": INPUTS, "unit": hidden})


@given(
    st.sampled_from(
        [[-1, 1], [-1, 0, 1], [0, 1], [-4, -2, -1, 1, 2, 4], [-2, -1, 0, 1, 2], [0.25, 8], [-3, 3], [1, 3], [-1, 2]]
    ),
    st.lists(st.integers(0, 5), min_size=12, max_size=12),
    st.lists(st.integers(-3, 3), min_size=3, max_size=3),
)
def test_few_values_are_found_and_hold_every_weight(values, picks, scales):
    kernel = np.array(values, float)[np.array(picks) % len(values)].reshape(4, 3) * 2.0 ** np.array(scales)
    grid = few_values(kernel)
    if grid is not None:
        assert np.array_equal(grid.neighbours(kernel)[0], kernel)
        assert np.array_equal(grid.apply(kernel), kernel)
        used = {(channel, size) for size, channel in zip(np.abs(kernel).ravel(), [0, 1, 2] * 4, strict=True) if size}
        families = {"binary values": 1, "ternary values": 2}
        if len(used) <= 3 and len({channel for channel, _ in used}) == len(used):
            assert str(grid) in families
        assert grid.bits(kernel.shape) == 12 * families.get(str(grid), int(grid.word_lengths.max()))
    elif np.unique(kernel).size > 1:
        assert np.any(np.frexp(np.abs(kernel[kernel != 0.0]))[0] != 0.5)


@pytest.mark.parametrize("kind", ["elements", "ternary", "powers"])
def test_parameters_are_stored_in_their_grids(kind, tmp_path):
    """Bits are those of the grid, nothing else changes; what does not hold a weight is refused."""
    plain = with_grids(0)
    rng = np.random.default_rng(1)
    drawn = {"ternary": rng.integers(-1, 2, (3, HIDDEN)) * 4, "powers": rng.choice([-8, -1, 2, 4], (3, HIDDEN))}
    kernel = drawn.get(kind, plain.parameters["hidden"].kernel)
    codes = replace(plain.parameters["hidden"], kernel=kernel, kernel_format=Format(8, 4, True))
    values = codes.kernel_value
    grid = (
        few_values(values)
        if kind != "elements"
        else FixedPoint(np.full((3, HIDDEN), 3), np.minimum(kernel, 0), np.maximum(kernel, 0))
    )
    pair = replace(plain, parameters={**plain.parameters, "hidden": replace(codes, kernel_grid=grid)})
    same = replace(plain, parameters={**plain.parameters, "hidden": codes})
    assert pair.code_hash != same.code_hash
    other = {"ternary": 2, "powers": 3}  # two signs of four sizes
    own = sum(int(w).bit_length() if w >= 0 else int(-w - 1).bit_length() + 1 for w in kernel.ravel())
    bits = other[kind] * kernel.size if kind in other else own
    assert cost_of(same).weight_bits - cost_of(pair).weight_bits == 8 * kernel.size - bits
    x = np.random.default_rng(0).normal(size=(20, 3))
    assert np.array_equal(pair.evaluate(x), same.evaluate(x))
    save_network(tmp_path, pair.reference, pair)
    assert load_network(tmp_path)[1].code_hash == pair.code_hash
    wrong = kernel.copy()
    wrong[0, 0] = 7 if kind != "elements" else -wrong[0, 0]
    with pytest.raises(ModelError, match="do not hold the values"):
        replace(pair, parameters={**pair.parameters, "hidden": replace(codes, kernel=wrong, kernel_grid=grid)})
