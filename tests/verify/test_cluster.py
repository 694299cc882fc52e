"""A real Dask cluster of two processes gives what one process gives, to the last bit."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.verify import batching
from tests.networks import random_network
from tests.verify.test_batching import pair, proved

distributed = pytest.importorskip("distributed", reason="needs distributed: pip install 'sound-qkeras[dask]'")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.solver]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def workers_that_proved(client: Any) -> int:
    return sum(client.run(lambda: "sound_qkeras.verify.propagation" in sys.modules).values())


# Workers cannot import tests, so only what the library defines is sent to them. The effort is "normal" with time to spare:
# a search that runs out of time may end elsewhere.
quantize = partial(sq.quantize, random_network(np.random.default_rng(3), (3, 6, 2)), box=(-1.0, 1.0), effort=59.0)


def told(result: sq.Result) -> tuple:
    return result.certificate.to_json(), result.pair.code_hash, result.observed_error, result.optimality


def test_leaves_are_proved_on_the_cluster(client, monkeypatch):
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 4)
    monkeypatch.setattr(batching, "WORTH_ASKING", 0.0)
    quantized, box = pair()
    here = proved(quantized, box)
    with joblib.parallel_config(backend="dask"):
        assert proved(quantized, box) == here
    assert workers_that_proved(client) == 2


def test_a_network_is_quantized_with_its_leaves_on_the_cluster(client, monkeypatch):
    monkeypatch.setattr("sound_qkeras.verify.propagation.MOST_BOXES", 24)
    here = quantize(eps=1e-3)
    monkeypatch.setattr(batching, "WORTH_ASKING", 0.0)
    with joblib.parallel_config(backend="dask"):
        assert told(quantize(eps=1e-3)) == told(here)


def test_what_the_page_says_works(client):
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    [block] = [block for block in blocks if "parallel_config" in block]
    names: dict[str, Any] = {"sq": sq, "model": random_network(np.random.default_rng(3), (3, 6, 2))}
    exec(block, names)
    assert names["result"].certificate.bound <= 1e-3


def test_a_sweep_runs_on_the_cluster(client):
    tolerances = (1e-1, 1e-2, 1e-3)
    with joblib.parallel_config(backend="dask"):
        found = joblib.Parallel()(joblib.delayed(quantize)(eps=eps) for eps in tolerances)
    assert [told(result) for result in found] == [told(quantize(eps=eps)) for eps in tolerances]
