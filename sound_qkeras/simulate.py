"""The bit-exact integer interpreter: the reference that QKeras and the exported C++ must equal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sound_qkeras.fixed_point import from_codes
from sound_qkeras.network.quantized import QuantizedNetwork, check_exactness


def simulate_codes(quantized: QuantizedNetwork, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Output codes for samples `(n, *input_shape)`: exact integers, saturating where QKeras does.

    Guarantee: equal, with no tolerance, to the QKeras model in float64 and, inside the proved box, to the C++.
    """
    check_exactness(quantized)
    return quantized.simulate_all(x)[quantized.network.output.name].astype(np.int64)


def simulate(quantized: QuantizedNetwork, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Output values for samples `(n, *input_shape)`; `simulate_codes` times the output's step, exactly."""
    name = quantized.network.output.name
    return from_codes(simulate_codes(quantized, x), quantized.fractional_bits[name])
