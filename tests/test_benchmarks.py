"""The benchmark scripts still run: what they patch and measure is there. Their figures are not judged here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.keras, pytest.mark.solver, pytest.mark.slow]

BENCHMARKS = Path(__file__).parent / "benchmarks"


def run(script, *arguments):
    line = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


def test_growth():
    text = run("growth.py", "--widths", 4, 8, "--runs", 1, "--eps", 0.1)
    assert re.search(r"16-8-8-10 +272 weights .* GiB", text)
    assert re.search(r"width 4 to 8: [0-9.]+ times", text)


def test_ablation(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    shapes = {"W1": (6, 2), "b1": (6,), "W2": (1, 6), "b2": (1,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "made.npz", **arrays, activations=["relu", "linear"], lo=[-1.0, -1.0], hi=[1.0, 2.0])
    text = run("ablation.py", tmp_path, "--effort", "fast", "--out", tmp_path / "kept.json")
    [found] = json.loads((tmp_path / "kept.json").read_text()).values()
    rows = {key.removeprefix("made "): row["mean_bits"] for key, row in found.items()}
    assert len(rows) == 10
    assert rows["MILP and trimming"] >= rows["nothing"] > 0.0
    assert text.count("\n") == 10 + 11
    assert run("ablation.py", tmp_path, "--effort", "fast", "--out", tmp_path / "kept.json").count("\n") == 11


def test_leaves(shared_nets, tmp_path):
    line = ("leaves.py", "--only", "SinglePendulumNN", "--leaves", 8, "--runs", 1, "--keep", tmp_path / "leaves.npz")
    for _ in range(2):
        found = re.findall(r"8 leaves, ([a-z0-9 ]+): [0-9.]+ ms a leaf .* worst bound ([0-9.e-]+)", run(*line))
        assert [label for label, _ in found] == ["search", "search in float64", "proof"]
        assert len({bound[:5] for _, bound in found}) == 1


def test_cores():
    text = run("cores.py", "--only", "3-8-2", "--leaves", 16, "--runs", 1, "--jobs", 2)
    assert re.findall(r"^3-8-2, 16 leaves, 1 batches, (\w+)", text, re.M) == ["search", "proof"]
    assert len(re.findall(r"processor [0-9.]+ s here", text)) == 12
    assert "OTHER BITS" not in text


def test_behaviour(tmp_path):
    """Two records are compared: equal, different, and different where the clock had a say."""
    one = {"integers": "a", "bounds": [1.0], "ended_by": "search"}
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps({"net": one, "clock": {**one, "ended_by": "time"}}))
    after.write_text(json.dumps({"net": one, "clock": {**one, "integers": "b"}}))
    assert "1 results compared, 0 differ" in run("behaviour.py", "compare", before, after)
    after.write_text(json.dumps({"net": {**one, "bounds": [2.0]}}))
    assert "bounds larger (times 2)" in run("behaviour.py", "compare", before, after)
    run("behaviour.py", "record", tmp_path / "out.json", "--only", "no such network")


def test_exact(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"W1": rng.normal(size=(6, 2)), "b1": np.zeros(6), "W2": rng.normal(size=(1, 6)), "b2": np.zeros(1)}
    (tmp_path / "controllers").mkdir()
    place = tmp_path / "controllers" / "madeNN.npz"
    np.savez(place, **arrays, activations=["relu", "linear"], lo=[-1.0, -1.0], hi=[1.0, 2.0])
    text = run("exact.py", tmp_path, "--only", "madeNN", "--keep", tmp_path / "kept")
    assert len(re.findall(r"^madeNN (?:0.001|1e-05) +\d+ \+ \d+ leaves +\d+\.\d s$", text, re.M)) == 2
    assert re.match(
        r"madeNN_0.001 +\d+ \+ \d+ leaves +\d+\.\d s\n", run("exact.py", "--saved", tmp_path / "kept" / "madeNN_0.001")
    )


def test_true_worst(tmp_path):
    text = run("true_worst.py", "--nets", tmp_path, "--only", "1-12-2 relu", "--eps", 0.1, "--effort", "fast")
    [row] = re.findall(r"^1-12-2 relu 0 +0\.1 +50 (.*)$", text, re.M)
    bound, worst, low, high = (float(row.split()[n]) for n in (0, 1, 2, 4))
    assert worst <= high <= 1.01 * low <= 1.01 * bound


def test_curve(shared_nets):
    text = run("curve.py", "--nets", shared_nets, "--only", "SinglePendulum", "--count", 2, "--single")
    assert re.search(r"^  weight_bits rise 0 times, .*\n  alone they rise \d times, ", text, re.M)
    assert len(re.findall(r"^  eps .* bits, bound .* \| alone .* bits, bound ", text, re.M)) == 2


def test_same_bits(shared_nets):
    line = ("--nets", shared_nets / "controllers", "--efforts", "fast", "--only", "SinglePendulumNN", "--busy", 1)
    assert "SinglePendulumNN fast: equal" in run("same_bits.py", *line)


def test_overrun(shared_nets):
    text = run("overrun.py", "--nets", shared_nets / "controllers", "--only", "16-1000", "--seconds", 2)
    assert re.search(r"16-1000-1000-4: asked 2 s, took .* ended by \w+; .*\n    read .*, prove [0-9.]+, ", text)
