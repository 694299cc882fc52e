"""`report.json`: everything a reader of the exported code may want to check, with stable text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from sound_qkeras import __version__
from sound_qkeras.backends.cost import estimate
from sound_qkeras.backends.options import Options
from sound_qkeras.backends.targets import target_named
from sound_qkeras.backends.tensors import Plan, Slice, Tensor
from sound_qkeras.backends.vectors import Reals, Vectors
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.network import Pair

GENERATOR = "sound_qkeras.backends"
REPORT_VERSION = 1


def report_text(plan: Plan, box: tuple[Reals, Reals], vectors: Vectors, certificate: Mapping[str, Any] | None) -> str:
    """The report as json.

    Raises:
        InputError: the certificate holds something json cannot say.
    """
    options = plan.options
    report = {
        "generator": GENERATOR,
        "report_version": REPORT_VERSION,
        "versions": {"sound_qkeras": __version__, "numpy": np.__version__, "jinja2": _version("jinja2")},
        "name": options.name,
        "target": options.target,
        "style": options.style,
        "rounding": "half to even",
        "overflow": {"inside": "wrap (proved impossible inside the box)", "input": _input_overflow(options)},
        "reuse_factor": options.reuse_factor,
        "part": options.part,
        "clock_ns": options.clock_ns,
        "box": {"lower": box[0].tolist(), "upper": box[1].tolist()},
        "certificate": certificate,
        "weight_hash": plan.pair.reference.weight_hash,
        "code_hash": plan.pair.code_hash,
        "inputs": [_slice(one) for one in plan.input_slices],
        "outputs": [_slice(one) for one in plan.output_slices],
        "tensors": [_tensor(tensor) for tensor in plan.written],
        "weights": [_weights(plan.pair, name) for name in plan.pair.parameters],
        "vectors": len(vectors),
        "cost_estimate": estimate(plan.pair).to_json(),
    }
    try:
        return json.dumps(report, indent=2, allow_nan=False, default=_plain) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"the certificate is no json: {error}; pass plain numbers, texts and lists") from error


def _input_overflow(options: Options) -> str:
    """What happens to a real input outside the input format."""
    return options.input_guard or target_named(options.target).outside


def _slice(part: Slice) -> dict[str, Any]:
    return {"name": part.name, "first": part.first, "shape": list(part.shape), "head": part.head}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "node": tensor.node.name,
        "layer": tensor.node.layer,
        "kind": tensor.node.op.kind,
        "identifier": tensor.identifier,
        "shape": list(tensor.shape),
        "format": _format(tensor.format),
        "exact_format": _format(tensor.exact),
        "rounded": tensor.rounded,
        **({} if tensor.grid is None else {"grid": str(tensor.grid)}),
        "proved_range": None if tensor.proved is None else list(tensor.proved),
    }


def _weights(pair: Pair, name: str) -> dict[str, Any]:
    codes = pair.parameters[name]
    accumulator = pair.accumulators.get(name)
    own = codes.channel_formats
    return {
        "node": name,
        "kernel_shape": list(codes.kernel.shape),
        "kernel_format": _format(codes.kernel_format),
        **({} if own is None else {"channel_formats": [_format(output) for output in own]}),
        "bias_format": _format(codes.bias_format),
        "accumulator_format": None if accumulator is None else _format(accumulator),
        "nonzero_weights": int(np.count_nonzero(codes.kernel)),
    }


def _format(output: Format) -> dict[str, Any]:
    return {**output.to_json(), "fractional_bits": output.fractional_bits}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a json value")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
