"""AutoQKeras for real, training, sizes, and the comparison from end to end on a tiny classifier."""

import itertools
import json
from importlib.util import find_spec

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.baselines.gradual_pruning import gradually_pruned, keeping_zeros
from sound_qkeras.baselines.straight_through import kernel_formats, straight_through, with_rounded_weights
from sound_qkeras.errors import InputError, ModelError
from sound_qkeras.keras_io import read_model
from sound_qkeras.keras_io.autoqkeras import training as trainer
from sound_qkeras.keras_io.autoqkeras.conversion import as_keras_2
from sound_qkeras.keras_io.autoqkeras.sizes import ASSUMED_BITS, bit_operations, energy, model_bits
from sound_qkeras.keras_io.autoqkeras.training import Training
from sound_qkeras.study.our_rows import with_zeros
from sound_qkeras.study.plan import Plan
from sound_qkeras.study.subject import subject_of
from sound_qkeras.study.verdict import model_verdict
from tests.keras import models3
from tests.keras.models import LAYERS, keras, qk, sequential

pytestmark = [
    pytest.mark.keras,
    pytest.mark.slow,
    # Not imported here: it would choose Keras 3.
    pytest.mark.skipif(find_spec("keras_tuner") is None, reason="needs the extra [study]"),
]

RNG = np.random.default_rng(0)
X = RNG.uniform(-1.0, 1.0, (120, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int) + (X[:, 3] > 0.5)
QUICK = {
    "trials": 2,
    "modes": ("random",),
    "spaces": ("fair",),
    "search_epochs": 1,
    "epochs": 1,
    "retrained": 1,
    "bits": (6,),
    "effort": "fast",
}


def classifier(**last):
    return sequential(
        LAYERS.Dense(5, activation="relu", name="hidden"), LAYERS.Dense(3, name="last", **last), shape=(4,)
    )


@pytest.fixture(scope="module")
def model():
    return classifier(activation="softmax")


def search(model, directory, **changes):
    from sound_qkeras.keras_io.autoqkeras.search import Settings
    from sound_qkeras.keras_io.autoqkeras.search import search as run

    copy = trainer.copy_of(model)
    trainer.compile_for(copy, "softmax", Training())
    settings = Settings(**{"trials": 3, "epochs": 1, **changes})
    return run(copy, (X[:80], Y[:80]), (X[80:], Y[80:]), directory, settings)


@pytest.mark.parametrize(("mode", "space"), [("random", "fair"), ("bayesian", "shipped"), ("hyperband", "fair")])
def test_the_search_runs_and_its_sizes_are_those_of_the_models(model, tmp_path, mode, space):
    found = search(model, tmp_path / "search", mode=mode, space=space, epochs=2)
    assert 1 <= len(found.trials) <= 3
    assert [trial.score for trial in found.trials] == sorted((t.score for t in found.trials), reverse=True)
    again = found.retrain((X[:80], Y[:80]), (X[80:], Y[80:]), epochs=1)
    assert again.bits.total_bits == again.trial.size
    kinds = {type(layer).__name__ for layer in again.model.layers}
    assert "QDense" in kinds
    if space == "fair":
        for layer in again.model.layers:
            for quantizer in layer.get_quantizers() if hasattr(layer, "get_quantizers") else ():
                assert quantizer is None or type(quantizer).__name__ in ("quantized_bits", "quantized_relu")
                assert getattr(quantizer, "alpha", 1.0) == 1.0
    assert energy(again.model) > 0.0
    assert (bit_operations(again.model) or 0) > 0


def test_an_interrupted_search_finds_what_an_uninterrupted_one_does(model, tmp_path, monkeypatch):
    from sound_qkeras.keras_io.autoqkeras import search as autoqkeras

    whole = search(model, tmp_path / "whole")
    counter, record = itertools.count(1), autoqkeras.record

    def stop(place, seconds):
        if next(counter) == 2:
            raise KeyboardInterrupt
        record(place, seconds)

    with monkeypatch.context() as context:
        context.setattr(autoqkeras, "record", stop)
        with pytest.raises(KeyboardInterrupt):
            search(model, tmp_path / "part")
    resumed = search(model, tmp_path / "part")
    assert resumed.trials == whole.trials
    assert resumed.seconds > 0.0
    with pytest.raises(InputError, match="epochs"):
        search(model, tmp_path / "part", epochs=2)


def test_autoqkeras_counts_our_models_as_we_do():
    network = read_model(classifier())
    result = sq.quantize(network, 0.1, (-1.0, 1.0), cost="total_bits", effort="fast")
    found = model_bits(result.to_qkeras(), input_bits=0)
    cost = result.cost
    assert (found.weight_bits, found.bias_bits, found.activation_bits) == (
        cost.weight_bits,
        cost.bias_bits,
        cost.activation_bits,
    )


def test_bits_and_operations_by_hand():
    model = keras.Sequential(
        [
            LAYERS.Input((4,)),
            qk.QDense(
                5, kernel_quantizer="quantized_bits(6,0,alpha=1.0)", bias_quantizer="quantized_bits(7,0,alpha=1.0)"
            ),
            qk.QActivation("quantized_relu(3,1)"),
            qk.QDense(3, kernel_quantizer="quantized_bits(4,0,alpha=1.0)"),
        ]
    )
    found = model_bits(model)
    assert (found.weight_bits, found.bias_bits) == (6 * 20 + 4 * 15, 7 * 5 + ASSUMED_BITS * 3)
    assert found.activation_bits == ASSUMED_BITS * 4 + 3 * 5
    assert bit_operations(model) == 20 * 6 * ASSUMED_BITS + 15 * 4 * 3


def test_straight_through_is_the_papers_rule():
    """One step of gradient descent on squares: latent weights move by the gradient at the rounded ones."""
    model = sequential(LAYERS.Dense(2, use_bias=False, name="only"), shape=(4,))
    formats = kernel_formats(model, 4)
    rounded = with_rounded_weights(model, formats)
    x, y, rate = X[:16].astype(np.float64), RNG.normal(size=(16, 2)), 0.01
    before = model.get_weights()[0].astype(np.float64)
    output = formats["only"]
    step = 2.0**-output.fractional_bits
    q = step * np.clip(np.rint(before / step), output.min_code, output.max_code)
    np.testing.assert_array_equal(rounded.get_layer("only").get_weights()[0], before)
    np.testing.assert_allclose(rounded.predict(x, verbose=0), x @ q, atol=1e-5)
    rounded.compile(keras.optimizers.legacy.SGD(rate), loss="mse")
    rounded.fit(x, y, batch_size=16, epochs=1, verbose=0)
    moved = before - rate * 2.0 / y.size * x.T @ (x @ q - y)
    limit = max(1.0, 2.0**output.integer_bits)  # where QKeras clips a kernel
    np.testing.assert_allclose(rounded.get_weights()[0], np.clip(moved, -limit, limit), atol=1e-6)


def test_straight_through_counts_weights_alone(model):
    found = straight_through(model, read_model(model), 5, (X, Y), (X, Y), Training(epochs=1))
    assert found.cost.weight_bits == 5 * (4 * 5 + 5 * 3)
    assert found.cost.bias_bits == 32 * 8
    for layer in found.model.layers:
        if layer.weights:
            values = np.asarray(layer.get_quantizers()[0](layer.get_weights()[0]))
            assert len(np.unique(values)) <= 2**5


def test_training_keeps_the_best_epoch_and_never_loses():
    model = classifier(activation="softmax")
    trainer.compile_for(model, "softmax", Training(learning_rate=10.0))
    before = float(model.evaluate(X, Y, verbose=0)[1])
    _, accuracy = trainer.fit_best(model, (X, Y), (X, Y), 3, 16)
    assert accuracy >= before
    assert float(model.evaluate(X, Y, verbose=0)[1]) == pytest.approx(accuracy)


@pytest.mark.parametrize("last", [{"activation": "softmax"}, {}])
@pytest.mark.parametrize("units", [1, 3])
def test_scores_classify_as_the_network_does(last, units):
    if units == 1 and last:
        last = {"activation": "sigmoid"}
    model = sequential(LAYERS.Dense(units, **last), shape=(4,))
    subject = subject_of(model, (X, (X[:, 0] > 0).astype(int)))
    for samples, labels in (subject.train, subject.validation, subject.test):
        np.testing.assert_array_equal(labels, np.asarray(samples)[:, 0] > 0)
    assert subject.measured(subject.scores(model))["agreement"] == 1.0
    sizes = [len(part[0]) for part in (subject.train, subject.validation, subject.test)]
    assert sizes == [72, 24, 24]
    rows = np.concatenate([part[0] for part in (subject.train, subject.validation, subject.test)])
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(X, axis=0))


