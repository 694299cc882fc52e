"""Rounding with error feedback."""

from __future__ import annotations

import numpy as np
import pytest

from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Conv, Dense, Input
from sound_qkeras.tuning.feedback import FeedbackRounding
from sound_qkeras.tuning.groups import groups_of

BITS = 3


def layer(kind: str, rng: np.random.Generator) -> Network:
    if kind == "dense":
        op, shape = Dense(rng.normal(size=(12, 5)), np.zeros(5)), (12,)
    else:
        channels = 16
        inner, outputs, groups = (1, channels, channels) if kind == "depthwise" else (channels // 2, 6, 2)
        op = Conv(
            rng.normal(size=(3, 3, inner, outputs)),
            np.zeros(outputs),
            input_shape=(6, 5, channels),
            strides=(1, 2),
            dilation=(1, 1),
            padding=((1, 1), (0, 1)),
            groups=groups,
        )
        shape = op.input_shape
    return Network((Node("x", Input(shape), (), "x"), Node("y", op, ("x",), "y")))


def correlated(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Neighbouring values are alike, so that roundings can make up for one another."""
    common = rng.normal(size=(64, *(1 for _ in shape)))
    return common + 0.3 * rng.normal(size=(64, *shape)) + 1.0


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("kind", ["dense", "grouped", "depthwise"])
def test_results_change_less_than_with_nearest_codes(kind, channels):
    rng = np.random.default_rng(0)
    network = layer(kind, rng)
    x, fresh = correlated(network.input_shape, rng), correlated(network.input_shape, rng)
    op = network.output.op
    rounding = FeedbackRounding(network, x, {"y": x.mean(axis=0)})
    bits = {group: BITS if group.kind == "weight" else 16 for group in groups_of(network)}
    offsets = {"y": np.arange(op.bias.size) % 3 - 1} if channels else {}
    found = rounding(bits, offsets)["y"]
    near = found.words.nearest(op.kernel)

    def spread(kernel: np.ndarray) -> float:
        change = op.apply(found.words.value(kernel) - op.kernel, fresh)
        return float(np.var(change, axis=0).mean())

    assert found.kernel.dtype == np.int64
    assert np.all((found.words.low <= found.kernel) & (found.kernel <= found.words.high))
    assert spread(found.kernel) < 0.6 * spread(near)
    again = rounding(bits, offsets)["y"]
    assert again is found


def test_biases_make_up_for_the_mean():
    rng = np.random.default_rng(1)
    network = layer("dense", rng)
    x = correlated(network.input_shape, rng)
    bits = {group: BITS if group.kind == "weight" else 30 for group in groups_of(network)}
    found = FeedbackRounding(network, x, {"y": x.mean(axis=0)})(bits, {})["y"]
    after = x @ np.ldexp(found.kernel.astype(float), -BITS) + np.ldexp(found.bias.astype(float), -30)
    assert np.abs((after - network.evaluate(x)).mean(axis=0)).max() < 1e-8
