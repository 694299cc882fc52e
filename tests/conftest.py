"""What every test shares: what TensorFlow needs set, Hypothesis profiles, which skips count, and networks beside the checkout."""

import os
from pathlib import Path

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Only some processors have it by default, and without it there is no dilated transposed convolution.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("repeatable", max_examples=50, derandomize=True, database=None, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """No test ends with a power cut, so none has to wait until what it writes is on the disk."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(os, "fsync", lambda descriptor: None)
        yield


def pytest_addoption(parser):
    parser.addoption(
        "--listed-skips", action="store_true", help="fail what skips for a reason CONTRIBUTING.md does not list"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    return _judged((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _judged((yield), collector.config)


def _judged(report, config):
    """A skip is a failure where CONTRIBUTING.md has to list its reason and does not."""
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("listed_skips"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if f"- `{reason}`: " not in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"):
            report.outcome = "failed"
            report.longrepr = f"skipped: {reason}; install what is missing, or list the reason in CONTRIBUTING.md"
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """Networks nobody here trained, and what others made of them. They are no part of the repository."""
    folder = ROOT.parent / "shared"
    if not (folder / "nets").is_dir():
        pytest.skip("needs ../shared")
    return folder


@pytest.fixture(scope="session")
def shared_nets(shared: Path) -> Path:
    """The networks themselves."""
    return shared / "nets"


@pytest.fixture
def locked(tmp_path) -> Path:
    """A directory in which nothing can be made: one without that right or, for root, who has it everywhere, /proc."""
    if os.name == "nt":
        pytest.skip("needs POSIX rights")
    if os.geteuid() == 0:
        return Path("/proc")
    (tmp_path / "locked").mkdir(mode=0o500)
    return tmp_path / "locked"
