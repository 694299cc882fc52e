"""Operations that move or join values, against exact fractions and definitions by loops over single elements."""

import math
from fractions import Fraction
from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Interval
from sound_qkeras.network.ops import (
    Add,
    Concatenate,
    Crop,
    Facts,
    MatMul,
    MaxPool,
    Multiply,
    Pad,
    Permute,
    Remainder,
    Rows,
    Upsample,
)

from .rationals import around, arrays, encloses, reals, to_fractions

BOXES = 2
OPS = {
    "permute": (Permute((2, 0, 1)), [(2, 1, 3)]),
    "crop": (Crop((0, 1), (1, 0)), [(3, 2)]),
    "pad": (Pad((1, 0), (0, 2)), [(2, 1)]),
    "upsample": (Upsample((2, 1, 3)), [(1, 2, 1)]),
    "pool": (MaxPool((2,), (2,)), [(4, 2)]),
    "pool overlapping": (MaxPool((2,), (1,)), [(4, 1)]),
    "pool same": (MaxPool((2, 3), (2, 2), "same"), [(3, 3, 1)]),
    "pool apart": (MaxPool((1,), (2,), "same"), [(3, 2)]),
    "pool short": (MaxPool((2,), (3,)), [(4, 1)]),
    "pool all": (MaxPool((4,), (4,)), [(4, 1)]),
    "add": (Add((False, False)), [(2, 2), (2, 2)]),
    "subtract": (Add((False, True)), [(3,), (3,)]),
    "negate": (Add((True,)), [(3,)]),
    "mean": (Add((False,) * 4, -2), [(2,)] * 4),
    "add broadcast": (Add((True, False, False)), [(2, 1, 2), (1, 1, 2), (1, 2, 1)]),
    "multiply": (Multiply(), [(2, 2), (2, 2)]),
    "gate": (Multiply(), [(2, 2, 1), (1, 1, 1)]),
    "outer": (Multiply(), [(1, 2), (2, 1)]),
    "matrices": (MatMul(3), [(2, 3), (3, 1)]),
    "heads": (MatMul(2), [(2, 1, 2), (2, 2, 2)]),
    "concatenate": (Concatenate(1), [(2, 1), (2, 2), (2, 1)]),
    "stack": (Concatenate(0), [(1, 2), (2, 2)]),
}
SETTINGS = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def at(x, index):
    """An element of a tensor whose sizes of one are broadcast."""
    return x[tuple(0 if size == 1 else i for i, size in zip(index, x.shape, strict=True))]


