"""Training on with formats fixed: the task gets better, and what is claimed afterwards holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.cli import OK, main
from sound_qkeras.errors import InfeasibleError, InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.train.data import Task
from sound_qkeras.keras_io.train.finetuning import train
from sound_qkeras.keras_io.train.latent import Grid, Latent, latents_of, with_values
from sound_qkeras.keras_io.write.writer import to_qkeras
from sound_qkeras.network.ops import AffineCodes, AveragePool
from tests.networks import by_channel
from tests.results import content, make_result, random_result

from .models import LAYERS, keras

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.keras, pytest.mark.slow]
EXACT = {"effort": "fast"}


def fitted(layers, x, y, loss, epochs=25):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([LAYERS.Input(x.shape[1:]), *layers])
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def regression():
    x = np.random.default_rng(0).uniform(-1, 1, (384, 3)).astype(np.float32)
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:]
    model = fitted(
        [LAYERS.Dense(10, activation="relu"), LAYERS.Dense(6, activation="relu"), LAYERS.Dense(1)], x, y, "mse"
    )
    return sq.quantize(model, 1.0, (-1, 1), effort="fast"), (x, y)


@pytest.fixture(scope="module")
def classes():
    x = np.random.default_rng(1).uniform(-1, 1, (400, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(int) + (x[:, 2] > 0.5)
    layers = [LAYERS.Dense(12, activation="relu"), LAYERS.Dense(3, activation="softmax")]
    return fitted(layers, x, y, "sparse_categorical_crossentropy"), x, y


@pytest.fixture(scope="module")
def trained_on(regression):
    result, data = regression
    return sq.finetune(result, data, 5, **EXACT)


def exact(result, x):
    with sq.float64():
        return np.array_equal(result.to_qkeras(dtype="float64")(x.astype(np.float64)).numpy(), result.simulate(x))


def formats_of(result):
    return {name: (p.kernel_format, p.bias_format) for name, p in result.pair.parameters.items()}


def test_the_loss_of_a_regression_falls_and_the_new_claim_holds(regression, trained_on):
    before, (x, y) = regression
    record = trained_on.finetuning
    assert trained_on.finetuned
    assert not before.finetuned
    assert record.after["loss"] < 0.8 * record.before["loss"]
    assert record.changed > 0
    assert record.kept_epoch > 0
    found = trained_on.simulate(x)
    assert np.mean((found - y) ** 2) == pytest.approx(record.after["loss"], rel=1e-3)
    assert np.mean((before.simulate(x) - y) ** 2) == pytest.approx(record.before["loss"], rel=1e-3)
    sq.check(trained_on.pair, trained_on.certificate)
    assert trained_on.certificate.weight_hash == before.certificate.weight_hash
    assert trained_on.observed_error <= trained_on.certificate.bound
    assert "fine-tuned: loss" in trained_on.summary()


def test_formats_of_weights_and_steps_of_results_stay(regression, trained_on):
    before = regression[0]
    assert formats_of(trained_on) == formats_of(before)
    for name, output in before.pair.formats.items():
        assert trained_on.pair.formats[name].fractional_bits == output.fractional_bits


def test_the_models_compute_what_is_certified(regression, trained_on):
    assert exact(trained_on, regression[1][0])
    assert exact(trained_on, np.random.default_rng(2).uniform(-1, 1, (1000, 3)))


def test_it_is_saved_and_loaded(trained_on, tmp_path):
    loaded = sq.load(trained_on.save(tmp_path / "out"))
    assert content(loaded) == content(trained_on)
    assert loaded.finetuning == trained_on.finetuning
    sq.check(loaded.pair, loaded.certificate)
    page = loaded.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Fine-tuned, loss on the training data" in page
    assert loaded.certificate.eps_source in page


def test_the_same_seed_gives_the_same_integers(regression, trained_on):
    result, data = regression
    assert sq.finetune(result, data, 5, **EXACT).pair.code_hash == trained_on.pair.code_hash


def test_a_tolerance_that_is_given_holds_or_is_refused(regression):
    result, data = regression
    with pytest.raises(InfeasibleError) as refused:
        sq.finetune(result, data, 2, eps=1e-3, **EXACT)
    enough = 1.01 * refused.value.best_bound
    found = sq.finetune(result, data, 2, eps=enough, **EXACT)
    assert found.certificate.eps.tolist() == [enough]
    assert found.certificate.eps_source == "accepted after fine-tuning"


def test_only_accepted_epochs_are_kept(regression):
    result, data = regression
    asked = []

    def trained(accepts):
        task = Task.of(result.pair.reference, data, None, "mse", (), 32, 0)
        return train(result.pair, task, "adam", 2, "loss", accepts, lambda done: None)

    refused = trained(lambda pair: asked.append(pair.code_hash))  # None: no epoch is accepted
    assert refused.kept_epoch == 0
    assert refused.pair is result.pair
    assert asked
    first = trained(lambda pair: pair.code_hash == asked[0])
    assert first.kept_epoch > 0
    assert first.pair.code_hash == asked[0]


def test_training_that_helps_nothing_leaves_every_integer(regression):
    result, data = regression
    found = sq.finetune(result, data, 1, optimizer=keras.optimizers.SGD(1e6), **EXACT)
    assert found.finetuning.kept_epoch == 0
    assert found.pair.code_hash == result.pair.code_hash
    assert np.array_equal(found.certificate.eps, result.certificate.eps)


def test_the_epoch_is_chosen_by_what_is_monitored(classes):
    model, x, y = classes
    before = sq.quantize(model, 1.0, (-1, 1), effort="fast")

    class Wrong(keras.metrics.SparseCategoricalAccuracy):
        """The share of wrong classes."""

        def result(self):
            return 1.0 - super().result()

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    right = {"loss": loss, "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")], **EXACT}
    kept = sq.finetune(before, (x, y), 4, monitor="accuracy", **right).finetuning
    assert kept.kept_epoch > 0
    assert kept.after["accuracy"] > kept.before["accuracy"]
    wrong = {"loss": loss, "metrics": [Wrong(name="wrong")], **EXACT}
    found = sq.finetune(before, (x, y), 4, monitor="wrong", **wrong).finetuning
    assert (found.kept_epoch, found.changed) == (kept.kept_epoch, kept.changed)
    wrong["metrics"] = [Wrong(name="no_accuracy")]  # large is good: nothing was as wrong as the start
    assert sq.finetune(before, (x, y), 4, monitor="no_accuracy", **wrong).finetuning.kept_epoch == 0
    with pytest.raises(InputError, match="monitor"):
        sq.finetune(before, (x, y), 1, monitor="auc", **EXACT)


def test_what_the_caller_gave_is_not_changed(regression):
    result, (x, y) = regression
    optimizer, metric, before = keras.optimizers.Adam(1e-3), keras.metrics.MeanAbsoluteError(), content(result)
    for _ in range(2):
        found = sq.finetune(result, (x, y), 1, optimizer=optimizer, loss="mae", metrics=[metric], **EXACT)
    assert len(optimizer.variables) <= 2
    assert set(found.finetuning.after) == {"loss", "mean_absolute_error"}
    assert content(result) == before


def test_a_dataset_and_validation_data(regression):
    result, (x, y) = regression
    dataset = tf.data.Dataset.from_tensor_slices((x[:256], y[:256])).batch(32)
    found = sq.finetune(result, dataset, 2, validation=(x[256:], y[256:]), **EXACT)
    assert found.finetuning.measured_on == "validation data"
    assert np.mean((found.simulate(x[256:]) - y[256:]) ** 2) == pytest.approx(found.finetuning.after["loss"], rel=1e-3)
    sq.check(found.pair, found.certificate)


@pytest.mark.parametrize("tier", ["sound", "local", "statistical"])
def test_a_classifier_in_every_tier(classes, tier):
    model, x, y = classes
    options = {"sound": {}, "local": {"samples": x[:30], "radius": 0.01}, "statistical": {"samples": x[:100]}}[tier]
    result = sq.quantize(model, 4.0, (-1, 1), effort="fast", tier=tier, **options)
    found = sq.finetune(result, (x[100:], y[100:]), 4, **EXACT)
    record = found.finetuning
    assert record.after["loss"] < record.before["loss"]
    assert set(record.after) == {"loss", "accuracy"}
    assert np.mean(found.simulate(x[100:]).argmax(axis=1) == y[100:]) == pytest.approx(record.after["accuracy"])
    sq.check(found.pair, found.certificate)
    assert found.certificate.tier == tier
    assert formats_of(found) == formats_of(result)
    assert exact(found, 3.0 * x)


def test_untouched_samples_stay_untouched(classes):
    model, x, y = classes
    result = sq.quantize(model, 4.0, (-1, 1), effort="fast", tier="statistical", samples=x[:60])
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
    for data, validation in (((x, y), None), (dataset, None), ((x[60:], y[60:]), (x, y))):
        with pytest.raises(InputError, match="30 of the 30 held-out samples"):
            sq.finetune(result, data, 1, validation=validation)


def test_each_channel_keeps_its_format():
    result = random_result(sizes=(3, 6, 2))
    rng = np.random.default_rng(0)
    parameters = {name: by_channel(codes, rng) for name, codes in result.pair.parameters.items()}
    result = dataclasses.replace(result, pair=dataclasses.replace(result.pair, parameters=parameters))
    x = rng.uniform(-1, 1, (128, 3))
    found = sq.finetune(result, (x, np.sin(x[:, :2])), 2, optimizer=keras.optimizers.Adam(3e-2), **EXACT)
    sq.check(found.pair, found.certificate)
    assert found.finetuning.changed > 0
    assert np.mean((found.simulate(x) - np.sin(x[:, :2])) ** 2) == pytest.approx(
        found.finetuning.after["loss"], rel=1e-3
    )
    for name, codes in found.pair.parameters.items():
        assert codes.channel_formats == parameters[name].channel_formats


def test_a_channel_of_zeros_may_get_values_that_no_other_channel_has():
    """Its coarse step is beyond what the format of all channels holds."""
    own = (Format(3, 0, True), Format(1, 3, False))
    codes = AffineCodes(np.array([[-3, 0]]), Format(3, 0, True), np.zeros(2, np.int64), Format(1, 1, False), own)
    kernel = Latent(tf.Variable(np.zeros((1, 2), np.float32)), Grid.of_kernel(codes), np.array([[-0.75, 0.0]]))
    found = with_values(codes, (kernel,), [np.array([[-0.5, 5.0]], np.float32)])
    assert found.kernel.tolist() == [[-2, 16]]
    assert found.kernel_format.contains(found.kernel_value, found.kernel_value)
    assert found.channel_formats == own


def test_weights_end_within_formats_that_qkeras_cannot_say(monkeypatch):
    """Formats with negative integer bits become wider ones in QKeras: nothing may settle in the part that is not theirs."""
    small, inside, codes = make_small(random_result()), [], Latent.codes

    def watched(self, value):
        inside.append(np.all(self.lower <= value) and np.all(value <= self.upper))
        return codes(self, value)

    monkeypatch.setattr(Latent, "codes", watched)
    x = np.random.default_rng(0).uniform(-1, 1, (128, 3))
    y = 50.0 * x[:, :2]
    found = sq.finetune(small, (x, y), 2, optimizer=keras.optimizers.Adam(0.3), **EXACT)
    assert found.finetuning.changed > 0
    assert len(inside) == 8
    assert all(inside)
    assert found.finetuning.after["loss"] < found.finetuning.before["loss"]


@pytest.mark.parametrize("kind", ["small formats", "a format for each channel"])
def test_what_is_trained_is_what_it_is_rounded_to(kind):
    rng = np.random.default_rng(0)
    quantized = make_small(random_result()).pair
    if kind != "small formats":
        quantized = random_result().pair
        own = {name: by_channel(codes, rng) for name, codes in quantized.parameters.items()}
        quantized = dataclasses.replace(quantized, parameters=own)
    model = to_qkeras(quantized, scaled=False)
    made = {}
    for name, latents in latents_of(quantized, model).items():
        for latent in latents:
            latent.variable.assign(latent.first + rng.normal(size=latent.first.shape) * 3.0 * latent.upper.max())
            latent.clip()
        values = [latent.variable.numpy() for latent in latents]
        made[name] = with_values(quantized.parameters[name], latents, values)
    trained = dataclasses.replace(quantized, parameters=made)
    x = rng.uniform(-1, 1, (64, 3))
    assert np.array_equal(model(x).numpy(), to_qkeras(trained)(x).numpy())
    assert not np.array_equal(model(x).numpy(), to_qkeras(quantized)(x).numpy())


def make_small(result):
    """The result of the network with a tenth of the weights."""
    network = result.pair.reference
    nodes = [
        dataclasses.replace(node, op=dataclasses.replace(node.op, kernel=np.float32(node.op.kernel / 64).astype(float)))
        if hasattr(node.op, "kernel")
        else node
        for node in network.nodes
    ]
    return make_result(dataclasses.replace(network, nodes=tuple(nodes)), bits=12)


def test_tables_slopes_and_averages_stay():
    keras.utils.set_random_seed(0)
    layers = [
        LAYERS.Conv2D(4, 3, activation="tanh"),
        LAYERS.DepthwiseConv2D(2),
        LAYERS.BatchNormalization(),
        LAYERS.PReLU(alpha_initializer="random_uniform"),
        LAYERS.AveragePooling2D(2),
        LAYERS.Conv2D(3, 1),
        LAYERS.GlobalAveragePooling2D(),
        LAYERS.Dense(2),
    ]
    model = keras.Sequential([LAYERS.Input((7, 7, 1)), *layers])
    result = sq.quantize(model, 0.3, (-1, 1), effort="fast")
    x = np.random.default_rng(0).uniform(-1, 1, (64, 7, 7, 1)).astype(np.float32)
    y = np.stack([x.mean(axis=(1, 2, 3)), x[:, 3, 3, 0]], axis=1)
    found = sq.finetune(result, (x, y), 3, optimizer=keras.optimizers.Adam(1e-2), **EXACT)
    sq.check(found.pair, found.certificate)
    assert found.finetuning.after["loss"] < found.finetuning.before["loss"]
    assert exact(found, x)
    moved = []
    for node, op in result.pair.network.affine():
        old, new = (r.pair.parameters[node.name] for r in (result, found))
        if isinstance(op, AveragePool):
            assert np.array_equal(old.kernel, new.kernel)
        elif not np.array_equal(old.kernel, new.kernel):
            moved.append(node.op.kind)
    assert {"conv", "dense"} <= set(moved)
    frozen = found.to_qkeras(scaled=False)
    latents_of(found.pair, frozen)
    assert not any(isinstance(layer, LAYERS.PReLU) and layer.trainable for layer in frozen.layers)


def test_a_binary_classifier_with_weighted_samples():
    x = np.random.default_rng(3).uniform(-1, 1, (300, 2)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:] > 0).astype(int)
    layers = [LAYERS.Dense(8, activation="relu"), LAYERS.Dense(1, activation="sigmoid")]
    result = sq.quantize(fitted(layers, x, y, "binary_crossentropy"), 4.0, (-1, 1), effort="fast")
    found = sq.finetune(result, (x, y, np.where(y == 1, 2.0, 1.0)), 3, **EXACT)
    record = found.finetuning
    assert set(record.after) == {"loss", "binary_accuracy"}
    assert record.after["loss"] < record.before["loss"]
    assert np.mean((found.simulate(x) > 0) == y) == pytest.approx(record.after["binary_accuracy"])


def test_several_inputs_and_outputs():
    keras.utils.set_random_seed(0)
    a, b = LAYERS.Input((2,), name="a"), LAYERS.Input((3,), name="b")
    hidden = LAYERS.Dense(6, activation="relu")(LAYERS.Concatenate()([a, b]))
    model = keras.Model([a, b], [LAYERS.Dense(1, name="one")(hidden), LAYERS.Dense(2, name="two")(hidden)])
    result = sq.quantize(model, 0.5, (-1, 1), effort="fast")
    rng = np.random.default_rng(0)
    x = [rng.uniform(-1, 1, (96, size)) for size in (2, 3)]
    y = [x[0][:, :1], x[1][:, :2]]
    found = sq.finetune(result, (x, y), 2, optimizer=keras.optimizers.Adam(1e-2), **EXACT)
    assert found.finetuning.after["loss"] < found.finetuning.before["loss"]
    sq.check(found.pair, found.certificate)
    dataset = tf.data.Dataset.from_tensor_slices(({"a": x[0], "b": x[1]}, tuple(y))).batch(16)
    assert sq.finetune(result, dataset, 1, **EXACT).finetuning.before["loss"] == pytest.approx(
        found.finetuning.before["loss"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((4, 3)), "the data are ndarray"),
        ((np.zeros((4, 3)), np.zeros((5, 2))), "samples and targets"),
        ((np.zeros((4, 2)), np.zeros((4, 2))), "samples have shape"),
        ((np.zeros((0, 3)), np.zeros((0, 2))), "samples and targets"),
        ((np.full((4, 3), np.nan), np.zeros((4, 2))), "NaN"),
        (tf.data.Dataset.from_tensors((np.zeros((4, 3)), np.zeros((4, 2)))).repeat(), "never ends"),
        (tf.data.Dataset.from_tensors((np.zeros(3), np.zeros(2))), "batch it"),
        (tf.data.Dataset.from_tensors(np.zeros((4, 3))), "the dataset's elements"),
        ((np.zeros((4, 3)), np.full((4, 2), np.nan)), "targets or weights hold NaN"),
        ((np.zeros((4, 3)), np.array(["a"] * 4)), "no numbers"),
        ((np.zeros((4, 3)), np.array([0, 1, 99, 0])), "1 of 4 labels are no class of this network, label 2, 99"),
        ((np.zeros((4, 3)), np.zeros((4, 5))), "Keras cannot measure the network on these data"),
    ],
)
def test_data_that_do_not_suit_are_refused(data, words):
    with pytest.raises(InputError, match=words):
        sq.finetune(random_result(), data, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"batch_size": 10**30},
        {"eps": -1.0},
        {"effort": "none"},
        {"seed": -1},
        {"loss": "nope"},
        {"optimizer": "nope"},
        {"metrics": ["nope"]},
        {"monitor": "nope"},
    ],
)
def test_options_that_cannot_be_used_are_refused(options):
    with pytest.raises(InputError):
        sq.finetune(random_result(), (np.zeros((4, 3)), np.zeros((4, 2))), **options)


@pytest.mark.parametrize(
    ("end", "y", "loss"),
    [
        ("softmax", np.zeros(8, int), "SparseCategoricalCrossentropy"),
        ("softmax", np.eye(3)[[0] * 8], "CategoricalCrossentropy"),
        (None, np.zeros((8, 1)), "SparseCategoricalCrossentropy"),
        (None, np.zeros((8, 3)), "str"),
    ],
)
def test_the_usual_loss(end, y, loss):
    network = dataclasses.replace(random_result(sizes=(3, 3)).pair.reference, head=end)
    task = Task.of(network, (np.zeros((8, 3)), y), None, None, None, 4, 0)
    assert type(task.loss).__name__ == loss


def test_the_command_does_what_the_function_does(regression, trained_on, tmp_path, capsys):
    result, (x, y) = regression
    result.save(tmp_path / "out")
    files = [str(tmp_path / "x.npy"), str(tmp_path / "data.npz:y")]
    np.save(files[0], x)
    np.savez(tmp_path / "data.npz", y=y)
    to = tmp_path / "finetuned"
    arguments = ["--epochs", "5", "--effort", "fast", "--out", str(to)]
    assert main(["finetune", str(tmp_path / "out"), "--train", *files, *arguments]) == OK
    found = sq.load(to)
    assert found.pair.code_hash == trained_on.pair.code_hash
    printed = capsys.readouterr().out.splitlines()
    assert all(line in printed for line in found.lines)
