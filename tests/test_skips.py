"""What skips in .ci/run is a line in CONTRIBUTING.md, or a failure."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TESTS = """
import pytest

@pytest.mark.parametrize("what", ["a browser", "a solver"])
def test_needs(what):
    pytest.skip(f"needs {what}")

@pytest.mark.skipif(True, reason="needs a compiler")
def test_needs_more():
    pass

@pytest.mark.xfail(reason="needs a miracle")
def test_fails():
    raise ValueError
"""


@pytest.mark.slow
def test_what_skips_for_a_reason_that_is_not_listed_fails(tmp_path):
    (tmp_path / "tests").mkdir()
    shutil.copy(HERE / "conftest.py", tmp_path / "tests")
    (tmp_path / "CONTRIBUTING.md").write_text("- `needs a browser`: they are large.\n", encoding="utf-8")
    (tmp_path / "tests" / "test_some.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "tests" / "test_none.py").write_text(
        "import pytest; pytest.importorskip('no_such_package')\n", encoding="utf-8"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        "tests",
    ]
    outcomes = []
    for options in ([], ["--listed-skips"]):
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
        outcomes.append((done.returncode, done.stdout.splitlines()[-1].split(" in ")[0]))
    assert outcomes == [(0, "4 skipped, 1 xfailed"), (1, "1 failed, 1 skipped, 1 xfailed, 2 errors")]
    assert "skipped: needs a compiler; install what is missing" in done.stdout
