"""Results on disk: what was proved, how it is made, and the QKeras model, in one directory.

`certificate.json` and the network (`network.json` with `parameters.npz`) are all a proof needs; `formats.json` is the
report for people and programs; `qkeras_model.keras` is the model to use. `manifest.json` covers them all.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sound_qkeras import __version__
from sound_qkeras.errors import FileFormatError, SoundQKerasError, VerificationError
from sound_qkeras.floating.fixed import FloatReport, float_reports
from sound_qkeras.floating.pair import pair_float_reports
from sound_qkeras.interval import Reals
from sound_qkeras.network.files import NETWORK_FILE, PARAMETER_FILE, load_network, save_network
from sound_qkeras.network.pair import Pair
from sound_qkeras.results.accuracy import Accuracy
from sound_qkeras.results.classification import Classification
from sound_qkeras.results.finetuned import Finetuning
from sound_qkeras.results.model import GivenModel
from sound_qkeras.results.origin import Origin
from sound_qkeras.results.result import Result
from sound_qkeras.search.falsify import errors
from sound_qkeras.support.files import RESULT, atomic_directory, check_writable, moved_aside
from sound_qkeras.support.manifest import MANIFEST, Manifest, check_manifest
from sound_qkeras.support.npz import read_arrays, write_arrays
from sound_qkeras.support.plain import from_plain, to_plain, write_json
from sound_qkeras.support.reading import check_header, digest_of_json, read_json, same_json
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.tuning.optimality import Optimality
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.checker import check, check_identity
from sound_qkeras.verify.evidence import outside_of

CERTIFICATE_FILE = "certificate.json"
REPORT_FILE = "formats.json"
MODEL_FILE = "qkeras_model.keras"
SAMPLES_FILE = "samples.npz"
REPORT_FORMAT = "sound_qkeras result"
REPORT_VERSION = 1
# Everything that a result may be made of.
FILES = (CERTIFICATE_FILE, NETWORK_FILE, PARAMETER_FILE, REPORT_FILE, MODEL_FILE, SAMPLES_FILE)
# By how much, relative to the results, the error at one input may differ between machines.
SLACK = 2.0**-30

_LOG = logging.getLogger("sound_qkeras")


def save(result: Result, directory: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a result, as `Result.save` says; returns the absolute path of the directory."""
    target = check_writable(directory, names=FILES, overwrite=overwrite)
    with atomic_directory(target, overwrite=overwrite) as folder:
        save_network(folder, result.pair.reference, result.pair)
        reason = _qkeras_model(result, folder / MODEL_FILE)
        if result.certificate.evidence is not None:
            write_arrays(folder / SAMPLES_FILE, result.certificate.evidence.arrays())
        write_json(folder / CERTIFICATE_FILE, result.certificate.to_json())
        write_json(folder / REPORT_FILE, _report(result, reason))
    return target


def load(directory: str | os.PathLike[str]) -> Result:
    """Read what `save` wrote, without TensorFlow.

    Guarantee: every file is as it was saved, by its SHA-256, they belong together, and the result is the one that was saved,
    bit for bit; or an error is raised. Nothing is proved again here: `sound_qkeras.check(result.pair, result.certificate)`
    does that.

    Raises:
        FileFormatError: something is missing, altered, corrupt, or from another result.
    """
    folder = Path(directory)
    manifest, pair, certificate = _read_claim(folder)
    try:
        check_identity(pair, certificate)
    except VerificationError as error:
        raise FileFormatError(f"'{folder}': {error}") from error
    return _read_result(folder, manifest, pair, certificate)


def verify(directory: str | os.PathLike[str]) -> tuple[Result, Reals]:
    """Read a saved result, and prove its certificate again from the files alone, without TensorFlow.

    Guarantee: besides what `check` guarantees, every file is as it was saved, and the QKeras model in the directory has
    the certificate's integers and formats.

    Returns:
        The result, and the bound found for every output.

    Raises:
        FileFormatError: as `load`.
        VerificationError: something that is claimed does not hold.
    """
    folder = Path(directory)
    manifest, pair, certificate = _read_claim(folder)
    bounds = check(pair, certificate)
    result = _read_result(folder, manifest, pair, certificate)
    _check_observed(result)
    _check_floating(result)
    if MODEL_FILE in manifest.files:
        from sound_qkeras.keras_io.files.stored_model import check_stored_model

        check_stored_model(folder / MODEL_FILE, pair)
    return result, bounds


