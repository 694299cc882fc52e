"""Whether a saved QKeras model is the one of some integers: its numbers compared, without TensorFlow."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sound_qkeras.errors import FileFormatError, VerificationError
from sound_qkeras.keras_io.write.quantizers import rounding_of
from sound_qkeras.keras_io.write.scales import Quantizer, words_of
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.ops import Add, AveragePool, Clip, Lookup
from sound_qkeras.network.ops.rectifiers import SlopeComparison
from sound_qkeras.support.reading import ARCHIVE_ERRORS, open_regular
from sound_qkeras.types import Array

# Of the file and of each part of it.
MAX_BYTES = 1 << 32
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
KERNELS = ("kernel_quantizer", "depthwise_quantizer")
# Layers that hold what they look up.
LOOKUPS = {"TableActivation", "TableNormalization"}
SETTINGS = ("function", "alpha", "size", "epsilon")
# What is written: layers with quantizers, tables, and Keras' own that move values, join them, or cut them off.
KINDS = {
    *("InputLayer", "QActivation", "QConv1D", "QConv2D", "QDense", "QDepthwiseConv2D", *LOOKUPS),
    *("Add", "Average", "Concatenate", "Dot", "Multiply", "Rescaling", "Subtract", "LeakyReLU", "PReLU", "ReLU"),
    *("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Permute", "Reshape", "Cropping1D", "Cropping2D"),
    *("UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D"),
}
# Settings of layers without weights that are always written as they are here.
PLAIN = {"negative_slope": 0.0, "threshold": 0.0, "normalize": False}


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A layer of a saved model.

    Args:
        kind: the name of its class.
        config: its settings.
        weights: its variables, in order.
    """

    kind: str
    config: Mapping[str, Any]
    weights: tuple[Array, ...]


def check_stored_model(path: Path, quantized: Pair) -> None:
    """Confirm that a model that `save_model` wrote has the integers and formats of a fixed-point network.

    Guarantee: its kernels, biases and tables are those of the network's layers, number by number, with the network's quantizers;
    it rounds to the network's formats, as often and to no others; it computes in float32, and nothing in it but tables is a
    function beside ReLUs. How its layers are connected, and what moves values, is not compared.

    Raises:
        FileFormatError: it is no such model.
        VerificationError: names the layer whose numbers are others.
    """
    try:
        layers = list(_layers(path))
    except (*ARCHIVE_ERRORS, AttributeError) as error:
        raise FileFormatError(f"'{path}' is no saved QKeras model ({type(error).__name__}: {error})") from error
    for layer in layers:
        _check_kind(path, layer)
    weighted = [layer for layer in layers if _quantizer(layer) is not None]
    # Behind those that have weights come those that share them, of which QKeras may need a copy.
    for node, _ in sorted(quantized.network.affine(), key=lambda pair: pair[0].shares is not None):
        found = next((layer for layer in weighted if _is_layer_of(quantized, node, layer)), None)
        if found is None and node.shares is not None:
            continue
        if found is None:
            raise VerificationError(
                f"layer '{node.layer}': '{path}' does not hold the certificate's integers for it", layer_name=node.layer
            )
        weighted.remove(found)
    sums = [layer for layer in weighted if _is_sum(layer)]
    more = [layer for layer in weighted if layer not in sums]
    more += sums[sum(isinstance(op, AveragePool) and op.kernel.size > 1 for _, op in quantized.network.affine()) :]
    if more:
        raise VerificationError(
            f"'{path}' has layer '{more[0].config.get('name')}', which the certificate knows nothing of"
        )
    _check_roundings(path, quantized, layers)


def _check_kind(path: Path, layer: StoredLayer) -> None:
    """Refuse what is written for no operation, or computes something else than is written."""
    config, name = layer.config, layer.config.get("name")
    if layer.kind not in KINDS:
        raise VerificationError(f"'{path}': layer '{name}' is of kind {layer.kind}, which is written for nothing")
    if config.get("dtype", "float32") != "float32":
        raise VerificationError(f"'{path}': layer '{name}' computes in {config['dtype']}, not in float32")
    if layer.kind != "QActivation" and config.get("activation", "linear") != "linear":
        raise VerificationError(f"'{path}': layer '{name}' has an activation that the certificate knows nothing of")
    if any(config.get(setting, plain) not in (plain, None) for setting, plain in PLAIN.items()):
        raise VerificationError(f"'{path}': layer '{name}' has settings that are written for nothing")
    if config.get("use_bias", True) != (len(layer.weights) != 1) and _quantizer(layer) is not None:
        raise VerificationError(f"'{path}': layer '{name}' does not use the weights that it has")


def _layers(path: Path) -> Iterator[StoredLayer]:
    import h5py

    with open_regular(path, MAX_BYTES) as file, zipfile.ZipFile(file) as archive:
        parts = {name: _member(archive, name) for name in (CONFIG, WEIGHTS)}
    described = json.loads(parts[CONFIG])["config"]["layers"]
    used: Counter[str] = Counter()
    with h5py.File(io.BytesIO(parts[WEIGHTS]), "r") as held:
        for entry in described:
            kind = str(entry["class_name"])
            stem = _snake_case(kind)
            group = f"layers/{stem}" + (f"_{used[stem]}" if used[stem] else "") + "/vars"
            used[stem] += 1
            variables: Any = held.get(group, {})
            stored = [variables[str(number)] for number in range(len(variables))]
            if any(array.nbytes > len(parts[WEIGHTS]) for array in stored):
                raise ValueError("an array in it is larger than the file")
            weights = tuple(np.asarray(array) for array in stored)
            yield StoredLayer(kind, dict(entry["config"]), weights)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"its {name} is compressed, as Keras does not write it")
    with archive.open(name) as member:
        return member.read(info.file_size)


