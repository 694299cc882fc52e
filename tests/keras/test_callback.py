"""SoundQuant in every kind of fit: what it observes, what it proves, what it logs, and that it leaves nothing behind."""

import copy
import importlib
import logging
import re
from typing import Any

import numpy as np
import pytest

from sound_qkeras.callbacks import SoundQuant  # before Keras: it makes TensorFlow show Keras 2

# isort: split
import tensorflow
import tf_keras

import sound_qkeras as sq
from sound_qkeras.errors import DependencyError, InfeasibleError, InputError, UnsupportedLayerError
from sound_qkeras.jobs.job import read
from sound_qkeras.keras_io import load_model
from sound_qkeras.verify.evidence import outside_of
from tests.pressing import Pressing, ctrl_c_as_usual

from .models import WithStep

pytestmark = [pytest.mark.keras, pytest.mark.solver]

tf: Any = tensorflow  # neither has types that can be relied on
keras: Any = tf_keras
MODULE: Any = importlib.import_module("sound_qkeras.callbacks.sound_quant")

LAYERS = keras.layers
COUNT = 60
KEYS = ["sound_bound", "sound_weight_bits", "sound_total_bits"]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
    return x, x.sum(axis=1, keepdims=True)


def compiled(model, **options):
    model.compile(keras.optimizers.SGD(1e-3), "mse", **options)  # the quickest to trace
    return model


def small(*, shape=(3,), kind=keras.Sequential, **options):
    first = [LAYERS.Input(shape)] if shape else []
    return compiled(kind([*first, LAYERS.Dense(4, activation="relu"), LAYERS.Dense(1)]), **options)


def functional(source):
    source_tensor = source["state"] if isinstance(source, dict) else source
    return compiled(keras.Model(source, LAYERS.Dense(1)(LAYERS.Dense(4, activation="relu")(source_tensor))))


def sound_quant(eps=1e-2, box=None, **options) -> Any:
    return SoundQuant(eps, box, **{"effort": "fast", **options})


def fit(model, *arguments, callbacks, epochs=2, **options):
    return model.fit(*arguments, epochs=epochs, verbose=0, callbacks=callbacks, **options)


class Stop(keras.callbacks.Callback):
    """Raises in the middle of a fit, where it is told to."""

    def __init__(self, hook, error=KeyboardInterrupt):
        super().__init__()
        setattr(self, hook, self.stop)
        self.error = error

    def stop(self, *_, **__):
        raise self.error


def assert_proved(sound, model, x, batches):
    result = sound.result
    assert sound.error is None
    assert result.certificate.bound <= 1e-2
    assert result.certificate.weight_hash == read(model).weight_hash
    assert result.certificate.box_source == f"observed on {batches} training batches"
    np.testing.assert_array_equal(result.certificate.box.lower, x.min(axis=0))
    np.testing.assert_array_equal(result.certificate.box.upper, x.max(axis=0))
    sq.check(result.pair, result.certificate)


def assert_untouched(model):
    assert "train_step" not in vars(model)
    assert "make_train_function" not in vars(model)
    assert not type(model.train_function).__module__.startswith("sound_qkeras")
    assert "on_train_end" not in vars(model.history)


# What the data comes as.


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}, {"kind": WithStep}, {"shape": None}],
    ids=["graph", "eager", "steps_per_execution", "jit_compile", "train_step", "not built"],
)
def test_arrays(data, options):
    model, sound = small(**options), sound_quant()
    history = fit(model, *data, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, data[0], 8)
    assert_untouched(model)
    assert len(history.history["loss"]) == 2


def test_rounded_output_and_channels(data):
    model, sound = small(), sound_quant(round_output=True, per_channel=True)
    fit(model, *data, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, data[0], 8)
    quantized = sound.result.pair
    assert quantized.network.output.name in quantized.formats
    assert all(codes.channel_formats is not None for codes in quantized.parameters.values())


@pytest.mark.parametrize("form", ["batches", "endless", "generator", "uneven"])
def test_datasets(data, form):
    x, y = data
    dataset, options, batches = tf.data.Dataset.from_tensor_slices(data).batch(15), {}, 8
    if form == "endless":
        dataset, options, batches = dataset.repeat(), {"steps_per_epoch": 4}, 8
    elif form == "uneven":
        dataset, batches = tf.data.Dataset.from_tensor_slices(data).shuffle(COUNT).batch(25), 6
    elif form == "generator":  # neither the number of batches nor their shape is known beforehand
        pairs = ((x[at : at + 20], y[at : at + 20]) for _ in range(4) for at in range(0, COUNT, 20))
        dataset = tf.data.Dataset.from_generator(lambda: (next(pairs) for _ in range(3)), (tf.float32, tf.float32))
        batches = 6
    model, sound = small(), sound_quant()
    fit(model, dataset, callbacks=[sound], **options)
    assert_proved(sound, model, x, batches)
    assert_untouched(model)