def _read_claim(folder: Path) -> tuple[Manifest, Pair, Certificate]:
    """A saved fixed-point network and the certificate beside it: all that a proof needs. The two are not compared yet."""
    manifest = _read_manifest(folder)
    certificate = _read_certificate(folder)
    _, pair = load_network(folder)
    if pair is None:
        raise FileFormatError(f"'{folder}' holds a network without integers; quantise it and save the result")
    return manifest, pair, certificate


def _read_result(folder: Path, manifest: Manifest, pair: Pair, certificate: Certificate) -> Result:
    """The result with what its report says besides."""
    path = folder / REPORT_FILE
    report = read_json(path)
    # Accidents are found here; what is proved does not rest on it.
    content = {name: value for name, value in report.items() if name != "checksum"}
    check_header(path, report, REPORT_FORMAT, REPORT_VERSION, digest_of_json(content))
    if report["certificate"] != certificate.digest:
        raise FileFormatError(f"'{folder / CERTIFICATE_FILE}' is not as it was written: the checksum differs")
    try:
        result = _result(report, pair, certificate)
        again = _report(result, report["no_qkeras_model_because"])
        if certificate.versions.get("sound_qkeras") != __version__:
            again["summary"] = report["summary"]  # in the words of the version that wrote it
    except FileFormatError as error:
        raise FileFormatError(f"'{path}': {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"'{path}' is no report of a result ({type(error).__name__}: {error})") from error
    wrong = [name for name in {**again, **report} if not same_json(report.get(name), again.get(name))]
    if wrong:
        raise FileFormatError(f"'{path}': its '{wrong[0]}' is not what '{folder}' holds")
    _check_files(folder, manifest, result, has_model=report["qkeras_model"] is not None)
    return result


def _read_manifest(folder: Path) -> Manifest:
    aside = moved_aside(folder)
    if aside is not None and not folder.exists():
        raise FileFormatError(f"'{folder}' is missing: a run that was interrupted left it as '{aside}'; rename that")
    if not folder.is_dir():
        raise FileFormatError(f"'{folder}' is no directory; accepted: a directory that a result was saved to")
    if not os.path.lexists(folder / MANIFEST):
        inside = sorted(str(path.parent) for path in folder.glob(f"*/{MANIFEST}"))
        if inside:
            raise FileFormatError(f"'{folder}' holds several results; accepted: one of them, such as '{inside[0]}'")
        raise FileFormatError(
            f"'{folder}' has no {MANIFEST}: no result was saved there, or by an earlier version of sound_qkeras; accepted: a "
            "directory that a result was saved to, so quantise the model again"
        )
    return check_manifest(folder, RESULT)


def _check_files(folder: Path, manifest: Manifest, result: Result, *, has_model: bool) -> None:
    """The manifest must cover exactly the files that the result is made of."""
    optional = {MODEL_FILE: has_model, SAMPLES_FILE: result.certificate.evidence is not None}
    expected = {name for name in FILES if optional.get(name, True)}
    if set(manifest.files) != expected:
        odd = sorted(set(manifest.files) ^ expected)
        raise FileFormatError(f"'{folder / odd[0]}' does not belong to this result, or is missing")


def _check_floating(result: Result) -> None:
    """What is said to be proved of evaluations in floating point is proved again."""
    if result.model is not None and not result.model.as_proved:
        return  # Keras computes other layers than those that the certificate is about
    proved = _float_reports(result)
    for kind, said, found in zip(("float32", "float64"), (result.float32, result.float64), proved, strict=True):
        if not said.layers and said.error == said.bound == math.inf:
            continue  # nothing is said
        rows = [(row.layer, row.exact) for row in said.layers] == [(row.layer, row.exact) for row in found.layers]
        errors = [(row.error, other.error) for row, other in zip(said.layers, found.layers, strict=False)]
        errors += [(said.error, found.error), (said.bound, found.bound)]
        if not rows or not all(claimed >= again * (1.0 - SLACK) for claimed, again in errors):
            raise VerificationError(f"what is said of the evaluation in {kind} is not what is proved of it")


def _float_reports(result: Result) -> tuple[FloatReport, FloatReport]:
    """What is proved of evaluations in float32 and float64."""
    box, bound, model = result.certificate.box, result.certificate.distance, result.model
    if model is None:
        return float_reports(result.pair, box, bound, thorough=result.certificate.evidence is None)
    return pair_float_reports(result.pair, box, bound, narrow=model.narrow)


def _check_observed(result: Result) -> None:
    """The worst error found must be that at the input of the box beside it; none, where no input was tried."""
    pair, sample = result.pair, result.observed_input[None]
    if not result.evaluations and result.observed_error:
        raise VerificationError(f"an error of {result.observed_error:.9g} was found, but no input was tried")
    if not result.evaluations:
        return
    if np.any(outside_of(sample, result.certificate.box)):
        raise VerificationError("the input at which the worst error was found lies outside of the box")
    found = float(np.abs(errors(pair, sample)).max())
    scale = float(np.abs(pair.reference.evaluate(sample)).max())
    if not abs(found - result.observed_error) <= SLACK * max(scale, found, result.observed_error):
        raise VerificationError(
            f"the worst error found is said to be {result.observed_error:.9g}; at the input beside it, it is {found:.9g}"
        )


def _qkeras_model(result: Result, path: Path) -> str | None:
    """Write the model; where that fails, whatever it is, the reason: what was proved is worth saving without it."""
    if result.model is not None:
        return "the model was given"
    try:
        from sound_qkeras.keras_io import save_model

        save_model(result.to_qkeras(), path)
    except Exception as error:
        path.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, SoundQKerasError) else f"{type(error).__name__}: {error}"
        _LOG.warning("the result has no QKeras model: %s", reason)
        return reason
    return None


