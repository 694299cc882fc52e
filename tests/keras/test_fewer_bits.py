"""The force towards fewer bits: its gradient, what it does to networks, and that it is never in the way of training."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.callbacks import SoundQuant
from sound_qkeras.errors import InputError, UnsupportedLayerError
from sound_qkeras.jobs.job import read
from sound_qkeras.keras_io.autoqkeras.bit_estimate import bit_estimate, check_estimable

from .models import LAYERS, keras

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.keras, pytest.mark.solver, pytest.mark.slow]
EPOCHS = 30
BOX = tf.constant([-1.0] * 3), tf.constant([1.0] * 3)


def network(*hidden, kind=keras.Sequential, **options):
    keras.utils.set_random_seed(0)
    hidden = hidden or (LAYERS.Dense(12, activation="relu"), LAYERS.Dense(6, activation="relu"))
    model = kind([LAYERS.Input((3,)), *hidden, LAYERS.Dense(1)])
    rate = keras.optimizers.schedules.CosineDecay(1e-2, EPOCHS * 24)
    model.compile(keras.optimizers.Adam(rate), "mse", **options)
    return model


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).uniform(-1, 1, (384, 3)).astype(np.float32)
    return x, np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:]


def fitted(data, strength, model=None, epochs=EPOCHS, eps=1e-3, **options):
    model = model or network()
    sound = SoundQuant(eps, **{"box": (-1, 1), "effort": "fast", "fewer_bits": strength, **options})
    history = model.fit(*data, epochs=epochs, batch_size=16, verbose=0, callbacks=[sound]).history
    return model, sound, history["loss"][-1]


def test_fewer_bits_at_about_the_loss_of_without(data):
    plain, forced = fitted(data, 0.0), fitted(data, 0.05)
    for _, sound, _ in (plain, forced):
        sq.check(sound.result.pair, sound.result.certificate)
    assert forced[1].result.cost.weight_bits < 0.75 * plain[1].result.cost.weight_bits
    assert forced[2] < 1.3 * plain[2]


class WithStep(keras.Sequential):
    """A model with a training step of its own."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        return {"loss": loss}


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": True}, {"kind": WithStep}])
def test_any_training_step_feels_it(data, options):
    forced, sound, _ = fitted(data, 0.5, network(**options), epochs=3, box=None)
    free = fitted(data, 0.0, network(**options), epochs=3, box=None)[0]
    assert sound.error is None
    assert sound.result.certificate.box_source == "observed on 72 training batches"
    assert float(bit_estimate(forced, *BOX)) < float(bit_estimate(free, *BOX)) - 0.1
    assert "apply_gradients" not in vars(forced.optimizer)
    assert not type(forced.train_function).__module__.startswith("sound_qkeras")


def test_it_works_while_formats_are_in_force(data):
    model, sound, _ = fitted(data, 0.1, epochs=4, eps=1.0, mode="anneal")
    assert sound.error is None
    assert sound.choices == 1
    assert sound.result.certificate.weight_hash == read(model).weight_hash


def test_the_estimate_of_one_layer_is_the_cost_models():
    model = keras.Sequential([LAYERS.Input((3,)), LAYERS.Dense(2)])
    model.layers[-1].set_weights([np.array([[1.0, -4.0], [0.5, 1.0], [2.0, 0.0]]), np.zeros(2)])
    # Largest weight 4; two outputs of slope 1, three inputs of size 1 or 3: 2 * 5.
    assert float(bit_estimate(model, tf.constant([-1.0, -3.0, 0.0]), tf.constant([1.0, 3.0, 1.0]))) == pytest.approx(
        np.log(4.0) + np.log(10.0), rel=1e-5
    )