def test_weighted_samples_and_other_types_of_numbers(data):
    x = np.round(data[0] * 3).astype(np.int16)
    model, sound = small(), sound_quant()
    fit(model, x, data[1], callbacks=[sound], batch_size=15, sample_weight=np.ones(COUNT))
    assert_proved(sound, model, x, 8)


def test_double_precision_data_counts_as_keras_rounds_it(data):
    x = data[0].astype(np.float64) / 3.0
    model, sound = small(), sound_quant()
    fit(model, x, data[1], callbacks=[sound], batch_size=15)
    assert_proved(sound, model, x.astype(np.float32), 8)


@pytest.mark.parametrize("given", ["dict", "list", "tuple in a dataset", "model of a dict"])
def test_one_input_in_a_container(data, given):
    x, y = data
    source = keras.Input((3,), name="state")
    model, sound = functional({"state": source} if given == "model of a dict" else source), sound_quant()
    if given == "tuple in a dataset":
        fit(model, tf.data.Dataset.from_tensors(((x,), y)), callbacks=[sound], epochs=8)
    else:
        fit(model, [x] if given == "list" else {"state": x}, y, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, x, 8)


def test_a_flat_array_for_one_feature(data):
    x = data[0][:, 0]
    model, sound = small(shape=(1,)), sound_quant()
    fit(model, x, data[1], callbacks=[sound], batch_size=15)
    assert_proved(sound, model, x[:, None], 8)


def test_images(data):
    x = np.random.default_rng(0).random((COUNT, 2, 3, 1)).astype(np.float32)
    model, sound = compiled(keras.Sequential([LAYERS.Flatten(input_shape=(2, 3, 1)), LAYERS.Dense(1)])), sound_quant()
    fit(model, x, data[1], callbacks=[sound], batch_size=15)
    assert_proved(sound, model, x, 8)


def test_a_distributed_fit(data):
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = small()
    sound = sound_quant()
    fit(model, *data, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, data[0], 8)
    assert_untouched(model)


# Samples that a tier needs.


class Errors(keras.callbacks.Callback):
    """What another callback knows at the end of every epoch."""

    def __init__(self, sound):
        super().__init__()
        self.sound, self.found = sound, []

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(self.sound.error)


@pytest.mark.parametrize("mode", ["end", "anneal"])
def test_a_few_samples_outside_an_observed_box_are_set_aside_and_named_after_the_first_epoch(data, caplog, mode):
    samples = np.concatenate([data[0], 1.1 * data[0].max(axis=0, keepdims=True)])
    options = {"tier": "statistical", "samples": samples, "task": "classifier", "labels": np.zeros(61, dtype=int)}
    sound, said = sound_quant(**options, mode=mode), []
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: said.append(warnings_of(caplog)))
    with caplog.at_level(logging.WARNING):
        fit(small(), *data, callbacks=[sound, after], epochs=3)
    assert [len(found) for found in said] == [1, 1, 1]
    assert "1 of 61 samples lie outside the box and are set aside" in said[0][0].getMessage()
    certificate = sound.result.certificate
    assert "training batches; 1 of 61 samples lie outside the box and are set aside" in certificate.box_source
    assert len(certificate.evidence.samples) + certificate.evidence.calibration_samples == 60
    assert not np.any(outside_of(certificate.evidence.samples, certificate.box))
    margin = float(re.findall(r"margin=([0-9.]+) would hold them", said[0][0].getMessage())[0])
    sound = sound_quant(**options, margin=margin)
    fit(small(), *data, callbacks=[sound])
    evidence = sound.result.certificate.evidence
    assert len(evidence.samples) + evidence.calibration_samples == 61


def test_many_samples_outside_an_observed_box_are_an_error_after_the_first_epoch(data):
    sound = sound_quant(tier="statistical", samples=np.concatenate([data[0], 2.0 * data[0]]))
    errors = Errors(sound)
    fit(small(), *data, callbacks=[sound, errors], epochs=2)
    assert "of 120 samples lie outside the box, which is observed on 2 training batches" in str(errors.found[0])
    assert sound.result is None


