"""Results for tests that are about what happens to them afterwards: proved, but not tuned."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from sound_qkeras.interval import Interval
from sound_qkeras.jobs.examine import examine
from sound_qkeras.network import Network
from sound_qkeras.network.files import _checksum
from sound_qkeras.network.graph import size_of
from sound_qkeras.results.result import Result, tool_versions
from sound_qkeras.support.files import RESULT
from sound_qkeras.support.manifest import write_manifest
from sound_qkeras.support.reading import digest_of_json
from sound_qkeras.tuning.optimality import Optimality
from sound_qkeras.verify.certificate import BudgetRow, make_certificate
from sound_qkeras.verify.evidence import Local, Statistical
from sound_qkeras.verify.split_tree import SplitTree
from tests import networks


def make_result(network: Network, *, bits: int = 8, axes: tuple[int, ...] = (0, -1, -1), tier: str = "sound") -> Result:
    """A result on the box from -1 to 1, the same fractional bits everywhere; 20 samples in tiers that need some."""
    low, high = networks.box(network)
    twin = networks.quantized(network, (low * 1.01, high * 1.01), bits, bits)
    box, eps = Interval(low, high), np.full(size_of(network.output_shape), 10.0)
    budget = (BudgetRow("dense_0", "weight", 0.125),)
    samples = np.random.default_rng(0).uniform(low, high, (20, *low.shape))
    evidence = None
    if tier == "local":
        evidence = Local.prove(twin, box, samples, 0.125)
    if tier == "statistical":
        evidence = Statistical.count(twin, samples, eps, 0.9, 7)
    tree = SplitTree(axes) if evidence is None else SplitTree()
    said = {"box_source": "made up", "error_budget": budget, "versions": tool_versions()}
    proved = make_certificate(twin, box, eps, tree, evidence=evidence, **said)
    return replace(
        examine(twin, proved),
        seconds=0.125,
        optimality=Optimality(120.0, 118.5, 119.75),
        ended_by="time",
    )


def edit(path: Path, change: Callable[[dict], object]) -> None:
    """Change a json file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def reseal(folder: Path) -> None:
    """Work out every digest in a saved result again, as somebody would who altered it on purpose."""

    def certified(document: dict) -> None:
        document["sha256"] = digest_of_json({name: part for name, part in document.items() if name != "sha256"})

    def reported(document: dict) -> None:
        document["certificate"] = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))["sha256"]
        document["checksum"] = digest_of_json({name: part for name, part in document.items() if name != "checksum"})

    def described(document: dict) -> None:
        document["checksum"] = _checksum(document, folder / "parameters.npz")

    edit(folder / "network.json", described)
    edit(folder / "certificate.json", certified)
    edit(folder / "formats.json", reported)
    write_manifest(folder, RESULT)


@cache
def random_result(seed: int = 0, sizes: tuple[int, ...] = (3, 6, 2), tier: str = "sound") -> Result:
    """The result of a random network; the same one whenever it is asked for, for nothing in it can be changed."""
    return make_result(networks.random_network(np.random.default_rng(seed), sizes), tier=tier)


def content(result: Result) -> dict:
    """Everything a result says, for comparison without tolerance."""
    return {
        "weights": result.pair.network.weight_hash,
        "codes": result.pair.code_hash,
        "certificate": result.certificate.to_json(),
        "formats": result.formats,
        "cost": result.cost,
        "observed": (result.observed_error, result.observed_input.tobytes(), result.evaluations),
        "float32": result.float32,
        "float64": result.float64,
        "seconds": result.seconds,
        "optimality": result.optimality,
        "ended_by": result.ended_by,
        "notes": (result.pair.network.notes, result.pair.network.head),
    }
