"""Sessions with Keras 3 on every backend that is installed: fits, boxes, logs, and QKeras models in the same process.

A backend may be in an environment of its own: `PYTHON_WITH_JAX` and `PYTHON_WITH_TORCH` name a Python that has it, and all else.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.keras, pytest.mark.solver, pytest.mark.slow]

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module", params=["tensorflow", "jax", "torch"])
def session(request):
    elsewhere = f"PYTHON_WITH_{request.param.upper()}"
    if elsewhere not in os.environ and importlib.util.find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}, or {elsewhere}")
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    environment |= {"KERAS_BACKEND": request.param, "PYTHONPATH": str(HERE)}
    line = [os.environ.get(elsewhere, sys.executable), "-W", "ignore", "-P", str(HERE / "session3.py")]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, json.loads(done.stdout.splitlines()[-1])


def test_every_layer_means_what_it_computes(session):
    # What float32 rounds away; how much that is depends on the order in which a backend sums.
    assert max(session[1]["differences"].values()) < 1e-5


def test_no_framework_is_imported_that_the_user_has_not_imported(session):
    found = session[1]
    assert found["imported"] == found["still_imported"] == []
    assert found["switch"] is None


def test_fits_are_certified_on_the_batches_seen(session):
    for fit in session[1]["fits"]:
        assert fit["keys"] == ["sound_bound", "sound_total_bits", "sound_weight_bits"]
        assert fit["box"]
        assert fit["weights"]
        assert fit["released"]
        assert fit["source"] == "observed on 16 training batches"
        first, second, third, last = fit["logged"]
        assert math.isnan(first)
        assert 0.0 < second == third <= 0.1
        assert last == fit["bound"] <= 0.1


def test_weights_are_trained_on_their_grids_where_tensorflow_trains_them(session):
    for fit in session[1]["anneals"]:
        assert fit["proved"]
        trained = session[0] == "tensorflow"
        assert fit["choices"] == trained
        assert ("another backend than TensorFlow" in fit["log"]) != trained
        assert fit["grid"] == trained
        assert (fit["moved"] < 0.1) == trained  # training towards wrong targets moves it far


def test_inputs_by_name_are_in_the_networks_order(session):
    found = session[1]
    assert found["by_name"]
    assert sorted(found["names"]) == ["first", "second"]


def test_the_last_weights_count_and_nothing_stays_behind(session):
    assert session[1]["restored"]
    assert session[1]["interrupted"]


def test_failures_do_not_stop_training(session):
    layer, nan = session[1]["refused"]
    assert "GroupNormalization" in layer
    assert "NaN" in nan


def test_qkeras_works_in_the_same_process(session):
    assert all(session[1]["emitted"].values())
