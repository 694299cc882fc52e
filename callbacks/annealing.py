"""Training on with formats in force: weights stay on their grids from some epoch on, and are proved as they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from sound_qkeras.interval import Interval
from sound_qkeras.jobs.cores import cores_for
from sound_qkeras.jobs.finetune import renewed
from sound_qkeras.jobs.job import read
from sound_qkeras.jobs.recertify import Demand, recertify
from sound_qkeras.keras_io.train.on_grids import HeldModel, rounded
from sound_qkeras.network import Network
from sound_qkeras.results.result import Result
from sound_qkeras.tuning.effort import effort_of

from .graph_steps import Step, StepExtension
from .lesson import Lesson


class FormatKeeper(StepExtension):
    """Keeps the weights of one model in the formats of a result, for the rest of one fit."""

    def __init__(self, model: Any, network: Network, effort: str | float, *, teacher: bool) -> None:
        """Find the weights; nothing is touched yet.

        Args:
            model: the model.
            network: what it is now.
            effort: for the proofs, as for `quantize`.
            teacher: train towards this network in place of the model's own loss.

        Raises:
            ModelError: its weights cannot be kept in formats, or it has several inputs or outputs and a teacher.
        """
        super().__init__(model)
        self._held = HeldModel(model, network)
        self._lesson = Lesson(model, network) if teacher else None
        self._effort = effort_of(effort)
        self._result: Result | None = None

    def choose(self, quantize: Callable[[Network], Result]) -> None:
        """Put formats into force: those of the latent weights, or of the trained ones when there are none yet.

        Raises:
            Exception: whatever `quantize` does; then the formats stay as they were.
        """
        before = self._result
        if before is not None:
            self._held.free()
        try:
            self._result = quantize(read(self.model))
        except BaseException:
            if before is not None:
                self._held.round()
            raise
        self._held.hold(self._result.pair)

    def around(self, step: Step, data: Any) -> Any:
        """A training step whose losses and gradients are those of rounded weights, and that moves the latent ones."""
        before = self._held.before()
        with nullcontext() if self._lesson is None else self._lesson.given():
            outputs = step(data)
        self._held.after(before)
        return outputs

    def prove(self, network: Network, box: Interval, source: str) -> Result:
        """The fixed-point network of the model's present weights in the formats in force, and what is proved about it.

        Raises:
            InfeasibleError: it is not proved to stay within the tolerance.
            VerificationError: something may overflow.
        """
        if self._result is None:
            raise TypeError("no formats are in force")
        started = time.monotonic()
        certificate = self._result.certificate
        old = replace(Demand.of(certificate), box=box, box_source=source)
        with cores_for(network):
            found = recertify(rounded(self._result.pair, network), old, old.eps, self._effort)
            made = renewed(self._result, found[0], replace(found[1], eps_source=certificate.eps_source))
        return replace(made, seconds=time.monotonic() - started)
