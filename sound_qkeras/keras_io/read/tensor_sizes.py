"""How large the tensors of a Keras model may be, looked at before Keras or this library makes any of that size."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sound_qkeras.errors import ModelError

# Whoever limits a Keras: the next one waits, so that everyone puts back what was there.
_LIMITING = threading.RLock()
# Most values of one sample in a tensor, and in all tensors of a model together.
LARGEST, MOST_VALUES = 1 << 26, 1 << 28


class Tally:
    """The tensors of one model, one after the other."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.total = 0

    def add(self, layer: str, kind: str, shape: Sequence[Any]) -> None:
        """Count a tensor, without its batch axis.

        Raises:
            ModelError: it is too large, or all together are.
        """
        size = math.prod(int(one) for one in shape if one is not None)
        self.total += size
        if size > LARGEST or self.total > MOST_VALUES:
            what = f"{size} values" if size > LARGEST else f"{self.total} values in all tensors up to it"
            raise ModelError(
                f"layer '{layer}' ({kind}): its result has the shape {tuple(shape)}, {what}; accepted: {LARGEST} in one tensor, "
                f"{MOST_VALUES} in all; build a smaller model"
            )


@contextmanager
def limited(keras: Any) -> Iterator[None]:
    """While it lasts, a Keras asks no layer for a result that is too large: its shape is looked at first.

    Calls of other threads are left alone.

    Args:
        keras: the module.
    """
    base, tally, thread = keras.layers.Layer, Tally(), threading.get_ident()

    def call(layer: Any, *args: Any, **settings: Any) -> Any:
        mine = threading.get_ident() == thread
        if mine and type(layer).compute_output_shape is not base.compute_output_shape:
            for shape in _result_shapes(layer, args[0] if args else None):
                tally.add(layer.name, type(layer).__name__, shape)
        return before(layer, *args, **settings)

    with _LIMITING:
        before = base.__call__
        base.__call__ = call
        try:
            yield
        finally:
            base.__call__ = before


def _result_shapes(layer: Any, inputs: Any) -> list[tuple[Any, ...]]:
    """What the layer says about the shapes of its results, without the batch axis; models ask their own layers."""
    given = inputs if isinstance(inputs, list | tuple) else [inputs]
    shapes = [tuple(tensor.shape) for tensor in given if hasattr(tensor, "shape")]
    if not shapes or len(shapes) != len(given) or hasattr(layer, "layers"):
        return []
    try:
        found = layer.compute_output_shape(shapes if isinstance(inputs, list | tuple) else shapes[0])
        found = found if isinstance(found, list) else [found]
        return [tuple(shape)[1:] for shape in found]
    except Exception:  # Keras says what is wrong when the layer is called
        return []
