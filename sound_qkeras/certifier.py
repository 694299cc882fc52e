"""The proved distance of any QKeras model from its float twin: read both, match them, prove, search, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from sound_qkeras.analysis.splitting import refine
from sound_qkeras.boxes import make_tolerance, network_box
from sound_qkeras.certification import Certification, QuantizerRow, SumRow
from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network
from sound_qkeras.network.graph import size_of
from sound_qkeras.network.roundings import Uniform
from sound_qkeras.network.twin import Twin
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.binomial import upper_limit
from sound_qkeras.verify.evidence import around, check_samples
from sound_qkeras.verify.falsify import Counterexample, search
from sound_qkeras.verify.proof import MARGIN, bound_boxes, bound_leaves, ranges_of
from sound_qkeras.verify.propagation import propagate
from sound_qkeras.verify.split_tree import SplitTree
from sound_qkeras.verify.terrain import Terrain
from sound_qkeras.verify.twin_floating import Arithmetic, twin_float_report

if TYPE_CHECKING:
    from sound_qkeras.keras_io.matching import Matched
    from sound_qkeras.keras_io.qkeras_reader import Steps

LATENT = "latent"
TIERS = ("sound", "local", "statistical")
# Most leaves and seconds of splitting.
EFFORTS = {"fast": (1, 5.0), "normal": (512, 20.0), "max": (8192, 300.0)}
# Multiplications that the search for the worst error may take, and inputs it tries at least and at most.
SEARCH_PRODUCTS, FEWEST_TRIES, MOST_TRIES = 5e9, 200, 30_000
# Boxes around samples that are searched in the tier "local": those with the largest bounds.
BOXES_SEARCHED = 4
# Splitting stops when the bound is within this factor of the worst error found.
CLOSE = 1.02
# Inputs at which saturation is looked for.
SAMPLES_SEEN = 256
# The grid on which the search moves where inputs have none: this share of the box's width.
FINE = 2.0**-12
MANY_PARAMETERS = 200_000


@dataclass(frozen=True)
class Question:
    """What is asked about a pair: the inputs, the tier and what that takes."""

    box: Interval
    tier: str
    samples: Reals | None
    radius: float
    confidence: float
    eps: Reals | None
    effort: str | float
    seed: int


@dataclass(frozen=True)
class Answer:
    """What was proved of one tier."""

    claim: str
    bounds: Reals
    found: Counterexample
    tree: SplitTree = field(default_factory=SplitTree)
    sample_bounds: Reals | None = None
    met: float | None = None
    probability: float | None = None


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
        qmodel: a built QKeras model, or the path of one (.h5, .keras, SavedModel). Code in files is never run.
        reference: the float model it stands for, a path to one, or a `Network`: the same layers in the same order, normalisations
            folded or not. "latent" is the model itself with its weights as stored and nothing rounded; rectifiers keep the
            upper end of their quantizers. None proves ranges, saturation and exactness only.
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
    model, alone, pair = _read(qmodel, reference, freeze)
    twin, compared = pair.twin, reference is not None
    region = network_box(twin.network, box, margin)
    question = _question(twin, region, tier, samples, radius, confidence, eps, effort, seed)
    many = twin.network.parameter_count >= MANY_PARAMETERS
    with threadpool_limits(None if many else 1, user_api="blas"):
        answer = _answer(twin, question, compared=compared)
        bounds = answer.bounds if compared else None
        single = replace(alone.twin, input_bits=input_bits)
        largest = 0.0 if bounds is None else float(bounds.max())
        floating = twin_float_report(single, region, largest, _arithmetic(model, alone))
        ranges = ranges_of(single, region) if answer.tree.leaf_count == 1 else _ranges(single, region, answer.tree)
        seen = _seen(single, question, answer.found.sample)
    return Certification(
        tier=tier,
        claim=answer.claim,
        reference=_name(reference),
        output_bounds=bounds,
        sample_bounds=answer.sample_bounds if compared else None,
        eps=question.eps,
        met=answer.met if compared else None,
        probability=answer.probability if compared else None,
        observed_error=answer.found.error if compared else None,
        observed_input=answer.found.sample if compared else None,
        evaluations=answer.found.evaluations if compared else 0,
        quantizers=tuple(_quantizer_row(single, name, text, ranges, seen) for name, text in alone.quantizers.items()),
        sums=_sums(single, ranges),
        floating=floating,
        dtype=model.dtype,
        box=region,
        box_source=box_source if not margin else f"{box_source}, widened by {margin:g} of its width on every side",
        leaves=answer.tree.leaf_count,
        notes=pair.notes,
        seconds=time.monotonic() - started,
    )


def _read(qmodel: Any, reference: Any, samples: Any) -> tuple[Steps, Matched, Matched]:
    """The model's steps, the model beside itself, and beside its reference."""
    from sound_qkeras.keras_io.freezing import freeze, swapped
    from sound_qkeras.keras_io.matching import match
    from sound_qkeras.keras_io.qkeras_reader import open_model, read_float_steps, read_steps

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
    narrow = frozenset(name for name, text in alone.quantizers.items() if text.startswith("quantized_relu"))
    return Arithmetic(model.dtype, alone.offsets, narrow)


