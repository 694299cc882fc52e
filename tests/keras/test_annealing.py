"""Training on with formats in force, inside one fit: what comes out is certified, better at few bits, and never in the way."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.callbacks import SoundQuant
from sound_qkeras.errors import InputError
from sound_qkeras.jobs.job import read
from tests.pressing import Pressing, ctrl_c_as_usual

from .models import LAYERS, WithStep, keras

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.keras, pytest.mark.solver, pytest.mark.slow]
EPOCHS = 16


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).uniform(-1, 1, (384, 3)).astype(np.float32)
    return x, np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:]


def compiled(*hidden, kind=keras.Sequential, seed=0, **options):
    keras.utils.set_random_seed(seed)
    hidden = hidden or (LAYERS.Dense(12, activation="relu"), LAYERS.Dense(6, activation="relu"))
    model = kind([LAYERS.Input((3,)), *hidden, LAYERS.Dense(1)])
    rate = keras.optimizers.schedules.CosineDecay(1e-2, EPOCHS * 24)
    model.compile(keras.optimizers.Adam(rate), "mse", **options)
    return model


def annealing(eps=1.0, **options):
    return SoundQuant(eps, **{"box": (-1, 1), "mode": "anneal", "effort": "fast", **options})


def fit(model, data, *callbacks, epochs=EPOCHS, **options):
    return model.fit(*data, epochs=epochs, batch_size=16, verbose=0, callbacks=list(callbacks), **options).history


def kernels_on_their_grids(result, model):
    """Whether every kernel of the model is exactly that of the fixed-point network."""
    codes = result.pair.parameters
    layers = [layer for layer in model.layers if layer.name in codes]
    assert len(layers) == len(codes) == 3
    return all(np.array_equal(layer.kernel.numpy(), codes[layer.name].kernel_value) for layer in layers)


def assert_proved(sound, model):
    assert sound.error is None
    assert sound.result.certificate.weight_hash == read(model).weight_hash
    assert sound.result.certificate.bound <= sound.result.certificate.eps[0] == sound.eps
    sq.check(sound.result.pair, sound.result.certificate)


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}, {"kind": WithStep}],
    ids=["graph", "eager", "steps_per_execution", "jit_compile", "train_step"],
)
def test_the_fit_ends_certified_with_weights_on_their_grids(data, options):
    model, sound = compiled(**options), annealing(box=None)
    history = fit(model, data, sound, epochs=4)
    assert_proved(sound, model)
    assert sound.choices == 1
    assert kernels_on_their_grids(sound.result, model)
    assert history["loss"][-1] < history["loss"][0]
    assert sound.result.certificate.box_source == "observed on 96 training batches"
    assert "train_step" not in vars(model)
    assert not type(model.train_function).__module__.startswith("sound_qkeras")
    with sq.float64():
        exact = sound.result.to_qkeras(dtype="float64")(data[0].astype(np.float64)).numpy()
    assert np.array_equal(exact, sound.result.simulate(data[0]))


def test_weights_are_trained_after_formats_were_chosen(data):
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: seen.append(model.get_weights()[0]))
    model, sound = compiled(), annealing()
    fit(model, data, sound, look, epochs=6)
    step = sound.result.pair.parameters[model.layers[0].name].kernel_format.step
    on_grid = [bool(np.all(kernel / step == np.rint(kernel / step))) for kernel in seen]
    assert on_grid == [False] * 3 + [True] * 3
    moved = np.abs(model.get_weights()[0] - seen[3])
    assert np.count_nonzero(moved) > 0
    assert moved.max() >= step


def classifier(kind="softmax"):
    keras.utils.set_random_seed(0)
    layers = [LAYERS.Dense(12, activation="relu"), LAYERS.Dense(2 if kind == "softmax" else 1, activation=kind)]
    model = keras.Sequential([LAYERS.Input((3,)), *layers])
    loss = "sparse_categorical_crossentropy" if kind == "softmax" else "binary_crossentropy"
    model.compile(keras.optimizers.Adam(1e-2), loss)
    return model


@pytest.mark.parametrize("kind", ["linear", "softmax", "sigmoid"])
def test_a_teacher_takes_the_place_of_targets(data, kind):
    x, y = data
    wrong = np.roll(y, 1, axis=0)
    model, targets, others = compiled(), y, wrong
    if kind != "linear":
        model, targets, others = classifier(kind), (y > 0).astype(int), (wrong > 0).astype(int)
    model.fit(x, targets, epochs=8, verbose=0)
    float_outputs = model.predict(x, verbose=0)
    sound = annealing(3.0, teacher=True, anneal_after=0.0)
    first = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, _: epoch or seen.append(model.predict(x, verbose=0))
    )
    seen = []
    history = fit(model, (x, others), sound, first, epochs=12)  # the targets are of other samples
    far, near = (np.mean((outputs - float_outputs) ** 2) for outputs in (seen[0], model.predict(x, verbose=0)))
    assert near < 0.5 * far
    assert_proved(sound, model)
    assert history["loss"][-1] == pytest.approx(
        model.evaluate(x, others, verbose=0), rel=0.2
    )  # the logs have the user's loss
    assert "compute_loss" not in vars(model)


def test_a_step_that_asks_for_no_loss_trains_without_a_teacher(data, caplog):
    model, sound = compiled(kind=WithStep), annealing(teacher=True)
    with caplog.at_level(logging.WARNING):
        fit(model, data, sound, epochs=4)
    assert caplog.text.count("without a teacher: the model's train_step has no compute_loss") == 1
    assert_proved(sound, model)


def test_predictions_of_another_callback_change_nothing(data):
    model, sound = compiled(), annealing(box=None, anneal_after=0.25)
    look = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: model.predict(data[0], verbose=0))
    fit(model, data, look, sound, epochs=4)
    assert sound.result.certificate.box_source == "observed on 96 training batches"
    assert kernels_on_their_grids(sound.result, model)


def test_few_bits_lose_less_than_when_quantised_after_the_fit(data):
    x, y = data
    gains = []
    for seed in range(3):
        sound = annealing(4.0)
        fit(compiled(seed=seed), data, sound)
        after = SoundQuant(4.0, (-1, 1), effort="fast", keep_architecture=True, rescale_units=False)
        fit(compiled(seed=seed), data, after)
        few, more = sound.result, after.result
        while more.cost.weight_bits < few.cost.weight_bits:  # give the other at least as many bits
            eps = 0.8 * more.certificate.eps[0]
            more = sq.quantize(more.pair.reference, eps, (-1, 1), effort="fast")
            if more.cost.weight_bits >= few.cost.weight_bits:
                break
        losses = [np.mean((result.simulate(x) - y) ** 2) for result in (few, more)]
        gains.append(losses[1] / losses[0])
    assert min(gains) > 1.2


def test_formats_are_chosen_anew_when_the_bound_exceeds_the_tolerance(data):
    # Rounded results take the whole tolerance; training moves what they are multiplied by.
    sound = annealing(
        0.05,
        every=1,
        anneal_after=0.0,
        cost=lambda group, bits: bits * (1.0 if group.kind == "activation" else 1e-3),
    )
    model = compiled()
    history = fit(model, data, sound, epochs=4)
    assert sound.choices > 1
    assert_proved(sound, model)
    assert max(history["sound_bound"]) <= 0.05


def test_validation_and_history_see_rounded_weights(data):
    model, sound = compiled(), annealing(every=2)
    history = fit(model, data, sound, validation_data=data, epochs=6)
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(*data, verbose=0), rel=1e-5)
    assert np.isnan(history["sound_bound"][0])
    assert history["sound_bound"][-1] == sound.result.certificate.bound


def test_inputs_that_the_network_scales_first(data):
    normalise = LAYERS.Normalization(mean=[0.1, -0.2, 0.3], variance=[2.0, 3.0, 0.5])
    model, sound = (
        compiled(normalise, LAYERS.Dense(8, activation="relu"), LAYERS.Dense(6, activation="relu")),
        annealing(),
    )
    fit(model, data, sound, epochs=4)
    assert_proved(sound, model)
    name = model.layers[1].name
    codes = sound.result.pair.parameters[name]
    scaled = model.layers[1].kernel.numpy() / np.sqrt([[2.0], [3.0], [0.5]])
    np.testing.assert_allclose(scaled, codes.kernel_value, rtol=1e-6)
    assert sound.choices == 1


def test_convolutions_and_channels(data):
    x = data[0][:, :, None]
    model = keras.Sequential(
        [LAYERS.Input((3, 1)), LAYERS.Conv1D(4, 2, activation="relu"), LAYERS.Flatten(), LAYERS.Dense(1)]
    )
    model.compile("adam", "mse")
    sound = annealing(0.5, per_channel=True)
    fit(model, (x, data[1]), sound, epochs=4)
    assert_proved(sound, model)
    codes = sound.result.pair.parameters[model.layers[0].name]
    assert codes.channel_formats is not None
    assert np.array_equal(model.layers[0].kernel.numpy().reshape(codes.kernel.shape), codes.kernel_value)


# What goes wrong.


def test_weights_that_another_callback_sets_at_the_end_are_those_that_are_proved(data):
    other = compiled(seed=1).get_weights()
    model, sound = compiled(), annealing(0.05)
    fit(model, data, sound, keras.callbacks.LambdaCallback(on_train_end=lambda _: model.set_weights(other)), epochs=4)
    assert_proved(sound, model)
    assert np.array_equal(model.get_weights()[0], other[0])


def unusable(kind):
    if kind == "folded":
        return compiled(LAYERS.Dense(6), LAYERS.BatchNormalization(), LAYERS.ReLU()), annealing()
    if kind == "two inputs":
        parts = [LAYERS.Input((3,)), LAYERS.Input((3,))]
        model = keras.Model(parts, LAYERS.Dense(1)(LAYERS.Concatenate()(parts)))
        model.compile("adam", "mse")
        return model, annealing(teacher=True)
    if kind == "families":
        return compiled(), annealing(
            4.0, families=("ternary",), tier="statistical", samples=np.zeros((40, 3)), coverage=0.5
        )
    if kind == "distributed":
        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            return compiled(), annealing()
    return compiled(), annealing(1e-3, word_lengths=(2, 4))


@pytest.mark.parametrize("kind", ["folded", "distributed", "infeasible", "families", "two inputs"])
def test_training_goes_on_where_formats_cannot_be_put_into_force(data, kind, caplog):
    model, sound = unusable(kind)
    with caplog.at_level(logging.WARNING):
        x, y = data
    history = fit(model, ([x, x], y) if kind == "two inputs" else data, sound, epochs=4)
    assert len(history["loss"]) == 4
    assert "without formats in force" in caplog.text
    assert sound.choices == 0
    if kind == "families":
        assert "families=('fixed',)" in caplog.text
    elif kind == "infeasible":
        assert sound.result is None
    else:
        assert_proved(sound, model)


def test_a_fit_that_is_interrupted_leaves_the_model_as_it_was(data):
    def stop(epoch, _):
        if epoch == 3:
            raise KeyboardInterrupt

    model, sound = compiled(), annealing()
    with pytest.raises(KeyboardInterrupt):
        fit(model, data, sound, keras.callbacks.LambdaCallback(on_epoch_end=stop))
    assert "train_step" not in vars(model)
    fit(model, data, epochs=1)
    assert "train_step" not in vars(model)
    fit(model, data, sound, epochs=2)
    assert_proved(sound, model)


def test_ctrl_c_while_formats_are_chosen_ends_the_fit_with_what_was_proved(data):
    model, sound = compiled(), annealing(progress=Pressing())
    with ctrl_c_as_usual():
        history = fit(model, data, sound, epochs=4)
    assert len(history["loss"]) == 3
    assert_proved(sound, model)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "warm"}, "mode"),
        ({"anneal_after": 1.5}, "anneal_after"),
        ({"teacher": "model.keras"}, "teacher is 'model.keras'"),
        ({"teacher": True, "mode": "end"}, "accepted: False, or True with mode='anneal'"),
    ],
)
def test_refused_at_once(options, says):
    with pytest.raises(InputError, match=says):
        annealing(**options)
