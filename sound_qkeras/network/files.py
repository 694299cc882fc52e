"""A network, and what stands for it, on disk: `network.json` beside `parameters.npz`.

The json holds the graph and the formats, the npz the numbers. Reading builds only operations listed in `OPS`, from
their declared fields; it executes nothing. Every bit survives the round trip, and both files are covered by a checksum,
which finds accidents; what is proved about a network does not rest on it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.fixed_point import CutFormat, Format
from sound_qkeras.network.graph import Network, Node
from sound_qkeras.network.grids import Grid
from sound_qkeras.network.ops import OPS, AffineCodes, Op
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.ports import Port
from sound_qkeras.network.rewrite.rewrite import Rewrite
from sound_qkeras.network.staircases import GRIDS
from sound_qkeras.support.npz import MAX_BYTES, read_arrays, write_arrays
from sound_qkeras.support.reading import check_header, open_regular, read_json, same_json
from sound_qkeras.types import Array

T = TypeVar("T")
Made = TypeVar("Made", bound=Op | Grid)

NETWORK_FILE = "network.json"
PARAMETER_FILE = "parameters.npz"
FORMAT_NAME = "sound_qkeras network"
FORMAT_VERSION = 1

MAX_ELEMENTS = 1 << 28
# Beyond these, steps and ends of formats leave the range of float64.
MAX_INTEGER_BITS = 512


def save_network(directory: str | os.PathLike[str], network: Network, quantized: Pair | None = None) -> None:
    """Write `network.json` and `parameters.npz` into an existing directory.

    Not atomic by itself: give it a directory that is put in place when it is complete.

    Args:
        directory: where to write.
        network: the trained network.
        quantized: what stands for it, if there is something yet.

    Raises:
        InputError: the subject is another network's, or the directory cannot be written.
    """
    if quantized is not None and quantized.reference is not network:
        raise InputError("the fixed-point network to be saved belongs to another network")
    folder = Path(directory)
    document = _document(network, quantized)
    try:
        write_arrays(folder / PARAMETER_FILE, _arrays(network, quantized))
        document["checksum"] = _checksum(document, folder / PARAMETER_FILE)
        text = json.dumps(document, indent=1, allow_nan=False)
        (folder / NETWORK_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"'{folder}' cannot be written ({error.strerror or error}); choose another place") from error


def load_network(directory: str | os.PathLike[str]) -> tuple[Network, Pair | None]:
    """Read what `save_network` wrote.

    Guarantee: the network and the integers are those that were saved, bit for bit, or an error is raised.

    Raises:
        FileFormatError: a file is missing, truncated, corrupt, of another kind or version, or describes no network; an
            operation of unknown kind is named.
    """
    folder = Path(directory)
    path, parameters = folder / NETWORK_FILE, folder / PARAMETER_FILE
    document = read_json(path)
    check_header(path, document, FORMAT_NAME, FORMAT_VERSION, _checksum(document, parameters))
    try:
        network, quantized = _read_parts(document, parameters)
        _check_said(document, network, quantized)
    except FileFormatError as error:
        raise FileFormatError(f"'{folder}': {error}") from error
    except (InputError, KeyError, TypeError, ValueError, IndexError, AttributeError, OSError, OverflowError) as error:
        raise FileFormatError(f"'{folder}' does not describe a network ({type(error).__name__}: {error})") from error
    return network, quantized


def _document(network: Network, quantized: Pair | None) -> dict[str, Any]:
    """What the json says, its checksum apart."""
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "nodes": [_node_to_json(node) for node in network.nodes],
        "head": network.head,
        "notes": list(network.notes),
        "inputs": [asdict(port) for port in network.inputs],
        "outputs": [asdict(port) for port in network.outputs],
        "fixed_point": None if quantized is None else _subject_to_json(quantized),
    }


def _read_parts(document: Mapping[str, Any], parameters: Path) -> tuple[Network, Pair | None]:
    entries, subject = _list(document["nodes"]), document["fixed_point"]
    index_of = {str(entry["name"]): index for index, entry in enumerate(entries)}
    held = [index_of[_text(entry.get("shares", entry["name"]))] for entry in entries]
    names = {_key(index, name): None for index, entry in zip(held, entries, strict=True) for name in _names(entry)}
    coded = {} if subject is None else _dict(subject["parameters"])
    codes = [_key(index_of[name], part) for name in coded for part in ("kernel_codes", "bias_codes")]
    codes += [
        _key(index_of[name], f"kernel_grid_{part}")
        for name, entry in coded.items()
        for part in (_names(_dict(entry["kernel_grid"])) if "kernel_grid" in entry else ())
    ]
    found: Mapping[str, Any] = {} if subject is None else _dict(subject)
    if "staircases" in found:
        raise FileFormatError(
            "it was written by a version that had no integers for binary, ternary and power-of-two results; certify the model again"
        )
    others = {"real": _dict(found.get("real", {})), "grid": _dict(found.get("grids", {}))}
    own = [
        _key(index_of[name], f"{kind}_{part}")
        for kind, parts in others.items()
        for name, entry in parts.items()
        for part in _names(entry)
    ]
    arrays = read_arrays(parameters, [*names, *codes, *own])
    nodes = tuple(_node_from_json(index, entry, arrays) for index, entry in zip(held, entries, strict=True))
    head = document["head"]
    notes = tuple(map(_text, _list(document["notes"])))
    inputs, outputs = (tuple(map(_port, _list(document[kind]))) for kind in ("inputs", "outputs"))
    network = Network(nodes, None if head is None else _text(head), notes, inputs, outputs)
    if subject is None:
        return network, None
    parameters_of = {name: _codes_from_json(index_of[name], entry, arrays) for name, entry in coded.items()}
    formats, accumulators = (
        {name: _format(entry) for name, entry in _dict(subject[kind]).items()} for kind in ("formats", "accumulators")
    )
    rewrite, saturating = Rewrite.from_json(subject["rewrite"]), frozenset(map(_text, _list(subject["saturating"])))
    real = {name: _real_from_json(index_of[name], entry, arrays) for name, entry in others["real"].items()}
    grids = {
        name: _grid_from_json(_key(index_of[name], "grid_"), entry, arrays) for name, entry in others["grid"].items()
    }
    bits = subject.get("input_bits")
    if bits is not None and type(bits) is not int:
        raise FileFormatError(f"the inputs have {bits!r} fractional bits; expected a whole number")
    return network, Pair(network, parameters_of, formats, accumulators, rewrite, saturating, real, grids, bits)


def _arrays(network: Network, quantized: Pair | None) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for index, node in enumerate(network.nodes):
        if node.shares is None:
            arrays.update({_key(index, name): array for name, array in node.op.arrays().items()})
        codes = None if quantized is None else quantized.parameters.get(node.name)
        if codes is not None:
            arrays[_key(index, "kernel_codes")] = codes.kernel
            arrays[_key(index, "bias_codes")] = codes.bias
        if quantized is not None:
            parts: dict[str, Op | Grid | None] = {
                "real": quantized.real.get(node.name),
                "grid": quantized.grids.get(node.name),
                "kernel_grid": None if codes is None else codes.kernel_grid,
            }
            for kind, part in parts.items():
                if part is not None:
                    arrays.update({_key(index, f"{kind}_{name}"): array for name, array in part.arrays().items()})
    return arrays


def _key(index: int, name: str) -> str:
    """Position, not name: a node's name may hold anything, a slash included."""
    return f"{index}.{name}"


