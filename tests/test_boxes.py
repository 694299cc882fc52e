"""What a user may call a box or a tolerance, and what is refused."""

from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval
from sound_qkeras.network.boxes import check_box, make_box, make_tolerance, margin_for, network_box
from sound_qkeras.network.ports import Port

FINITE = st.floats(-1e30, 1e30)
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("box", "lower", "upper"),
    [
        ((-1, 2), [-1, -1], [2, 2]),
        ([-1.0, 2.0], [-1, -1], [2, 2]),
        (([-1, -2], 3), [-1, -2], [3, 3]),
        ((np.array([-1, -2]), np.array([1, 2])), [-1, -2], [1, 2]),
        ((np.float32(0.5), 0.5), [0.5, 0.5], [0.5, 0.5]),
        (np.array([[0.0, 5.0], [1.0, 4.0], [0.5, 8.0]]), [0, 4], [1, 8]),
        ([[0, 5], [1, 4], [3, 3]], [0, 3], [3, 5]),
        (Interval(np.zeros(2), np.ones(2)), [0, 0], [1, 1]),
    ],
)
def test_accepted(box, lower, upper):
    found = make_box(box, (2,))
    np.testing.assert_array_equal(found.lower, lower)
    np.testing.assert_array_equal(found.upper, upper)
    assert found.lower.dtype == found.upper.dtype == np.float64
    check_box(box if not isinstance(box, Interval) else (box.lower, box.upper))


def test_margin_widens_every_side():
    found = make_box((np.array([0.0, -4.0]), np.array([8.0, -4.0])), (2,), margin=0.25)
    assert (found.lower.tolist(), found.upper.tolist()) == ([-2.0, -4.0], [10.0, -4.0])


@given(FINITE, FINITE)
def test_ends_move_outward_to_float32(a, b):
    low, high = min(a, b), max(a, b)
    found = make_box((low, high), (1,))
    for end, asked, outside in ((found.lower[0], low, low), (found.upper[0], high, high)):
        assert np.float64(np.float32(end)) == end
        assert abs(end - outside) <= 2.0**-23 * abs(asked) + 2.0**-149
    assert found.lower[0] <= low <= high <= found.upper[0]
    # What Keras makes of a member is a member.
    assert found.lower[0] <= np.float64(np.float32(low)) <= np.float64(np.float32(high)) <= found.upper[0]


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((1.0, -1.0), "exceeds its upper end -1"),
        (([0, 0], [1, -1]), r"lower end 0 exceeds its upper end -1 at input \(1,\)"),
        ((NAN, 1), "NaN or infinity"),
        ((0, INFINITY), "NaN or infinity"),
        ((-INFINITY, INFINITY), "NaN or infinity"),
        (([0, 0, 0], 1), r"shape \(3,\)"),
        ((np.zeros((2, 2)), 1), r"shape \(2, 2\)"),
        (np.zeros((5, 3)), r"shape \(5, 3\)"),
        (np.zeros(2), r"shape \(2,\)"),
        (3.0, r"shape \(\)"),
        (np.zeros((0, 2)), "none"),
        (np.array([[0.0, NAN]]), "NaN or infinity"),
        ("abc", "not made of numbers"),
        (None, "NaN or infinity|not made of numbers|shape"),
        (("a", "b"), "not made of numbers"),
        ({"low": 0}, "not made of numbers"),
        (([[1], [2, 3]], 4), "not made of numbers"),
        ((-1e300, 1e300), "float32"),
        ((0.0, 3.5e38), "float32"),
        ((-1j, 1j), "not made of numbers"),
    ],
)
def test_refused(box, says):
    with pytest.raises(InputError, match=says):
        make_box(box, (2,))


@pytest.mark.parametrize(
    "box",
    [
        (1.0, -1.0),
        (NAN, 1),
        (0, INFINITY),
        ([1, 2], [1, 2, 3]),
        "abc",
        np.zeros((0, 2)),
        ([[1], [2, 3]], 4),
        (-1e300, 1),
    ],
)
def test_refused_without_a_network(box):
    with pytest.raises(InputError):
        check_box(box)


@pytest.mark.parametrize("margin", [-0.1, NAN, INFINITY, "wide", None, 1e300])
def test_refused_margins(margin):
    with pytest.raises(InputError, match=r"margin|float32"):
        make_box((0.0, 1.0), (2,), margin)


@pytest.mark.parametrize(
    ("eps", "found"), [(1e-3, [1e-3, 1e-3]), ([1, 2], [1, 2]), (np.float32(0.5), [0.5, 0.5]), ([[3.0], [4.0]], [3, 4])]
)
def test_accepted_tolerances(eps, found):
    assert make_tolerance(eps, 2).tolist() == found


@pytest.mark.parametrize("eps", [0, -1e-3, NAN, INFINITY, [1, 0], [1, 2, 3], [], "small", None, [1, NAN], {}])
def test_refused_tolerances(eps):
    with pytest.raises(InputError, match="eps"):
        make_tolerance(eps, 2)


class TwoInputs:
    """As much of a network with two inputs as a box needs."""

    input_shape = (5,)
    inputs = (Port("image", "a"), Port("state", "b"))
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"a": (1, 2), "b": (3,)}


@pytest.mark.parametrize(
    "box",
    [
        [(0, 1), (-1, [1, 2, 3])],
        {"state": (-1, [1, 2, 3]), "image": (0, 1)},
        ([0, 0, -1, -1, -1], [1, 1, 1, 2, 3]),
        [np.array([[[0, 1]], [[1, 0]]]), (-1, [1, 2, 3])],
    ],
)
def test_several_inputs_have_a_box_each(box):
    network: Any = TwoInputs()
    check_box(box)
    found = network_box(network, box)
    assert found.lower.tolist() == [0, 0, -1, -1, -1]
    assert found.upper.tolist() == [1, 1, 1, 2, 3]
    assert network_box(network, (-1, 2)).upper.tolist() == [2] * 5


@pytest.mark.parametrize("box", [[(0, 1)], {"image": (0, 1)}, [(0, 1), (1, 0)], {"image": (0, 1), "x": (0, 1)}])
def test_a_box_for_other_inputs_is_refused(box):
    network: Any = TwoInputs()
    with pytest.raises(InputError):
        network_box(network, box)


def test_two_ends_are_not_taken_for_two_boxes():
    check_box([(1.0, 0.0), (2.0, 3.0)])
    with pytest.raises(InputError):
        check_box([(1.0, 0.0), (2.0, -3.0)])


def test_the_margin_that_holds_samples():
    rng = np.random.default_rng(0)
    for _ in range(50):
        spanning, samples = rng.normal(size=(20, 3)), rng.normal(size=(40, 3)) * 10.0 ** rng.integers(-3, 4)
        margin = margin_for(make_box(spanning, (3,)), samples)
        assert margin is not None
        box = make_box(spanning, (3,), margin)
        assert np.all((box.lower <= samples) & (samples <= box.upper))
    constant = make_box((np.array([0.0, 0.0]), np.array([1.0, 0.0])), (2,))
    assert margin_for(constant, np.array([[1.5, 0.0]])) == 0.51
    assert margin_for(constant, np.array([[0.5, 0.1]])) is None