@pytest.mark.parametrize("form", ["linear", "relu", "relu layer"])
def test_the_estimate_of_two_layers_is_the_cost_models(form):
    hidden = [LAYERS.Dense(2, "relu" if form == "relu" else None), *([LAYERS.ReLU()] if form == "relu layer" else [])]
    model = keras.Sequential([LAYERS.Input((1,)), *hidden, LAYERS.Dense(1)])
    model.set_weights([np.array([[2.0, -1.0]]), np.zeros(2), np.array([[3.0], [-5.0]]), np.zeros(1)])
    found = float(bit_estimate(model, tf.constant([-1.0]), tf.constant([1.0])))
    # Each layer has half of the weights. Largest: 2 and 5. The hidden layer is of slope 3 + 5, by half with a ReLU, and hands on
    # values up to 2 and 1 to one output.
    share = 1.0 if form == "linear" else 0.5
    assert found == pytest.approx(
        0.5 * (np.log(2.0) + np.log(8.0 * share) + np.log(5.0) + np.log(3.0)) + (form != "linear") * np.log(3.0),
        rel=1e-5,
    )


def test_units_that_are_stable_count_nothing():
    model = keras.Sequential([LAYERS.Input((3,)), LAYERS.Dense(3, "relu"), LAYERS.Dense(1)])
    ones = np.ones((3, 3))
    found = []
    for bias in ([5.0, 5.0, 5.0], [0.0, 5.0, 5.0], [0.0, -5.0, 5.0], [0.0, 0.0, 0.0]):
        model.layers[0].set_weights([ones, np.array(bias)])
        model.layers[1].set_weights([np.array([[1e-30], [1e-30], [1.0]]), np.zeros(1)])
        with tf.GradientTape() as tape:
            value = bit_estimate(model, *BOX)
        assert np.all(np.isfinite(tape.gradient(value, model.layers[0].kernel)))
        found.append(float(value))
    assert found[1] > found[0]
    assert found[3] > found[2]


@pytest.mark.parametrize(
    "hidden",
    [
        (LAYERS.Dense(4, activation="tanh"),),
        (LAYERS.Dense(4), LAYERS.BatchNormalization()),
        (LAYERS.Reshape((3, 1)), LAYERS.Dense(4), LAYERS.Flatten()),
    ],
)
def test_other_layers_are_named_and_training_goes_on(data, hidden, caplog):
    with caplog.at_level(logging.WARNING):
        model, sound, loss = fitted(data, 0.1, network(*hidden), epochs=1, eps=0.5)
    assert np.isfinite(loss)
    assert sound.result is not None
    assert "without fewer_bits" in caplog.text
    with pytest.raises(UnsupportedLayerError, match="fewer_bits"):
        check_estimable(model)


def test_models_of_another_keras_train_without(data, monkeypatch, caplog):
    monkeypatch.setattr("sound_qkeras.callbacks.sound_quant.edition", lambda model: "keras")
    with caplog.at_level(logging.WARNING):
        _, sound, _ = fitted(data, 0.1, epochs=2)
    assert sound.result is not None
    assert "fewer_bits received a model of keras" in caplog.text


def test_a_branch_is_refused():
    source = keras.Input((3,))
    beside = [LAYERS.Dense(3)(source) for _ in range(2)]
    for tensors, says in ((beside, "branches"), ([source, beside[0]], "Add in fewer_bits")):
        with pytest.raises(UnsupportedLayerError, match=says):
            check_estimable(keras.Model(source, LAYERS.Dense(1)(LAYERS.add(tensors))))


def test_scaled_and_flattened_inputs_are_followed():
    normalise = LAYERS.Normalization(mean=[1.0, 1.0, 1.0], variance=[4.0, 4.0, 4.0])
    scaled = network(normalise, LAYERS.Dropout(0.1), LAYERS.Dense(4), LAYERS.ReLU())
    plain = network(LAYERS.Dense(4), LAYERS.ReLU())
    plain.set_weights(scaled.get_weights()[-4:])
    wide = tf.constant([-1.0] * 3), tf.constant([3.0] * 3)
    assert float(bit_estimate(scaled, *wide)) == pytest.approx(float(bit_estimate(plain, *BOX)), rel=1e-5)


@pytest.mark.parametrize("strength", [-0.1, 1.0, True, "much"])
def test_refused_at_once(strength):
    with pytest.raises(InputError, match="fewer_bits"):
        SoundQuant(1e-3, fewer_bits=strength)
