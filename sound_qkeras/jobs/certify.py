"""The proved distance of any QKeras model from its float twin: read both, match them, prove, search, report."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from sound_qkeras.floating.pair import Arithmetic, pair_float_report
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.jobs.options import check_whole
from sound_qkeras.jobs.tiers import Question, answer
from sound_qkeras.network import Network
from sound_qkeras.network.boxes import make_tolerance, network_box
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.pair import Pair
from sound_qkeras.results.certification import Certification, QuantizerRow, SumRow
from sound_qkeras.verify.evidence import check_samples
from sound_qkeras.verify.proof import bound_leaves, ranges_of
from sound_qkeras.verify.split_tree import SplitTree

if TYPE_CHECKING:
    from sound_qkeras.keras_io.qkeras.matching import Matched
    from sound_qkeras.keras_io.qkeras.reader import Steps

LATENT = "latent"
# Inputs at which saturation is looked for.
SAMPLES_SEEN = 256
# From so many parameters on, a second BLAS thread pays.
MANY_PARAMETERS = 200_000


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
    box_source: str = "given",
) -> Certification:
    """Prove how far a QKeras model may be from its float twin, which quantizers may saturate, and what float32 does to it.

    Guarantee: the model is what QKeras 0.9.0 computes with its quantised weights, in exact real arithmetic; parameters are the
    numbers that the quantizers return for what is stored. In the tier "sound", for every real input in the box every output is
    within its bound of the reference in exact arithmetic. `floating` bounds what Keras' own arithmetic adds to that.

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
        eps: a tolerance to be judged, a number or one per output.
        input_bits: fractional bits that inputs are known to have (8 for multiples of 1/256). Only exactness depends on it.
        freeze: samples on which quantizers of activations whose scale depends on the batch are frozen; see
            `keras_io.freezing`. What that changes is in `notes`.
        effort: "fast", "normal", "max", or seconds: how long the box is cut into parts.
        margin: widens the box by this share of its width, on every side.
        seed: of the search for the worst error.
        box_source: where the box came from, for the report.

    Raises:
        InputError: an argument is not usable.
        UnsupportedLayerError: a layer or quantizer has no proved meaning (random, or dependent on the batch); named.
        ModelError: the two models do not have the same layers; names the first that differs.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
        VerificationError: an error beyond its bound was found, or a value is not bounded.
    """
    started = time.monotonic()
    check_whole("seed", seed, least=0)
    model, alone, pair = _read(qmodel, reference, freeze)
    twin, compared = pair.pair, reference is not None
    region = network_box(twin.network, box, margin)
    inputs = None if samples is None else check_samples(twin.network.input_arrays(samples), region)
    tolerance = None if eps is None else make_tolerance(eps, size_of(twin.network.output_shape))
    question = Question(region, tier, inputs, radius, confidence, tolerance, effort, seed)
    many = twin.network.parameter_count >= MANY_PARAMETERS
    with threadpool_limits(None if many else 1, user_api="blas"):
        found = answer(twin, question, compared=compared)
        bounds = found.bounds if compared else None
        single = replace(alone.pair, input_bits=input_bits)
        largest = 0.0 if bounds is None else float(bounds.max())
        floating = pair_float_report(single, region, largest, _arithmetic(model, alone))
        ranges = _ranges(alone.pair, region, found.tree)
        seen = _seen(alone.pair, question, found.found.sample)
    return Certification(
        tier=tier,
        claim=found.claim,
        reference=_name(reference),
        output_bounds=bounds,
        sample_bounds=found.sample_bounds if compared else None,
        eps=question.eps,
        met=found.met if compared else None,
        probability=found.probability if compared else None,
        observed_error=found.found.error if compared else None,
        observed_input=found.found.sample if compared else None,
        evaluations=found.found.evaluations if compared else 0,
        quantizers=tuple(
            _quantizer_row(alone.pair, name, layer, text, ranges, seen)
            for name, (layer, text) in alone.quantizers.items()
        ),
        sums=_sums(single, ranges),
        floating=floating,
        dtype=model.dtype,
        box=region,
        box_source=box_source if not margin else f"{box_source}, widened by {margin:g} of its width on every side",
        leaves=found.tree.leaf_count,
        notes=pair.notes,
        seconds=time.monotonic() - started,
    )


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


def _arithmetic(model: Steps, alone: Matched) -> Arithmetic:
    """QKeras' own: quantized_relu computes in float32 whatever the type of the model."""
    narrow = frozenset(name for name, (_, text) in alone.quantizers.items() if text.startswith("quantized_relu"))
    return Arithmetic(model.dtype, alone.offsets, narrow)


def _is_latent(reference: Any) -> bool:
    return isinstance(reference, str) and reference == LATENT


def _name(reference: Any) -> str:
    if reference is None:
        return ""
    if _is_latent(reference):
        return "itself with latent weights and nothing rounded"
    reference = reference[0] if isinstance(reference, tuple) else reference
    return str(getattr(reference, "name", "the network" if isinstance(reference, Network) else reference))


def _ranges(twin: Pair, box: Interval, tree: SplitTree) -> dict[str, tuple[float, float]]:
    """Ranges over the leaves, met with those over the box as a whole."""
    whole = ranges_of(twin, box)
    if tree.leaf_count == 1:
        return whole
    parts = bound_leaves(twin, box, tree).ranges
    return {name: (max(low, whole[name][0]), min(high, whole[name][1])) for name, (low, high) in parts.items()}


def _seen(twin: Pair, question: Question, worst: Reals) -> dict[str, float]:
    """The share of values that every quantizer cuts off on samples, or on random inputs, and on the worst one."""
    rng = np.random.default_rng(question.seed)
    box = question.box
    if question.samples is not None:
        chosen = question.samples[:SAMPLES_SEEN]
    else:
        chosen = box.lower + (box.upper - box.lower) * rng.random((SAMPLES_SEEN, *box.shape))
    chosen = np.concatenate([chosen, worst[None]])
    counts = dict.fromkeys(twin.roundings, 0.0)
    for tile in twin.network.tiles(chosen):
        values = twin.evaluate_all(tile)
        for name, rounding in twin.roundings.items():
            node = twin.subject.by_name[name]
            before = node.op.evaluate(*(values[source] for source in node.inputs)) if node.inputs else tile
            low, high = rounding.reach
            counts[name] += float(np.mean((before < low) | (before > high))) * len(tile) / len(chosen)
    return counts


def _quantizer_row(
    twin: Pair, name: str, layer: str, text: str, ranges: dict[str, tuple[float, float]], seen: dict[str, float]
) -> QuantizerRow:
    rounding, (lower, upper) = twin.roundings[name], ranges[name]
    low, high = rounding.reach
    beyond = lower < low or upper > high
    return QuantizerRow(name, layer, text, rounding.minimum, rounding.maximum, lower, upper, beyond, seen[name])


def _sums(twin: Pair, ranges: dict[str, tuple[float, float]]) -> tuple[SumRow, ...]:
    return tuple(
        SumRow.of(node.name, node.layer, ranges[node.name], twin.exact_grids[node.name])
        for node, _ in twin.network.affine()
    )
