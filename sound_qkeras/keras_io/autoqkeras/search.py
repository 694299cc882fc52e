"""AutoQKeras for real: its search with keras-tuner, resumable and seeded, and its best trials trained again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError, ModelError
from sound_qkeras.keras_io.autoqkeras.setup import DEFECTS, import_autoqkeras, searchable, working_model_quantize
from sound_qkeras.keras_io.autoqkeras.sizes import ModelBits, model_bits
from sound_qkeras.keras_io.autoqkeras.state import PROJECT, open_directory, record
from sound_qkeras.keras_io.autoqkeras.training import Data, fit_best
from sound_qkeras.keras_io.session.environment import import_keras

__all__ = ["DEFECTS", "FAIR_SPACE", "MODES", "SPACES", "Found", "Retrained", "Settings", "Trial", "search"]

MODES = ("random", "bayesian", "hyperband")
SPACES = ("shipped", "fair")
# Most bits of kernel, bias and activation. AutoQKeras has no defaults that work: these are its authors' notebook's, and for
# the fair space all that is in it.
LIMITS = {
    "shipped": {"kernel": (8, 4), "bias": 8, "activation": 4},
    "fair": {"kernel": (16, 16), "bias": 16, "activation": 16},
}
LOG = "log.txt"


def _grid(template: str, bits: tuple[int, ...], integers: tuple[int, ...]) -> dict[str, int]:
    return {template.format(b, i): b for b in bits for i in integers if i < b}


# Plain fixed-point formats and nothing else: what the tuner and the other baselines choose from.
FAIR_SPACE: Mapping[str, Mapping[str, int]] = {
    "kernel": _grid("quantized_bits({},{},alpha=1.0)", (2, 3, 4, 5, 6, 7, 8, 10, 12, 16), (0, 1, 2)),
    "bias": _grid("quantized_bits({},{},alpha=1.0)", (4, 6, 8, 12, 16), (0, 1, 2, 3)),
    "activation": _grid("quantized_relu({},{})", (2, 3, 4, 5, 6, 7, 8, 10, 12, 16), (0, 1, 2, 3, 4)),
    "linear": _grid("quantized_bits({},{},alpha=1.0)", (4, 6, 8, 12, 16), (0, 1, 2, 3)),
}


@dataclass(frozen=True)
class Settings:
    """A search.

    Args:
        mode: of keras-tuner: "random", "bayesian" or "hyperband".
        space: "shipped", AutoQKeras' default quantizers, or "fair", plain fixed-point formats only.
        trials: most trials.
        epochs: of a trial; of the longest one in hyperband.
        batch_size: samples a step.
        learning_rate: of Adam.
        seed: of keras-tuner's choices and of every trial's weights and batches.
        metric: of the task, "accuracy", or the loss of a regression, "mse" or "mae".
    """

    mode: str = "random"
    space: str = "fair"
    trials: int = 50
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 1
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        """Refuse what keras-tuner would misread."""
        if self.mode not in MODES or self.space not in SPACES:
            raise InputError(
                f"mode '{self.mode}', space '{self.space}'; accepted: {', '.join(MODES)}, and {' or '.join(SPACES)}"
            )
        if min(self.trials, self.epochs, self.batch_size, self.seed) < 1 or not 0.0 < self.learning_rate < math.inf:
            raise InputError(f"received {self}; accepted: positive numbers everywhere")


@dataclass(frozen=True)
class Trial:
    """One trial: keras-tuner's name for it, its quantizers, its score, accuracy or negative loss in validation, size in bits."""

    name: str
    values: Mapping[str, Any]
    score: float
    metric: float
    size: int


@dataclass(frozen=True, eq=False)
class Retrained:
    """A trial's model trained again from scratch; its `metric` on the validation data with its best epoch's weights."""

    trial: Trial
    model: Any
    bits: ModelBits
    metric: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Found:
    """A finished search: its trials, best score first, the seconds all of them took, and how to train them again."""

    trials: tuple[Trial, ...]
    seconds: float
    settings: Settings
    _internal: ModuleType
    _tuner: Any

    def retrain(self, train: Data, validation: Data, *, epochs: int, rank: int = 0) -> Retrained:
        """Build a trial's model and train it, as the authors do with the best one.

        Args:
            train: inputs and labels.
            validation: inputs and labels, by which the epoch is chosen whose weights are kept.
            epochs: how many.
            rank: of the trial; 0 is the best.
        """
        trial = self.trials[rank]
        parameters = self._tuner.oracle.get_trial(trial.name).hyperparameters
        with contextlib.redirect_stdout(io.StringIO()), working_model_quantize(self._internal):
            model = self._tuner.hypermodel.build(parameters)
        model.compile(model.optimizer, loss=model.loss, metrics=[self.settings.metric])
        seconds, metric = fit_best(model, train, validation, epochs, self.settings.batch_size)
        return Retrained(trial, model, model_bits(model), metric, seconds)


