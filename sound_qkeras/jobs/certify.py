"""The proved distance of any QKeras model from its float reference: read both, match them, prove, search, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sound_qkeras.errors import VerificationError
from sound_qkeras.fixed_point import Format
from sound_qkeras.floating.pair import as_computed, pair_float_reports
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.jobs.check import check
from sound_qkeras.jobs.cores import cores_for
from sound_qkeras.jobs.examine import examine
from sound_qkeras.jobs.options import CertifyOptions
from sound_qkeras.jobs.tiers import Question, claimed, evidence_of, tree_of, tries, worst_error
from sound_qkeras.network import Network, Pair, size_of
from sound_qkeras.network.boxes import describe_box, make_tolerance, network_box
from sound_qkeras.network.labels import Labels
from sound_qkeras.results.model import GivenModel, QuantizerRow, SumRow
from sound_qkeras.results.origin import Origin, source_files
from sound_qkeras.results.result import Result, tool_versions
from sound_qkeras.support.progress import Progress, shown
from sound_qkeras.verify.certificate import Certificate, make_certificate
from sound_qkeras.verify.evidence import Local, Statistical, check_input_bits, check_samples, error_limits
from sound_qkeras.verify.proof import MARGIN, bound_leaves, ranges_of, with_margin
from sound_qkeras.verify.split_tree import SplitTree

if TYPE_CHECKING:
    from sound_qkeras.keras_io.qkeras.matching import Matched
    from sound_qkeras.keras_io.qkeras.reader import Steps

LATENT = "latent"
# Where the tolerance of a claim that is counted came from, if none was given: it is not proved of anything.
LARGEST = "the largest error of the samples"
# Inputs at which saturation is looked for.
SAMPLES_SEEN = 256


def certify(
    qmodel: Any,
    reference: Any = None,
    *,
    box: Any,
    tier: str = "sound",
    samples: Any = None,
    radius: float | None = None,
    confidence: float = 0.99,
    eps: Any = None,
    input_bits: int | None = None,
    freeze: Any = None,
    effort: str | float = "normal",
    margin: float = 0.0,
    seed: int = 0,
    input_names: Any = None,
    output_names: Any = None,
    units: Any = None,
    exact: bool = False,
    n_jobs: int | None = None,
    box_source: str = "given",
    progress: Progress | bool = False,
) -> Result:
    """Prove how far a QKeras model may be from its float reference, which quantizers may saturate, and what float32 does to it.

    Guarantee: the model is what QKeras 0.9.0 computes with its quantised weights, in exact real arithmetic; parameters are the
    numbers that the quantizers return for what is stored. In the tier "sound", for every real input in the box every output is
    within its bound of the reference in exact arithmetic. `result.evaluation` bounds what Keras' own arithmetic adds to that.

    Args:
        qmodel: a built QKeras model, or the path of one (.h5, .keras, SavedModel), or a pair of paths of its json and its
            weights, as for `quantize`. Code in files is never run.
        reference: the float model it stands for, of Keras 3 or tf_keras, a path or a pair of paths to one, or a `Network`: the
            same layers in the same order, normalisations folded or not, hidden units multiplied by powers of two or not.
            "latent" is the model itself with its weights as stored and nothing rounded; rectifiers keep the upper end of their
            quantizers. None proves ranges, saturation and exactness only.
        box: the inputs, as for `quantize`.
        tier: "sound": for the whole box. "local": around each of the `samples`. "statistical": on inputs drawn like them.
        samples: inputs in the box, shape `(n, *input_shape)`, for those tiers; also where saturation is looked for.
        radius: of the tier "local", in units of the input.
        confidence: of the tier "statistical".
        eps: a tolerance to compare with, a number or one per output.
        input_bits: fractional bits that inputs are known to have (8 for multiples of 1/256). All that is proved is about such
            inputs then, and a model without a quantizer at its input can be exported.
        freeze: samples on which quantizers of activations whose scale depends on the batch are frozen; see
            `keras_io.freezing`. What that changes is in `notes`.
        effort: "fast", "normal", "max", or seconds: how long the box is cut into parts.
        margin: widens the box by this share of its width, on every side.
        seed: of the search for the worst error.
        input_names: what the inputs are called, in the certificate and the report: one name per number, or one per input of the
            model; a list, or a text with commas. None takes Keras' names.
        output_names: the same of the outputs.
        units: units of inputs and outputs by name, `{"angle": "rad", "torque": "Nm"}` or "angle=rad,torque=Nm".
        exact: prove the certificate again in exact arithmetic, where the model is one of integers; see `sound_qkeras.check`.
        n_jobs: processes that share the parts of the box, as for `quantize`.
        box_source: where the box came from, for the report.
        progress: as for `quantize`.

    Raises:
        InputError: an argument is not usable.
        UnsupportedLayerError: a layer or quantizer has no proved meaning (random, or dependent on the batch); named.
        ModelError: the two models do not have the same layers; names the first that differs.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
        VerificationError: an error beyond its bound was found, or a value is not bounded.
    """
    options = CertifyOptions.of(locals())
    started = time.monotonic()
    with shown(progress) as report:
        report("read", 0.0)
        model, alone, matched = _read(qmodel, reference, freeze)
        network = matched.pair.network
        region = network_box(network, box, margin)
        inputs = None if samples is None else check_samples(network.input_arrays(samples), region)
        if inputs is not None:
            check_input_bits(inputs, input_bits)
        tolerance = None if eps is None else make_tolerance(eps, size_of(network.output_shape))
        labels = Labels.of(network, input_names, output_names, units)
        files = source_files("model", qmodel) + (() if _is_latent(reference) else source_files("reference", reference))
        question = Question(options, region, inputs, tolerance)
        with cores_for(network, n_jobs):
            report("prove", 0.0)
            pair = _with_inputs_on_grid(matched.pair, region, input_bits)
            prove_it = _certificate if reference is not None else _certificate_of_ranges
            pair, certificate, share = prove_it(pair, question, describe_box(box_source, margin))
            certificate = replace(certificate, exact=exact, labels=labels)
            check(pair, certificate, exact=exact, progress=report)
            layers = [as_computed(one).subject.weight_hash for one in (alone.pair, matched.pair)]
            as_proved = not alone.offsets and layers[0] == layers[1]
            single = pair if as_proved else _with_inputs_on_grid(alone.pair, region, input_bits)
            narrow = frozenset(
                name for name, (_, text) in alone.quantizers.items() if text.startswith("quantized_relu")
            )
            evaluated = partial(pair_float_reports, single, region, certificate.distance, alone.offsets, narrow)
            report("look for the worst error", 0.0)
            found = examine(pair, certificate, seed=seed, evaluations=tries(pair), evaluated=evaluated)
            ranges = _ranges(alone.pair, region, certificate.tree)
            seen = _seen(alone.pair, question, found.observed_input)
        report("done", 1.0)
    given = GivenModel(
        reference=_name(reference),
        dtype=model.dtype,
        quantizers=tuple(
            _quantizer_row(alone.pair, name, *text, ranges, seen) for name, text in alone.quantizers.items()
        ),
        sums=_sums(replace(alone.pair, input_bits=input_bits), ranges),
        asked=question.eps,
        met=share,
        narrow=narrow,
        as_proved=as_proved,
    )
    return replace(found, seconds=time.monotonic() - started, model=given, origin=Origin.now(files))


def _with_inputs_on_grid(pair: Pair, box: Interval, bits: int | None) -> Pair:
    """The pair for inputs with so many fractional bits, which then have a format where nothing else rounds them."""
    if bits is None:
        return pair
    first, formats = pair.network.nodes[0].name, dict(pair.formats)
    if first not in pair.roundings:
        formats[first] = Format.for_range(box.lower, box.upper, bits)
    return replace(pair, formats=formats, input_bits=bits)


def _certificate(pair: Pair, question: Question, box_source: str) -> tuple[Pair, Certificate, float | None]:
    """The certificate, the pair it is about, in which only those formats saturate that may, and the share that meets eps."""
    box = question.box
    if question.options.tier == "sound":
        tree, evidence = tree_of(pair, question, worst_error(pair, question)), None
        pair = _marked(pair, lambda one: bound_leaves(one, box, tree).ranges)
        bounds = bound_leaves(pair, box, tree).output_bounds * (1.0 + MARGIN)
    else:
        pair, tree = _marked(pair, lambda one: ranges_of(one, box)), SplitTree()
        evidence = evidence_of(pair, question)
        bounds = evidence.bounds if isinstance(evidence, Local) else error_limits(pair, evidence.samples)
    if not np.all(np.isfinite(bounds)):
        raise VerificationError("the error is not bounded: values exceed the float64 range; use a smaller box")
    eps, source, share = claimed(question, bounds)
    if isinstance(evidence, Statistical):
        # What is counted is counted of the tolerance that was asked for, met or not.
        eps, source = (np.full_like(eps, eps.max()), LARGEST) if question.eps is None else (question.eps, "given")
    proved = make_certificate(pair, box, eps, tree, box_source=box_source, versions=tool_versions(), evidence=evidence)
    return pair, replace(proved, eps_source=source), share


def _certificate_of_ranges(pair: Pair, question: Question, box_source: str) -> tuple[Pair, Certificate, None]:
    """The same where there is no reference: no distance is claimed."""
    pair = _marked(pair, lambda one: ranges_of(one, question.box))
    proved = make_certificate(
        pair, question.box, np.empty(0), SplitTree(), box_source=box_source, versions=tool_versions()
    )
    return pair, replace(proved, eps_source="no reference"), None


def _marked(pair: Pair, ranges_in: Callable[[Pair], Mapping[str, tuple[float, float]]]) -> Pair:
    """Only formats that are too narrow for the ranges may saturate; sums of integers get formats as wide as their ranges.

    A format that may not saturate cuts no range off, so those behind it may be wider than in a pair where all saturate: formats
    are marked until none is too narrow. Marks are only added, so that this ends.
    """
    recorded = {name: with_margin(*ends) for name, ends in ranges_in(pair).items()}
    marks = _too_narrow(pair, recorded)
    while True:
        marked = replace(pair, saturating=marks)
        recorded = {name: with_margin(*ends) for name, ends in ranges_in(marked).items()}
        more = _too_narrow(pair, recorded) - marks
        if not more:
            break
        marks |= more
    if not marked.has_integers:
        return marked
    sums = [node.name for node in pair.network.nodes if node.op.accumulates]
    return replace(
        marked, accumulators={name: Format.for_range(*recorded[name], marked.exact_bits[name]) for name in sums}
    )


def _too_narrow(pair: Pair, ranges: Mapping[str, tuple[float, float]]) -> frozenset[str]:
    """Nodes whose format does not hold their range."""
    return frozenset(name for name, output in pair.formats.items() if not output.contains(*ranges[name]))


def _read(qmodel: Any, reference: Any, samples: Any) -> tuple[Steps, Matched, Matched]:
    """The model's steps, the model beside itself, and beside its reference."""
    from sound_qkeras.keras_io.qkeras.freezing import freeze, swapped
    from sound_qkeras.keras_io.qkeras.matching import match
    from sound_qkeras.keras_io.qkeras.reader import open_model, read_float_steps, read_steps

    opened = open_model(qmodel)
    frozen = None if samples is None else freeze(opened, samples)
    with swapped(opened, {} if frozen is None else frozen.quantizers):
        model = read_steps(opened)
        latent = read_steps(opened, latent=True) if _is_latent(reference) else None
    if frozen is not None:
        model = replace(model, notes=(*model.notes, *frozen.notes))
    alone = match(model, None)
    if reference is None:
        return model, alone, alone
    other = latent or (reference if isinstance(reference, Network) else read_float_steps(reference))
    return model, alone, match(model, other)


