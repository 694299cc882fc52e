"""Models that Keras computes in half precision: how far its own results are from exact arithmetic over what it stores."""

from __future__ import annotations

from typing import Any

import numpy as np

from sound_qkeras.keras_io.session.editions import as_array
from sound_qkeras.network import Network
from sound_qkeras.network.boxes import network_box
from sound_qkeras.network.ports import split_rows

# Inputs of the box at which Keras' own results are looked at: at most, and at least where networks are large.
MOST_INPUTS, FEWEST_INPUTS = 256, 4
HALF = ("float16", "bfloat16")


def half_precision(model: Any) -> dict[str, str]:
    """The layers of a model that compute in half precision, those of nested models included, and in which type."""
    layers = (layer for layer in model._flatten_layers(include_self=False) if not hasattr(layer, "layers"))
    types = {layer.name: str(layer.compute_dtype) for layer in layers if type(layer).__name__ != "InputLayer"}
    return {name: kind for name, kind in types.items() if kind in HALF}


def precision_notes(model: Any, network: Network | None = None, box: Any = None, margin: float = 0.0) -> list[str]:
    """What a user should know about a model in half precision; nothing about others.

    Args:
        model: of either Keras.
        network: what it was read as.
        box: the inputs, as for `sound_qkeras.quantize`; on some of them Keras' own results are looked at. None: on none.
        margin: widens the box.

    Raises:
        InputError: the box is none of this network's.
    """
    found = half_precision(model)
    if not found:
        return []
    kinds, first = " and ".join(sorted(set(found.values()))), next(iter(found))
    note = (
        f"Keras computes {len(found)} layers in {kinds}, '{first}' first. Guarantees are about exact arithmetic over the "
        "stored parameters: Keras' own results differ from it by far more than float32's do"
    )
    seen = "" if network is None or box is None else f"; {_seen(model, network, box, margin)}"
    return [f"{note}{seen}."]


def _seen(model: Any, network: Network, box: Any, margin: float) -> str:
    """How far Keras' own evaluation was from the network on some inputs."""
    region, rng = network_box(network, box, margin), np.random.default_rng(0)
    count = int(np.clip(network.tile_size, FEWEST_INPUTS, MOST_INPUTS))
    at = rng.random((count, *region.shape))
    at[: count // 4] = np.rint(at[: count // 4])  # corners
    samples = region.lower + (region.upper - region.lower) * at
    samples = np.clip(samples.astype(np.float32), region.lower, region.upper)
    try:
        theirs = _keras_results(model, network, samples)
    except Exception as error:
        return f"how far was not seen, Keras cannot evaluate it here ({type(error).__name__})"
    parts = zip(network.output_arrays(network.evaluate(samples)), _heads(network), theirs, strict=True)
    apart = [np.abs(_behind(head, ours) - other.reshape(ours.shape)).reshape(count, -1) for ours, head, other in parts]
    worst = np.concatenate(apart, axis=1).max(axis=1)
    finite = worst[np.isfinite(worst)]
    heads = " and ".join(dict.fromkeys(head for head in _heads(network) if head is not None))
    text = f"on {count} inputs of the box by up to {np.max(finite, initial=0.0):.3g}{f', behind the {heads}' * bool(heads)}"
    return text + f", and on {count - finite.size} of them they are infinite or NaN" * (finite.size < count)


def _keras_results(model: Any, network: Network, samples: Any) -> list[Any]:
    """What Keras computes, an array for each output."""
    shapes = [network.shapes[port.node] for port in network.inputs]
    given = split_rows(samples, shapes) if network.inputs else [samples]
    inputs = [part.astype(np.float32) for part in given]
    found = model(inputs if network.inputs else inputs[0], training=False)
    outputs = found if isinstance(found, list | tuple) else [found]
    return [as_array(model, output).astype(np.float64) for output in outputs]


def _heads(network: Network) -> list[str | None]:
    return [port.head for port in network.outputs] or [network.head]


def _behind(head: str | None, logits: Any) -> Any:
    """Results behind what was set aside."""
    if head == "sigmoid":
        return 0.5 * (1.0 + np.tanh(0.5 * logits))
    if head == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    return logits
