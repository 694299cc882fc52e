"""QKeras models equal the integer simulator, with no tolerance, and live in any session."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import qkeras
import tf_keras as keras

from sound_qkeras.errors import FileFormatError, InputError, VerificationError
from sound_qkeras.fixed_point import Format, from_codes
from sound_qkeras.keras_io import (
    float64,
    load_model,
    model_quantize,
    quantizer_config,
    read_model,
    save_model,
    to_qkeras,
)
from sound_qkeras.keras_io.quantizers import activation_quantizer
from sound_qkeras.network import Network, QuantizedNetwork
from sound_qkeras.network.ops import AffineCodes
from sound_qkeras.simulate import simulate

from ..networks import box, quantized, random_network, random_quantized, samples, with_parameters
from .models import LAYERS, sequential

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]


def call(model, x):
    return np.asarray(model(x.astype(model.dtype)))


def awkward(output, rng):
    """Every code of a format or many, every tie between them, their neighbours, and values far outside."""
    low, high = output.min_code, output.max_code
    codes = np.arange(low, high + 1) if high - low < 2048 else rng.integers(low, high, 1000, endpoint=True)
    ties = np.concatenate([codes - 0.5, [high + 0.5]])
    outside = [low - 1, low - 0.75, high + 1, high + 1.25, 3 * low - 7, 3 * high + 7, -(2**20), 2**20]
    points = np.concatenate([codes, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), outside])
    points = np.concatenate([points, rng.uniform(low - 2, high + 2, 200)])
    return np.ldexp(points.astype(np.float64), -output.fractional_bits)


def representable(output):
    return not (output.signed and output.word_length == 1)


SMALL = [
    Format(bits, integer, signed)
    for bits in range(1, 11)
    for signed in (False, True)
    for integer in (-2, 0, 1, bits // 2, bits - 1, bits, bits + 3)
    if representable(Format(bits, integer, signed))
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_small_format_is_quantised_as_by_qkeras(dtype):
    rng = np.random.default_rng(0)
    with float64() if dtype == "float64" else float64.__wrapped__ if False else _session(dtype):
        for output in SMALL:
            x = awkward(output, rng).astype(dtype)
            if output.integer_bits < 0:  # QKeras has a wider range there
                x = x[(x >= output.minimum) & (x <= output.maximum)]
            quantizer = qkeras.get_quantizer(activation_quantizer(output, dtype))
            expected = from_codes(output.quantize(x), output.fractional_bits)
            np.testing.assert_array_equal(np.asarray(quantizer(x)), expected, err_msg=str(output))
