"""Every example runs, from a directory of its own, and leaves a result that can be proved again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.hls import compile_and_run

pytestmark = [pytest.mark.keras, pytest.mark.solver, pytest.mark.slow, pytest.mark.hls]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# They need data that is no part of the repository.
NOT_RUN = {"aster_study.py"}


def run(cwd, script, *arguments):
    """What an example prints; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    line = [sys.executable, "-P", str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def proved(directory):
    """The result in a directory, its certificate proved again."""
    result = sq.load(directory)
    sq.check(result.quantized, result.certificate)
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


def test_convert_trained_model(tmp_path):
    keras = pytest.importorskip("tf_keras")
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
    line = [sys.executable, str(EXAMPLES / "convert_trained_model.py"), "nowhere.h5", *arguments[1:]]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nowhere.h5" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
