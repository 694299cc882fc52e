"""The callback: a certified fixed-point network at the end of a fit, with nothing but a tolerance."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np

from sound_qkeras.boxes import check_box, make_tolerance, network_box
from sound_qkeras.errors import InputError
from sound_qkeras.files import check_writable
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network
from sound_qkeras.options import Options
from sound_qkeras.pipeline import Progress, describe_box, quantize, read
from sound_qkeras.result import Result
from sound_qkeras.tuning.costs import GroupCost

from .callback import Callback
from .observer import InputObserver, observer_of

_LOG = logging.getLogger("sound_qkeras")


class SoundQuant(Callback):
    """Quantise the network at the end of training, with a proved error bound for every input in a box.

    ```python
    sound = SoundQuant(1e-3)
    model.fit(x, y, epochs=20, callbacks=[sound])
    sound.result.certificate.bound  # at most 1e-3, proved
    ```

    The formats are proved for the weights that training ends with: where another callback restores weights at the very
    end, as `EarlyStopping` can, those are quantised. Training never fails because of this callback: where quantisation
    does, `result` is None, `error` holds the reason, and it is logged once, as a warning of the logger `sound_qkeras`.
    A model that cannot be quantised is reported before its first epoch. One instance can serve several fits in turn.

    The model may be one of tf_keras or of Keras 3, on TensorFlow, JAX or torch; `to_qkeras()` is a tf_keras model always.

    With `every=n` the network is also quantised after each n-th epoch, and the epoch's logs get

    * `sound_bound`: the proved bound, in units of the output;
    * `sound_weight_bits`, `sound_total_bits`: what the formats cost.

    `History`, the progress bar, `TensorBoard`, `EarlyStopping` and `ModelCheckpoint` see them, provided they come after
    this callback in the list. The epochs up to the next run repeat the last values; they are NaN before the first run
    and after one that failed. `EarlyStopping` counts its patience in epochs, not runs: give it at least `every`.

    Attributes:
        result: what the last run of the latest fit proved, or None.
        error: why that run failed, or None.
    """

    def __init__(
        self,
        eps: Any,
        box: Any = None,
        cost: str | GroupCost = "weight_bits",
        every: int | None = None,
        out: str | os.PathLike[str] | None = None,
        *,
        margin: float = 0.0,
        progress: Progress | None = None,
        **options: Any,
    ) -> None:
        """Check everything that can be checked without a model.

        Args:
            eps: tolerance in units of the output: a number, or one per output.
            box: the inputs, as for `sound_qkeras.quantize`. None takes the smallest and largest value of every feature
                in the batches the model is trained on; the certificate says so.
            cost: "weight_bits", "total_bits", "bit_operations", or a callable `(group, word_length) -> float`.
            every: also quantise each so many epochs.
            out: directory to save the last result in; an earlier result there is replaced.
            margin: widens the box by this share of its width, on every side.
            progress: called with a stage's name and the fraction of it that is done, during every run.
            options: `word_lengths`, `effort`, `solver`, `tier`, `samples` and the others of
                `sound_qkeras.quantize`, for every run.

        Raises:
            InputError: an argument is not usable, or `out` cannot be written.
            DependencyError: the solver is missing.
        """
        super().__init__()
        if not (isinstance(eps, str) and eps == "auto"):
            make_tolerance(eps, np.size(eps))
        self._options: dict[str, Any] = {**options, "cost": cost}
        Options.checked(self._options)
        check_box((0.0, 1.0) if box is None else box, margin)
        if every is not None and (isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1):
            raise InputError(f"every is {every!r}; accepted: a number of epochs of at least 1, or None")
        self.eps, self.box, self.margin, self.every = eps, box, margin, every
        self.out = None if out is None else check_writable(out)
        self._progress = progress
        self.result: Result | None = None
        self.error: Exception | None = None
        self._observer: InputObserver | None = None
        self._tried: tuple[str, bytes, bytes] | None = None
        self._values = _logged(None)
        self._readable = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget the last fit, see whether this model can be quantised, and start to observe its batches."""
        self._release()
        self.result = self.error = self._observer = self._tried = None
        self._values = _logged(None)
        self._readable = True
        try:
            if self.model.built:
                self._check(read(self.model))
            if self.box is None:
                self._observer = observer_of(self.model)
                self._observer.attach()
        except Exception as error:
            self._readable = False
            self._fail(error)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Quantise after each n-th epoch, and tell the callbacks that follow."""
        if self.every is None or not self._readable:
            return
        if (epoch + 1) % self.every == 0:
            self._run()
            self._values = _logged(self.result)
        if logs is not None:
            logs.update(self._values)

    def on_train_end(self, logs: Any = None) -> None:
        """Quantise, and once more should a callback after this one change the weights."""
        self._release()
        self._run()
        history = getattr(self.model, "history", None)
        if history is None or history.params is not self.params:
            self._save()
        else:
            self._finish_after(history)

    def _finish_after(self, history: Any) -> None:
        """Keras' own History comes after all callbacks of the user: its `on_train_end` is the place to finish."""
        before = history.on_train_end

        def on_train_end(logs: Any = None) -> None:
            vars(history).pop("on_train_end", None)
            before(logs)
            self._run()
            self._save()

        history.on_train_end = on_train_end

    def _run(self) -> None:
        """Quantise the model as it is, unless these very weights were tried with this very box."""
        if not self._readable:
            return
        try:
            network = read(self.model)
            box, source = self._region(network)
            tried = (network.weight_hash, box.lower.tobytes(), box.upper.tobytes())
            if tried == self._tried:
                return
            self.result, self._tried = None, tried
            self.result = quantize(network, self.eps, box, box_source=source, progress=self._progress, **self._options)
            self.error = None
            _LOG.info("SoundQuant: %s", self.result.summary())
        except Exception as error:
            self.result = None
            self._fail(error)

    def _save(self) -> None:
        if self.result is None or self.out is None:
            return
        try:
            self.result.save(self.out)
        except Exception as error:
            self._fail(error)

    def _region(self, network: Network) -> tuple[Interval, str]:
        """The box, and where it came from."""
        if self._observer is None:
            ends, source = self.box, "given"
        else:
            ends, source = self._observer.box(), f"observed on {self._observer.batches} training batches"
        return network_box(network, ends, self.margin), describe_box(source, self.margin)

    def _check(self, network: Network) -> None:
        """What the last run would stumble over is said before the first epoch."""
        if not isinstance(self.eps, str):
            make_tolerance(self.eps, int(np.prod(network.output_shape)))
        if self.box is not None:
            network_box(network, self.box, self.margin)

    def _fail(self, error: Exception) -> None:
        """Keep the reason; a series of failures is logged once."""
        if self.error is None:
            _LOG.warning("SoundQuant: the network was not quantised, which does not stop training: %s", error)
        self.error = error

    def _release(self) -> None:
        if self._observer is not None:
            self._observer.detach()


def _logged(result: Result | None) -> dict[str, float]:
    numbers = (np.nan,) * 3
    if result is not None:
        numbers = (result.certificate.bound, result.cost.weight_bits, result.cost.total_bits)
    names = ("sound_bound", "sound_weight_bits", "sound_total_bits")
    return {name: float(number) for name, number in zip(names, numbers, strict=True)}
