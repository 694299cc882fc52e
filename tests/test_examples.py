"""Every example runs, from a directory of its own, and leaves a result that can be proved again."""

import csv
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.backends import compile_and_run
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu

pytestmark = [pytest.mark.keras, pytest.mark.solver, pytest.mark.slow, pytest.mark.hls]

# Not imported here: keras_tuner stays with the Keras that it sees first, which other tests want to be Keras 2.
needs_study = pytest.mark.skipif(find_spec("keras_tuner") is None, reason="needs the extra [study]")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# Parts of the study, which imports them.
NOT_RUN = {"aster_plots.py", "aster_reference.py"}


def run(cwd, script, *arguments):
    """What an example prints; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment["PYTHONPATH"] = str(EXAMPLES)  # what "-P" takes away: the study has parts
    line = [sys.executable, "-P", str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def proved(directory):
    """The result in a directory, its certificate proved again."""
    result = sq.load(directory)
    sq.check(result.pair, result.certificate)
    for target in ("hls", "c"):
        bench = compile_and_run(result.export_hls(directory.parent / target, target=target))
        assert bench.passed
        assert bench.warnings == ""
    assert result.observed_error <= result.certificate.bound
    return result


def test_every_example_is_tested():
    here = Path(__file__).read_text(encoding="utf-8")
    assert [file.name for file in sorted(EXAMPLES.glob("*.py")) if f'"{file.name}"' not in here] == []


def test_pendulum(tmp_path):
    text = run(tmp_path, "pendulum.py", "--out", "out")
    assert proved(tmp_path / "out").certificate.bound <= 1e-3
    rests = [float(number) for number in re.findall(r"within ([0-9.]+) rad of upright; always in the box: True", text)]
    assert len(rests) == 2
    assert max(rests) < 0.05
    assert "equals the integers bit for bit: True" in text


def test_diabetes_regression(tmp_path):
    pytest.importorskip("sklearn")
    text = run(tmp_path, "diabetes_regression.py", "--out", "out")
    result = proved(tmp_path / "out")
    assert result.certificate.bound <= 0.1
    assert "10 % beyond the training samples" in result.certificate.box_source
    [(trained, fixed)] = re.findall(r"([0-9.]+) trained, ([0-9.]+) fixed-point", text)
    assert abs(float(trained) - float(fixed)) <= 0.11
    assert float(trained) < 70.0
    [difference] = re.findall(r"differ by at most ([0-9.]+)", text)
    assert float(difference) <= 0.11  # the float model rounds too


def test_fewer_bits(tmp_path):
    pytest.importorskip("sklearn")
    arguments = ("--out", "rows.json", "--seeds", "1", "--epochs", "2")
    text = run(tmp_path, "fewer_bits.py", *arguments)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 10
    assert all(row["bound"] <= 1e-3 for row in rows.values())
    assert text.count("chosen by validation loss") == 2
    assert "| diabetes | 0 | 1.000 (1.000 to 1.000) | 1.000 (1.000 to 1.000) |" in text
    assert "'loss'" not in run(tmp_path, "fewer_bits.py", *arguments)  # nothing is trained twice


def test_convert_trained_model(tmp_path):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    arguments = ("model.keras", "--eps", "1e-2", "--data", "x.npy", "--margin", "0.1", "--out", "out")
    text = run(tmp_path, "convert_trained_model.py", *arguments)
    result = proved(tmp_path / "out")
    assert result.summary() in text
    assert (tmp_path / "out" / "qkeras_model.keras").is_file()
    line = [sys.executable, str(EXAMPLES / "convert_trained_model.py"), "nowhere.keras", *arguments[1:]]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere.keras" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@needs_study
def test_fewest_bits_architecture(tmp_path):
    options = ("--out", "out", "--trials", "3", "--epochs", "20")
    text = run(tmp_path, "fewest_bits_architecture.py", *options)
    result = proved(tmp_path / "out" / "result")
    assert result.certificate.bound <= 2e-2
    trials = re.findall(r"^ *(\d+ bits|rejected)  ([0-9.]+) Nm", text, re.MULTILINE)
    assert len(trials) == 3
    accepted = [int(bits.split()[0]) for bits, error in trials if float(error) <= 0.1]
    assert [bits == "rejected" for bits, _ in trials] == [float(error) > 0.1 for _, error in trials]
    assert result.cost.total_bits == min(accepted)
    assert "always in the box: True" in text
    again = run(tmp_path, "fewest_bits_architecture.py", *options)
    assert again.startswith("Reloading Tuner")  # no trial is made again
    assert re.findall(r"^.* Nm from the expert .*$", again, re.MULTILINE) == text.splitlines()[:3]
    assert again.splitlines()[-1] == text.splitlines()[-1]


@needs_study
def test_compare_studies(tmp_path):
    pytest.importorskip("sklearn")
    arguments = ("compare_studies.py", "digits_cnn", "--short", "--out", "out")
    text = run(tmp_path, *arguments)
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "study.json").read_text())["rows"]}
    assert rows["ours, eps 100, fine-tuned"]["metric"] > 0.8
    both = [line for line in text.splitlines() if line.startswith("AutoQKeras, random, fair space: ")]
    assert len(both) == 4
    assert f"{rows['AutoQKeras, random, fair space, 1. of 1 trials']['metric']:.4g}" in both[0]
    again = run(tmp_path, *arguments)
    assert again.splitlines()[-4:] == text.splitlines()[-4:]
    assert "straight-through" in text.split("metric of the float network")[0]
    assert "straight-through" not in again.split("metric of the float network")[0]


@pytest.fixture
def study_files(tmp_path):
    """A made-up network, and a baseline whose second setting breaks its promise."""
    rng = np.random.default_rng(0)
    shapes = {"W1": (4, 2), "b1": (4,), "W2": (1, 4), "b2": (1,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    (tmp_path / "nets").mkdir()
    np.savez(tmp_path / "nets" / "made.npz", **arrays, activations=["relu", "linear"], lo=[-1.0, -1.0], hi=[1.0, 2.0])
    sizes = {"total_weight_bits": 300, "mult_bit_products": 7000}
    kept = {**sizes, "claimed_error": 9e-3, "observed_error": 1e-3, "violated": False}
    released = {"A": kept, "B": {**kept, "observed_error": 1e-2, "violated": True}}
    baseline = {"made": {"1e-2": {"released": released, "corrected": {"A": None, "B": {**sizes, "bound": 1e-2}}}}}
    (tmp_path / "baseline.json").write_text(json.dumps(baseline))
    return tmp_path


def test_aster_study(study_files):
    pytest.importorskip("matplotlib")
    options = "--eps 1e-2 --effort fast --evaluations 2000 --keep-architecture --curve made --out out"
    text = run(study_files, "aster_study.py", "nets", "baseline.json", *options.split())
    out = study_files / "out"
    [row] = json.loads((out / "table.json").read_text()).values()
    [line] = csv.DictReader((out / "table.csv").read_text().splitlines())
    assert float(line["bound"]) == row["bound"] <= 1e-2
    assert 0.0 < row["observed_error"] <= row["bound"]
    assert row["weight_bits_over_corrected"] == row["weight_bits"] / 300
    assert row["kept_weight_bits"] >= row["weight_bits"]
    assert (out / "table.md").read_text().count("\n") == 3
    assert {file.name for file in out.glob("*.png")} == {"bits.png", "errors.png", "runs.png", "curve.png"}
    assert sq.load(out / "results" / "made_1e-2").certificate.bound == row["bound"]
    curve = json.loads((out / "curve.json").read_text())
    assert [point["mean_weight_bits"] for point in curve] == sorted(point["mean_weight_bits"] for point in curve)
    found = json.loads((out / "violation.json").read_text())
    assert found["setting"] == "B"
    assert found["our_error"] <= found["our_bound"]
    assert f"input {found['input']}" in text
    again = run(study_files, "aster_study.py", "nets", "baseline.json", *options.split())
    assert "1/1 made" in text
    assert "1/1 made" not in again


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("aster_reference")


def study_network(study_files):
    data = np.load(study_files / "nets" / "made.npz")
    first, second = (Dense(np.float64(data[f"W{i}"].T), np.float64(data[f"b{i}"])) for i in (1, 2))
    nodes = (Node("x", Input((2,))), Node("a", first, ("x",)), Node("r", Relu(), ("a",)), Node("y", second, ("r",)))
    return Network(nodes), data["lo"], data["hi"]


def test_reference_formats_are_the_cheapest(study_files, reference, monkeypatch):
    monkeypatch.setattr(reference, "SETTINGS", {"A": (2, 11, 10)})
    layers = reference.layers_of(*study_network(study_files))
    found = reference.solve(layers, 0.05, "A")
    row_sum = np.abs(layers[0].kernel.sum(axis=0)).max()

    def claimed(dot, bias):
        steps = [2.0**-d + 2.0**-b for d, b in zip(dot, bias, strict=True)]
        return steps[1] + row_sum * (steps[0] + 2.0**-10)

    def cost(dot, bias):
        return sum(32 * layer.kernel.size * d + max(d, b) + b for layer, d, b in zip(layers, dot, bias, strict=True))

    choices = list(itertools.product(range(2, 12), repeat=4))
    best = min(cost(c[:2], c[2:]) for c in choices if claimed(c[:2], c[2:]) <= 0.05)
    assert found.claimed == pytest.approx(claimed(found.dot, found.bias))
    assert cost(found.dot, found.bias) == best


def test_emitted_code_truncates_and_is_exact_on_fractions(study_files, reference):
    network, *box = study_network(study_files)
    layers = reference.layers_of(network, *box)
    x = np.random.default_rng(1).uniform(*box, (50, 2))
    fine = reference.Formats(40, [40, 40], [40, 40], 0.0)
    assert reference.emitted(layers, fine, box, x, reference.truncated) == pytest.approx(network.evaluate(x), abs=1e-10)
    coarse = reference.Formats(6, [5, 4], [6, 5], 0.0)
    floats = reference.emitted(layers, coarse, box, x, reference.truncated)
    exact = reference.emitted(layers, coarse, box, reference.fractions(x), reference.truncated)
    assert np.array_equal(floats, exact.astype(np.float64))
    assert np.array_equal(reference.truncated(np.array([-0.3, 0.3]), 2), [-0.5, 0.25])
    assert np.array_equal(reference.nearest(np.array([-0.3, 0.375]), 2), [-0.25, 0.5])


def test_reference_formats_agree_with_the_baseline(reference, monkeypatch, shared):
    pytest.importorskip("matplotlib")
    study = importlib.import_module("aster_study")
    baselines = json.loads((shared / "baselines" / "aster.json").read_text())
    for name in ("LyapunovNN", "InvPendulumNN", "SinglePendulumNN"):
        network, *box = study.load(shared / "nets" / "controllers" / f"{name}.npz")
        layers = reference.layers_of(network, *box)
        for setting, released in baselines[name]["1e-3"]["released"].items():
            found = reference.solve(layers, 1e-3, setting)
            assert reference.agrees(layers, found, *box, released)["weight_bits"]
