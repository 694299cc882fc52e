"""The route through hls4ml: its project of the network, every type written down, and checked."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sound_qkeras.backends.hls4ml_graph import WAY_OUT, Hls4mlLayers
from sound_qkeras.backends.hls4ml_layers import hls4ml_layers
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.plan import make_plan
from sound_qkeras.backends.tensors import Plan
from sound_qkeras.backends.vectors import check_box, make_vectors
from sound_qkeras.errors import DependencyError, InputError, SoundQKerasError
from sound_qkeras.fixed_point import from_codes
from sound_qkeras.network import Pair
from sound_qkeras.support.files import check_place

MARKER = "hls4ml_config.yml"
# Samples on which layers are compared one by one when outputs differ.
TRACED = 100
# What compilers and shells say when they refuse.
_COMPLAINT = re.compile(r"\berror\b|not found", re.IGNORECASE)


@dataclass(frozen=True)
class Hls4mlProject:
    """An hls4ml project and how it compares with the simulator.

    Args:
        model: hls4ml's ModelGraph, compiled.
        directory: where the project is.
        samples: samples compared.
        mismatches: samples with an output that is not the simulator's, bit for bit.
        worst_difference: largest absolute difference of an output.
        first_layer: the first layer whose values differ, where that is known.
    """

    model: Any
    directory: Path
    samples: int
    mismatches: int
    worst_difference: float
    first_layer: str | None

    @property
    def bit_exact(self) -> bool:
        """Whether every output of every sample was equal."""
        return self.mismatches == 0

    def summary(self) -> str:
        """One line."""
        if self.bit_exact:
            return f"hls4ml: bit-exact on {self.samples} samples"
        where = f", first in layer '{self.first_layer}'" if self.first_layer else ""
        differ = f"{self.mismatches} of {self.samples} samples differ, by up to {self.worst_difference:g}{where}"
        return f"hls4ml: {differ}; quantize with word_lengths=(2, 24), or use export_hls"


def to_hls4ml(
    pair: Pair,
    directory: str | Path,
    *,
    box: tuple[npt.ArrayLike, npt.ArrayLike],
    name: str = "net",
    backend: str = "Vitis",
    part: str = "xc7z020clg484-1",
    clock_ns: float = 5.0,
    reuse_factor: int = 1,
    samples: int = 2000,
    overwrite: bool = False,
) -> Hls4mlProject:
    """Build an hls4ml project of the network and compare it with the simulator.

    hls4ml gets its own layers with the exact integers and every type written down, so that nothing depends on what its
    readers of Keras models guess. Whether the compiled project computes the same is found out, not assumed.

    Args:
        pair: the network.
        directory: where hls4ml writes its project.
        box: `(lower, upper)`, the inputs the formats were proved for; samples are drawn from it.
        name: the top function, a C identifier.
        backend: hls4ml's backend.
        part: the FPGA.
        clock_ns: the clock period in nanoseconds.
        reuse_factor: how often each multiplier is used per sample.
        samples: random samples to compare, beside corners, ties and zero.
        overwrite: write into the directory of an earlier project.

    Returns:
        The project; look at `bit_exact`. A model of several inputs takes a list of arrays in `project.model.predict`.

    Raises:
        UnsupportedLayerError: hls4ml has nothing for a layer.
        DependencyError: hls4ml or a compiler is missing, or hls4ml fails.
        InputError: an option, the box or the directory is not usable.
    """
    plan = make_plan(pair, Options("loops", "hls4ml", None, reuse_factor, part, clock_ns, name))
    vectors = make_vectors(plan, *check_box(plan, box), samples)
    folder = check_place(directory)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise InputError(f"'{folder}' is not empty and holds no project of hls4ml; name an empty or new directory")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"'{folder}' holds an earlier project; pass overwrite=True, or name another directory")
    hls4ml = _import()
    layers = hls4ml_layers(plan, hls4ml.__version__)
    settings = {"part": part, "clock_period": clock_ns, "project_name": name, "output_dir": str(folder)}
    with _one_line(plan, layers, hls4ml.__version__):
        model = _convert(layers, backend, reuse_factor, settings)
        model.compile()
        inputs = _split(plan, vectors.inputs)
        found = _joined(model.predict(inputs))
        expected = from_codes(vectors.output_codes, plan.output.format.fractional_bits)
        wrong = np.flatnonzero(np.any(found != expected, axis=1))
        first = _first_difference(plan, layers, model, vectors.inputs[wrong[:TRACED]]) if wrong.size else None
    return Hls4mlProject(model, folder, len(vectors), wrong.size, float(np.max(np.abs(found - expected))), first)


def _import() -> Any:
    try:
        return importlib.import_module("hls4ml")
    except ImportError as error:
        raise DependencyError("this route needs hls4ml: pip install 'sound-qkeras[hls]'") from error


def _convert(layers: Hls4mlLayers, backend: str, reuse_factor: int, settings: dict[str, Any]) -> Any:
    """hls4ml's compiled graph of the layers."""
    backends = importlib.import_module("hls4ml.backends").get_available_backends()
    if backend.lower() not in backends:
        raise InputError(f"backend '{backend}' is none of hls4ml's; accepted: {', '.join(sorted(backends))}")
    config = importlib.import_module("hls4ml.utils.config").create_config(
        backend=backend, io_type="io_parallel", **settings
    )
    types = {name: {"Precision": types, "Trace": True} for name, types in layers.types.items()}
    whole = {"Precision": "fixed<16,6>", "ReuseFactor": reuse_factor, "Strategy": "Latency", "BitExact": False}
    config["HLSConfig"] = {"Model": whole, "LayerName": types}
    graph = importlib.import_module("hls4ml.model").ModelGraph
    return graph.from_layer_list(config, layers.layers, layers.inputs, layers.outputs)