@pytest.mark.parametrize(("verbose", "given"), [(1, None), (0, None), (1, False), (0, True)])
def test_the_run_at_the_end_shows_bars_where_keras_does(data, monkeypatch, verbose, given):
    found = []
    real = MODULE.quantize
    monkeypatch.setattr(MODULE, "quantize", lambda *a, progress, **k: found.append(progress) or real(*a, **k))
    small().fit(*data, epochs=3, verbose=verbose, callbacks=[sound_quant(every=2, progress=given)])
    assert found == ([False, verbose == 1] if given is None else [given, given])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"box": (-0.1, 0.1), "samples": np.ones((20, 3))}, "20 of 20 samples lie outside the box, which is given"),
        ({"samples": np.ones((20, 4))}, "samples have shape"),
        ({"samples": np.ones((20, 3)), "task": "classifier", "labels": [5] * 20}, "no class of this network"),
    ],
)
def test_samples_that_do_not_suit_are_named_before_the_first_epoch(data, options, says):
    sound = sound_quant(tier="statistical", **options)
    found = []
    fit(
        small(),
        *data,
        callbacks=[sound, keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: found.append(sound.error))],
    )
    assert says in str(found[0])


# What is proved.


def test_a_given_box_needs_no_observation(data):
    model, sound = small(), sound_quant(box=([-4.0, -5.0, -6.0], 7.0))
    step = model.make_train_function()
    fit(model, *data, callbacks=[sound])
    assert model.train_function is step
    box = sound.result.certificate.box
    assert (box.lower.tolist(), box.upper.tolist()) == ([-4, -5, -6], [7, 7, 7])
    assert sound.result.certificate.box_source == "given"


def test_a_margin_is_part_of_the_certificate(data):
    sound = sound_quant(margin=0.5)
    fit(small(), *data, callbacks=[sound], batch_size=15)
    certificate, (low, high) = sound.result.certificate, (data[0].min(axis=0), data[0].max(axis=0))
    assert certificate.box_source == "observed on 8 training batches, widened by 0.5 of its width on every side"
    np.testing.assert_allclose(certificate.box.lower, low - 0.5 * (high - low), rtol=1e-6)
    np.testing.assert_allclose(certificate.box.upper, high + 0.5 * (high - low), rtol=1e-6)


def test_everything_is_saved(data, tmp_path):
    sound = sound_quant(out=tmp_path / "out", cost="total_bits", word_lengths=(2, 30))
    model = small()
    fit(model, *data, callbacks=[sound])
    loaded = sq.load(tmp_path / "out")
    assert loaded.certificate.to_json() == sound.result.certificate.to_json()
    saved = load_model(tmp_path / "out" / "qkeras_model.keras")
    error = np.abs(saved.predict(data[0], verbose=0) - model.predict(data[0], verbose=0)).max()
    assert error <= loaded.float32.bound + 1e-5


def test_the_weights_that_early_stopping_restores_are_those_that_are_proved(data):
    best = keras.callbacks.EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)  # the first epoch
    for order in ([sound_quant(), best], [best, sound_quant()]):
        model = small()
        history = fit(model, *data, callbacks=order, epochs=5)
        sound: Any = next(callback for callback in order if isinstance(callback, SoundQuant))
        assert len(history.history["loss"]) == 2
        assert sound.result.certificate.weight_hash == read(model).weight_hash
        assert_untouched(model)


def test_a_callback_after_it_may_use_the_result(data):
    seen, sound = [], sound_quant()
    after = keras.callbacks.LambdaCallback(on_train_end=lambda logs: seen.append(sound.result))
    fit(small(), *data, callbacks=[sound, after])
    assert seen == [sound.result] != [None]


def test_one_instance_serves_several_fits(data):
    x, y = data
    sound, first, second = sound_quant(), small(), small()
    fit(first, x, y, callbacks=[sound], batch_size=15)
    before = sound.result
    fit(second, 2 * x, y, callbacks=[sound], batch_size=30)
    assert_proved(sound, second, 2 * x, 4)
    fit(first, 3 * x, y, callbacks=[sound], batch_size=15, epochs=1)
    assert_proved(sound, first, 3 * x, 4)
    assert before.certificate.box.upper.tolist() == x.max(axis=0).tolist()


