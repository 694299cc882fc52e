"""Training towards the float network: no labels are needed, and what is claimed holds."""

from __future__ import annotations

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.cli import OK, main
from sound_qkeras.errors import InputError
from sound_qkeras.fixed_point import Format
from sound_qkeras.keras_io.train.blocks import students
from sound_qkeras.keras_io.train.finetuning import DISTANCE
from sound_qkeras.keras_io.train.latent import Grid, Latent, latents_of
from sound_qkeras.keras_io.train.student import falling
from sound_qkeras.keras_io.write.writer import to_qkeras
from tests.results import random_result

from .models import LAYERS, keras

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.keras, pytest.mark.slow]
FAST = {"effort": "fast"}
EPOCHS = 8
SOFTMAX = np.random.default_rng(1).uniform(-1, 1, (400, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def classes():
    """A classifier with few bits, its inputs, and labels; the samples of its tier are not among them."""
    keras.utils.set_random_seed(0)
    x = SOFTMAX
    y = (x[:, 0] * x[:, 1] > 0).astype(int) + (x[:, 2] > 0.5)
    layers = [LAYERS.Dense(16, activation="relu"), LAYERS.Dense(8, activation="relu"), LAYERS.Dense(3, "softmax")]
    model = keras.Sequential([LAYERS.Input((4,)), *layers])
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=25, verbose=0)
    result = sq.quantize(model, 4.0, (-1, 1), tier="statistical", samples=x[:100], coverage=0.5, **FAST)
    return result, x[100:], y[100:]


@pytest.fixture(scope="module")
def taught(classes):
    result, x, _ = classes
    return sq.finetune(result, x, EPOCHS, teacher=True, **FAST)


def divergence(result, x):
    """Mean of Kullback and Leibler's, between the softmax of float and of fixed-point logits, in numpy."""

    def log_softmax(logits):
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    wanted, found = log_softmax(result.pair.reference.evaluate(x)), log_softmax(result.simulate(x))
    return np.mean(np.sum(np.exp(wanted) * (wanted - found), axis=1))


def formats_of(result):
    return {name: (codes.kernel_format, codes.bias_format) for name, codes in result.pair.parameters.items()}


def test_without_labels_it_comes_nearer_to_the_float_network(classes, taught):
    before, x, _ = classes
    record = taught.finetuning
    assert set(record.after) == {DISTANCE}
    assert record.trained[DISTANCE] == pytest.approx(0.0, abs=1e-6)
    assert record.after[DISTANCE] < 0.5 * record.before[DISTANCE]
    assert record.before[DISTANCE] == pytest.approx(divergence(before, x), rel=1e-3)
    assert record.after[DISTANCE] == pytest.approx(divergence(taught, x), rel=1e-3)
    assert record.kept_epoch > 0
    assert f"{DISTANCE} {record.before[DISTANCE]:.4g} ->" in taught.summary()


def test_formats_stay_and_the_new_claim_holds(classes, taught):
    before = classes[0]
    assert formats_of(taught) == formats_of(before)
    sq.check(taught.pair, taught.certificate)
    assert taught.certificate.eps.tolist() == before.certificate.eps.tolist()
    with sq.float64():
        emitted = taught.to_qkeras(dtype="float64")(3.0 * SOFTMAX.astype(np.float64)).numpy()
    assert np.array_equal(emitted, taught.simulate(3.0 * SOFTMAX))


def test_labels_are_measured_and_change_nothing(classes, taught):
    result, x, y = classes
    found = sq.finetune(result, (x, y), EPOCHS, teacher=True, **FAST)
    assert found.pair.code_hash == taught.pair.code_hash
    assert set(found.finetuning.after) == {DISTANCE, "accuracy"}
    accuracy = np.mean(found.simulate(x).argmax(axis=1) == y)
    assert found.finetuning.after["accuracy"] == pytest.approx(accuracy)
    mixed = sq.finetune(result, x, 2, teacher=True, validation=(x, y), monitor="accuracy", **FAST)
    assert set(mixed.finetuning.after) == {DISTANCE, "accuracy"}
    assert mixed.finetuning.measured_on == "validation data"


def test_a_dataset_of_inputs_is_as_good_as_one_of_pairs(classes):
    result, x, y = classes
    alone, pairs = (tf.data.Dataset.from_tensor_slices(data).batch(32) for data in (x, (x, y)))
    found = [sq.finetune(result, data, 2, teacher=True, **FAST) for data in (alone, pairs)]
    assert found[0].pair.code_hash == found[1].pair.code_hash
    assert found[0].finetuning.changed > 0


@pytest.mark.parametrize("tier", ["sound", "local"])
def test_a_regression_comes_nearer_in_other_tiers(tier):
    result = few_bits(tier)
    x = np.random.default_rng(0).uniform(-1, 1, (256, 3))
    found = sq.finetune(result, x, 10, teacher=True, **FAST)
    sq.check(found.pair, found.certificate)
    assert found.certificate.tier == tier
    distances = [np.mean((r.simulate(x) - r.pair.reference.evaluate(x)) ** 2) for r in (result, found)]
    assert distances[1] < 0.9 * distances[0]
    assert found.finetuning.after[DISTANCE] == pytest.approx(distances[1], rel=1e-3)


def few_bits(tier):
    network = random_result(sizes=(3, 12, 2)).pair.reference
    near = {"samples": np.zeros((4, 3)), "radius": 0.1} if tier == "local" else {}
    return sq.quantize(network, 0.3, (-1, 1), tier=tier, **near, **FAST)


def test_several_inputs_and_outputs_are_one_list():
    keras.utils.set_random_seed(0)
    a, b = LAYERS.Input((2,), name="a"), LAYERS.Input((3,), name="b")
    hidden = LAYERS.Dense(6, activation="relu")(LAYERS.Concatenate()([a, b]))
    ends = [LAYERS.Dense(1, "sigmoid", name="one")(hidden), LAYERS.Dense(2, name="two")(hidden)]
    result = sq.quantize(keras.Model([a, b], ends), 0.5, (-1, 1), **FAST)
    rng = np.random.default_rng(0)
    x = [rng.uniform(-1, 1, (96, size)) for size in (2, 3)]
    found = sq.finetune(result, x, 10, teacher=True, **FAST)
    assert found.finetuning.after[DISTANCE] < found.finetuning.before[DISTANCE]
    sq.check(found.pair, found.certificate)
    named = sq.finetune(result, {"a": x[0], "b": x[1]}, 10, teacher=True, **FAST)
    assert named.pair.code_hash == found.pair.code_hash


def test_every_block_is_taught_what_the_float_network_has_at_its_end():
    keras.utils.set_random_seed(0)
    image = LAYERS.Input((6, 6, 2))
    first = LAYERS.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    inner = LAYERS.Conv2D(4, 3, strides=2, padding="same", name="inner")(first)
    beside = LAYERS.Conv2D(4, 1, strides=2, name="beside")(first)
    joined = LAYERS.ReLU()(LAYERS.Add()([inner, beside]))
    model = keras.Model(image, LAYERS.Dense(2, name="last")(LAYERS.Flatten()(joined)))
    result = sq.quantize(model, 8.0, (-1, 1), **FAST)
    pair, x = result.pair, np.random.default_rng(0).uniform(-1, 1, (256, 6, 6, 2)).astype(np.float32)
    emitted = to_qkeras(pair, scaled=False)
    latents = latents_of(pair, emitted)
    trained, real, codes = [], pair.network.evaluate_all(x), pair.simulate_all(x)
    for name, student in zip(latents, students(pair, emitted, latents), strict=True):
        trained.append([layer.name for layer in emitted.layers if layer.trainable and layer.trainable_weights])
        found, wanted = student(x).numpy(), student.teacher(x).numpy()
        (end,) = (
            node for node in real if real[node].shape == wanted.shape and np.allclose(real[node], wanted, atol=1e-5)
        )
        assert np.array_equal(found, np.ldexp(codes[end].astype(float), -pair.fractional_bits[end]))
        assert end in pair.formats or name == "last"
    assert trained == [[name] for name in latents]
    better = sq.finetune(result, x, 4, teacher=True, blocks=True, **FAST)
    assert better.finetuning.after[DISTANCE] < better.finetuning.before[DISTANCE]
    sq.check(better.pair, better.certificate)


def test_a_weight_moves_in_steps_of_its_format_and_settles_in_the_middle_of_its_cell():
    grid = Grid.of(np.zeros((16, 2), np.int64), Format(2, 0, True))  # codes -2 to 1, steps of 0.5
    latent = Latent(tf.Variable(tf.zeros((16, 2))), grid, np.zeros((16, 2)))
    latent.variable.assign_add(tf.constant([[0.1, -9.0]] * 16))  # what an optimizer did
    latent.follow(tf.zeros((16, 2)), 0.0)
    # 16 inputs: 4 steps a unit, and no further than the lowest code.
    np.testing.assert_allclose(latent.variable.numpy()[0], [0.1 * 4 * 0.5, -1.0], rtol=1e-6)
    for _ in range(40):
        latent.follow(latent.variable.value(), 0.05)
    np.testing.assert_allclose(latent.variable.numpy()[0], [0.0, -1.0], atol=0.01)


def test_rates_are_smaller_where_there_are_more_steps():
    few, many = (falling(4, batches) for batches in (10, 1000))
    assert [few.schedule(n) > few.schedule(n + 1) for n in range(3)] == [True] * 3
    assert many.schedule(0) == pytest.approx(few.schedule(0) / 10)


def test_what_does_not_suit_a_teacher_is_refused():
    x, y = np.zeros((4, 3)), np.zeros((4, 2))
    for data, options, words in (
        (x, {}, "the data are ndarray; accepted: \\(x, y\\)"),
        ("x.npy", {"teacher": True}, "accepted: inputs alone"),
        (np.zeros((4, 5)), {"teacher": True}, "samples have shape"),
        (x, {"teacher": True, "metrics": ["mae"]}, "metrics are given, but no targets"),
        (x, {"teacher": True, "monitor": "accuracy"}, "monitor is 'accuracy'; accepted: what is measured, loss"),
        (tf.data.Dataset.from_tensors(np.zeros(3)), {"teacher": True}, "batch it"),
        ((x, y), {"blocks": True}, "blocks need a teacher"),
        ((x, y), {"teacher": "model.keras"}, "teacher is 'model.keras'; accepted: True or False"),
    ):
        with pytest.raises(InputError, match=words):
            sq.finetune(random_result(), data, 1, **options)


def test_held_out_samples_are_no_lesson(classes):
    result = classes[0]
    with pytest.raises(InputError, match="50 of the 50 held-out samples"):
        sq.finetune(result, SOFTMAX, 1, teacher=True)


def test_the_command_does_what_the_function_does(classes, taught, tmp_path, capsys):
    result, x, _ = classes
    result.save(tmp_path / "out")
    np.save(tmp_path / "x.npy", x)
    to = tmp_path / "finetuned"
    line = ["finetune", str(tmp_path / "out"), "--data", str(tmp_path / "x.npy"), "--teacher", "--epochs", str(EPOCHS)]
    assert main([*line, "--effort", "fast", "--out", str(to)]) == OK
    found = sq.load(to)
    assert found.pair.code_hash == taught.pair.code_hash
    printed = capsys.readouterr().out.splitlines()
    assert all(one in printed for one in found.lines)


@pytest.mark.parametrize(("tier", "labelled"), [("statistical", True), ("sound", False)])
def test_every_network_that_is_tried_for_an_accuracy_is_trained_on(classes, tier, labelled):
    result, x, y = classes
    given = {"samples": x[:200], "labels": y[:200], "tier": tier, "exact": tier == "sound"}
    train = (x[200:], y[200:]) if labelled else x[200:]
    found = sq.quantize(result.pair.reference, box=(-1, 1), max_drop=0.05, train=train, epochs=2, **given, **FAST)
    assert found.accuracy.lost <= 0.05
    assert found.finetuned
    assert found.certificate.exact == given["exact"]
    assert ("distance" in found.finetuning.summary) != labelled
    held_out = found.accuracy.samples
    with pytest.raises(InputError, match=f"of the {held_out} held-out samples are among the data that train"):
        sq.quantize(result.pair.reference, box=(-1, 1), max_drop=0.05, train=x, **given, **FAST)
