"""The comparison from end to end, resumable at every candidate and every trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sound_qkeras.baselines import Row, pareto_front
from sound_qkeras.keras_io.autoqkeras.setup import import_autoqkeras
from sound_qkeras.results.result import tool_versions
from sound_qkeras.study.both_ways import both_ways
from sound_qkeras.study.drawing import metric_figure
from sound_qkeras.study.fixed_rows import rounding_tasks, rule_tasks, uniform_tasks
from sound_qkeras.study.hgq2_rows import hgq2_tasks
from sound_qkeras.study.ledger import Ledger, Task
from sound_qkeras.study.our_rows import our_tasks
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import Subject, subject_of
from sound_qkeras.study.trained_rows import autoqkeras_tasks, straight_through_tasks
from sound_qkeras.study.writing import html_table, label_of, write
from sound_qkeras.support.figures import finished, new_figure
from sound_qkeras.support.resuming import claim

SETTINGS = "settings.json"
TASKS: dict[str, Callable[[Subject, Plan, Path], Iterator[Task]]] = {
    "ours": our_tasks,
    "uniform": uniform_tasks,
    "rule": rule_tasks,
    "rounding": rounding_tasks,
    "straight_through": straight_through_tasks,
    "hgq2": hgq2_tasks,
    "autoqkeras": autoqkeras_tasks,
}


@dataclass(frozen=True, repr=False)
class Study:
    """A finished comparison.

    Args:
        rows: one a candidate.
        failures: methods that gave none, and why.
        float_metric: the metric of the float network on the test samples; higher is better.
        settings: everything it depends on but the model and the samples, whose hash is among them.
        directory: where it was written.
    """

    rows: tuple[Row, ...]
    failures: dict[str, str]
    float_metric: float
    settings: dict[str, Any]
    directory: Path

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the task's metric against bits, with the float network's and the Pareto front.

        Args:
            path: where to save it, as .png, .svg or .pdf; None to save nothing.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            DependencyError: matplotlib is missing.
        """
        return finished(metric_figure(self.rows, self.float_metric, label_of(self.settings)), path)

    def __repr__(self) -> str:
        """One line."""
        label, front = label_of(self.settings), pareto_front(self.rows)
        return (
            f"Study({len(self.rows)} rows, {len(front)} on the Pareto front, float {label} {self.float_metric:.4g}, "
            f"{len(self.failures)} without a row, in '{self.directory}')"
        )

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return html_table(self.rows, self.float_metric, self.settings)

    @property
    def both_ways(self) -> tuple[str, ...]:
        """What ours needs for what AutoQKeras reached, and the other way round, in sentences."""
        return both_ways(self.rows)


def compare(
    model: Any,
    train: tuple[npt.ArrayLike, npt.ArrayLike],
    eps: Any,
    *,
    out: str | Path,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    test: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    preset: str = "full",
    box: Any = None,
    margin: float = 0.0,
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Study:
    """Set everyone's ways to choose formats beside ours: same model, same samples, same counting, same verifier.

    60% of the samples train, 20% choose epochs and trials, and every accuracy is on the other 20%, unless validation and test
    samples come separately. Killed at any moment, the same call goes on where it was: after the last candidate, and within a
    search of AutoQKeras after its last trial.

    Args:
        model: a trained float model of Keras 3 or tf_keras, or the path of one. It is not changed. AutoQKeras searches Keras 2
            models: of a Keras 3 one it gets the tf_keras model with the same weights, without dropout, and with normalisations
            as constants.
        train: samples `(n, *input_shape)` and their classes, or, for a mean error as metric, the numbers wanted: an array, or one
            an output as a list or by name.
        eps: tolerances, in units of the outputs before a softmax or sigmoid.
        out: directory to write, new or of the same comparison.
        validation: the same, for choosing epochs and trials, of samples that the model was not trained on. Without them some of the
            others are taken: where the model was trained on those, training on seldom seems to do it any good.
        test: the same, for every accuracy. Without them a fifth of the others is taken, and what starts from the model's weights is
            flattered wherever those were among its training samples.
        preset: "full", the defaults of `Plan`; or "quick", a first look: about five minutes on two cores for a small network,
            one random search of few and short trials, one word length. Settings given beside it go before.
        box: the inputs that bounds are about, as for `quantize`; None for the smallest and largest values of the samples.
        margin: widens the box by this share of its width, on every side.
        progress: called before work on a candidate begins, with a line such as "3 of 40, about 6 minutes left: per-layer rule,
            eps 0.1".
        settings: those of `sound_qkeras.study.plan.Plan`: `metric`, `costs`, `trials`, `modes`, `spaces`, `methods`, `epochs`
            and more. `hgq_python` names the Python of another environment that has HGQ2, which gets rows of its own then.

    Raises:
        InputError: an argument is not usable, or `out` holds something else.
        ModelError: the model cannot be read, or tf_keras computes something else with its weights.
        DependencyError: keras-tuner, matplotlib or another package is missing, or the Python that is named has no HGQ2.
    """
    plan = Plan.of(preset, eps, settings)
    new_figure()  # what is missing is found out before the work
    import_autoqkeras()
    subject = subject_of(
        model, train, test, box, validation=validation, margin=margin, seed=plan.seed, metric=plan.metric
    )
    directory = Path(out).resolve()
    versions = tool_versions()
    known = {
        **plan.to_json(),
        "separate_validation": validation is not None,
        "separate_test": test is not None,
        "subject": subject.fingerprint,
        "versions": dict(versions),
    }
    claim(directory, SETTINGS, known)
    ledger = Ledger(directory, progress or _silent)
    ledger.add([task for method in plan.methods for task in TASKS[method](subject, plan, directory)])
    found = subject.measured(subject.reference)["metric"]
    study = Study(tuple(ledger.rows), ledger.failures, found, known, directory)
    write(study.rows, study.failures, study.float_metric, study.settings, directory)
    return study


def _silent(name: str) -> None:
    """Report nothing."""