def search(model: Any, train: Data, validation: Data, directory: str | Path, settings: Settings) -> Found:
    """Run AutoQKeras, or take up again what was interrupted.

    The same call on the same directory continues after the last complete trial; when all are complete it returns at once.
    What AutoQKeras prints goes to `log.txt` in the directory.

    Args:
        model: a compiled float tf_keras model with one output. Its architecture is searched; its weights are not used.
        train: inputs and labels.
        validation: inputs and labels that trials are ranked by.
        directory: new, or of this search.
        settings: of the search.

    Raises:
        InputError: the model has no loss or several outputs, or the directory holds something else.
        ModelError: no trial could be completed.
        DependencyError: keras-tuner or another package is missing.
    """
    place = Path(directory).resolve()
    internal = import_autoqkeras()
    float_model = searchable(model, settings.learning_rate)
    seconds = open_directory(place, {**asdict(settings), "subject": _fingerprint(float_model, train, validation)})
    with (
        (place / LOG).open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        working_model_quantize(internal),
    ):
        quantizer = _autoqkeras(internal, float_model, place, settings, _metrics(settings.metric, train))
        clock = _record_trials(quantizer.tuner, place, seconds)
        quantizer.fit(
            *train, validation_data=validation, epochs=settings.epochs, batch_size=settings.batch_size, verbose=0
        )
    trials = _trials(quantizer.tuner, settings.metric)
    if not trials:
        raise ModelError(f"AutoQKeras completed none of {settings.trials} trials; see '{place / LOG}'")
    return Found(trials, clock["seconds"], settings, internal, quantizer.tuner)


def _autoqkeras(internal: ModuleType, model: Any, place: Path, settings: Settings, metrics: list[Any]) -> Any:
    """AutoQKeras with its tuner, every trial seeded by its values and with an optimizer of its own."""
    tuner: dict[str, Any] = {"seed": settings.seed, "directory": str(place)}
    if settings.mode == "hyperband":
        tuner["max_epochs"] = settings.epochs
    else:
        tuner["max_trials"] = settings.trials
    last = model.layers[-1]
    spared = 1 if type(last).__name__ == "Activation" else 0  # a classifier's own softmax or sigmoid stays
    quantizer = internal.AutoQKeras(
        model,
        metrics=metrics,
        output_dir=PROJECT,
        mode=settings.mode,
        limit=_limit(settings.space),
        tune_filters="none",
        tune_filters_exceptions="",
        layer_indexes=range(len(model.layers) - spared),
        quantization_config=None if settings.space == "shipped" else FAIR_SPACE,
        overwrite=False,
        **tuner,
    )
    quantizer.tuner.oracle.max_trials = settings.trials  # hyperband takes no such argument
    _seed_builds(quantizer.hypermodel, settings)
    return quantizer


def _metrics(metric: str, train: Data) -> list[Any]:
    """What AutoQKeras ranks trials by, first: accuracy, or the share of the error of a constant that a regression is without."""
    if metric == "accuracy":
        return [metric]
    wanted = np.asarray(train[1], dtype=np.float64)
    away = np.abs(wanted - wanted.mean(axis=0))
    spread = float(np.mean(away**2 if metric == "mse" else away)) or 1.0
    keras = import_keras()
    loss = keras.losses.get(metric)

    def explained(y_true: Any, y_pred: Any) -> Any:
        return keras.backend.maximum(1.0 - loss(y_true, y_pred) / spread, 0.0)

    return [explained, metric]


def _limit(space: str) -> dict[str, list[int]]:
    limits = LIMITS[space]
    (dense, convolution), bias, activation = limits["kernel"], limits["bias"], limits["activation"]
    kinds = {"Dense": dense, "Conv1D": convolution, "Conv2D": convolution, "DepthwiseConv2D": convolution}
    return {**{kind: [kernel, bias, activation] for kind, kernel in kinds.items()}, "Activation": [activation]}


def _seed_builds(hypermodel: Any, settings: Settings) -> None:
    """Make every trial repeatable: it depends on its values and the seed, not on the trials before it."""
    keras, build = import_keras(), hypermodel.build

    def seeded(values: Any) -> Any:
        content = json.dumps([settings.seed, sorted(values.values.items())], default=str)
        keras.utils.set_random_seed(int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big"))
        hypermodel.model.optimizer = keras.optimizers.legacy.Adam(settings.learning_rate)
        return build(values)

    hypermodel.build = seeded


def _record_trials(tuner: Any, place: Path, seconds: float) -> dict[str, float]:
    """Save the state after every trial, with the seconds spent so far; returns where those are kept."""
    clock = {"seconds": seconds, "from": time.monotonic()}
    end = tuner.on_trial_end

    def on_trial_end(trial: Any) -> None:
        end(trial)
        now = time.monotonic()
        clock["seconds"], clock["from"] = clock["seconds"] + now - clock["from"], now
        record(place, clock["seconds"])

    tuner.on_trial_end = on_trial_end
    return clock


def _trials(tuner: Any, metric: str) -> tuple[Trial, ...]:
    """Every complete trial, highest score first; of equal ones the first."""
    sign = 1.0 if metric == "accuracy" else -1.0
    found = [
        Trial(
            name,
            {key: value for key, value in trial.hyperparameters.values.items() if not key.startswith("tuner/")},
            float(trial.score),
            sign * float(trial.metrics.get_best_value(f"val_{metric}")),
            round(trial.metrics.get_best_value("val_trial")),
        )
        for name, trial in sorted(tuner.oracle.trials.items())
        if trial.status == "COMPLETED"
    ]
    return tuple(sorted(found, key=lambda trial: -trial.score))


def _fingerprint(model: Any, *data: Data) -> str:
    """SHA-256 of the architecture and the data: a search is only taken up with the same."""
    digest = hashlib.sha256(json.dumps(model.get_config(), sort_keys=True, default=str).encode())
    for array in (np.ascontiguousarray(part) for pair in data for part in pair):
        digest.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
    return digest.hexdigest()
