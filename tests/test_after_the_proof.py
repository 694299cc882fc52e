"""What comes after a finished proof may fail in any way: the proof is not lost, and the reason is told."""

import json
import logging
import sys

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras import keras_io
from sound_qkeras.cli import OK, main
from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.jobs import examine as examination
from sound_qkeras.jobs import job
from tests import networks
from tests.results import content, make_result, random_result

BUGS = [
    ValueError("is not a valid scope\nname"),
    KeyError("x"),
    MemoryError(),
    RecursionError("deep"),
    OSError(28, "full"),
]


def broken(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["to_qkeras", "save_model"])
def test_a_result_is_saved_without_the_model_that_cannot_be_emitted(tmp_path, monkeypatch, caplog, step, error):
    monkeypatch.setattr(keras_io, "to_qkeras", lambda *_, **__: None)
    monkeypatch.setattr(keras_io, "save_model", lambda _, path: path.write_bytes(b"model"))
    monkeypatch.setattr(keras_io, step, broken(error))
    result = random_result()
    folder = result.save(tmp_path / "out")
    assert content(sq.load(folder)) == content(result)
    reason = json.loads((folder / "formats.json").read_text(encoding="utf-8"))["no_qkeras_model_because"]
    assert type(error).__name__ in reason
    assert not (folder / "qkeras_model.keras").exists()
    assert type(error).__name__ in caplog.text


def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(keras_io, "to_qkeras", broken(BUGS[0]))
    network = networks.random_network(np.random.default_rng(0), (3, 5, 2))
    monkeypatch.setattr(job, "read", lambda *_: network)
    (tmp_path / "model.h5").write_bytes(b"stands for a model")
    arguments = [str(tmp_path / "model.h5"), "--eps", "0.1", "--box", "-1", "1", "--effort", "fast"]
    assert main(["quantize", *arguments, "--out", str(tmp_path / "out")]) == OK
    assert "no QKeras model was saved: ValueError: is not a valid scope name\n" in capfd.readouterr().out
    sq.check(*cli_claim(tmp_path / "out"))


def cli_claim(folder):
    result = sq.load(folder)
    return result.pair, result.certificate


@pytest.mark.parametrize("step", ["observe", "float_reports"])
def test_a_step_after_the_proof_that_fails_leaves_a_result(tmp_path, monkeypatch, caplog, step):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    monkeypatch.setattr(examination, step, broken(RuntimeError("a bug")))
    with caplog.at_level(logging.WARNING, "sound_qkeras"):
        result = make_result(networks.random_network(np.random.default_rng(0)))
    assert "the proof stands: RuntimeError: a bug" in caplog.text
    assert (result.evaluations == 0) == (step == "observe")
    assert ("no search for the worst error" in result.summary()) == (step == "observe")
    assert result.float32.exact == (step == "observe")
    assert content(sq.load(result.save(tmp_path / "out"))) == content(result)
    result.report(tmp_path / "report.html")


def test_an_error_beyond_the_bound_is_never_passed_over(monkeypatch):
    monkeypatch.setattr(examination, "observe", broken(VerificationError("beyond")))
    with pytest.raises(VerificationError, match="beyond"):
        make_result(networks.random_network(np.random.default_rng(0)))


def test_labels_are_looked_at_before_the_run(monkeypatch):
    monkeypatch.setattr(job, "tune", lambda *_, **__: pytest.fail("the work came first"))
    network = networks.random_network(np.random.default_rng(0), (3, 5, 2))
    with pytest.raises(InputError, match="labels have shape"):
        sq.quantize(network, 0.1, (-1, 1), samples=np.zeros((20, 3)), labels=np.zeros(19), task="classifier")