def to_json(result: Result) -> dict[str, Any]:
    """All that a result says, its certificate included, as plain json; infinities are texts."""
    return {**_report(result, None), "certificate": result.certificate.to_json()}


def _report(result: Result, reason: str | None) -> dict[str, Any]:
    content = {
        "format": REPORT_FORMAT,
        "version": REPORT_VERSION,
        "summary": result.summary(),
        "formats": to_plain(result.formats),
        "cost": result.cost.to_json(),
        "observed_error": to_plain(result.observed_error),
        "observed_input": result.observed_input.tolist(),
        "evaluations": result.evaluations,
        "float32": {**to_plain(result.float32), "exact": result.float32.exact},
        "float64": {**to_plain(result.float64), "exact": result.float64.exact},
        "seconds": result.seconds,
        "optimality": None if result.optimality is None else to_plain(result.optimality.to_json()),
        "ended_by": result.ended_by,
        "classification": to_plain(result.classification),
        "finetuning": to_plain(result.finetuning),
        **({} if result.accuracy is None else {"accuracy": to_plain(result.accuracy)}),
        **({} if result.model is None else {"model": to_plain(result.model)}),
        **({} if result.origin is None else {"origin": to_plain(result.origin)}),
        "qkeras_model": MODEL_FILE if reason is None else None,
        "no_qkeras_model_because": reason,
        "certificate": result.certificate.digest,
    }
    return {**content, "checksum": digest_of_json(content)}


def _result(report: Mapping[str, Any], pair: Pair, certificate: Certificate) -> Result:
    sample = np.asarray(report["observed_input"], dtype=np.float64)
    if sample.shape != pair.network.input_shape:
        raise FileFormatError(f"the worst input has shape {sample.shape}, expected {pair.network.input_shape}")
    return Result(
        pair=pair,
        certificate=certificate,
        cost=cost_of(pair),
        observed_error=float(report["observed_error"]),
        observed_input=sample,
        evaluations=int(report["evaluations"]),
        float32=from_plain(FloatReport, report["float32"]),
        float64=from_plain(FloatReport, report["float64"]),
        seconds=float(report["seconds"]),
        optimality=from_plain(Optimality | None, report["optimality"]),
        ended_by=str(report["ended_by"]),
        classification=from_plain(Classification | None, report["classification"]),
        finetuning=from_plain(Finetuning | None, report["finetuning"]),
        accuracy=from_plain(Accuracy | None, report.get("accuracy")),
        model=from_plain(GivenModel | None, report.get("model")),
        origin=from_plain(Origin | None, report.get("origin")),
    )


def _read_certificate(folder: Path) -> Certificate:
    path = folder / CERTIFICATE_FILE
    content = read_json(path)
    names = {"local": ("samples", "bounds"), "statistical": ("samples",)}.get(str(content.get("tier")), ())
    arrays = read_arrays(folder / SAMPLES_FILE, names) if names else {}
    try:
        return Certificate.from_json(content, arrays)
    except OverflowError as error:
        raise FileFormatError(f"'{path}' holds a number beyond the range of float64 ({error})") from error