def _node_to_json(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "kind": node.op.kind,
        "inputs": list(node.inputs),
        "layer": node.layer,
        "settings": dict(node.op.settings()),
        "arrays": sorted(node.op.arrays()),
        **({"shares": node.shares} if node.shares is not None else {}),
    }


def _part_to_json(part: Op | Grid) -> dict[str, Any]:
    """An operation or a grid of the subject."""
    return {"kind": part.kind, "settings": dict(part.settings()), "arrays": sorted(part.arrays())}


def _node_from_json(index: int, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Node:
    kind = _text(entry["kind"])
    if kind not in OPS:
        raise FileFormatError(f"node '{entry['name']}' is of unknown kind '{kind}'; this version knows {sorted(OPS)}")
    inputs = tuple(map(_text, _list(entry["inputs"])))
    op = _part_from_json(OPS[kind], _key(index, ""), entry, arrays)
    return Node(
        _text(entry["name"]), op, inputs, _text(entry["layer"]), _text(entry["shares"]) if "shares" in entry else None
    )


def _real_from_json(index: int, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Op:
    """An operation of the subject with parameters of its own."""
    kind = _text(entry["kind"])
    if kind not in OPS:
        raise FileFormatError(f"the subject has an operation of unknown kind '{kind}'")
    return _part_from_json(OPS[kind], _key(index, "real_"), entry, arrays)


def _grid_from_json(key: str, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Grid:
    kind = GRIDS.get(_text(entry["kind"]))
    if kind is None:
        raise FileFormatError(
            f"a result is rounded to a grid of unknown kind '{entry['kind']}'; known are {sorted(GRIDS)}"
        )
    return _part_from_json(kind, key, entry, arrays)


def _part_from_json(kind: type[Made], key: str, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Made:
    """An operation or a grid from its settings, and from its arrays, whose names start with the key."""
    parts = {name: arrays[f"{key}{name}"] for name in _names(entry)}
    return _make(kind, parts, {name: _setting(value) for name, value in _dict(entry["settings"]).items()})


def _make(kind: type[Made], arrays: Mapping[str, Array], settings: Mapping[str, Any]) -> Made:
    """Build an operation or a grid from its declared fields, all of the required ones and nothing else."""
    declared = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    given = {*arrays, *settings}
    required = {n for n, f in declared.items() if f.default is MISSING and f.default_factory is MISSING}
    if not required <= given <= set(declared) or set(arrays) & set(settings):
        raise FileFormatError(f"'{kind.kind}' is described by {sorted(given)}, expected {sorted(declared)}")
    return kind(**arrays, **settings)


def _port(entry: Mapping[str, Any]) -> Port:
    head = _dict(entry)["head"]
    return Port(_text(entry["name"]), _text(entry["node"]), None if head is None else _text(head))


def _setting(value: Any) -> Any:
    """Plain json, lists as tuples; lists of sizes stay within what memory could hold."""
    if isinstance(value, list):
        items = tuple(_setting(item) for item in cast("list[Any]", value))
        sizes = [item for item in items if isinstance(item, int)]
        if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
            raise FileFormatError(f"a list of sizes {sizes[:4]} is negative or exceeds {MAX_ELEMENTS} elements")
        return items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise FileFormatError(f"a setting is a {type(value).__name__}; expected a number, a text or a list")


def _subject_to_json(quantized: Pair) -> dict[str, Any]:
    """What the subject has in place of the reference; parts that only models of others have are named where there are some."""
    optional = {
        "real": {name: _part_to_json(op) for name, op in quantized.real.items()},
        "grids": {name: _part_to_json(grid) for name, grid in quantized.grids.items()},
        "input_bits": quantized.input_bits,
    }
    return {
        "formats": {name: output.to_json() for name, output in quantized.formats.items()},
        "accumulators": {name: output.to_json() for name, output in quantized.accumulators.items()},
        "parameters": {name: _formats_to_json(codes) for name, codes in quantized.parameters.items()},
        "rewrite": quantized.rewrite.to_json(),
        "saturating": sorted(quantized.saturating),
        **{name: part for name, part in optional.items() if part not in ({}, None)},
    }


def _formats_to_json(codes: AffineCodes) -> dict[str, Any]:
    formats: dict[str, Any] = {
        "kernel_format": codes.kernel_format.to_json(),
        "bias_format": codes.bias_format.to_json(),
    }
    if codes.channel_formats is not None:
        formats["channel_formats"] = [output.to_json() for output in codes.channel_formats]
    if codes.kernel_grid is not None:
        formats["kernel_grid"] = _part_to_json(codes.kernel_grid)
    return formats


def _codes_from_json(index: int, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> AffineCodes:
    kernel, bias = arrays[_key(index, "kernel_codes")], arrays[_key(index, "bias_codes")]
    channels = None
    if "channel_formats" in entry:
        channels = tuple(_format(channel) for channel in _list(entry["channel_formats"]))
    grid = None
    if "kernel_grid" in entry:
        grid = _grid_from_json(_key(index, "kernel_grid_"), _dict(entry["kernel_grid"]), arrays)
    return AffineCodes(kernel, _format(entry["kernel_format"]), bias, _format(entry["bias_format"]), channels, grid)


def _format(entry: Mapping[str, Any]) -> Format:
    word_length, integer_bits, signed = (entry[name] for name in ("word_length", "integer_bits", "signed"))
    ends = [entry[name] for name in ("low", "high") if name in entry]
    whole = all(type(number) is int for number in (word_length, integer_bits, *ends))
    if not whole or type(signed) is not bool or len(entry) != 3 + len(ends) or len(ends) == 1:
        raise FileFormatError(f"a format is {entry}; expected two integers, whether it is signed, and perhaps two ends")
    if abs(integer_bits) > MAX_INTEGER_BITS:
        raise FileFormatError(f"a format has {integer_bits} integer bits; at most {MAX_INTEGER_BITS} are meaningful")
    return CutFormat(word_length, integer_bits, signed, *ends) if ends else Format(word_length, integer_bits, signed)


def _check_said(document: Mapping[str, Any], network: Network, quantized: Pair | None) -> None:
    """Nothing may be in the json that the network does not say itself."""
    content = {name: value for name, value in document.items() if name != "checksum"}
    if not same_json(content, _document(network, quantized)):
        raise FileFormatError(f"{NETWORK_FILE} says more, or something else, than the network that it describes")


def _checksum(document: Mapping[str, Any], parameters: Path) -> str:
    """SHA-256 over the meaning of the json and the bytes of the npz."""
    content = {name: value for name, value in document.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    with open_regular(parameters, MAX_BYTES) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _names(entry: Mapping[str, Any]) -> list[str]:
    return [_text(name) for name in _list(entry["arrays"])]


def _checked(kind: type[T]) -> Callable[[Any], T]:
    def check(value: Any) -> T:
        if not isinstance(value, kind):
            raise FileFormatError(f"found a {type(value).__name__} where a {kind.__name__} belongs")
        return value

    return check


_text = _checked(str)
_list: Callable[[Any], list[Any]] = _checked(list)
_dict: Callable[[Any], dict[str, Any]] = _checked(dict)
