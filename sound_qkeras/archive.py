"""Results on disk: what was proved, how it is made, and the QKeras model, in one directory.

`certificate.json` and the network (`network.json` with `parameters.npz`) are all a proof needs; `formats.json` is the
report for people and programs; `qkeras_model.keras` is the model to use.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sound_qkeras.classification import Classification
from sound_qkeras.errors import DependencyError, FileFormatError, InputError, VerificationError
from sound_qkeras.files import atomic_directory, check_writable, recover
from sound_qkeras.finetuned import Finetuning
from sound_qkeras.network.files import load_network, save_network
from sound_qkeras.network.npz import read_arrays, write_arrays
from sound_qkeras.network.quantized import QuantizedNetwork
from sound_qkeras.result import Result
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.tuning.optimality import Optimality
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.checker import check_identity
from sound_qkeras.verify.floating import FloatLayer, FloatReport

CERTIFICATE_FILE = "certificate.json"
REPORT_FILE = "formats.json"
MODEL_FILE = "qkeras_model.keras"
SAMPLES_FILE = "samples.npz"
REPORT_FORMAT = "sound_qkeras result"
REPORT_VERSION = 1


def save(result: Result, directory: str | os.PathLike[str]) -> Path:
    """Write a result; an interrupted run leaves the old directory or the new one, never a mixture.

    Args:
        result: what to save.
        directory: a new or empty directory, or one an earlier result is in, which is replaced.

    Returns:
        The absolute path of the directory.

    Raises:
        InputError: the place cannot be written, or holds something else.
    """
    target = check_writable(directory)
    model, reason = _qkeras_model(result)
    with atomic_directory(target) as folder:
        save_network(folder, result.quantized.trained, result.quantized)
        if model is not None:
            from sound_qkeras.keras_io import save_model

            save_model(model, folder / MODEL_FILE)
        if result.certificate.evidence is not None:
            write_arrays(folder / SAMPLES_FILE, result.certificate.evidence.arrays())
        _write_json(folder / CERTIFICATE_FILE, result.certificate.to_json())
        _write_json(folder / REPORT_FILE, _report(result, reason))
    return target


def load(directory: str | os.PathLike[str]) -> Result:
    """Read what `save` wrote, without TensorFlow.

    Guarantee: the result is the one that was saved, bit for bit, or an error is raised. Nothing is proved again here:
    `sound_qkeras.check(result.quantized, result.certificate)` does that.

    Raises:
        FileFormatError: something is missing, corrupt, or from another result.
    """
    folder = Path(directory)
    quantized, certificate = load_claim(folder)
    try:
        check_identity(quantized, certificate)
    except VerificationError as error:
        raise FileFormatError(f"'{folder}': {error}") from error
    path = folder / REPORT_FILE
    report = _read_json(path)
    try:
        _check_report(report, certificate)
        result = _result(report, quantized, certificate)
        agrees = report["formats"] == _rows(result) and report["cost"] == result.cost.to_json()
    except FileFormatError as error:
        raise FileFormatError(f"'{path}': {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"'{path}' is no report of a result ({type(error).__name__}: {error})") from error
    if not agrees:
        raise FileFormatError(f"'{path}' describes other formats than '{folder}' holds")
    return result


def load_claim(directory: str | os.PathLike[str]) -> tuple[QuantizedNetwork, Certificate]:
    """A saved fixed-point network and the certificate beside it: all that a proof needs. Nothing is compared yet.

    Raises:
        FileFormatError: something is missing or corrupt.
    """
    folder = Path(directory)
    if not folder.exists():
        recover(folder)
    if not folder.is_dir():
        raise FileFormatError(f"'{folder}' is no directory; accepted: a directory that a result was saved to")
    certificate = _read_certificate(folder)
    _, quantized = load_network(folder)
    if quantized is None:
        raise FileFormatError(f"'{folder}' holds a network without integers; quantise it and save the result")
    return quantized, certificate


def certificate_digest(certificate: Certificate) -> str:
    """SHA-256 over everything a certificate says, whatever the layout of its file."""
    return _digest(certificate.to_json())


def _qkeras_model(result: Result) -> tuple[Any, str | None]:
    """The model, or None and the reason: what was proved is worth saving without it."""
    try:
        return result.to_qkeras(), None
    except (DependencyError, InputError, VerificationError) as error:
        return None, str(error)


def _report(result: Result, reason: str | None) -> dict[str, Any]:
    content = {
        "format": REPORT_FORMAT,
        "version": REPORT_VERSION,
        "summary": result.summary(),
        "formats": _rows(result),
        "cost": result.cost.to_json(),
        "observed_error": _number(result.observed_error),
        "observed_input": result.observed_input.tolist(),
        "evaluations": result.evaluations,
        "float32": _float_report(result.float32),
        "float64": _float_report(result.float64),
        "seconds": result.seconds,
        "optimality": _optimality(result),
        "ended_by": result.ended_by,
        "classification": None if result.classification is None else result.classification.to_json(),
        "finetuning": None if result.finetuning is None else result.finetuning.to_json(),
        "qkeras_model": MODEL_FILE if reason is None else None,
        "no_qkeras_model_because": reason,
        "certificate": certificate_digest(result.certificate),
    }
    return {**content, "checksum": _digest(content)}


def _check_report(report: Mapping[str, Any], certificate: Certificate) -> None:
    """Accidents are found here; what is proved does not rest on it."""
    if report.get("format") != REPORT_FORMAT:
        raise FileFormatError(f"it is not of the format '{REPORT_FORMAT}'")
    if report.get("version") != REPORT_VERSION:
        raise FileFormatError(
            f"it is of version {report.get('version')!r}, this library reads {REPORT_VERSION}; use the version of the "
            "library that wrote it"
        )
    content = {name: value for name, value in report.items() if name != "checksum"}
    if report["checksum"] != _digest(content):
        raise FileFormatError("it is not as it was written: the checksum differs")
    if report["certificate"] != certificate_digest(certificate):
        raise FileFormatError(f"{CERTIFICATE_FILE} beside it is not as it was written: the checksum differs")


def _result(report: Mapping[str, Any], quantized: QuantizedNetwork, certificate: Certificate) -> Result:
    sample = np.asarray(report["observed_input"], dtype=np.float64)
    if sample.shape != quantized.network.input_shape:
        raise FileFormatError(f"the worst input has shape {sample.shape}, expected {quantized.network.input_shape}")
    return Result(
        quantized=quantized,
        certificate=certificate,
        cost=cost_of(quantized),
        observed_error=float(report["observed_error"]),
        observed_input=sample,
        evaluations=int(report["evaluations"]),
        float32=_read_float_report(report["float32"]),
        float64=_read_float_report(report["float64"]),
        seconds=float(report["seconds"]),
        optimality=_read_optimality(report["optimality"]),
        ended_by=str(report["ended_by"]),
        classification=None if report["classification"] is None else Classification(**report["classification"]),
        finetuning=None if report["finetuning"] is None else Finetuning.from_json(report["finetuning"]),
    )


def _rows(result: Result) -> list[dict[str, Any]]:
    return [asdict(row) for row in result.formats]


def _float_report(report: FloatReport) -> dict[str, Any]:
    layers = [{"layer": row.layer, "exact": row.exact, "error": _number(row.error)} for row in report.layers]
    return {"exact": report.exact, "error": _number(report.error), "bound": _number(report.bound), "layers": layers}


def _read_float_report(data: Mapping[str, Any]) -> FloatReport:
    layers = tuple(FloatLayer(str(row["layer"]), bool(row["exact"]), float(row["error"])) for row in data["layers"])
    return FloatReport(layers, float(data["error"]), float(data["bound"]))


def _optimality(result: Result) -> dict[str, float | str] | None:
    found = result.optimality
    return None if found is None else {name: _number(value) for name, value in found.to_json().items()}


def _read_optimality(data: Mapping[str, Any] | None) -> Optimality | None:
    if data is None:
        return None
    return Optimality(*(float(data[name]) for name in ("cost", "lower_bound", "claimed_lower_bound")))


def _number(value: float) -> float | str:
    """Json has no infinity: it becomes a text that `float` reads."""
    return value if math.isfinite(value) else str(value)


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over the meaning of plain json, whatever its layout in the file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"'{path}' cannot be written ({error.strerror or error}); choose another place") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"'{path}' cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"'{path}' is not json ({error}); it may be cut short") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"'{path}' holds a {type(content).__name__}, expected a json object")
    return content


def _read_certificate(folder: Path) -> Certificate:
    path = folder / CERTIFICATE_FILE
    content = _read_json(path)
    names = {"local": ("samples", "bounds"), "statistical": ("samples",)}.get(str(content.get("tier")), ())
    arrays = read_arrays(folder / SAMPLES_FILE, names) if names else {}
    try:
        return Certificate.from_json(content, arrays)
    except OverflowError as error:
        raise FileFormatError(f"'{path}' holds a number beyond the range of float64 ({error})") from error
