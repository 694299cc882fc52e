"""What whole runs on images take, in processes of their own: each stage keeps to its scratch memory whatever the input's size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.solver, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "benchmarks" / "memory.py"


@pytest.mark.parametrize("case", ["cnn-96-sound", "cnn-96-local", "cnn-224-sound", "mobilenet-224-statistical"])
def test_images_stay_within_two_gibibytes(case):
    line = [sys.executable, str(SCRIPT), "--one", case, "--effort", "8"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["gibibytes"] <= 2.0, found
    assert found["bound"] <= 0.1