def test_two_instances_watch_one_fit(data):
    model, sounds = small(), [sound_quant(), sound_quant(5e-2)]
    compiled_before = model.make_train_function()
    fit(model, *data, callbacks=sounds, batch_size=15)
    for sound in sounds:
        assert sound.error is None
        assert sound.result.certificate.box_source == "observed on 8 training batches"
    assert_untouched(model)
    assert model.train_function is compiled_before


def test_it_can_be_copied_before_training(data):
    model, sound = small(), copy.deepcopy(sound_quant(every=1))
    fit(model, *data, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, data[0], 8)


# What is logged.


def test_logs_reach_history_tensorboard_and_checkpoints(data, tmp_path):
    model, sound = small(), sound_quant(every=2)
    pytest.importorskip("tensorboard")
    files = tmp_path / "{epoch}-{sound_weight_bits:.0f}.weights.h5"
    others = [
        keras.callbacks.TensorBoard(str(tmp_path / "board")),
        keras.callbacks.ModelCheckpoint(str(files), "sound_weight_bits", save_best_only=True, save_weights_only=True),
    ]
    check_history(fit(model, *data, callbacks=[sound, *others], epochs=5), sound)
    assert [file.name[:2] for file in sorted(tmp_path.glob("*.h5"))][:1] == ["2-"]


def test_logs_reach_history_and_checkpoints(data, tmp_path):
    model, sound = small(), sound_quant(every=2)
    files = tmp_path / "{epoch}-{sound_weight_bits:.0f}.weights.h5"
    save = keras.callbacks.ModelCheckpoint(str(files), "sound_weight_bits", save_best_only=True, save_weights_only=True)
    check_history(fit(model, *data, callbacks=[sound, save], epochs=5), sound)
    assert sorted(file.name for file in tmp_path.iterdir())[0].startswith("2-")


def check_history(history, sound):
    for key in KEYS:
        first, second, third, fourth, fifth = history.history[key]
        assert np.isnan(first)
        assert second == third > 0
        assert fourth == fifth > 0
    assert history.history["sound_bound"][-1] <= 1e-2
    assert all(type(value) is float for key in KEYS for value in history.history[key])
    assert sound.result.certificate.weight_hash == read(sound.model).weight_hash


def test_early_stopping_follows_the_bits_without_a_warning(data, caplog):
    sound = sound_quant(every=1)
    stop = keras.callbacks.EarlyStopping("sound_weight_bits", patience=2, min_delta=1e9, restore_best_weights=True)
    with caplog.at_level(logging.WARNING):
        model = small()
        history = fit(model, *data, callbacks=[sound, stop], epochs=9)
    assert len(history.history["sound_weight_bits"]) == 3
    assert sound.result.certificate.weight_hash == read(model).weight_hash
    assert "Early stopping" not in caplog.text


def test_without_every_the_logs_are_as_ever(data):
    history = fit(small(), *data, callbacks=[sound_quant()])
    assert list(history.history) == ["loss"]


def test_ctrl_c_in_a_search_ends_the_fit_with_what_was_proved(data):
    sound = sound_quant(every=1, progress=Pressing())
    with ctrl_c_as_usual():
        history = small().fit(*data, epochs=3, verbose=0, callbacks=[sound])
    assert len(history.epoch) == 1
    assert sound.result.ended_by == "interrupt"
    assert sound.result.certificate.bound <= 1e-2


def test_the_progress_bar_shows_them(data, capsys):
    small().fit(*data, epochs=1, verbose=2, callbacks=[sound_quant(every=1)])
    assert "sound_weight_bits" in capsys.readouterr().out


def test_weights_that_did_not_change_are_not_quantised_twice(data, monkeypatch):
    runs = []
    real = MODULE.quantize
    monkeypatch.setattr(MODULE, "quantize", lambda *a, **k: runs.append(1) or real(*a, **k))
    fit(small(), *data, callbacks=[sound_quant(every=2)], epochs=4)
    assert len(runs) == 2


# What goes wrong.


def warnings_of(caplog):
    return [record for record in caplog.records if record.name == "sound_qkeras" and record.levelno >= logging.WARNING]