def test_the_comparison_from_end_to_end(model, tmp_path):
    out = tmp_path / "study"
    study = sq.compare(model, (X, Y), [0.2, 1e-9], out=out, **QUICK)
    names = [row.name for row in study.rows]
    for begin in ("ours, eps 0.2", "uniform 6", "smallest", "per-layer", "multipoint", "straight", "AutoQKeras"):
        assert any(name.startswith(begin) for name in names), begin
    assert all(0.0 <= row.metric <= 1.0 and row.total_bits > 0 for row in study.rows)
    assert len(set(names)) == len(names)
    for row in study.rows:
        if row.bound is not None and row.observed_error is not None:
            assert row.observed_error <= row.bound
    ours, tuned, winner = (
        next(row for row in study.rows if row.name.startswith(name))
        for name in ("ours, eps 0.2", "ours, eps 0.2, fine-tuned", "AutoQKeras")
    )
    assert winner.autoqkeras_bits == winner.total_bits
    for row in (ours, tuned, winner):
        assert row.autoqkeras_bits >= row.total_bits
        assert row.tier == "sound"
        assert 0.0 < row.observed_error <= row.bound
    assert 0.0 < ours.bound <= 0.2
    content = json.loads((out / "study.json").read_text())
    assert content["autoqkeras_defects"]
    assert len(content["rows"]) == len(study.rows)
    for name in ("study.csv", "study.md", "accuracy.png", "bound.png", "time.png"):
        assert (out / name).stat().st_size > 0
    begun: list[str] = []
    again = sq.compare(model, (X, Y), [0.2, 1e-9], out=out, progress=begun.append, **QUICK)
    assert again.rows == study.rows
    assert begun == []
    with pytest.raises(InputError, match="subject"):
        sq.compare(model, (X + 1.0, Y), [0.2, 1e-9], out=out, **QUICK)