def _is_latent(reference: Any) -> bool:
    return isinstance(reference, str) and reference == LATENT


def _name(reference: Any) -> str:
    if reference is None:
        return ""
    if _is_latent(reference):
        return "itself with latent weights and nothing rounded"
    return str(getattr(reference, "name", "the network" if isinstance(reference, Network) else reference))


def _question(
    twin: Twin,
    region: Interval,
    tier: str,
    samples: Any,
    radius: float | None,
    confidence: float,
    eps: Any,
    effort: str | float,
    seed: int,
) -> Question:
    """The arguments, checked.

    Raises:
        InputError: one is not usable.
    """
    if tier not in TIERS:
        raise InputError(f"tier '{tier}' is unknown; accepted: {', '.join(TIERS)}")
    if tier != "sound" and samples is None:
        raise InputError(f"tier '{tier}' needs samples; accepted: an array (n, *input_shape) of inputs in the box")
    if (radius is None) != (tier != "local") or (radius is not None and not 0.0 <= radius < np.inf):
        raise InputError(f"radius is {radius} in tier '{tier}'; accepted: a number >= 0 for 'local', else None")
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence is {confidence}; accepted: a share above 0 and below 1")
    if isinstance(effort, str) and effort not in EFFORTS:
        raise InputError(f"effort '{effort}' is unknown; accepted: {', '.join(EFFORTS)}, or seconds")
    tolerance = None if eps is None else make_tolerance(eps, size_of(twin.network.output_shape))
    given = None if samples is None else check_samples(twin.network.input_arrays(samples), region)
    return Question(region, tier, given, radius or 0.0, confidence, tolerance, effort, seed)


def _answer(twin: Twin, question: Question, *, compared: bool) -> Answer:
    if not compared:
        claim = "for every x in the box, every value stays within its range"
        found = Counterexample(0.0, question.box.center, 0)
        return Answer(claim, np.zeros(size_of(twin.network.output_shape)), found)
    if question.tier == "local":
        return _local(twin, question)
    return _statistical(twin, question) if question.tier == "statistical" else _sound(twin, question)


def _sound(twin: Twin, question: Question) -> Answer:
    """Bounds over the whole box, which is cut until they are close to the worst error found, or time is up."""
    leaves, seconds = _budget(question.effort)
    found = _search(twin, question.box, question.seed)
    whole = bound_leaves(twin, question.box)
    proof, tree = whole, SplitTree()
    if leaves > 1 and np.all(np.isfinite(whole.output_bounds)):
        eps = np.full(whole.output_bounds.shape, max(whole.bound, 1e-300)) if question.eps is None else question.eps
        target = max(CLOSE * found.error, 1e-300) / float(eps.max()) if question.eps is None else 1.0
        state = refine(twin, question.box, eps, target=target, max_leaves=leaves, deadline=time.monotonic() + seconds)
        tree = state.tree
        proof = bound_leaves(twin, question.box, tree)
    bounds = np.minimum(proof.output_bounds, whole.output_bounds) * (1.0 + MARGIN)
    _check_finite(bounds)
    _confirm(twin, found, bounds)
    met = None if question.eps is None else float(np.all(bounds <= question.eps))
    claim = "for every x in the box, |q(x)_k - f(x)_k| <= output_bounds[k]"
    return Answer(claim, bounds, found, tree, met=met)


def _budget(effort: str | float) -> tuple[int, float]:
    return EFFORTS[effort] if isinstance(effort, str) else (EFFORTS["max"][0], float(effort))


def _local(twin: Twin, question: Question) -> Answer:
    """Bounds on a box around every sample."""
    samples = _samples(question)
    boxes = around(question.box, samples, question.radius)
    bounds = bound_boxes(twin, boxes) * (1.0 + MARGIN)
    _check_finite(bounds)
    order = np.argsort(-bounds.max(axis=1), kind="stable")[:BOXES_SEARCHED]
    tried: list[Counterexample] = []
    for n in order:
        found = _search(twin, Interval(boxes.lower[n], boxes.upper[n]), question.seed, share=1.0 / BOXES_SEARCHED)
        _confirm(twin, found, bounds[n])
        tried.append(found)
    worst = max(tried, key=lambda one: one.error)
    worst = Counterexample(worst.error, worst.sample, sum(one.evaluations for one in tried))
    met = None if question.eps is None else np.all(bounds <= question.eps, axis=1)
    certified = np.ones(len(samples), bool) if met is None or not np.any(met) else met
    claim = (
        f"for every x in the box within {question.radius:g} of {int(certified.sum())} of {len(samples)} samples, "
        "|q(x)_k - f(x)_k| <= output_bounds[k]"
    )
    share = None if met is None else float(met.mean())
    largest = bounds[certified].max(axis=0)
    return Answer(claim, largest, worst, sample_bounds=bounds, met=share)


