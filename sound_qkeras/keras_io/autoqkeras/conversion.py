"""Keras 3 models as the Keras 2 models that AutoQKeras can search."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import ModelError
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.session.editions import KERAS_2, edition
from sound_qkeras.keras_io.write.float_model import to_keras
from sound_qkeras.network import Network

# Largest difference between the two models' outputs, relative to the largest output: what float32 sums in another order may do.
ROUNDING = 1e-4
# Samples that both are evaluated on.
SAMPLES = 256


def as_keras_2(model: Any, network: Network, samples: npt.NDArray[np.float32]) -> Any:
    """A tf_keras model as it is; a Keras 3 one as the tf_keras model of the same weights.

    What only trains (dropout) is left out, and a normalisation becomes a layer with constants of its own, or is folded into the
    layer before it. That both models return the same for samples is checked, up to the rounding of float32.

    Args:
        model: a built model of either Keras.
        network: the same, read.
        samples: inputs, shape `(n, *input_shape)`.

    Raises:
        ModelError: their outputs differ.
    """
    if edition(model) == KERAS_2:
        return model
    made, some = to_keras(network, head=True), samples[:SAMPLES]
    given, found = _outputs(model, some), _outputs(made, some)
    largest = float(np.abs(given).max())
    difference = float(np.abs(found - given).max())
    if not difference <= ROUNDING * largest:
        raise ModelError(
            f"model '{model.name}': as a tf_keras model its outputs differ by {difference:.3g}, the largest is {largest:.3g}; "
            "accepted: models that both Keras evaluate alike; give the tf_keras model of the same layers"
        )
    return made


def _outputs(model: Any, samples: npt.NDArray[np.float32]) -> Reals:
    """All outputs, one behind the other, `(n, outputs)`."""
    given = model.predict(samples, verbose=0)
    parts = [given[name] for name in sorted(given)] if isinstance(given, dict) else given
    rows = [np.asarray(part, dtype=np.float64) for part in (parts if isinstance(parts, list | tuple) else [parts])]
    return np.concatenate([part.reshape(len(samples), -1) for part in rows], axis=1)
