"""A saved result is the same result again, or an error; an interrupted save changes nothing."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.floating.fixed import FloatReport
from sound_qkeras.results import archive
from sound_qkeras.tuning.optimality import Optimality
from tests.results import content, random_result

FILES = ["certificate.json", "formats.json", "manifest.json", "network.json", "parameters.npz"]


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch):
    """As where TensorFlow is not installed: saving does without the QKeras model, and is fast."""
    monkeypatch.setitem(sys.modules, "tf_keras", None)


@pytest.fixture
def saved(tmp_path):
    result = random_result()
    return result, result.save(tmp_path / "out")


def names(directory: Path):
    return sorted(entry.name for entry in directory.iterdir())


@pytest.mark.parametrize("sizes", [(3, 6, 2), (4, 3, 3, 1), (1, 1, 1)])
def test_round_trip(tmp_path, sizes):
    result = random_result(1, sizes)
    folder = result.save(tmp_path / "deep" / "out")
    loaded = sq.load(folder)
    assert content(loaded) == content(result)
    assert loaded.summary() == result.summary()
    sq.check(loaded.pair, loaded.certificate)
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (20, *result.pair.network.input_shape))
    np.testing.assert_array_equal(loaded.simulate(x), result.simulate(x))


@pytest.mark.slow
def test_round_trip_of_a_box_as_large_as_an_image(tmp_path):
    result = random_result(2, (784, 5, 3))
    assert content(sq.load(result.save(tmp_path / "out"))) == content(result)


def test_round_trip_of_infinity(tmp_path):
    report = FloatReport((), math.inf, math.inf)
    result = replace(random_result(), float32=report)
    folder = result.save(tmp_path / "out")
    assert sq.load(folder).float32 == report
    text = (folder / "formats.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no json"))


def test_the_report_says_everything(saved):
    result, folder = saved
    report = json.loads((folder / "formats.json").read_text(encoding="utf-8"))
    assert report["summary"] == result.summary()
    assert report["formats"][0] == {
        "layer": "x", "node": "x", "kind": "activation", "word_length": result.formats[0].word_length,
        "integer_bits": result.formats[0].integer_bits, "signed": True,
        "lower": result.formats[0].lower, "upper": result.formats[0].upper,
    }  # fmt: skip
    assert report["cost"]["total_bits"] == result.cost.total_bits
    assert report["observed_error"] == result.observed_error
    assert report["optimality"] == {
        "cost": 120.0, "lower_bound": 118.5, "claimed_lower_bound": 119.75, "gap": 0.0125, "claimed_gap": 0.25 / 120,
    }  # fmt: skip
    assert report["qkeras_model"] is None
    assert "tf_keras" in report["no_qkeras_model_because"]
    assert names(folder) == FILES


@pytest.mark.parametrize("found", [None, Optimality(120.0, -math.inf, -math.inf)])
def test_round_trip_of_what_is_not_known_about_the_optimum(found, tmp_path):
    result = replace(random_result(), optimality=found)
    loaded = sq.load(result.save(tmp_path / "out"))
    assert loaded.optimality == found
    assert loaded.summary() == result.summary()


def test_saving_again_replaces(saved):
    _, folder = saved
    other = random_result(5)
    other.save(folder)
    assert content(sq.load(folder)) == content(other)
    assert names(folder.parent) == ["out"]


@pytest.mark.slow
def test_loading_needs_no_tensorflow(saved):
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'tf_keras', 'qkeras', 'keras', 'highspy', 'pyomo', 'joblib'): sys.modules[name] = None\n"
        f"import sound_qkeras as sq\nprint(sq.load({str(saved[1])!r}).summary())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == saved[0].summary()


@pytest.mark.parametrize("step", ["save_network", "write_json", "_report"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError, MemoryError])
def test_an_interrupted_save_leaves_the_old_result(saved, monkeypatch, step, interruption):
    result, folder = saved

    def interrupt(*_):
        raise interruption

    with monkeypatch.context() as patched:
        patched.setattr(archive, step, interrupt)
        for place in (folder, folder.parent / "new"):
            with pytest.raises(InputError if interruption is OSError else interruption):
                random_result(5).save(place)
    assert names(folder.parent) == ["out"]
    assert content(sq.load(folder)) == content(result)


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_qkeras_model", lambda *_: pytest.fail("the work came first"))
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine", encoding="utf-8")
    for place in ("file", "file/deeper", "folder"):
        with pytest.raises(InputError, match=r"file|thesis"):
            random_result().save(tmp_path / place)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "garbage", "directory"])
def test_damaged_files_are_refused(saved, name, damage):
    path = saved[1] / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "directory":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "garbage": b"\xff\x00" * 500}[damage])
    with pytest.raises(FileFormatError) as caught:
        sq.load(saved[1])
    assert str(saved[1]) in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "7", '"text"', "[" * 100_000, "{}"])
@pytest.mark.parametrize("name", ["certificate.json", "formats.json"])
def test_json_that_is_no_report_is_refused(saved, name, text):
    (saved[1] / name).write_text(text, encoding="utf-8")
    with pytest.raises(FileFormatError):
        sq.load(saved[1])


def test_a_place_without_a_result_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="no directory"):
        sq.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(FileFormatError, match="no directory"):
        sq.load(tmp_path / "file")
    with pytest.raises(FileFormatError, match=r"manifest\.json"):
        sq.load(tmp_path)


def test_of_several_results_one_is_to_be_named(saved):
    folder = saved[1]
    with pytest.raises(FileFormatError, match=f"holds several results; accepted: one of them, such as '{folder}'"):
        sq.load(folder.parent)
