"""`sound-qkeras certify`, with files."""

import json

import numpy as np
import pytest

from sound_qkeras.cli import BAD_INPUT, INFEASIBLE, OK, main
from sound_qkeras.support.decimals import at_most

from .models import LAYERS, qk, sequential

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")]

BITS = "quantized_bits(6,1,alpha=1.0)"


@pytest.fixture
def files(tmp_path):
    """A QKeras model, its float reference, and samples."""
    quantised = sequential(
        qk.QActivation(BITS), qk.QDense(4, kernel_quantizer=BITS), qk.QActivation("quantized_relu(4,0)"), qk.QDense(2)
    )
    quantised.save(tmp_path / "q.h5")
    sequential(LAYERS.Dense(4), LAYERS.ReLU(), LAYERS.Dense(2)).save(tmp_path / "f.h5")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(-1, 1, (30, 5)))
    return tmp_path


def test_the_whole_way(capfd, files):
    arguments = ["certify", files / "q.h5", "--reference", files / "f.h5", "--box", -1, 1, "--effort", "fast"]
    assert main([str(one) for one in [*arguments, "--json", files / "found.json", "--eps", "100"]]) == OK
    out, _ = capfd.readouterr()
    found = json.loads((files / "found.json").read_text())
    assert f"error at most {at_most(found['certificate']['bound'], 4)} (eps 100)" in out
    assert "proved on 100%" in out
    assert main([str(one) for one in [*arguments, "--eps", "1e-9"]]) == INFEASIBLE
    assert "is not met" in capfd.readouterr().out
    assert "quantized_relu(4,0) may saturate" in out
    local = [*arguments[:-2], "--tier", "local", "--samples", files / "x.npy", "--radius", "0.01"]
    assert main([str(one) for one in local]) == OK
    assert "30 of 30 samples" in capfd.readouterr().out


def test_json_and_weights_are_taken_in_place_of_a_model(capfd, files):
    from sound_qkeras.keras_io.files.files import load_keras_model
    from sound_qkeras.keras_io.qkeras.reader import QVocabulary

    for name in ("q", "f"):
        model = load_keras_model(files / f"{name}.h5", QVocabulary())
        (files / f"{name}.json").write_text(model.to_json())
        model.save_weights(files / f"{name}.weights.h5")
    arguments = ["--reference", files / "f.json", "--reference-weights", files / "f.weights.h5", "--box", -1, 1]
    pair = [files / "q.json", "--weights", files / "q.weights.h5", *arguments, "--effort", "fast"]
    assert main(["certify", *(str(one) for one in pair)]) == OK
    assert "compared with f.json" in capfd.readouterr().out
    assert main(["certify", str(files / "q.json"), "--weights", "none.h5", "--box", "-1", "1"]) == BAD_INPUT
    assert "'none.h5' does not exist" in capfd.readouterr().err
    assert main(["quantize", str(files / "f.json"), "--eps", "0.1", "--box", "-1", "1"]) == BAD_INPUT
    assert "--weights" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--reference", "q.h5"], "quantised already"),
        (["--eps", "auto"], "accepted here: numbers"),
        (["--reference", "none.h5"], "does not exist"),
        (["--tier", "local"], "needs samples"),
        (["--effort", "much"], "accepted: fast"),
        (["--json", "no/such/place.json"], "cannot be written"),
    ],
)
def test_failures_are_one_line(capfd, files, monkeypatch, changes, says):
    monkeypatch.chdir(files)
    assert main(["certify", "q.h5", "--box", "-1", "1", *changes]) == BAD_INPUT
    err = capfd.readouterr().err
    assert says in err
    assert "Traceback" not in err
