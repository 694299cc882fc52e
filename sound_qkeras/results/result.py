"""What a run returns: the fixed-point network, its certificate, its cost, and the ways out."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sound_qkeras.fixed_point import Format
from sound_qkeras.floating.fixed import FloatReport
from sound_qkeras.network.pair import Pair
from sound_qkeras.network.simulate import simulate
from sound_qkeras.results.accuracy import Accuracy
from sound_qkeras.results.classification import Classification
from sound_qkeras.results.finetuned import Finetuning
from sound_qkeras.results.model import GivenModel
from sound_qkeras.results.origin import Origin
from sound_qkeras.results.verdict import box_text, verdict
from sound_qkeras.search.falsify import errors
from sound_qkeras.support.deadline import INTERRUPT, SEARCH
from sound_qkeras.support.decimals import at_least, at_most, percent_at_least, percent_at_most
from sound_qkeras.tuning.costs import Cost
from sound_qkeras.tuning.optimality import Optimality
from sound_qkeras.types import Reals
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.evidence import Statistical

if TYPE_CHECKING:
    from sound_qkeras.backends import CostEstimate
    from sound_qkeras.backends.hls4ml_project import Hls4mlProject

# What is said of a certificate that was proved by both proofs.
EXACT, EXACT_RANGES = ", re-proved in exact arithmetic", ", ranges re-proved in exact arithmetic"


@dataclass(frozen=True)
class FormatRow:
    """The format of one tensor and the range proved for it.

    `kind` is "weight", "bias", "activation" or "accumulator"; the range of a weight or bias is that of its values.
    A weight's format holds all channels; `Result.channel_formats` has their own.
    """

    layer: str
    node: str
    kind: str
    word_length: int
    integer_bits: int
    signed: bool
    lower: float
    upper: float

    @property
    def whole_bits(self) -> int:
        """How many of its bits are for the sign and the integer part; the others are fractional."""
        return min(max(self.integer_bits, 0) + self.signed, self.word_length)


@dataclass(frozen=True, eq=False)
class Result:
    """A certified fixed-point network.

    Args:
        pair: the trained network, and the integers and formats that stand for it.
        certificate: what is proved about them.
        cost: bits and bit operations.
        observed_error: the worst error a search found, at `observed_input`, after `evaluations` tries; never above the
            certificate's bound.
        float32, float64: how far QKeras' floating-point evaluation may be from the integers.
        seconds: how long the run took.
        optimality: how far the answer of the MILP may be from the optimum of the model it solved, re-checked; None where no
            model was solved.
        ended_by: what ended the choice of formats: the "search" itself or its budget of "work", which can be repeated exactly; a
            budget of "time", given in seconds; or an "interrupt" by Ctrl-C. What is proved is proved in each case.
        classification: for a classifier, accuracies and how many classes are proved to stay.
        accuracy: where formats were chosen for an accuracy, what was counted on the held-out samples, and what was tried.
        finetuning: where the integers were trained on, what that did to the task.
        model: of a model that somebody else quantised, what there is to know besides.
        origin: when it was made, and of which files. Two runs of the same call differ in it and in `seconds`.
    """

    pair: Pair
    certificate: Certificate
    cost: Cost
    observed_error: float
    observed_input: Reals
    evaluations: int
    float32: FloatReport
    float64: FloatReport
    seconds: float
    optimality: Optimality | None = None
    ended_by: str = SEARCH
    classification: Classification | None = None
    accuracy: Accuracy | None = None
    finetuning: Finetuning | None = None
    model: GivenModel | None = None
    origin: Origin | None = None

    def __repr__(self) -> str:
        """One line: the verdict and the bits."""
        return f"<Result {self.verdict}; weights {self.cost.weight_bits:,} bits>"

    def _repr_html_(self) -> str:
        from sound_qkeras.report.card import card

        return card(self)

    @property
    def evaluation(self) -> FloatReport:
        """What Keras computes beside the integers, in the float type of a model that was given, else in float32."""
        return self.float64 if self.model is not None and self.model.dtype == "float64" else self.float32

    @property
    def finetuned(self) -> bool:
        """Whether the integers were trained on after formats had been chosen."""
        return self.finetuning is not None

    @cached_property
    def formats(self) -> tuple[FormatRow, ...]:
        """One row per tensor, in graph order."""
        rows: list[FormatRow] = []
        for node in self.pair.network.nodes:
            proved = self.certificate.ranges[node.name]
            if node.name in self.pair.parameters:  # ones that are shared are listed once
                codes = self.pair.parameters[node.name]
                rows.append(_row(node.layer, node.name, "weight", codes.kernel_format, codes.kernel_value))
                rows.append(_row(node.layer, node.name, "bias", codes.bias_format, codes.bias_value))
            if node.name in self.pair.accumulators:
                accumulator = self.pair.accumulators[node.name]
                rows.append(_row(node.layer, node.name, "accumulator", accumulator, np.array(proved)))
            if node.name in self.pair.code_formats:
                output = self.pair.code_formats[node.name]
                rows.append(_row(node.layer, node.name, "activation", output, np.array(proved)))
        return tuple(rows)

    @property
    def channel_formats(self) -> Mapping[str, tuple[Format, ...]]:
        """Per layer with weights, by node, the format of each output channel's weights; all alike unless asked otherwise."""
        return {name: codes.own_formats for name, codes in self.pair.parameters.items()}

    @property
    def quantizer_config(self) -> dict[str, Any]:
        """What `qkeras.utils.model_quantize` takes for `float_model()`: layer name to quantizer strings.

        Names are those of `float_model()`: the model's own, but for `keras_names`.
        That is the trained model, except where `pair.rewrite` drops or replaces units, or rescales them by powers of
        two. Quantise with `keep_architecture=True, rescale_units=False` for formats that fit the trained weights.
        """
        from sound_qkeras.keras_io import quantizer_config

        return dict(quantizer_config(self.pair))

    def simulate(self, x: npt.ArrayLike) -> Reals:
        """The bit-exact integer network on samples `(n, *input_shape)`; values, not codes."""
        return simulate(self.pair, x)

    def to_qkeras(self, *, dtype: str = "float32", head: bool = False, scaled: bool = True) -> Any:
        """The QKeras model, weights set: "float32", which any session can load and train, or the exact "float64".

        `self.float32` and `self.float64` say whether it equals `simulate` bit for bit, and otherwise by how much it may
        differ. A float64 model is loaded and called inside `sound_qkeras.float64()`. `head=True` puts back a final
        softmax or sigmoid that was set aside.

        AutoQKeras counts as many bits of it as `self.cost`, thanks to scales that are powers of two. hls4ml's own converter
        reads none: `scaled=False` has wider formats instead.
        """
        from sound_qkeras.keras_io import to_qkeras

        return to_qkeras(self.pair, dtype=dtype, head=head, scaled=scaled)  # type: ignore[arg-type]

    def float_model(self) -> Any:
        """The float tf_keras model that was given formats: the trained one on the box, its units reduced and rescaled."""
        from sound_qkeras.keras_io import to_keras
        from sound_qkeras.keras_io.write.keras_names import with_keras_names

        return to_keras(with_keras_names(self.pair).network)

    @property
    def keras_names(self) -> dict[str, str]:
        """Names that tf_keras does not allow, and what stands for them in `to_qkeras`, `float_model` and `quantizer_config`."""
        from sound_qkeras.keras_io.write.keras_names import changed_names

        return changed_names(self.pair.reference, self.pair.network)

    def export_hls(self, directory: str | Path, **options: Any) -> Path:
        """Write the network as HLS C++, or with `target="c"` / `"verilog"` as C99 or Verilog, with a test bench.

        The code computes exactly the codes of `simulate` for every input in the box. Options are those of
        `sound_qkeras.backends.export_hls`: `style`, `target`, `input_guard`, `reuse_factor`, `part`, `clock_ns`, `name`,
        `vectors`, `overwrite`.

        Raises:
            InputError: an option is unknown, the directory is not empty, or the network does not suit the style.
            DependencyError: Jinja2 is missing.
        """
        from sound_qkeras.backends import export_hls

        claim = self.certificate.to_json()
        proved = () if isinstance(self.certificate.evidence, Statistical) else ("bound", "output_bounds")
        kept = ("tier", "claim", "eps", *proved, "weight_hash", "code_hash", "versions")
        return export_hls(
            self.pair,
            directory,
            box=(self.certificate.box.lower, self.certificate.box.upper),
            ranges=self.certificate.ranges,
            certificate={name: claim[name] for name in kept},
            **options,
        )

    def to_hls4ml(self, directory: str | Path, **options: Any) -> Hls4mlProject:
        """Build an hls4ml project of the network and compare it with `simulate`, code by code; TensorFlow is not needed.

        Look at the project's `bit_exact`, `mismatches` and `first_layer`. Options are those of `sound_qkeras.backends.to_hls4ml`.
        """
        from sound_qkeras.backends.hls4ml_project import to_hls4ml

        box = self.certificate.box
        return to_hls4ml(self.pair, directory, box=(box.lower, box.upper), **options)

    def estimate_hardware(self, *, reuse_factor: int = 1) -> CostEstimate:
        """An analytic estimate of multipliers, adders, memory, BRAM and DSP; no synthesis tool is run."""
        from sound_qkeras.backends import estimate

        return estimate(self.pair, reuse_factor=reuse_factor)

    def save(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write certificate, formats, network and QKeras model; an interrupted run leaves the old directory or the new one.

        An earlier result in the directory is replaced; files that are not ours stay. `overwrite=True` replaces files of the
        earlier result even if they were altered since.

        Raises:
            InputError: the place cannot be written, or holds something else.
        """
        from sound_qkeras.results.archive import save

        return save(self, directory, overwrite=overwrite)

    def to_json(self) -> dict[str, Any]:
        """All that the result says, its certificate included, as plain json: floats keep every bit, infinities are texts."""
        from sound_qkeras.results.archive import to_json

        return to_json(self)

    def report(self, path: str | os.PathLike[str], *, sweep: Iterable[Result] = ()) -> Path:
        """Write one self-contained html page: the claim, formats, errors, ranges, cost, and how to check it again.

        Guarantee: the certificate is proved again first, and nothing is written unless it holds.

        Args:
            path: the file; an earlier report there is replaced.
            sweep: results of the same trained network and box at other tolerances, to show bits against eps.

        Raises:
            VerificationError: the certificate does not hold.
            InputError: the file cannot be written or is something else, or the sweep is about another network or box.
        """
        from sound_qkeras.report import write

        return write(self, path, sweep=sweep)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the formats, the error budget, and what is claimed beside what was found.

        Args:
            path: where to save it: .png, .svg or .pdf.

        Returns:
            The matplotlib figure, which a notebook shows.

        Raises:
            DependencyError: matplotlib is missing (extra `[plot]`).
            InputError: the file cannot be written.
        """
        from sound_qkeras.report.plots import plot_result

        return plot_result(self, path)

    @property
    def verdict(self) -> str:
        """What is proved or counted about the error, in one line of words."""
        return verdict(self.certificate, self.certificate.labels.output_names(self.pair.network))

    def summary(self) -> str:
        """One line: the verdict and the details; of a model that was given, a few lines more."""
        said = "; ".join([self.verdict + self._proved_again, *self.details])
        return "\n".join([said, *self._of_model()])

    @property
    def lines(self) -> list[str]:
        """The verdict, the details, the box and the float32 evaluation, a line each."""
        return [
            f"{self.verdict}{self._proved_again}; {self._overflow}",
            *self.details,
            *(self._of_model() or [f"box: {self.certificate.box_source}; float32 evaluation: {self._float32}"]),
        ]

    @property
    def details(self) -> list[str]:
        """What there is to say besides the verdict, a line each."""
        bits = f"weights {self.cost.weight_bits:,} bits, total {self.cost.total_bits:,} bits"
        parts = [
            self.worst_found,
            bits
            if self.optimality is None
            else f"{bits}, MILP within {percent_at_most(self.optimality.gap, 3)} of its model's optimum",
            self._classes(),
            "" if self.accuracy is None else self.accuracy.summary,
            "" if self.finetuning is None else self.finetuning.summary,
            "search interrupted" if self.ended_by == INTERRUPT else "",
            f"took {self.seconds:.1f} s",
        ]
        return [part for part in parts if part]

    @property
    def worst_found(self) -> str:
        """What the search for the worst error found, in a few words."""
        if not self.evaluations:
            return "no search for the worst error"
        if isinstance(self.certificate.evidence, Statistical):
            return f"largest error at a held-out sample {at_least(self.observed_error, 4)}"
        certificate, found = self.certificate, f"worst error found {at_least(self.observed_error, 4)}"
        if not certificate.claims_distance:
            return found
        if np.all(certificate.eps == certificate.eps[0]):
            return f"{found}{self._share_of('the bound', certificate.bound)}"
        # Of several tolerances: the search looks for the largest error, and other outputs may come nearer to theirs.
        k = int(np.argmax(np.abs(errors(self.pair, self.observed_input[None])[0])))
        name = certificate.labels.output_names(self.pair.network)[k]
        return f"{found} ({name}{self._share_of('its bound', float(certificate.output_bounds[k]))})"

    def _share_of(self, what: str, bound: float) -> str:
        """How much of a bound the worst error found is, where there is one."""
        return f", {self.observed_error / bound:.0%} of {what}" if 0.0 < bound < math.inf else ""

    @property
    def _proved_again(self) -> str:
        if not self.certificate.exact:
            return ""
        return EXACT_RANGES if isinstance(self.certificate.evidence, Statistical) else EXACT

    @property
    def _overflow(self) -> str:
        return "values beyond their format saturate" if self.pair.saturating else "no overflow"

    @property
    def _float32(self) -> str:
        if self.float32.exact:
            return "exact"
        if isinstance(self.certificate.evidence, Statistical):
            return f"proved within {at_most(self.float32.error, 4)} of the integers"
        where = "" if self.certificate.evidence is None else ", around certified samples"
        return f"proved within {at_most(self.float32.bound, 4)} of the trained network{where}"

    def _of_model(self) -> list[str]:
        """What there is to say besides of a model that was given."""
        if self.model is None:
            return []
        found, report = self.model, self.evaluation
        exact = "exact" if report.exact else f"not exact, proved within {at_most(report.error, 6)} of exact arithmetic"
        again = "" if found.as_proved else ", which verify does not prove again"
        box = f"box: {box_text(self.certificate)}"
        obstacles = [f"no integers to export: {self.pair.obstacles[0]}"] if self.pair.obstacles else []
        return [
            f"compared with {found.reference}"
            if found.reference
            else "compared with nothing: ranges alone are claimed",
            *found.lines(counted=isinstance(self.certificate.evidence, Statistical)),
            f"{found.dtype} evaluation: {exact}{again}",
            *obstacles,
            box,
        ]

    def _classes(self) -> str:
        """What became of the classes, where it is a classifier."""
        found = self.classification
        if found is None:
            return ""
        accuracy = ""
        if found.float_accuracy is not None and found.fixed_accuracy is not None:
            accuracy = f"accuracy {found.float_accuracy:.2%} -> {found.fixed_accuracy:.2%}, "
        counted = isinstance(self.certificate.evidence, Statistical)
        proved = "" if counted else f", class proved for {percent_at_least(found.proved, 4)}"
        return f"{accuracy}agreement {found.agreement:.2%}{proved}"


def _row(layer: str, node: str, kind: str, output: Format, values: Reals) -> FormatRow:
    return FormatRow(
        layer,
        node,
        kind,
        output.word_length,
        output.integer_bits,
        output.signed,
        float(values.min()),
        float(values.max()),
    )


def tool_versions() -> Mapping[str, str]:
    """Versions of the tools a result depends on."""
    from sound_qkeras import __version__

    found = {"sound_qkeras": __version__, "python": platform.python_version()}
    for name in ("numpy", "pyomo", "highspy", "qkeras", "tensorflow"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