def _snake_case(name: str) -> str:
    """How Keras names what it saves after the class of it."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_layer_of(pair: Pair, node: Node, layer: StoredLayer) -> bool:
    """Whether a layer has the integers and quantizers of an affine node; constants of averages may be repeated."""
    codes = pair.codes(node.name)
    given = [_quantizer(layer), layer.config.get("bias_quantizer")]
    for scaled in (True, False):
        words = words_of(codes, "float32", scaled=scaled)
        if layer.weights and all(map(_is, given, words)):
            break
    else:
        return False
    try:
        held = [
            word.returned(quantizer["config"], array)
            for quantizer, word, array in zip(given, words, layer.weights, strict=False)
        ]
    except (TypeError, ValueError):  # scales that are no numbers, or too many
        return False
    values = [value.astype(np.float32).reshape(-1) for value in (codes.kernel_value, codes.bias_value)]
    if len(held) == 1:
        held.append(np.zeros_like(values[1]))
    if isinstance(node.op, AveragePool):
        held, values = ([np.unique(array) for array in arrays] for arrays in (held, values))
    return all(np.array_equal(one, other) for one, other in zip(held, values, strict=True))


def _is_sum(layer: StoredLayer) -> bool:
    """A sum before an average: ones and nothing else."""
    return len(layer.weights) == 1 and bool(np.all(layer.weights[0] == 1.0))


def _quantizer(layer: StoredLayer) -> Any:
    return next((layer.config[name] for name in KERNELS if name in layer.config), None)


def _is(quantizer: Any, word: Quantizer) -> bool:
    """Whether a saved quantizer is this one."""
    if not isinstance(quantizer, Mapping) or quantizer.get("class_name") != word.kind:
        return False
    return word.is_saved_as(dict(quantizer.get("config", {})))


def _check_roundings(path: Path, quantized: Pair, layers: list[StoredLayer]) -> None:
    """The quantizers of activations, and the integers of tables."""
    network = quantized.network
    found = Counter(str(layer.config.get("activation")) for layer in layers if layer.kind == "QActivation")
    found += Counter(_scaling(layer) for layer in layers if layer.kind == "Rescaling")
    sums = [op for op in (node.op for node in network.nodes) if isinstance(op, Add)]
    signs = {f"times {sign * factor}" for op in sums for factor in (1.0, 2.0**op.exponent) for sign in (1.0, -1.0)}
    wanted = [_roundings(quantized, scaled=scaled) for scaled in (True, False)]
    if not any(found >= one and set(found - one) <= signs for one in wanted):
        others = sorted((found - wanted[0]) | (wanted[0] - found))
        raise VerificationError(f"'{path}' rounds to {others[:2]}, and the certificate does not, or the other way")
    units = Counter(_bytes(pair.slope) for pair in quantized.pairs.values() if isinstance(pair, SlopeComparison))
    tops = {op.maximum for op in (node.op for node in network.nodes) if isinstance(op, Clip)}
    tops |= {output.maximum for output in quantized.formats.values()}
    for layer in layers:
        if layer.kind == "ReLU" and layer.config.get("max_value") not in (None, *tops):
            raise VerificationError(
                f"'{path}': layer '{layer.config.get('name')}' ends where the certificate's units do not"
            )
    leaky = Counter(_bytes(layer.config["alpha"]) for layer in layers if layer.kind == "LeakyReLU")
    leaky += Counter(_bytes(layer.weights[0]) for layer in layers if layer.kind == "PReLU" and layer.weights)
    if leaky != units:
        raise VerificationError(f"'{path}' does not hold the slopes of the certificate's leaky units")
    tables = Counter(_of_pair(pair) for pair in quantized.tables.values())
    held = Counter(_of_layer(layer) for layer in layers if layer.kind in LOOKUPS and layer.weights)
    if held != tables:
        raise VerificationError(f"'{path}' does not hold the certificate's tables")


def _roundings(quantized: Pair, *, scaled: bool) -> Counter[str]:
    """Quantizers of activations and the multiplications around them, each as often as it is written."""
    found, network = Counter[str](), quantized.network
    for name, output in quantized.formats.items():
        if network.by_name[name].op.rounds and not scaled:
            continue
        text, shift = rounding_of(output, "float32", scaled=scaled)
        around = [f"times {2.0**exponent}" for exponent in (shift, -shift)] if shift else []
        for part in (text, *around):
            found[part] += _times(network, name)
    return found


def _scaling(layer: StoredLayer) -> str:
    """A multiplication, and what else it does."""
    offset = layer.config.get("offset")
    return f"times {layer.config.get('scale')}" + (f" plus {offset}" if offset != 0.0 else "")


def _bytes(slope: Any) -> bytes:
    return np.asarray(slope, np.float32).reshape(-1).tobytes()


def _of_pair(pair: Lookup) -> tuple[Any, ...]:
    """The integers that are looked up, the formats around them, and what else a layer is told of them."""
    formats = ((one.word_length, one.integer_bits, one.signed) for one in (pair.source, pair.output))
    return (np.asarray(pair.codes).tobytes(), *formats, *(getattr(pair, name, None) for name in SETTINGS))


def _of_layer(layer: StoredLayer) -> tuple[Any, ...]:
    formats = (tuple(layer.config[name]) for name in ("source", "output"))
    return (layer.weights[0].tobytes(), *formats, *(layer.config.get(name) for name in SETTINGS))


def _times(network: Network, name: str) -> int:
    """How often a result is rounded: once for each of several inputs or outputs."""
    if name == network.nodes[0].name:
        return max(1, len(network.inputs))
    return max(1, len(network.outputs)) if name == network.output.name else 1
