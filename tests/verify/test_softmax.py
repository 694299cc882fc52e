"""The bound on softmax probabilities, against softmax in high precision."""

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from sound_qkeras import softmax_bound
from sound_qkeras.errors import InputError
from sound_qkeras.interval import Interval

mp = mpmath.mp.clone()
mp.prec = 200
LOGITS = st.sampled_from([0.0, 1.0, -1.0, 0.1, 3.5, -7.25, 40.0, -300.0, 1e3])
BOUNDS = st.sampled_from([0.0, 1e-9, 0.1, 0.25, 2.0, 30.0])
PARTS = st.sampled_from([-1.0, 1.0, 1.0, 0.5, 0.0])


def softmax(z):
    top = max(z)
    parts = [mp.exp(x - top) for x in z]
    return [part / sum(parts) for part in parts]


@given(st.data(), st.integers(1, 5))
def test_probabilities_move_no_further(data, classes):
    def draw(kind):
        return np.array(data.draw(st.lists(kind, min_size=classes, max_size=classes)))

    z, bounds, parts = draw(LOGITS), draw(BOUNDS), draw(PARTS)
    width = np.abs(draw(BOUNDS))
    before = softmax([mp.mpf(x) for x in z])
    after = softmax([mp.mpf(x) + mp.mpf(b) * mp.mpf(t) for x, b, t in zip(z, bounds, parts, strict=True)])
    anywhere = softmax_bound(bounds)
    here, near = softmax_bound(bounds, Interval.point(z)), softmax_bound(bounds, Interval(z - width, z + width))
    for k in range(classes):
        moved = abs(after[k] - before[k])
        for bound in (anywhere[k], here[k], near[k]):
            assert moved <= mp.mpf(float(bound)) + mp.mpf(2) ** -180
        assert here[k] <= anywhere[k] * (1 + 2.0**-50)
        assert here[k] <= near[k] * (1 + 2.0**-40) + 1e-300
    assert np.all(anywhere <= 0.5 * bounds.max() * (1.0 + 2.0**-50) + 1e-300)


@pytest.mark.parametrize("logits", [None, [0.0, 0.0], [1.0, 0.0], [-3.0, 2.0]])
def test_small_errors_move_probabilities_as_far_as_that(logits):
    d, z = 1e-6, [0.0, 0.0] if logits is None else logits
    moved = softmax([mp.mpf(z[0]) + d, mp.mpf(z[1]) - d])[0] - softmax([mp.mpf(x) for x in z])[0]
    found = softmax_bound([d, d], None if logits is None else Interval.point(np.array(logits)))
    assert np.all(moved <= found)
    assert np.all(0.99999 * found <= moved)


def test_clear_classes_hardly_move():
    clear = softmax_bound([0.1, 0.1], Interval.point(np.array([30.0, 0.0])))
    assert np.all(clear < 1e-12)
    assert softmax_bound([[0.1, 0.1], [0.2, 0.2]]).shape == (2, 2)
    far = np.array([1e308, -1e308])
    assert np.all(softmax_bound([0.1, 0.1], Interval.point(far)) < 1e-12)
    assert np.all(softmax_bound([0.1, 0.1], Interval(-np.abs(far), np.abs(far))) >= 0.05)
    assert softmax_bound([0.3]).tolist() == [5e-324]


@pytest.mark.parametrize("bounds", [[-0.1, 0.1], [np.nan, 0.1], [np.inf, 0.0], 0.1])
def test_nonsense_is_refused(bounds):
    with pytest.raises(InputError, match="finite numbers from zero up"):
        softmax_bound(bounds)
    with pytest.raises(InputError, match="shape"):
        softmax_bound([0.1, 0.1], Interval.point(np.zeros(3)))