def _statistical(twin: Twin, question: Question) -> Answer:
    """Errors of samples, and how often an input drawn like them exceeds the largest, or eps."""
    samples = _samples(question)
    limits = np.concatenate(over_batches(_point_errors, twin, Interval.point(samples)))
    _check_finite(limits)
    errors = np.abs(twin.errors(samples)).max(axis=1)
    worst = int(np.argmax(errors))
    bounds, eps = np.full(limits.shape[1], limits.max()), question.eps
    failures = 0 if eps is None else int(np.sum(np.any(limits > eps, axis=1)))
    limit = upper_limit(failures, len(samples), question.confidence)
    what = "the largest error of the samples" if eps is None else "eps"
    claim = (
        f"with confidence {question.confidence:g}, an input drawn like the {len(samples)} samples exceeds {what} in some "
        f"output with probability at most {limit:.6g}"
    )
    met = None if eps is None else 1.0 - failures / len(samples)
    found = Counterexample(float(errors[worst]), samples[worst], len(samples))
    return Answer(claim, bounds, found, sample_bounds=limits, met=met, probability=limit)


def _samples(question: Question) -> Reals:
    if question.samples is None:
        raise TypeError("the tier was given no samples")
    return question.samples


def _point_errors(twin: Any, boxes: Interval) -> Reals:
    """Upper limits of the error on points, shape `(points, outputs)`."""
    difference = propagate(twin.network, boxes, twin, substitute=False).facts[twin.network.output.name].pair()[2]
    return difference.magnitude.reshape(boxes.shape[0], -1)


def _check_finite(bounds: Reals) -> None:
    if not np.all(np.isfinite(bounds)):
        raise VerificationError("the error is not bounded: values exceed the float64 range; use a smaller box")


def _confirm(twin: Twin, found: Counterexample, bounds: Reals) -> None:
    """An error that was found, enclosed, must not exceed its bound: the worst bug there can be, so it stops everything."""
    result = propagate(twin.network, Interval.point(found.sample[None]), twin, substitute=False)
    difference = result.facts[twin.network.output.name].pair()[2]
    least = np.maximum(np.maximum(difference.lower, -difference.upper), 0.0).reshape(-1)
    beyond = np.flatnonzero(least > bounds)
    if beyond.size:
        k = int(beyond[0])
        raise VerificationError(
            f"output {k}: an error of {least[k]:.9g} was observed, above the proved bound {bounds[k]:.9g}: please report this"
        )


def _search(twin: Twin, box: Interval, seed: int, *, share: float = 1.0) -> Counterexample:
    """The worst error that can be found with a number of evaluations that suits the network's size."""
    network = twin.network
    products = sum(op.multiplications * size_of(network.shapes[node.name]) for node, op in network.affine())
    tries = int(np.clip(share * SEARCH_PRODUCTS / max(1, products), FEWEST_TRIES, MOST_TRIES))
    terrain = Terrain(network, twin.fixed, box.lower.ravel(), box.upper.ravel(), _input_step(twin, box))
    return search(twin.errors, terrain, tries, seed)


def _input_step(twin: Twin, box: Interval) -> float:
    """The step of the input's quantizer, if it has one."""
    readers = twin.network.readers[twin.network.nodes[0].name]
    steps = [r.step for r in (twin.roundings.get(node.name) for node in readers) if isinstance(r, Uniform)]
    return min(steps) if steps else max(float(np.max(box.upper - box.lower)) * FINE, 2.0**-200)


def _ranges(twin: Twin, box: Interval, tree: SplitTree) -> dict[str, tuple[float, float]]:
    """Ranges over the leaves, met with those over the box as a whole."""
    parts, whole = bound_leaves(twin, box, tree).ranges, ranges_of(twin, box)
    return {name: (max(low, whole[name][0]), min(high, whole[name][1])) for name, (low, high) in parts.items()}


def _seen(twin: Twin, question: Question, worst: Reals) -> dict[str, float]:
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
            before = values[twin.network.by_name[name].inputs[0]]
            low, high = rounding.reach
            counts[name] += float(np.mean((before < low) | (before > high))) * len(tile) / len(chosen)
    return counts


def _quantizer_row(
    twin: Twin, name: str, text: str, ranges: dict[str, tuple[float, float]], seen: dict[str, float]
) -> QuantizerRow:
    rounding, (lower, upper) = twin.roundings[name], ranges[name]
    low, high = rounding.reach
    layer = twin.network.by_name[name].layer
    beyond = lower < low or upper > high
    return QuantizerRow(name, layer, text, rounding.minimum, rounding.maximum, lower, upper, beyond, seen[name])


def _sums(twin: Twin, ranges: dict[str, tuple[float, float]]) -> tuple[SumRow, ...]:
    rows: Sequence[SumRow] = [
        SumRow.of(node.name, node.layer, ranges[node.name], twin.exact_grids[node.name])
        for node, _ in twin.fixed.affine()
    ]
    return tuple(rows)
