"""Results of every tier, for pages about them: certified, but not tuned."""

from dataclasses import replace

import numpy as np

from sound_qkeras.interval import Interval
from sound_qkeras.jobs.examine import examine
from sound_qkeras.results.classification import classify
from sound_qkeras.results.result import Result
from sound_qkeras.tuning.clipping import clipped, narrow_in_box
from sound_qkeras.verify.certificate import make_certificate
from sound_qkeras.verify.evidence import Evidence, Local, Statistical
from sound_qkeras.verify.split_tree import SplitTree
from tests.results import random_result

TIERS = ("sound", "local", "statistical")
SAMPLES = np.random.default_rng(5).uniform(-0.5, 0.5, (24, 3))
LABELS = np.arange(24) % 2


def result_of(tier: str, *, seed: int = 0, saturate: bool = False) -> Result:
    """The result of a random classifier, with `saturate` in formats that only its samples fit."""
    found = random_result(seed)
    if tier == "sound":
        return found
    quantized, box = found.pair, found.certificate.box
    if saturate:
        values = quantized.reference.evaluate_all(SAMPLES)
        ends = {name: (float(value.min()), float(value.max())) for name, value in values.items()}
        ends[quantized.network.nodes[0].name] = (-1.0, 1.0)
        quantized = narrow_in_box(clipped(quantized, ends), box)
    eps = np.array([0.06, 0.05])
    old = found.certificate
    proved = make_certificate(
        quantized, box, eps, SplitTree(), error_budget=old.error_budget, evidence=_evidence(tier, quantized, box, eps)
    )
    bounds = proved.evidence.bounds if isinstance(proved.evidence, Local) else np.full(2, np.inf)
    return replace(
        examine(quantized, proved),
        seconds=found.seconds,
        optimality=found.optimality,
        classification=classify(quantized, SAMPLES, LABELS, bounds),
    )


def _evidence(tier: str, quantized: object, box: Interval, eps: np.ndarray) -> Evidence:
    if tier == "local":
        return Local.prove(quantized, box, SAMPLES, 1 / 30)
    return Statistical.count(quantized, SAMPLES, eps, 0.99, 7)
