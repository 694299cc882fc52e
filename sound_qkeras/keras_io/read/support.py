"""The refusal of layers that are not supported: what is, and what to do about the rest."""

from __future__ import annotations

from sound_qkeras.errors import UnsupportedLayerError
from sound_qkeras.keras_io.read.layers import TRAINING_ONLY
from sound_qkeras.keras_io.read.readers import KINDS

SUPPORTED = (
    f"InputLayer, {', '.join(sorted(KINDS - set(TRAINING_ONLY)))}, and layers that only act in training: Dropout, noise, "
    "RandomFlip and the like"
)

WAYS_OUT = {
    "Lambda": "write it with supported layers or as functions of tensors (2 * x, x[:, 1:]): code in files is never run",
    "PruneLowMagnitude": "call tensorflow_model_optimization's strip_pruning on the model first",
    "TableActivation": "it is a table that sound_qkeras emitted: its bound is in the certificate of that result",
}


def unsupported(layer_name: str, kind: str) -> UnsupportedLayerError:
    """The error for a layer of a kind that cannot be read."""
    way_out = WAYS_OUT.get(kind, "replace it, or cut the model before it")
    if kind.startswith("Q"):
        way_out = "give the float model: this one is quantised already, and can be certified"
    return UnsupportedLayerError(layer_name, f"a layer of kind {kind}", SUPPORTED, way_out)
