"""Nothing in a saved result can be altered unnoticed: every file, every field, and whatever follows from others."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sound_qkeras.errors import FileFormatError, VerificationError
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Concatenate, Crop, Dense, Input
from sound_qkeras.network.ports import Port
from sound_qkeras.results.archive import load, verify
from sound_qkeras.support import manifest
from sound_qkeras.support.manifest import read_manifest
from sound_qkeras.support.reading import digest_of_json
from sound_qkeras.verify.certificate import Certificate
from tests.results import edit, make_result, random_result, reseal

REFUSED = (FileFormatError, VerificationError)
FILES = ["certificate.json", "formats.json", "manifest.json", "network.json", "parameters.npz", "samples.npz"]
JSON = [name for name in FILES if name.endswith("json")]
TIERS = ["sound", "local", "statistical"]


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch):
    """Saving does without the QKeras model, and is fast."""
    monkeypatch.setitem(sys.modules, "tf_keras", None)


@pytest.fixture
def saved(tmp_path):
    return random_result(tier="local").save(tmp_path / "out")


def replaced(path: Path, kind: str, other: Path) -> None:
    """Put something else in the place of a file."""
    whole = path.read_bytes()
    path.unlink()
    match kind:
        case "empty":
            path.touch()
        case "cut short":
            path.write_bytes(whole[:-7])
        case "longer":
            path.write_bytes(whole + b"x")
        case "one bit":
            path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "link to a copy":
            (path.parent / "copy").write_bytes(whole)
            path.symlink_to("copy")
        case "dangling link":
            path.symlink_to("nothing")
        case "another result's":
            path.write_bytes((other / path.name).read_bytes())


@pytest.mark.skipif(os.name == "nt", reason="makes pipes and links of POSIX")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "kind",
    [
        "missing", "empty", "cut short", "longer", "one bit", "directory", "pipe", "link to a device", "link to a copy",
        "dangling link", "another result's",
    ],
)  # fmt: skip
def test_no_file_can_be_replaced(saved, tmp_path, name, kind):
    verify(saved)
    replaced(saved / name, kind, random_result(5, tier="local").save(tmp_path / "other"))
    with pytest.raises(FileFormatError, match=rf"{name}|{saved}"):
        verify(saved)


def leaves(document, path=()):
    """Every plain value of a json document, by its place."""
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    inner = [leaf for key, value in pairs for leaf in leaves(value, (*path, key))]
    return inner or [path]


def changed(document, path):
    """Another value in one place."""
    for key in path[:-1]:
        document = document[key]
    value = document[path[-1]]
    others = {bool: lambda: not value, int: lambda: value + 1, float: lambda: value + 0.5, str: lambda: value + "x"}
    document[path[-1]] = others.get(type(value), lambda: "something")()


@pytest.mark.parametrize("name", JSON)
def test_no_field_can_be_changed(saved, name):
    text = (saved / name).read_text()
    for path in leaves(json.loads(text)):
        edit(saved / name, lambda document, path=path: changed(document, path))
        with pytest.raises(REFUSED):
            verify(saved)
        (saved / name).write_text(text)


# With every digest worked out again: what other parts say is worked out again too, not read.

FORGED = {
    "probability": ("statistical", lambda c: c["evidence"].update(probability=1e-9)),
    "calibration samples negative": ("statistical", lambda c: c["evidence"].update(calibration_samples=-7)),
    "calibration samples a fraction": ("statistical", lambda c: c["evidence"].update(calibration_samples=7.5)),
    "confidence 1": ("statistical", lambda c: c["evidence"].update(confidence=1.0)),
    "violations below zero": ("statistical", lambda c: c["evidence"].update(failures=-1)),
    "number of samples": ("statistical", lambda c: c["evidence"].update(samples=2000)),
    "tree nobody uses": ("statistical", lambda c: c.update(split_tree=[5])),
    "tree nobody uses, well formed": ("local", lambda c: c.update(split_tree=[0, -1, -1])),
    "tree of booleans": ("sound", lambda c: c.update(split_tree=[False, -1, -1])),
    "phase tree nobody uses": ("sound", lambda c: c.update(stability_tree=[0, -1])),
    "radius infinite": ("local", lambda c: c["evidence"].update(radius=1e999)),
    "all infinite": ("sound", lambda c: c.update(eps=[1e999] * 2, output_bounds=[1e999] * 2, bound=1e999)),
    "bound": ("sound", lambda c: c.update(bound=1e-9)),
    "claim": ("sound", lambda c: c.update(claim="all is well")),
    "unknown part": ("sound", lambda c: c.update(approved="yes")),
    "unknown part of the box": ("sound", lambda c: c["box"].update(approved="yes")),
    "unknown part of the evidence": ("local", lambda c: c["evidence"].update(approved="yes")),
    "unknown part of a row": ("sound", lambda c: c["error_budget"][0].update(approved="yes")),
    "range of a node that is none": ("sound", lambda c: c["ranges"].update(nothing=[0.0, 1.0])),
    "notes": ("sound", lambda c: c.update(notes=["read as it stands"])),
    "version": ("sound", lambda c: c.update(version=1)),
}


@pytest.mark.parametrize(
    "fault",
    ["probability", "claim", "bound", "all infinite", "tree of booleans", *(f for f in FORGED if "unknown" in f)],
)
def test_what_follows_from_other_parts_is_not_read(fault):
    tier, change = FORGED[fault]
    evidence = (certificate := random_result(tier=tier).certificate).evidence
    document = json.loads(json.dumps(certificate.to_json()))
    change(document)
    document["sha256"] = digest_of_json({name: part for name, part in document.items() if name != "sha256"})
    with pytest.raises(FileFormatError):
        Certificate.from_json(document, None if evidence is None else evidence.arrays())


@pytest.mark.parametrize("fault", FORGED)
def test_a_certificate_with_new_digests_is_refused(tmp_path, fault):
    tier, change = FORGED[fault]
    saved = random_result(tier=tier).save(tmp_path / "out")
    edit(saved / "certificate.json", change)
    reseal(saved)
    with pytest.raises(REFUSED):
        verify(saved)


def two_inputs() -> Network:
    """Two inputs of one shape."""
    rng = np.random.default_rng(0)
    nodes = (
        Node("x", Input((4,)), (), "x"),
        Node("a", Crop((0,), (2,)), ("x",), "a"),
        Node("b", Crop((2,), (0,)), ("x",), "b"),
        Node("both", Concatenate(0), ("a", "b"), "both"),
        Node("dense", Dense(rng.normal(size=(4, 2)), np.zeros(2)), ("both",), "dense"),
    )
    return Network(nodes, notes=("two inputs",), inputs=(Port("image", "a"), Port("state", "b")))


def swap_ports(document):
    first, second = document["inputs"]
    first["name"], second["name"] = second["name"], first["name"]


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(head="softmax"),
        lambda document: document.update(notes=["nothing to say"]),
        lambda document: document.update(approved="yes"),
        lambda document: document["nodes"][1].update(approved="yes"),
        lambda document: document["fixed_point"].update(approved="yes"),
        swap_ports,
    ],
)
def test_a_network_with_new_digests_is_refused(tmp_path, change):
    saved = make_result(two_inputs()).save(tmp_path / "out")
    verify(saved)
    edit(saved / "network.json", change)
    reseal(saved)
    with pytest.raises(REFUSED):
        verify(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(observed_error=0.0),
        lambda document: document.update(summary="all is well"),
        lambda document: document["cost"].update(weight_bits=1),
        lambda document: document["formats"][0].update(word_length=1),
        lambda document: document["float32"].update(exact=False),
        lambda document: document["float32"].update(exact=True, error=0.0, bound=0.0, layers=[]),
        lambda document: [row.update(error=-1.0) for row in document["float32"]["layers"]],
        lambda document: document["float64"].update(bound=1e-9),
        lambda document: document["optimality"].update(gap=0.0),
        lambda document: document.update(approved="yes"),
        lambda document: document.update(qkeras_model="qkeras_model.keras"),
    ],
)
def test_a_report_with_new_digests_is_refused(tmp_path, change):
    saved = random_result().save(tmp_path / "out")
    edit(saved / "formats.json", change)
    reseal(saved)
    with pytest.raises(REFUSED):
        verify(saved)


def test_local_bounds_of_another_shape_are_refused(tmp_path):
    saved = random_result(tier="local").save(tmp_path / "out")
    with np.load(saved / "samples.npz") as archive:
        arrays = dict(archive)
    for bounds in (arrays["bounds"][:, :1], arrays["bounds"][:3], arrays["bounds"].reshape(-1), arrays["bounds"].T):
        wrong = replace(random_result(tier="local").certificate.evidence, bounds=bounds)
        np.savez(saved / "samples.npz", samples=arrays["samples"], bounds=bounds)
        edit(saved / "certificate.json", lambda document, wrong=wrong: document.update(evidence=wrong.to_json()))
        reseal(saved)
        for read in (verify, load):
            with pytest.raises(REFUSED):
                read(saved)


def test_the_manifest_must_cover_every_file(saved):
    found = read_manifest(saved)
    for name in found.files:
        manifest._write(
            saved, replace(found, files={other: digest for other, digest in found.files.items() if other != name})
        )
        with pytest.raises(FileFormatError, match=name):
            verify(saved)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda result: {"observed_error": 0.5 * result.observed_error}, "worst error found is said"),
        (lambda result: {"observed_input": result.certificate.box.upper + 1.0}, "outside of the box"),
        (lambda result: {"evaluations": 0}, "no input was tried"),
    ],
)
def test_the_worst_error_must_be_the_one_at_its_input(tmp_path, change, match):
    result = random_result()
    saved = replace(result, **change(result)).save(tmp_path / "out")
    with pytest.raises(VerificationError, match=match):
        verify(saved)


def test_what_inputs_are_called_is_part_of_the_network():
    trained = two_inputs()
    first, second = trained.inputs
    swapped = (replace(first, name=second.name), replace(second, name=first.name))
    hashes = {
        trained.weight_hash,
        replace(trained, inputs=swapped).weight_hash,
        Network(trained.nodes, "softmax", (), trained.inputs).weight_hash,
    }
    assert len(hashes) == 3
