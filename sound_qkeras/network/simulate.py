"""The bit-exact integer interpreter: the reference that QKeras and the exported C++ must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.fixed_point import from_codes
from sound_qkeras.network.pair import Pair


def simulate_codes(quantized: Pair, x: Any) -> npt.NDArray[Any]:
    """Output codes for samples `(n, *input_shape)`: exact integers, saturating where QKeras does.

    Guarantee: equal, with no tolerance, to the QKeras model in float64 wherever its sums fit 53 bits
    (`quantized.wide_layers` is empty) and, inside the proved box, to the C++.

    Where the model has several inputs, `x` may be a list of arrays or a mapping by name. Several outputs come flattened, one
    behind the other; `quantized.network.output_arrays` takes them apart.

    Returns:
        int64, or Python integers in an object array where the last layer's sum may need more than 63 bits.
    """
    codes = _output_codes(quantized, x)
    wide = codes.dtype == object and codes.size > 0 and int(np.max(np.abs(codes))) >= 1 << 63
    return codes if wide else codes.astype(np.int64)


def simulate(quantized: Pair, x: Any) -> npt.NDArray[np.float64]:
    """Output values for samples, as in `simulate_codes`, whose codes these are times the output's step.

    Exact while the codes fit 53 bits, else rounded to the nearest float64.
    """
    codes = _output_codes(quantized, x)
    return from_codes(codes, quantized.fractional_bits[quantized.network.output.name])


def _output_codes(quantized: Pair, x: Any) -> npt.NDArray[Any]:
    network = quantized.network
    tiles = network.tiles(network.input_arrays(x))
    return np.concatenate([quantized.simulate_all(tile)[network.output.name] for tile in tiles])
