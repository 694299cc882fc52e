"""The callback: a certified fixed-point network at the end of a fit, with nothing but a tolerance."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from sound_qkeras.errors import InfeasibleError, InputError, ModelError, VerificationError
from sound_qkeras.interval import Interval
from sound_qkeras.jobs.job import read
from sound_qkeras.jobs.options import QuantizeOptions, one_of, or_none, whole
from sound_qkeras.jobs.quantize import quantize
from sound_qkeras.keras_io.session.editions import KERAS_2, edition
from sound_qkeras.network import Network
from sound_qkeras.network.boxes import check_box, describe_box, make_tolerance, network_box
from sound_qkeras.results.result import Result
from sound_qkeras.support.deadline import INTERRUPT
from sound_qkeras.support.files import check_writable
from sound_qkeras.support.progress import Progress, check_progress
from sound_qkeras.tuning.costs import GroupCost

from .callback import Callback
from .choosing import observer_of, trained_by_tensorflow
from .given_samples import check_samples, samples_inside
from .observer import InputObserver

if TYPE_CHECKING:
    from .annealing import FormatKeeper
    from .fewer_bits import BitForce

# Share of the epochs without the force towards fewer bits: of a network that has not learned anything it would leave nothing.
WARM_UP = 0.1
# The network whose tensors formats are for is to be the one that is trained.
AS_TRAINED: dict[str, Any] = {"keep_architecture": True, "rescale_units": False}

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

    The model may be one of tf_keras or of Keras 3, on TensorFlow, JAX or torch; `to_qkeras()` is a tf_keras model always. Of the
    two ways to train below, "anneal" is for models of either Keras that TensorFlow trains, `fewer_bits` for tf_keras models;
    with others that is logged, and they train without.

    With `mode="anneal"` the fit trains the fixed-point network too. From the share `anneal_after` of the epochs on, formats are
    chosen, and the model's weights stay on their grids: every step sees rounded weights, and moves latent ones beside them
    (the straight-through estimator). Losses, validation, checkpoints and the model after the fit have the rounded weights,
    and those are what the certificate compares with: the fixed-point network is proved to stay within `eps` of the model
    that the fit leaves behind. Each n-th epoch with `every=n`, the network is proved in the formats in force; where it
    exceeds `eps`, formats are chosen anew for the latent weights. Where it does at the end, or where formats could not be
    chosen, the model is quantised as without this mode. Units are neither dropped nor rescaled in it, and results are
    rounded in the proof but not in training: it is for few bits, where rounding costs accuracy.

    With `teacher=True` the steps from then on follow the gradient of the distance to the float network, the model as it was
    when formats were first put into force, in place of the model's own loss: the divergence of the probabilities behind a
    softmax or sigmoid, else the mean square. Targets no longer matter to training; losses and metrics in the logs are still the
    model's own. Models of several inputs or outputs train without formats in force then, and those whose `train_step` does not
    call `compute_loss` without a teacher; the log says so.

    With `fewer_bits=0.1` every training step after a tenth of the epochs also pushes towards fewer bits, a tenth as hard as the
    loss pushes: towards smaller weights where they are sensitive, and towards units that never or always clip on the box, which
    are not paid for. Without a box it takes the extremes of the batches so far. It is for Dense layers with ReLUs one after
    the other; where a model is another, that is logged and it trains without. What it costs is in the loss: compare the
    validation loss with 0.

    With `every=n` the network is also quantised after each n-th epoch, and the epoch's logs get

    * `sound_bound`: the proved bound, in units of the output; NaN in the tier "statistical", which proves none;
    * `sound_weight_bits`, `sound_total_bits`: what the formats cost.

    `History`, the progress bar, `TensorBoard`, `EarlyStopping` and `ModelCheckpoint` see them, provided they come after
    this callback in the list. The epochs up to the next run repeat the last values; they are NaN before the first run
    and after one that failed. `EarlyStopping` counts its patience in epochs, not runs: give it at least `every`.

    Attributes:
        result: what the last run of the latest fit proved, or None.
        error: why that run failed, or None.
        choices: how often formats were put into force in the latest fit, with `mode="anneal"`.
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
        mode: str = "end",
        anneal_after: float = 0.5,
        teacher: bool = False,
        fewer_bits: float = 0.0,
        progress: Progress | bool | None = None,
        **options: Any,
    ) -> None:
        """Check everything that can be checked without a model.

        Args:
            eps: tolerance in units of the output: a number, or one per output.
            box: the inputs, as for `sound_qkeras.quantize`. None takes the smallest and largest value of every feature
                in the batches the model is trained on; the certificate says so. See `samples` below for those outside of it.
            cost: "weight_bits", "total_bits", "bit_operations", or a callable `(group, word_length) -> float`.
            every: also quantise each so many epochs.
            out: directory to save the last result in; an earlier result there is replaced.
            margin: widens the box by this share of its width, on every side.
            mode: "end" quantises what was trained; "anneal" chooses formats on the way and trains on with them in force.
            anneal_after: the share of the epochs before that.
            teacher: train on towards the network of that moment, as `sound_qkeras.finetune` does, in place of the model's loss.
            fewer_bits: how hard training pushes towards fewer bits, as a share of the loss's gradient.
            progress: of every run, as for `sound_qkeras.quantize`: True for bars, False, or a callable. None draws bars of the
                run at the end of a fit where Keras draws its own (`verbose=1`), and nothing otherwise.
            options: `word_lengths`, `effort`, `solver`, `tier`, `samples` and the others of
                `sound_qkeras.quantize`, for every run. Samples outside of an observed box are set aside, up to a tenth of them:
                the claim is about inputs in the box, and those left are drawn like these. A box that was widened to hold them would
                depend on held-out samples, and a limit counted on those would be none. How many there are is logged after the
                first epoch, with the `margin=` that would hold them, and the certificate says it. More than a tenth is an error,
                which is logged after the first epoch too. In a given box every sample has to lie, which is checked before it.

        Raises:
            InputError: an argument is not usable, or `out` cannot be written.
            DependencyError: the solver is missing.
        """
        super().__init__()
        if not (isinstance(eps, str) and eps == "auto"):
            make_tolerance(eps, np.size(eps))
        self._options: dict[str, Any] = {**options, "cost": cost}
        QuantizeOptions.named(self._options).check_goal(eps)
        check_box((0.0, 1.0) if box is None else box, margin)
        or_none(whole())("every", every)
        check_progress("progress", progress)
        one_of("end", "anneal")("mode", mode)
        if not 0.0 <= anneal_after <= 1.0:
            raise InputError(f"anneal_after is {anneal_after!r}; accepted: a share of the epochs between 0 and 1")
        if not isinstance(teacher, bool) or (teacher and mode != "anneal"):
            raise InputError(f"teacher is {teacher!r} with mode {mode!r}; accepted: False, or True with mode='anneal'")
        self.eps, self.box, self.margin, self.every = eps, box, margin, every
        self.mode, self.anneal_after, self.teacher = mode, anneal_after, teacher
        self.fewer_bits = _checked_strength(fewer_bits)
        self.out = None if out is None else check_writable(out)
        self._progress = progress
        self.result: Result | None = None
        self.error: Exception | None = None
        self.choices = 0
        self._observer: InputObserver | None = None
        self._keeper: FormatKeeper | None = None
        self._force: BitForce | None = None
        self._tried: tuple[str, bytes, bytes] | None = None
        self._values = _logged(None)
        self._readable, self._annealed, self._looked, self._ending = False, True, False, False
        self._aside = ""

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget the last fit, see whether this model can be quantised, and start to observe its batches."""
        self._release()
        self.result = self.error = self._observer = self._keeper = self._force = self._tried = None
        self.choices, self._annealed = 0, self.mode != "anneal"
        self._values = _logged(None)
        self._readable, self._looked, self._ending = True, False, False
        try:
            if self.model.built:
                self._check(read(self.model))
            if self.box is None:
                self._observer = observer_of(self.model)
                self._observer.attach()
        except Exception as error:
            self._readable = False
            self._fail(error)
        if self.fewer_bits and self._readable:
            self._push()

    def _push(self) -> None:
        """Add the force towards fewer bits, where the model is one whose bits can be estimated."""
        try:
            _check_keras_2(self.model, "fewer_bits")
            from .fewer_bits import BitForce

            box = None if self.box is None else self._region(read(self.model))[0]
            force = BitForce(self.model, self.fewer_bits, box)
            force.attach()
            self._force = force
        except Exception as error:
            _LOG.warning("SoundQuant: training goes on without fewer_bits: %s", error)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Push towards fewer bits, and choose formats and keep the weights in them, each once it is time to."""
        if self._force is not None and epoch >= WARM_UP * self.params["epochs"]:
            self._force.start()
        if self._annealed or not self._readable or epoch < self.anneal_after * self.params["epochs"]:
            return
        self._annealed = True
        try:
            _check_tensorflow(self.model, "mode='anneal'")
            from .annealing import FormatKeeper

            effort = self._options.get("effort", "normal")
            keeper = FormatKeeper(self.model, read(self.model), effort, teacher=self.teacher)
            self._choose(keeper)
            keeper.attach()
            self._keeper = keeper
        except Exception as error:
            _LOG.warning("SoundQuant: training goes on without formats in force: %s", error)
            self.error = error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Quantise after each n-th epoch, and tell the callbacks that follow; after the first, see what the box leaves out."""
        if self._observer is not None and self._readable and not self._looked:
            self._looked = True
            self._look()
        if self.every is None or not self._readable:
            return
        if (epoch + 1) % self.every == 0:
            self._run(retune=True)
            self._values = _logged(self.result)
        if logs is not None:
            logs.update(self._values)

    def _look(self) -> None:
        """Say after one epoch of observing which samples are outside of the box."""
        try:
            network = read(self.model)
            _, aside, way = self._inside(network, *self._region(network))
            if aside:
                _LOG.warning("SoundQuant: %s; %s", aside, way)
        except Exception as error:
            self._fail(error)

    def on_train_end(self, logs: Any = None) -> None:
        """Quantise, and once more should a callback after this one change the weights."""
        self._release()
        self._ending = True
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

    def _run(self, *, retune: bool = False) -> None:
        """Quantise the model as it is, unless these very weights were tried with this very box."""
        if not self._readable:
            return
        try:
            network = read(self.model, self._ends()[0], self.margin)
            box, source = self._region(network)
            tried = (network.weight_hash, box.lower.tobytes(), box.upper.tobytes())
            if tried == self._tried:
                return
            self.result, self._tried = None, tried
            self.result = self._proved(network, box, source, retune=retune)
            self.error = None
        except Exception as error:
            self.result = None
            self._fail(error)
            return
        _LOG.info("SoundQuant: %s", self.result.summary())

    def _proved(self, network: Network, box: Interval, source: str, *, retune: bool) -> Result:
        """In the formats in force, where they meet the tolerance; else in others, with which to train on or to end."""
        if self._keeper is not None:
            try:
                return self._keeper.prove(network, box, f"{source}{self._aside}")
            except (InfeasibleError, VerificationError) as error:
                _LOG.info("SoundQuant: formats are chosen anew: %s", error)
                if retune:
                    self._choose(self._keeper)
                    return self._keeper.prove(read(self.model), box, f"{source}{self._aside}")
        return self._quantized(network, self._options)

    def _choose(self, keeper: FormatKeeper) -> None:
        """Put formats into force."""
        keeper.choose(lambda network: self._quantized(network, self._options | AS_TRAINED))
        self.choices += 1

    def _quantized(self, network: Network, options: dict[str, Any]) -> Result:
        box, source = self._region(network)
        inside, aside, _ = self._inside(network, box, source)
        self._aside = f"; {aside}" if aside else ""
        progress = self._ending and self.params.get("verbose") == 1 if self._progress is None else self._progress
        result = quantize(
            network, self.eps, box, box_source=f"{source}{self._aside}", progress=progress, **{**options, **inside}
        )
        if result.ended_by == INTERRUPT:
            self.model.stop_training = True  # whoever pressed Ctrl-C meant the fit
        return result

    def _save(self) -> None:
        if self.result is None or self.out is None:
            return
        try:
            self.result.save(self.out)
        except Exception as error:
            self._fail(error)

    def _region(self, network: Network) -> tuple[Interval, str]:
        """The box, and where it came from."""
        ends, source = self._ends()
        return network_box(network, ends, self.margin), describe_box(source, self.margin)

    def _ends(self) -> tuple[Any, str]:
        if self._observer is None:
            return self.box, "given"
        return self._observer.box(), f"observed on {self._observer.batches} training batches"

    def _check(self, network: Network) -> None:
        """What the last run would stumble over is said before the first epoch."""
        if not isinstance(self.eps, str):
            make_tolerance(self.eps, int(np.prod(network.output_shape)))
        check_samples(network, self._options)
        if self.box is not None:
            self._inside(network, *self._region(network))

    def _inside(self, network: Network, box: Interval, source: str) -> tuple[dict[str, Any], str, str]:
        """The samples in the box as options, how many are not, and the way out."""
        before = network_box(network, self._ends()[0])
        observed = self._observer is not None
        return samples_inside(network, self._options, box, source, before, observed=observed)

    def _fail(self, error: Exception) -> None:
        """Keep the reason; a series of failures is logged once."""
        if self.error is None:
            _LOG.warning("SoundQuant: the network was not quantised, which does not stop training: %s", error)
        self.error = error

    def _release(self) -> None:
        for extension in (self._observer, self._keeper, self._force):
            if extension is not None:
                extension.detach()