def _is_latent(reference: Any) -> bool:
    return isinstance(reference, str) and reference == LATENT


def _name(reference: Any) -> str:
    if reference is None:
        return ""
    if _is_latent(reference):
        return "itself with latent weights and nothing rounded"
    reference = reference[0] if isinstance(reference, tuple) else reference
    if isinstance(reference, str | os.PathLike):
        return Path(reference).name
    return str(getattr(reference, "name", "the network"))


def _ranges(pair: Pair, box: Interval, tree: SplitTree) -> dict[str, tuple[float, float]]:
    """Ranges over the leaves, met with those over the box as a whole."""
    whole = ranges_of(pair, box)
    if tree.leaf_count == 1:
        return whole
    parts = bound_leaves(pair, box, tree).ranges
    return {name: (max(low, whole[name][0]), min(high, whole[name][1])) for name, (low, high) in parts.items()}


def _seen(pair: Pair, question: Question, worst: Reals) -> dict[str, float]:
    """The share of values that every quantizer cuts off on samples, or on random inputs, and on the worst one."""
    rng = np.random.default_rng(question.options.seed)
    box = question.box
    if question.samples is not None:
        chosen = question.samples[:SAMPLES_SEEN]
    else:
        chosen = box.lower + (box.upper - box.lower) * rng.random((SAMPLES_SEEN, *box.shape))
    chosen = np.concatenate([chosen, worst[None]])
    counts = dict.fromkeys(pair.roundings, 0.0)
    for tile in pair.network.tiles(chosen):
        values = pair.evaluate_all(tile)
        for name, rounding in pair.roundings.items():
            node = pair.subject.by_name[name]
            before = node.op.evaluate(*(values[source] for source in node.inputs)) if node.inputs else tile
            low, high = rounding.reach
            counts[name] += float(np.mean((before < low) | (before > high))) * len(tile) / len(chosen)
    return counts


def _quantizer_row(
    pair: Pair, name: str, layer: str, text: str, ranges: dict[str, tuple[float, float]], seen: dict[str, float]
) -> QuantizerRow:
    rounding, (lower, upper) = pair.roundings[name], ranges[name]
    low, high = rounding.reach
    beyond = lower < float(np.max(low)) or upper > float(np.min(high))
    return QuantizerRow(name, layer, text, rounding.minimum, rounding.maximum, lower, upper, beyond, seen[name])


def _sums(pair: Pair, ranges: dict[str, tuple[float, float]]) -> tuple[SumRow, ...]:
    return tuple(
        SumRow.of(node.name, node.layer, ranges[node.name], pair.exact_grids[node.name])
        for node, _ in pair.network.affine()
    )
