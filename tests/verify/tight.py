"""A pair of networks whose proved bound is reached at a known point, so that no smaller claim about it is true.

Two Dense layers with a ReLU between them that is active on the whole box. Input and hidden values lie on ties at that
point, every one of them rounded the way that hurts most, and all weight residuals point the same way as the roundings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sound_qkeras.fixed_point import Format, from_codes, to_grid
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import AffineCodes, Dense, Input, Relu

from .twins import twin


@dataclass(frozen=True)
class Tight:
    """The pair, its box, and the point at which the error of output 0 is as large as the proof allows."""

    pair: Pair
    box: Interval
    worst: np.ndarray


def float32(x: np.ndarray) -> np.ndarray:
    """The nearest float32 numbers."""
    return np.asarray(x, np.float32).astype(np.float64)


def tight(seed: int, size: int = 3, outputs: int = 2, bits: int = 4, weight_bits: int = 6) -> Tight:
    """Such a pair; only its first output is tight.

    Args:
        seed: of the parameters.
        size: inputs, and hidden units.
        outputs: outputs.
        bits: fractional bits of the input and of the hidden values.
        weight_bits: fractional bits of the second kernel.
    """
    rng = np.random.default_rng(seed)
    second = float32(rng.normal(size=(size, outputs)) / np.sqrt(size))
    second_codes = to_grid(second, weight_bits).astype(np.int64)
    residual = from_codes(second_codes, weight_bits) - second
    hurts = np.where(second_codes[:, 0] >= 0, 1, -1)

    # A hidden unit is half an even input code plus half an odd bias code: a tie whose even neighbour the bias decides.
    halves = np.eye(size, dtype=np.int64)
    first = float32(0.5 * np.eye(size) + 2.0**-11 * rng.normal(size=(size, size)))
    center = 2 * rng.integers(-8, 8, size)
    slope = (0.5 * halves - first) @ from_codes(second_codes[:, 0], weight_bits) + first @ residual[:, 0]
    width = 2 * rng.integers(1, 9, size)
    worst_codes = center + np.where(slope >= 0.0, width, -width)
    odd = 1601 + 4 * rng.integers(0, 40, size)
    middle = worst_codes // 2 + (odd - 1) // 2
    odd += np.where((middle % 2 == 1) == (hurts > 0), 0, 2)
    first_bias = float32(from_codes(odd, bits + 1) + 2.0**-9 * rng.normal(size=size))

    # The worst corner lies on ties of the input's grid: half a step beyond an even code, on the side that rounds to it.
    worst = from_codes(2 * worst_codes - hurts, bits + 1)
    other = from_codes(2 * (2 * center - worst_codes) - hurts, bits + 1)
    box = Interval(np.minimum(worst, other), np.maximum(worst, other))

    second_bias_codes = rng.integers(-64, 64, outputs)
    # The residuals of the biases move the error's range up a little, so that its upper end is the larger one.
    middle_value = from_codes(center, bits)
    hidden = middle_value @ first + first_bias
    fixed_hidden = 0.5 * middle_value + from_codes(odd, bits + 1)
    shift = fixed_hidden @ from_codes(second_codes, weight_bits) - hidden @ second
    second_bias = float32(from_codes(second_bias_codes, weight_bits) + shift - 2.0**-8)
    nodes = (
        Node("x", Input((size,)), (), "x"),
        Node("a", Dense(first, first_bias), ("x",), "a"),
        Node("a_relu", Relu(), ("a",), "a"),
        Node("b", Dense(second, second_bias), ("a_relu",), "b"),
    )
    codes = {
        "a": AffineCodes(halves, Format.for_codes(0, 1, 1), odd, Format.for_codes(0, int(odd.max()), bits + 1)),
        "b": AffineCodes(
            second_codes,
            Format.for_codes(int(second_codes.min()), int(second_codes.max()), weight_bits),
            second_bias_codes,
            Format.for_codes(int(second_bias_codes.min()), int(second_bias_codes.max()), weight_bits),
        ),
    }
    return Tight(twin(Network(nodes), codes, {"x": bits, "a_relu": bits}, box), box, worst)