def test_a_keras_3_model_is_compared_as_the_keras_2_model_of_its_weights(tmp_path):
    new = models3.keras
    layers = new.layers
    stack = [
        layers.Dense(5, "relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(3, "softmax"),
    ]
    given = models3.randomised(new.Sequential([layers.Input((4,)), *stack]))
    file = tmp_path / "model.keras"
    given.save(file)
    subject = subject_of(file, (X, Y))
    assert isinstance(subject.model, keras.Model)
    np.testing.assert_allclose(subject.model.predict(X, verbose=0), given.predict(X, verbose=0), atol=1e-6)
    assert subject.network.head == "softmax"
    methods = ("ours", "straight_through", "autoqkeras")
    study = sq.compare(file, (X, Y), [0.2], out=tmp_path / "study", **{**QUICK, "methods": methods})
    assert study.failures == {}
    assert {row.name.split(",")[0] for row in study.rows} == {"ours", "straight-through estimator", "AutoQKeras"}


def test_a_conversion_that_computes_something_else_is_refused():
    given, other = (
        models3.randomised(models3.sequential(models3.LAYERS.Dense(3), shape=(4,)), seed) for seed in (0, 1)
    )
    with pytest.raises(ModelError, match="differ by"):
        as_keras_2(given, read_model(other), X)


W = (X[:, :2] * X[:, 2:]).astype(np.float32)


def regressor(outputs=2):
    hidden = LAYERS.Dense(5, activation="relu", name="hidden")
    return sequential(hidden, LAYERS.Dense(outputs, name="last"), shape=(4,))


@pytest.mark.parametrize("metric", ["mse", "mae"])
def test_a_regression_is_compared_by_its_error(tmp_path, metric):
    methods = ("ours", "uniform", "straight_through", "autoqkeras")
    settings = {**QUICK, "metric": metric, "methods": methods, "epochs": 5, "learning_rate": 0.01}
    model = regressor()
    study = sq.compare(model, (X, W), [0.2], out=tmp_path, **settings)
    assert study.failures == {}
    rows = {row.name: row for row in study.rows}
    x, wanted = subject_of(model, (X, W), seed=1, metric=metric).test
    errors = np.abs(model.predict(x, verbose=0) - wanted)
    expected = np.mean(errors**2 if metric == "mse" else errors)
    assert study.float_metric == pytest.approx(-expected, rel=1e-5)
    assert all(row.metric < 0.0 and row.agreement is None for row in study.rows)
    assert rows["ours, eps 0.2, fine-tuned"].metric > rows["ours, eps 0.2"].metric
    assert rows["straight-through estimator, 6 bits"].metric > study.float_metric
    assert any(name.startswith("AutoQKeras") for name in rows)
    assert f"negative {metric}" in (tmp_path / "study.md").read_text()
    assert len(study.both_ways) == 4


def test_several_outputs_are_compared_together(tmp_path):
    entry = LAYERS.Input((4,))
    hidden = LAYERS.Dense(5, activation="relu")(entry)
    model = keras.Model(entry, [LAYERS.Dense(1, name="one")(hidden), LAYERS.Dense(2, name="two")(hidden)])
    parts = {"two": W, "one": X[:, :1]}
    methods = ("ours", "uniform", "rule", "rounding", "straight_through", "autoqkeras")
    study = sq.compare(model, (X, parts), [0.2], out=tmp_path, **{**QUICK, "metric": "mse", "methods": methods})
    assert list(study.failures) == ["AutoQKeras, random, fair space"]
    assert "outputs" in study.failures["AutoQKeras, random, fair space"]
    x, wanted = subject_of(model, (X, parts), seed=1, metric="mse").test
    found = np.concatenate(model.predict(x, verbose=0), axis=1)
    assert study.float_metric == pytest.approx(-np.mean((found - wanted) ** 2), rel=1e-5)
    exact = next(row for row in study.rows if row.name.startswith("straight"))
    assert exact.metric >= study.float_metric - 0.1
    assert any(row.name == "ours, eps 0.2, fine-tuned" for row in study.rows)
    with pytest.raises(InputError, match="several outputs"):
        subject_of(model, (X, Y))


def test_targets_that_do_not_suit_are_refused(model):
    with pytest.raises(InputError, match="softmax"):
        subject_of(model, (X, W), metric="mse")
    for wanted in (W[:, :1], W[:5], np.full_like(W, np.nan)):
        with pytest.raises(InputError, match="targets"):
            subject_of(regressor(), (X, wanted), metric="mse")


def test_ours_is_fine_tuned_on_what_everyone_trains_on_and_certified_again(model, tmp_path, monkeypatch):
    from sound_qkeras.study import our_rows

    calls: list[dict] = []
    real = our_rows.finetune

    def finetune(result, data, epochs, **options):
        calls.append({"data": data, "epochs": epochs, **options})
        return real(result, data, epochs, **options)

    monkeypatch.setattr(our_rows, "finetune", finetune)
    monkeypatch.setattr(our_rows, "SAMPLES", 72)
    quick = {**QUICK, "methods": ("ours",), "epochs": 2, "costs": ("total_bits", "weight_bits")}
    study = sq.compare(
        model,
        (X, Y),
        [0.2],
        out=tmp_path,
        our_tiers=("sound", "statistical"),
        batch_size=16,
        learning_rate=0.02,
        **quick,
    )
    names = {row.name for row in study.rows}
    begin = ("ours", "ours, weight_bits", "ours, statistical", "ours, statistical, weight_bits")
    assert names == {f"{name}, eps 0.2{end}" for name in begin for end in ("", ", fine-tuned")}
    assert all(row.tier == "sound" and 0.0 < row.observed_error <= row.bound for row in study.rows)
    subject = subject_of(model, (X, Y), seed=1)
    for call in calls:
        assert (call["epochs"], call["batch_size"], float(call["optimizer"].learning_rate)) == (
            2,
            16,
            pytest.approx(0.02),
        )
        np.testing.assert_array_equal(call["validation"][0], subject.validation[0])
    np.testing.assert_array_equal(calls[0]["data"][0], subject.train[0])
    kept = {row.tobytes() for row in calls[2]["data"][0]}
    assert len(kept) == 36
    assert kept < {row.tobytes() for row in subject.train[0]}
    tuned = next(row for row in study.rows if row.name == "ours, statistical, eps 0.2, fine-tuned")
    assert "36 held-out samples" in " ".join(tuned.notes)


def test_weights_that_training_pruned_stay_zero():
    model = classifier(activation="softmax")
    before = model.get_weights()
    before[1][0] = -9.0  # a unit that never switches on, and is removed
    model.set_weights(before)
    training = Training(epochs=4, batch_size=16, learning_rate=0.02)
    pruned, seconds = gradually_pruned(model, 0.5, (X, Y), "softmax", training)
    assert seconds > 0.0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert sum(np.count_nonzero(layer.kernel == 0.0) for layer in pruned.layers if layer.weights) == 18  # of 20 + 15
    result = sq.quantize(read_model(pruned), 0.1, (-1.0, 1.0), effort="fast")
    result = with_zeros(result, Plan(eps=(0.1,), effort="fast"))
    sq.check(result.pair, result.certificate)
    tuned = sq.finetune(result, (X, Y), 4, optimizer=keeping_zeros(0.1, 40), effort="fast")
    assert tuned.finetuning.changed > 5
    assert tuned.pair.network.shapes["hidden"] == (4,)
    for node, op in tuned.pair.network.owners():
        gone = op.kernel == 0.0
        assert np.any(gone)
        assert not np.any(tuned.pair.parameters[node.name].kernel[gone])
    with pytest.raises(InputError, match="accepted: a share"):
        gradually_pruned(model, 1.0, (X, Y), "softmax", training)


def test_ours_is_compared_with_pruned_weights_too(model, tmp_path):
    settings = {**QUICK, "methods": ("ours",), "epochs": 3, "sparsities": (0.4,)}
    study = sq.compare(model, (X, Y), [0.2], out=tmp_path, **settings)
    assert study.failures == {}
    plain, _, sparse, tuned = study.rows
    assert [row.name for row in (sparse, tuned)] == [f"ours, pruned 40%, eps 0.2{end}" for end in ("", ", fine-tuned")]
    for row in (sparse, tuned):
        assert row.nonzero_operations < 0.8 * row.bit_operations
        assert "Pruned in 1 of the 3 epochs: the bound is against the float network after that." in row.notes
        assert 0.0 < row.observed_error <= row.bound
    assert plain.nonzero_operations > sparse.nonzero_operations
    assert tuned.training_seconds > sparse.training_seconds > plain.training_seconds == 0.0


def test_what_is_no_classifier_with_data_is_refused(model):
    with pytest.raises(InputError, match="at least"):
        subject_of(model, (X[:5], Y[:5]))
    with pytest.raises(InputError, match="labels"):
        subject_of(model, (X, Y[:5]))
    with pytest.raises(ModelError):
        subject_of(keras.Sequential(), (X, Y))


@pytest.mark.parametrize("lower", [0.0, -1.0])
def test_our_models_are_judged_as_they_were_proved(model, lower):
    result = sq.quantize(model, 0.1, (lower, 1.0), effort="fast")
    subject = subject_of(model, (np.clip(X, lower, 1.0), Y), None, (lower, 1.0))
    plan = Plan(eps=(0.1,), effort="fast")
    found = model_verdict(result.to_qkeras(head=True), result.pair.network, subject, plan)
    assert found["observed_error"] <= found["bound"] <= 1.5 * result.certificate.bound
    assert found["tier"] == "sound"


def test_test_samples_of_their_own_are_left_alone(model):
    held_out = X[:40] + 5.0
    subject = subject_of(model, (X, Y), (held_out, Y[:40]))
    assert [len(part[0]) for part in (subject.train, subject.validation, subject.test)] == [90, 30, 40]
    np.testing.assert_array_equal(subject.test[0], held_out)
    assert subject.box.upper.max() >= held_out.max()


def test_validation_samples_of_their_own_are_all_that_chooses(model):
    chosen = X[:40] + 5.0
    subject = subject_of(model, (X, Y), validation=(chosen, Y[:40]))
    assert [len(part[0]) for part in (subject.train, subject.validation, subject.test)] == [90, 40, 30]
    np.testing.assert_array_equal(subject.validation[0], chosen)
    assert subject.box.upper.max() >= chosen.max()
    subject = subject_of(model, (X, Y), (X, Y), validation=(chosen, Y[:40]))
    assert [len(part[0]) for part in (subject.train, subject.validation, subject.test)] == [120, 40, 120]


def test_networks_too_deep_for_a_proof_are_compared_on_samples(model, tmp_path):
    methods = ("ours", "uniform", "rule", "straight_through")
    study = sq.compare(model, (X, Y), [0.2], out=tmp_path / "study", tier="statistical", methods=methods, **QUICK)
    rows = {row.name: row for row in study.rows}
    assert study.failures == {}
    for name in ("ours, eps 0.2", "uniform 6 bits, plain", "smallest uniform word, eps 0.2"):
        assert rows[name].tier == "statistical"
        assert 0.0 < rows[name].observed_error <= rows[name].bound
        assert rows[name].bound <= rows[name].observed_error * 1.001 + 1e-9
    assert rows["smallest uniform word, eps 0.2"].bound < 0.4