def element(op, x, index):
    """One exact element of an operation's result on single tensors, by its definition."""
    first = x[0]
    if isinstance(op, Permute):
        place = [0] * len(index)
        for i, axis in zip(index, op.axes, strict=True):
            place[axis] = i
        return first[tuple(place)]
    if isinstance(op, Crop):
        return first[tuple(i + before for i, before in zip(index, op.before, strict=True))]
    if isinstance(op, Pad):
        place = tuple(i - before for i, before in zip(index, op.before, strict=True))
        inside = all(0 <= i < size for i, size in zip(place, first.shape, strict=True))
        return first[place] if inside else 0
    if isinstance(op, Upsample):
        return first[tuple(i // n for i, n in zip(index, op.repeats, strict=True))]
    if isinstance(op, Add):
        terms = (-at(one, index) if minus else at(one, index) for one, minus in zip(x, op.minus, strict=True))
        return sum(terms) * Fraction(2) ** op.exponent
    if isinstance(op, Multiply):
        return at(x[0], index) * at(x[1], index)
    if isinstance(op, MatMul):
        *lead, i, j = index
        return sum(x[0][(*lead, i, k)] * x[1][(*lead, k, j)] for k in range(op.size))
    if isinstance(op, Concatenate):
        flat = [one for tensor in x for one in np.moveaxis(tensor, op.axis, 0)]
        return np.asarray(flat[index[op.axis]], dtype=object)[tuple(np.delete(index, op.axis))]
    return max(window(op, first, index))


def window(op, x, index):
    """The values in one window of a pooling, by Keras' definition of padding."""
    spans = []
    for size, pool, stride, i in zip(x.shape, op.pool_size, op.strides, index, strict=False):
        count = math.ceil(size / stride)
        before = max((count - 1) * stride + pool - size, 0) // 2 if op.padding == "same" else 0
        start = i * stride - before
        spans.append([j for j in range(start, start + pool) if 0 <= j < size])
    return [x[(*place, index[-1])] for place in product(*spans)]


def exact(op, x):
    """The exact result for batches of tensors."""
    shape = op.output_shape(*(one.shape[1:] for one in x))
    found = np.empty((len(x[0]), *shape), dtype=object)
    for box in range(len(found)):
        for index in np.ndindex(*shape):
            found[(box, *index)] = Fraction(element(op, [one[box] for one in x], index))
    return found


def draw_pairs(draw, shapes, largest=1e38):
    """The tightest facts around a few exact members of every input, and those members."""
    count = draw(st.integers(1, 3))
    table, small = reals(largest), reals(draw(st.sampled_from([1.0, 1e3])))
    members = [
        [
            tuple(to_fractions(draw(arrays(values, BOXES, *shape))) for values in (table, small))
            for shape in shapes
        ]
        for _ in range(count)
    ]  # fmt: skip
    facts = []
    for number in range(len(shapes)):
        x, d = ([one[number][part] for one in members] for part in range(2))
        facts.append(Facts(around(*x), around(*(a + b for a, b in zip(x, d, strict=True))), around(*d)))
    return facts, members


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
@SETTINGS
@given(data=st.data())
def test_enclosures(name, data):
    op, shapes = OPS[name]
    facts, members = draw_pairs(data.draw, shapes)
    value = op.interval(*(one.value for one in facts))
    fixed = op.fixed_interval(None, *(one.fixed for one in facts))
    difference = op.difference(None, *facts)
    for member in members:
        real = exact(op, [x for x, _ in member])
        twin = exact(op, [x + d for x, d in member])
        assert encloses(value, real)
        assert encloses(fixed, twin)
        assert encloses(difference, twin - real)


def form(rows, value, difference):
    """The exact value of linear forms at exact members of any shape."""
    total = Fraction(0)
    for part, x in ((rows.value, value), (rows.difference, difference)):
        if part is not None:
            flat = to_fractions(part).reshape(*part.shape[:2], -1)
            total = total + (flat * x.reshape(len(x), 1, -1)).sum(axis=-1)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("which", ["p", "a", "ap"])
@pytest.mark.parametrize("name", OPS)
@settings(SETTINGS, max_examples=20)
@given(data=st.data())
def test_adjoints_keep_the_value_of_every_form(name, which, data):
    op, shapes = OPS[name]
    facts, members = draw_pairs(data.draw, shapes)
    result = op.output_shape(*shapes)
    p, a = (data.draw(arrays(reals(1e30), BOXES, 2, *result)) for _ in range(2))
    rows = Rows(p if "p" in which else None, a if "a" in which else None)
    remainder = Remainder.zero(BOXES, 2)
    known = facts if "a" in which else [Facts(one.value) for one in facts]
    pulled = op.adjoint(None, rows, remainder, *known)
    assert len(pulled) == len(shapes)
    for member in members:
        real = exact(op, [x for x, _ in member])
        twin = exact(op, [x + d for x, d in member])
        moved = form(rows, real, twin - real)
        for part, (x, d) in zip(pulled, member, strict=True):
            moved = moved - form(part, x, d)
        assert encloses(remainder.enclose(), moved + np.zeros((BOXES, 2), dtype=object))


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", OPS)
@settings(SETTINGS, max_examples=15)
@given(data=st.data())
def test_integers_are_exact(name, wide, data):
    op, shapes = OPS[name]
    bits = [data.draw(st.integers(-3, 6)) for _ in shapes]
    codes = [data.draw(arrays(np.arange(-999.0, 1000.0), 2, *shape)) for shape in shapes]
    kind = data.draw(st.sampled_from([object, np.int64])) if wide else np.float64
    given_codes = [x.astype(np.int64).astype(kind) for x in codes]
    found = op.integer(None, bits, *given_codes)
    values = [to_fractions(x) * Fraction(2) ** -n for x, n in zip(codes, bits, strict=True)]
    step = Fraction(2) ** -op.fractional_bits(None, *bits)
    assert found.dtype == kind
    assert (to_fractions(found.astype(object)) * step == exact(op, values)).all()
    magnitude = op.code_magnitude(None, bits, *(np.abs(x).max(axis=0)[None] for x in codes))
    assert (magnitude >= np.abs(found).astype(np.float64)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
@settings(SETTINGS, max_examples=15)
@given(data=st.data())
def test_errors_and_terms_are_bounded(name, data):
    op, shapes = OPS[name]
    x = [data.draw(arrays(reals(1e6), 1, *shape)) for shape in shapes]
    e = [data.draw(arrays(reals(1e3), 1, *shape)) for shape in shapes]
    values, errors = [to_fractions(one) for one in x], [to_fractions(one) for one in e]
    off = exact(op, [a + b for a, b in zip(values, errors, strict=True)]) - exact(op, values)
    sizes = [np.nextafter(np.abs(a) + np.abs(b), np.inf) for a, b in zip(x, e, strict=True)]
    bound = op.carried_error(None, [np.abs(one) for one in e], *sizes)
    terms = op.absolute_terms(None, *(np.abs(one) for one in x))
    assert encloses(Interval(-bound, bound), off)
    assert encloses(Interval(-terms, terms), exact(op, values))


@pytest.mark.parametrize("name", OPS)
def test_gradients_agree_with_differences(name):
    """Both directions, at a point where nothing ties, against central differences."""
    op, shapes = OPS[name]
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(3, *shape)) for shape in shapes]
    ways = [rng.normal(size=(3, 2, *shape)) for shape in shapes]
    step = 1e-6
    ends = [op.evaluate(*(a + sign * step * w[:, 0] for a, w in zip(x, ways, strict=True))) for sign in (1, -1)]
    pushed = op.forward_gradient(ways, *x)
    assert np.allclose(pushed[:, 0], (ends[0] - ends[1]) / (2 * step), atol=1e-6)
    rows = rng.normal(size=pushed.shape)
    pulled = op.gradient(rows, *x)
    ends = [sum(np.sum(p * w) for p, w in zip(pulled, ways, strict=True)), np.sum(rows * pushed)]
    assert np.isclose(*ends)


def test_a_certain_winner_loses_nothing():
    """One value of the window is largest in both networks: difference and forms are its own."""
    lower, upper = np.array([[[1.0], [3.0]]]), np.array([[[2.0], [4.0]]])
    d = Interval(np.array([[[-9.0], [-0.25]]]), np.array([[[9.0], [0.5]]]))
    facts = Facts(Interval(lower, upper), Interval(np.array([[[-8.0], [2.75]]]), np.array([[[2.5], [4.5]]])), d)
    op, remainder = MaxPool((2,), (2,)), Remainder.zero(1, 1)
    found = op.difference(None, facts)
    assert (found.lower.item(), found.upper.item()) == (-0.25, 0.5)
    ones = np.ones((1, 1, 1, 1))
    (pulled,) = op.adjoint(None, Rows(ones, ones), remainder, facts)
    assert pulled.value.ravel().tolist() == pulled.difference.ravel().tolist() == [0.0, 1.0]
    assert remainder.radius.item() < 1e-300


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (Permute((0, 0)), [(2, 2)]),
        (Crop((2,), (1,)), [(3,)]),
        (Pad((1,), (1,)), [(2, 2)]),
        (MaxPool((5,), (1,)), [(4, 1)]),
        (MaxPool((2,), (0,)), [(4, 1)]),
        (MaxPool((2,), (2,), "reflect"), [(4, 1)]),
        (MaxPool((2,), (2,)), [(4,)]),
        (Add((False,)), [(2,), (2,)]),
        (Add((False, False)), [(2,), (3,)]),
        (Add((False, False)), [(2,), (1, 2)]),
        (Add((False, False), 1), [(2,), (2,)]),
        (Multiply(), [(2,)]),
        (Multiply(), [(2,), (3,)]),
        (MatMul(2), [(3, 2)]),
        (MatMul(2), [(2,), (2,)]),
        (MatMul(2), [(3, 2), (3, 2)]),
        (MatMul(2), [(2, 3, 2), (1, 2, 3)]),
        (Concatenate(1), [(2,), (2,)]),
        (Concatenate(0), [(2, 2), (2, 3)]),
    ],
)
def test_tensors_that_do_not_fit_are_refused(op, shapes):
    with pytest.raises(ModelError):
        op.output_shape(*shapes)
