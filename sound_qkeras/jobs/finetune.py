"""Training a certified network on with its formats fixed, and certifying what comes out."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from sound_qkeras.errors import InfeasibleError, InputError, VerificationError
from sound_qkeras.interval import Reals
from sound_qkeras.jobs.cores import cores_for
from sound_qkeras.jobs.examine import examine, or_else
from sound_qkeras.jobs.options import FinetuneOptions
from sound_qkeras.jobs.recertify import Demand, recertify
from sound_qkeras.network import Pair, size_of
from sound_qkeras.network.boxes import make_tolerance
from sound_qkeras.results.classification import Classification, classify
from sound_qkeras.results.finetuned import Finetuning
from sound_qkeras.results.origin import Origin
from sound_qkeras.results.result import Result
from sound_qkeras.support.progress import Progress, shown
from sound_qkeras.tuning.effort import Effort
from sound_qkeras.verify.certificate import Certificate
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.evidence import Local, Statistical


def finetune(
    result: Result,
    data: Any,
    epochs: int = 10,
    *,
    teacher: bool = False,
    blocks: bool = False,
    validation: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    monitor: str = "loss",
    batch_size: int = 32,
    eps: Any = None,
    effort: str | float = "normal",
    seed: int = 0,
    n_jobs: int | None = None,
    progress: Progress | bool = False,
) -> Result:
    """Train the QKeras model of a result in float32 with its formats fixed, and certify what comes out.

    Guarantee: weights and biases keep their formats, and results their fractional bits; only where the proved range of a
    result changes do its integer bits. Ranges and overflow are proved again over the box, and the error against the
    *original* float network is proved again in the same tier, whose certificate says what holds now. The result given is
    not changed. Of all epochs and the start, the integers with the lowest measured loss, or the best `monitor`, are kept.

    Training moves the network away from the float one wherever that helps the task, so the old tolerance may no longer
    hold: see `eps`. With `teacher=True` it moves towards the float network, and no targets are needed. Averages, tables, slopes
    and normalisations that were not folded into other layers are not trained.

    Args:
        result: what to train on from.
        data: `(x, y)` or `(x, y, weights)` arrays, or a finite, batched `tf.data.Dataset` of them; with a teacher also inputs
            alone: an array, a list or a mapping of arrays where there are several inputs, or a dataset of inputs.
        epochs: how often to go through the data.
        teacher: take the outputs of the float network, `result.pair.reference`, in place of the targets, of which then only
            metrics are.
        blocks: with a teacher, train the weights of one layer after the other, each for `epochs`, towards what the float network
            has at the next rounding; for deep networks and few inputs.
        validation: data to measure on, and to choose the epoch by; None takes `data`.
        loss: of Keras, on logits where a final softmax or sigmoid was set aside; None takes cross-entropy for a classifier
            (integer targets, or a network with such an end), else the mean square. With a teacher it is of its outputs: the
            divergence of the probabilities where a softmax or sigmoid was set aside, else the mean square.
        optimizer: of Keras. None takes Adam: with a teacher at a rate that counts steps of each weight's format and falls from
            epoch to epoch.
        metrics: of Keras; None takes accuracy or the mean absolute error, where `loss` is None too.
        monitor: "loss", or the name of a metric by which the epoch is chosen; as in Keras, accuracies and areas under curves are
            to be large, all others small.
        batch_size: for arrays.
        eps: the tolerance that is accepted, a number or one per output: only epochs that are proved to meet it are kept. None
            keeps the old one and, where it is no longer met, takes what is proved, which `certificate.eps_source` then says.
            In the tier "statistical" it decides nothing: the share of inputs that violate it is what changes.
        effort: "fast", "normal", "max", or seconds: how far the box is cut for the proof.
        seed: of the order of samples and of the search for the worst observed error.
        n_jobs: processes that share the parts of the box, as for `quantize`.
        progress: as for `quantize`.

    Raises:
        InputError: an argument is not usable, Keras refuses loss, metrics or data, nothing measured is called `monitor`, or in
            tier "statistical" an held-out sample is among the data.
        InfeasibleError: no epoch, nor the start, meets the given `eps`; carries the bound of the start.
        DependencyError: TensorFlow, tf_keras or QKeras is missing or of the wrong kind.
    """
    options = FinetuneOptions.of(locals())
    started = time.monotonic()
    old, trained = result.pair, result.pair.reference
    accepted = None if eps is None else make_tolerance(eps, size_of(trained.output_shape))
    prover = Prover(Demand.of(result.certificate), accepted, options.budget)

    from sound_qkeras.keras_io.train.data import Task
    from sound_qkeras.keras_io.train.finetuning import measure, measure_float, train

    task = Task.of(trained, data, validation, loss, metrics, batch_size, seed, teacher)
    _check_held_out(result, task)
    with cores_for(trained, options.n_jobs), shown(progress) as report:
        chosen = train(old, task, optimizer, epochs, monitor, prover.accepts, partial(report, "train"), blocks)
        report("prove", 0.0)
        proved = prover.prove(chosen.pair)
        report("look for the worst error", 0.0)
        found = renewed(result, *proved, seed)
        report("done", 1.0)
    pair = found.pair
    measured_on = "training data" if validation is None else "validation data"
    record = or_else(
        lambda: Finetuning(
            epochs,
            chosen.kept_epoch,
            *_changes(old, pair),
            measured_on,
            measure_float(old, task),
            measure(old, task),
            measure(pair, task),
        ),
        None,
        "measuring the task",
    )
    return replace(found, seconds=time.monotonic() - started, finetuning=record)


def renewed(result: Result, pair: Pair, certificate: Certificate, seed: int = 0) -> Result:
    """What stands in for a result when the integers are others: they and their certificate, examined anew.

    Raises:
        VerificationError: the certificate does not hold.
    """
    check(pair, certificate)
    return replace(
        examine(pair, certificate, seed=seed),
        ended_by=result.ended_by,
        origin=Origin.now(() if result.origin is None else result.origin.files),
        classification=_classification(result, pair, certificate),
    )


class Prover:
    """Proves networks in place of an older one, and remembers the last that met what was asked."""

    def __init__(self, old: Demand, eps: Reals | None, effort: Effort) -> None:
        """For the arguments of `recertify`."""
        self._old, self._eps, self._effort = old, eps, effort
        self._last: tuple[Pair, tuple[Pair, Certificate]] | None = None

    def accepts(self, pair: Pair) -> bool:
        """Whether a network meets the tolerance that was given; held-out samples have no say in this."""
        if self._eps is None or isinstance(self._old.evidence, Statistical):
            return True
        try:
            self._last = (pair, recertify(pair, self._old, self._eps, self._effort))
        except (InfeasibleError, VerificationError):
            return False
        return True

    def prove(self, pair: Pair) -> tuple[Pair, Certificate]:
        """The network with formats that fit, and its certificate."""
        if self._last is not None and self._last[0] is pair:
            return self._last[1]
        return recertify(pair, self._old, self._eps, self._effort)


def _check_held_out(result: Result, task: Any) -> None:
    """Nothing that training or the choice of an epoch sees may be among the samples that a limit is counted on."""
    evidence = result.certificate.evidence
    if not isinstance(evidence, Statistical):
        return
    held_out = set(rows_of(evidence.samples))
    shared = len({row for x in task.inputs(result.pair.reference) for row in rows_of(x)} & held_out)
    if shared:
        raise InputError(
            f"{shared} of the {len(evidence.samples)} held-out samples of the certificate are among the data; train on others, "
            "or quantise with other samples: a limit counted on what was trained on is none"
        )


def rows_of(samples: Reals) -> list[bytes]:
    """Each sample in float32, as training sees it."""
    return [row.tobytes() for row in samples.astype(np.float32) + np.float32(0.0)]


def _changes(before: Pair, after: Pair) -> tuple[int, int]:
    """How many integers differ, of how many."""
    pairs = [
        (getattr(before.parameters[name], kind), getattr(after.parameters[name], kind))
        for name in before.parameters
        for kind in ("kernel", "bias")
    ]
    return sum(int(np.sum(old != new)) for old, new in pairs), sum(old.size for old, _ in pairs)


def _classification(result: Result, pair: Pair, certificate: Certificate) -> Classification | None:
    """Agreement and proved classes on the samples of tier "local"; others were not kept, or not for this."""
    evidence = certificate.evidence
    if result.classification is None or not isinstance(evidence, Local):
        return None
    return classify(pair, evidence.samples, None, evidence.bounds)
