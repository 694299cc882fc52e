"""What our verifier says about candidates, whoever made them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sound_qkeras.baselines import Candidate, Row, prove_candidate
from sound_qkeras.errors import SoundQKerasError
from sound_qkeras.interval import Reals
from sound_qkeras.jobs.certify import certify
from sound_qkeras.keras_io import to_qkeras
from sound_qkeras.keras_io.autoqkeras.sizes import energy, model_bits
from sound_qkeras.network import Network, Pair
from sound_qkeras.search.falsify import errors, falsify
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import Subject
from sound_qkeras.verify.binomial import upper_limit
from sound_qkeras.verify.evidence import FLOAT64, Statistical, error_limits

# Inputs tried in the search for the worst error of a candidate.
EVALUATIONS = 10_000
# Parts of the box and seconds of the proof about a fixed-point candidate.
LEAVES, SECONDS = 256, 10.0
# Of the limits in the tier "statistical".
CONFIDENCE = 0.99


def row_of(candidate: Candidate, subject: Subject, plan: Plan, eps: Reals, **measured: Any) -> Row:
    """The row of a candidate: metric, and bound, worst error found and energy where it is a fixed-point network.

    In the tier "statistical" the bound is the largest error of the samples, enclosed.

    Args:
        candidate: the network.
        subject: what it stands for.
        plan: its tier.
        eps: tolerance per output, at which a proof stops to improve.
        measured: fields known already.
    """
    outputs = candidate.evaluate(subject.test[0])
    fields = subject.measured(outputs.reshape(len(outputs), -1)) | qkeras_fields(to_qkeras_or_none(candidate))
    if candidate.pair is not None and "bound" not in measured:
        fields |= _errors(candidate, candidate.pair, subject, plan, eps)
    return Row.of(candidate, **(fields | measured))


def _errors(candidate: Candidate, pair: Pair, subject: Subject, plan: Plan, eps: Reals) -> dict[str, Any]:
    """Bound, worst error found and tier."""
    probability = None
    if plan.tier == "sound":
        bound = prove_candidate(candidate, subject.box, eps, max_leaves=LEAVES, seconds=SECONDS).bound
        found = falsify(pair, subject.box, evaluations=EVALUATIONS).error
    else:
        samples = np.asarray(subject.test[0], dtype=np.float64)
        bound = float(error_limits(pair, samples, FLOAT64).max())
        found = float(np.abs(errors(pair, samples)).max())
        # What the largest error of samples is exceeded by: see `jobs.tiers.evidence_of`.
        probability = upper_limit(0, len(samples), CONFIDENCE) if subject.independent else None
    return {"bound": bound, "observed_error": found, "tier": plan.tier, "probability": probability}


def to_qkeras_or_none(candidate: Candidate) -> Any:
    """The QKeras model of a fixed-point candidate; None where QKeras cannot say its formats."""
    try:
        return None if candidate.pair is None else to_qkeras(candidate.pair)
    except SoundQKerasError:
        return None


def qkeras_fields(model: Any) -> dict[str, Any]:
    """What QKeras' own tools say about a model of ours: AutoQKeras' bits and QTools' energy, as fields of a row."""
    if model is None:
        return {}
    return {"autoqkeras_bits": model_bits(model, input_bits=0).total_bits} | energy_fields(model)


def energy_fields(model: Any) -> dict[str, float]:
    """The energy by QTools, as a field of a row; nothing where QTools cannot read the model."""
    try:
        return {"energy": energy(model)}
    except SoundQKerasError:
        return {}


def model_verdict(model: Any, reference: Network | None, subject: Subject, plan: Plan) -> dict[str, Any]:
    """Bound, worst error found and tier of a trained QKeras model, under the names of a row's fields.

    Args:
        model: a built QKeras model.
        reference: the float network it stands for. None where its weights were trained from scratch: then it is compared with
            itself before quantisation, its latent float weights and nothing rounded.
        subject: whose box the bound is about.
        plan: its tier and effort.

    Returns:
        The fields, or a note why QTools cannot read the model.
    """
    box = subject.box
    options: dict[str, Any] = {"box": (box.lower, box.upper), "effort": plan.effort, "tier": plan.tier}
    if plan.tier != "sound":
        options |= {"samples": subject.test[0], "confidence": CONFIDENCE}
    try:
        found = certify(model, "latent" if reference is None else reference, **options)
    except SoundQKerasError as error:
        return {"notes": (f"No bound: {error}",)}
    notes = () if reference else ("Trained from scratch: the bound is against its own weights before rounding.",)
    proved, saturating = found.certificate, () if found.model is None else found.model.saturating
    if saturating:
        notes += (f"May saturate in the box: {', '.join(saturating)}.",)
    evidence = proved.evidence
    probability = evidence.probability if isinstance(evidence, Statistical) else None
    claimed = {"bound": proved.bound, "observed_error": found.observed_error, "tier": proved.tier}
    return {**claimed, "probability": probability, "notes": notes}