def test_a_model_that_cannot_be_quantised_trains_and_is_reported_once_and_early(data, caplog):
    epochs_before = []
    caplog.handler.addFilter(lambda record: epochs_before.append(len(history_so_far)) or True)
    history_so_far = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: history_so_far.append(epoch))
    model = compiled(keras.Sequential([LAYERS.Input((3,)), LAYERS.Dense(4, "softmax", name="soft"), LAYERS.Dense(1)]))
    sound = sound_quant(every=1)
    history = fit(model, *data, callbacks=[sound, count], epochs=3)
    assert list(history.history) == ["loss"]
    assert len(history.history["loss"]) == 3
    assert sound.result is None
    assert isinstance(sound.error, UnsupportedLayerError)
    assert "soft" in str(sound.error)
    assert [str(sound.error) in record.getMessage() for record in warnings_of(caplog)] == [True]
    assert epochs_before == [0]
    assert_untouched(model)


def test_an_eps_that_cannot_be_reached_is_reported_once(data, caplog):
    model, sound = small(), sound_quant(1e-9, word_lengths=(2, 6), every=1)
    history = fit(model, *data, callbacks=[sound], epochs=3)
    assert len(history.history["loss"]) == 3
    assert np.isnan(history.history["sound_bound"]).all()
    assert isinstance(sound.error, InfeasibleError)
    assert sound.error.best_bound > 1e-9
    assert sound.result is None
    assert len(warnings_of(caplog)) == 1
    assert_untouched(model)
    sound.eps = 1e-2
    sound._options["word_lengths"] = (2, 40)
    fit(model, *data, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, data[0], 8)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"eps": [1e-2, 1e-2]}, "eps has 2 numbers"), ({"box": ([0, 0], [1, 1])}, r"shape \(2,\)")],
)
def test_what_does_not_fit_the_model_is_reported_before_training(data, caplog, options, says):
    sound = sound_quant(**options)
    fit(small(), *data, callbacks=[Begin(sound, says), sound, Begin(sound, says)])
    assert sound.result is None
    assert len(warnings_of(caplog)) == 1


class Begin(keras.callbacks.Callback):
    """Looks at the error before the first batch."""

    def __init__(self, sound, says):
        super().__init__()
        self.sound, self.says = sound, says

    def on_epoch_begin(self, epoch, logs=None):
        assert isinstance(self.sound.error, InputError)
        assert re.search(self.says, str(self.sound.error))


def test_diverged_weights_are_reported(data, caplog):
    model, sound = small(), sound_quant()
    ruin = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: model.layers[0].kernel.assign(np.full((3, 4), np.nan))
    )
    history = fit(model, *data, callbacks=[ruin, sound])
    assert len(history.history["loss"]) == 2
    assert "NaN" in str(sound.error)
    assert sound.result is None


def test_batches_with_nan_are_reported(data):
    x = data[0].copy()
    x[7, 1] = np.nan
    model, sound = small(), sound_quant()
    model.trainable = False  # or the weights would be NaN too
    compiled(model)
    fit(model, x, data[1], callbacks=[sound])
    assert "training batches hold NaN" in str(sound.error)


def test_two_inputs_are_observed_in_one_box(data):
    sources = [keras.Input((3,)), keras.Input((3,))]
    model, sound = compiled(keras.Model(sources, LAYERS.Dense(1)(LAYERS.concatenate(sources)))), sound_quant()
    x = data[0].astype(np.float32)
    fit(model, [x, 2.0 * x], data[1], callbacks=[sound])
    assert sound.error is None
    found = sound.result.certificate.box
    assert np.array_equal(found.lower, np.concatenate([x.min(axis=0), 2.0 * x.min(axis=0)]))
    assert np.array_equal(found.upper, np.concatenate([x.max(axis=0), 2.0 * x.max(axis=0)]))
    assert_untouched(model)


def test_a_training_function_that_never_calls_train_step_is_reported(data):
    class Odd(keras.Sequential):
        def make_train_function(self, force=False):
            def train_function(iterator):
                next(iterator)
                return {"loss": tf.constant(0.0)}

            self.train_function = train_function
            return train_function

    model, sound = small(kind=Odd), sound_quant()
    fit(model, *data, callbacks=[sound])
    assert "no training batch was observed" in str(sound.error)
    assert "box=" in str(sound.error)


def test_a_bug_in_quantisation_does_not_cost_the_training(data, monkeypatch, caplog):
    monkeypatch.setattr(MODULE, "quantize", lambda *_, **__: 1 / 0)
    model, sound = small(), sound_quant()
    history = fit(model, *data, callbacks=[sound])
    assert len(history.history["loss"]) == 2
    assert isinstance(sound.error, ZeroDivisionError)
    assert_untouched(model)


