"""Quantizers of activations whose scale depends on the batch, frozen on given samples as plain `quantized_bits`.

Two kinds are known: `quantized_bits` with alpha "auto" or "auto_po2", and objects called `quantized_bits_featuremap`, as research
code has them, with a scale of `2 max|x| / (2**bits - 2)`. Frozen, the step is the smallest power of two that is not below that
scale on the samples, one for all channels, so nothing of them is cut off. What that changes is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.keras_io.session.environment import import_qkeras

FEATUREMAP = "quantized_bits_featuremap"
PLACES = ("quantizer", "activation")
# Smaller scales are those of an activation that is zero on all samples.
LEAST_SCALE = 2.0**-60


@dataclass(frozen=True)
class Frozen:
    """What takes the place of quantizers that depend on their batch.

    Args:
        quantizers: by layer name.
        difference: the largest change of an output on the samples, in Keras' own arithmetic.
        notes: one sentence per quantizer, and the difference.
    """

    quantizers: Mapping[str, Any]
    difference: float
    notes: tuple[str, ...]


def depends_on_batch(thing: Any) -> bool:
    """Whether this is a quantizer whose scale depends on the batch."""
    if getattr(thing, "__name__", type(thing).__name__) == FEATUREMAP or type(thing).__name__ == FEATUREMAP:
        return True
    return type(thing).__name__ == "quantized_bits" and isinstance(getattr(thing, "alpha", None), str)


def freeze(model: Any, samples: Any) -> Frozen:
    """Freeze every quantizer of an activation that depends on its batch.

    Args:
        model: a built model.
        samples: one batch of inputs, as the model takes them.

    Raises:
        InputError: the model does not take the samples.
    """
    seen: dict[str, tuple[float, float]] = {}
    here = _batch_dependent(model)

    def watching(name: str, inner: Any) -> Callable[[Any], Any]:
        def watched(x: Any) -> Any:
            values = np.asarray(x, np.float64)
            low, high = seen.get(name, (math.inf, -math.inf))
            seen[name] = min(low, float(values.min())), max(high, float(values.max()))
            return inner(x)

        return watched

    with swapped(model, {name: watching(name, inner) for name, inner in here.items()}):
        before = _outputs(model, samples)
    quantizers = {name: _plain(inner, seen[name]) for name, inner in here.items()}
    with swapped(model, quantizers):
        after = _outputs(model, samples)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True))
    notes = [
        f"Layer '{name}': {type(here[name]).__name__} depends on its batch; frozen on the samples as {found}."
        for name, found in quantizers.items()
    ]
    if notes:
        notes.append(f"Freezing changed outputs on the samples by at most {difference:.6g}.")
    return Frozen(quantizers, difference, tuple(notes))


@contextmanager
def swapped(model: Any, quantizers: Mapping[str, Any]) -> Iterator[None]:
    """Other quantizers in the layers of these names, for a while."""
    kept: list[tuple[Any, str, Any]] = []
    for layer in model.submodules:
        for place in PLACES:
            given = getattr(layer, place, None)
            if getattr(layer, "name", None) in quantizers and depends_on_batch(given):
                kept.append((layer, place, given))
                setattr(layer, place, quantizers[layer.name])
    try:
        yield
    finally:
        for layer, place, given in kept:
            setattr(layer, place, given)


def _batch_dependent(model: Any) -> dict[str, Any]:
    """The quantizers in question, by the names of their layers."""
    found: dict[str, Any] = {}
    for layer in model.submodules:
        given = [getattr(layer, place, None) for place in PLACES]
        if isinstance(getattr(layer, "name", None), str) and any(map(depends_on_batch, given)):
            found[layer.name] = next(filter(depends_on_batch, given))
    return found


def _outputs(model: Any, samples: Any) -> list[Reals]:
    """The model's outputs, called eagerly on all samples at once."""
    try:
        found = model(_as_inputs(model, samples))
    except Exception as error:
        raise InputError(f"model '{model.name}' does not take the samples for freezing: {str(error)[:200]}") from error
    return [np.asarray(one, np.float64) for one in (found if isinstance(found, list | tuple) else [found])]


def _as_inputs(model: Any, samples: Any) -> Any:
    kind = model.inputs[0].dtype.as_numpy_dtype
    if isinstance(samples, list | tuple):
        return [np.asarray(part, kind) for part in samples]
    return np.asarray(samples, kind)


def _plain(quantizer: Any, ends: tuple[float, float]) -> Any:
    """The fixed quantizer with at least this range."""
    bits, (low, high) = int(quantizer.bits), ends
    scale = max(2.0 * max(abs(low), abs(high)) / (2**bits - 2), LEAST_SCALE)
    fractional = math.floor(-math.log2(scale))
    if 2.0**-fractional < scale:
        fractional -= 1
    signed = low < 0.0
    integer = bits - 1 - fractional
    wider = max(0, -integer)  # QKeras refuses negative numbers of integer bits
    return import_qkeras().quantized_bits(
        bits - (not signed) + wider, integer + wider, int(signed), keep_negative=signed, alpha=1.0
    )
