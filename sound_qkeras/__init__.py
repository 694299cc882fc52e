"""Fixed-point QKeras models with a proved error bound for every input in a box."""

from __future__ import annotations

import os

# QKeras is a Keras 2 library; TensorFlow reads this when it is first imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__version__ = "0.1.0"
__all__ = ["__version__"]
