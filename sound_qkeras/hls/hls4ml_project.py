"""The route through hls4ml: its project of the QKeras model, with the settings that make it bit-exact, and checked."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.errors import DependencyError, InputError
from sound_qkeras.files import check_place
from sound_qkeras.fixed_point import from_codes
from sound_qkeras.hls.options import Options
from sound_qkeras.hls.plan import make_plan
from sound_qkeras.hls.vectors import check_box, make_vectors
from sound_qkeras.network import QuantizedNetwork

MARKER = "hls4ml_config.yml"
# Samples on which layers are compared one by one when outputs differ.
TRACED = 100


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
        return f"hls4ml: {self.mismatches} of {self.samples} samples differ, by up to {self.worst_difference:g}{where}"


def to_hls4ml(
    quantized: QuantizedNetwork,
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
    """Build an hls4ml project from the network's QKeras model and compare it with the simulator.

    hls4ml takes its Keras 2 path and `bit_exact=True`: widths then follow from the weights, and types round as QKeras
    does. Whether that held is found out, not assumed: hls4ml 1.3.0 truncates results that are rounded to whole numbers.

    Args:
        quantized: the network.
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
        The project; look at `bit_exact`.

    Raises:
        DependencyError: hls4ml, TensorFlow or a compiler is missing.
        InputError: an option, the box or the directory is not usable, or QKeras cannot say a format.
    """
    from sound_qkeras.keras_io.environment import keras_2

    plan = make_plan(
        quantized, Options(style="loops", part=part, clock_ns=clock_ns, name=name, reuse_factor=reuse_factor)
    )
    vectors = make_vectors(plan, *check_box(plan, box), samples)
    folder = check_place(directory)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise InputError(f"'{folder}' is not empty and holds no project of hls4ml; name an empty or new directory")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"'{folder}' holds an earlier project; pass overwrite=True, or name another directory")
    settings = {"part": part, "clock_period": clock_ns, "project_name": name, "output_dir": str(folder)}
    # hls4ml asks `keras` for its version, and takes its Keras 3 path and fails where that is not the model's.
    with keras_2(), contextlib.redirect_stdout(io.StringIO()):
        model = _convert(quantized, backend, reuse_factor, settings)
        model.compile()
        inputs = np.ascontiguousarray(vectors.inputs.reshape(-1, *plan.input.shape))
        found = np.asarray(model.predict(inputs), dtype=np.float64).reshape(len(vectors), -1)
        expected = from_codes(vectors.output_codes, plan.output.format.fractional_bits)
        wrong = np.flatnonzero(np.any(found != expected, axis=1))
        first = _first_difference(quantized, model, inputs[wrong[:TRACED]]) if wrong.size else None
    return Hls4mlProject(model, folder, len(vectors), wrong.size, float(np.max(np.abs(found - expected))), first)


def _convert(quantized: QuantizedNetwork, backend: str, reuse_factor: int, settings: dict[str, Any]) -> Any:
    from sound_qkeras.keras_io import to_qkeras

    try:
        hls4ml = importlib.import_module("hls4ml")
    except ImportError as error:
        raise DependencyError("this route needs hls4ml: pip install 'sound-qkeras[hls]'") from error
    model = to_qkeras(quantized)
    config = hls4ml.utils.config_from_keras_model(
        model, granularity="name", backend=backend, default_reuse_factor=reuse_factor
    )
    for layer in config["LayerName"].values():
        layer["Trace"] = True
    return hls4ml.converters.convert_from_keras_model(
        model, hls_config=config, backend=backend, bit_exact=True, io_type="io_parallel", **settings
    )


def _first_difference(quantized: QuantizedNetwork, model: Any, inputs: npt.NDArray[np.float64]) -> str | None:
    """The first layer, in graph order, in which hls4ml's values are not the simulator's."""
    from sound_qkeras.keras_io.keras_names import keras_names

    _, traced = model.trace(inputs)
    codes, names = quantized.simulate_all(inputs), keras_names(quantized.trained, quantized.network)
    for node in quantized.network.nodes:
        found = traced.get(names[node.name])
        expected = from_codes(codes[node.name], quantized.fractional_bits[node.name])
        if found is not None and not np.array_equal(np.asarray(found).reshape(expected.shape), expected):
            return node.name
    return None