def test_a_save_that_fails_does_not_cost_the_result(data, tmp_path):
    model, sound = small(), sound_quant(out=tmp_path / "out")
    (tmp_path / "out").write_text("in the way", encoding="utf-8")
    fit(model, *data, callbacks=[sound])
    assert sound.result.certificate.bound <= 1e-2
    assert "out" in str(sound.error)


# What is left behind.


@pytest.mark.parametrize("cause", ["data", "batch", "epoch"])
def test_a_fit_that_fails_leaves_the_model_as_it_was(data, cause):
    x, y = data

    def pairs():
        yield x, y
        if cause == "data":
            raise RuntimeError("the disk is gone")

    signature = (tf.TensorSpec((None, 3), tf.float32), tf.TensorSpec((None, 1), tf.float32))
    dataset = tf.data.Dataset.from_generator(pairs, output_signature=signature)
    model, sound = small(), sound_quant()
    others = {"batch": [Stop("on_train_batch_end")], "epoch": [Stop("on_epoch_end")]}.get(cause, [])
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        fit(model, dataset, callbacks=[sound, *others])
    assert "train_step" not in vars(model)
    assert sound.result is None
    # Training goes on, with this callback and without.
    fit(model, x, y, callbacks=[])
    assert_untouched(model)
    fit(model, x, y, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, x, 8)
    assert_untouched(model)


def test_an_interrupt_inside_a_step_restores_at_once(data):
    class Interrupted(WithStep):
        def train_step(self, data):
            raise KeyboardInterrupt

    model, sound = small(kind=Interrupted), sound_quant()
    with pytest.raises(KeyboardInterrupt):
        fit(model, *data, callbacks=[sound])
    assert_untouched(model)


def test_the_compiled_training_function_of_an_earlier_fit_is_put_back(data):
    model = small()
    fit(model, *data, callbacks=[])
    before = model.train_function
    fit(model, *data, callbacks=[sound_quant()])
    assert model.train_function is before


def test_a_train_step_of_the_instance_survives(data):
    model, sound, calls = small(run_eagerly=True), sound_quant(), []
    inner = model.train_step
    model.train_step = mine = lambda data: calls.append(1) or inner(data)
    fit(model, *data, callbacks=[sound], batch_size=15)
    assert_proved(sound, model, data[0], 8)
    assert vars(model)["train_step"] is mine
    assert len(calls) == 8


def test_whole_models_can_be_saved_in_the_middle(data, tmp_path):
    model, sound = small(), sound_quant()
    saves = [keras.callbacks.ModelCheckpoint(str(tmp_path / name)) for name in ("model.h5", "model.keras", "saved")]
    fit(model, *data, callbacks=[sound, *saves], batch_size=15, epochs=1)
    assert_proved(sound, model, data[0], 4)
    for name in ("model.h5", "model.keras", "saved"):
        assert read(tmp_path / name).weight_hash == read(model).weight_hash


def test_evaluation_and_prediction_ignore_it(data):
    model, sound = small(), sound_quant()
    model.evaluate(*data, verbose=0, callbacks=[sound])
    model.predict(data[0], verbose=0, callbacks=[sound])
    assert "train_step" not in vars(model)
    assert sound.result is None


# What is refused when it is made.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"eps": -1}, "eps is -1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": "tight"}, "eps"),
        ({"box": (1, 0)}, "empty"),
        ({"box": (0, float("inf"))}, "infinity"),
        ({"box": ([0, 0], [1, 1, 1])}, "shapes"),
        ({"box": np.zeros((0, 3))}, "none"),
        ({"cost": "money"}, "weight_bits"),
        ({"every": 0}, "every is 0"),
        ({"every": 1.5}, r"every is 1\.5"),
        ({"every": True}, "every is True"),
        ({"margin": -1}, "margin"),
        ({"effort": "heroic"}, "effort"),
        ({"word_lengths": (1, 0)}, "word_lengths"),
    ],
)
def test_refused_at_once(options, says):
    with pytest.raises(InputError, match=says):
        SoundQuant(**{"eps": 1e-3, **options})


def test_a_missing_solver_or_directory_is_refused_at_once(tmp_path):
    with pytest.raises(DependencyError, match="no_such"):
        SoundQuant(1e-3, solver="no_such")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="file"):
        SoundQuant(1e-3, out=tmp_path / "file")


def test_arguments_by_position_as_documented():
    sound = SoundQuant(1e-3, (-1, 1), "total_bits", 3, None)
    assert (sound.eps, sound.box, sound.every, sound.out) == (1e-3, (-1, 1), 3, None)
