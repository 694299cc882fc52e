"""What every test shares: what TensorFlow needs set, Hypothesis profiles, and networks kept beside the checkout."""

import os
from pathlib import Path

# Before anything imports TensorFlow.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("repeatable", max_examples=50, derandomize=True, database=None, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_nets() -> Path:
    """Networks nobody here trained. They are no part of the repository; tests that read them skip without them."""
    nets = ROOT.parent / "shared" / "nets"
    if not nets.is_dir():
        pytest.skip("needs the networks in ../shared/nets, which are not part of this repository")
    return nets
