"""The arrays and shapes that signatures speak of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# Integers of a fixed-point format.
Codes = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Shape = tuple[int, ...]