@contextlib.contextmanager
def _one_line(plan: Plan, layers: Hls4mlLayers, version: str) -> Iterator[None]:
    """hls4ml's own errors as one of ours, with the layer where the message has its name; what it prints is dropped."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(), _without_keras():
            warnings.simplefilter("ignore")
            yield
    except SoundQKerasError:
        raise
    except Exception as error:
        text = f"{error}\n{printed.getvalue()}"
        complaint = next((line for line in printed.getvalue().splitlines() if _COMPLAINT.search(line)), "")
        named = (node for node in plan.pair.network.nodes if node.name in layers.names)
        near = [node.layer for node in named if re.search(rf"\b{layers.names[node.name]}\b", text)]
        where = f" at layer '{near[0]}'" if near else ""
        reason = " ".join(f"{type(error).__name__}: {error} {complaint}".split())[:300]
        raise DependencyError(f"hls4ml {version} fails{where} ({reason}); {WAY_OUT}") from error


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """hls4ml imports `keras`, and with it TensorFlow, to write down a Keras model. There is none, and it can do without."""
    absent = "keras" not in sys.modules
    if absent:
        sys.modules["keras"] = cast(ModuleType, None)
    try:
        yield
    finally:
        if absent:
            sys.modules.pop("keras", None)


def _split(plan: Plan, rows: npt.NDArray[np.float64]) -> Any:
    """Flat samples as hls4ml takes them: an array for each input."""
    parts = [
        np.ascontiguousarray(rows[:, one.first : one.last + 1].reshape(-1, *one.shape)) for one in plan.input_slices
    ]
    return parts if len(parts) > 1 else parts[0]


def _joined(found: Any) -> npt.NDArray[np.float64]:
    """What hls4ml returns, as flat rows."""
    parts = found if isinstance(found, list) else [found]
    return np.concatenate([np.asarray(part, np.float64).reshape(len(part), -1) for part in parts], axis=1)


def _first_difference(plan: Plan, layers: Hls4mlLayers, model: Any, samples: npt.NDArray[np.float64]) -> str | None:
    """The first layer, in graph order, in which hls4ml's values are not the simulator's."""
    pair = plan.pair
    repeated = np.repeat(samples, 2, axis=0)  # hls4ml reads a single sample otherwise
    _, traced = model.trace(_split(plan, repeated))
    codes = pair.simulate_all(repeated.reshape(-1, *plan.input.shape))
    for node in pair.network.nodes:
        found = traced.get(layers.names.get(node.name, ""))
        if found is None:
            continue
        expected = from_codes(codes[node.name], pair.fractional_bits[node.name])
        if not np.array_equal(np.asarray(found).reshape(expected.shape), expected):
            return node.name
    return None