def _logged(result: Result | None) -> dict[str, float]:
    numbers = (np.nan,) * 3
    if result is not None:
        counted = result.certificate.tier == "statistical"  # where no bound is proved
        numbers = (np.nan if counted else result.certificate.bound, result.cost.weight_bits, result.cost.total_bits)
    names = ("sound_bound", "sound_weight_bits", "sound_total_bits")
    return {name: float(number) for name, number in zip(names, numbers, strict=True)}


def _checked_strength(strength: Any) -> float:
    """A usable strength."""
    if isinstance(strength, bool) or not isinstance(strength, int | float | np.number) or not 0.0 <= strength < 1.0:
        raise InputError(f"fewer_bits is {strength!r}; accepted: a share of at least 0 and less than 1; try 0.1")
    return float(strength)


def _check_keras_2(model: Any, what: str) -> None:
    """The estimate of bits is of variables of Keras 2."""
    if edition(model) != KERAS_2:
        raise ModelError(f"{what} received a model of {edition(model)}; accepted: a tf_keras model")


def _check_tensorflow(model: Any, what: str) -> None:
    """Weights are rounded in the graph that trains them: JAX hands them to its step as arguments, torch has no graph."""
    if not trained_by_tensorflow(model):
        raise ModelError(
            f"{what} received a model of Keras 3 on another backend than TensorFlow; accepted: Keras 3 on TensorFlow, or "
            "tf_keras; sound_qkeras.finetune trains the result of any"
        )
