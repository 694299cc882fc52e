"""Names and units of what goes in and comes out, and when and of what a result was made."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InputError
from sound_qkeras.network.labels import Labels
from sound_qkeras.results.origin import source_files
from sound_qkeras.verify.certificate import Certificate
from tests.networks import random_network


@pytest.fixture(scope="module")
def network():
    return random_network(np.random.default_rng(0), (3, 4, 2))


def test_names_are_one_per_number_or_one_per_tensor(network):
    own = Labels.of(network, "angle, rate,goal", None, None)
    assert own.input_names(network) == ["angle", "rate", "goal"]
    assert Labels.of(network, ["state"], None, None).input_names(network) == ["state[0]", "state[1]", "state[2]"]
    first, last = network.nodes[0].layer, network.output.layer
    assert Labels().input_names(network) == [f"{first}[{k}]" for k in range(3)]
    assert Labels().output_names(network) == [f"{last}[{k}]" for k in range(2)]


def test_units_are_of_a_number_or_of_all_of_a_tensor(network):
    found = Labels.of(network, "state", "torque,brake", "state=rad,torque=N m")
    assert [found.unit(name) for name in (*found.input_names(network), *found.output_names(network))] == [
        "rad",
        "rad",
        "rad",
        "N m",
        "",
    ]


@pytest.mark.parametrize(
    ("inputs", "outputs", "units", "said"),
    [
        ("a,b", None, None, r"input_names has 2 names; accepted: 3, one per number, or 1"),
        (None, "a,b,c", None, r"output_names has 3 names"),
        ("a,a,b", None, None, "different ones"),
        ("a,,b", None, None, "none of them empty"),
        (3, None, None, "a list of texts"),
        (None, None, {"speed": "m"}, "speed.*accepted"),
        (None, None, "speed", "accepted"),
    ],
)
def test_what_is_no_name_or_unit_is_refused(network, inputs, outputs, units, said):
    with pytest.raises(InputError, match=said):
        Labels.of(network, inputs, outputs, units)


def test_they_are_part_of_the_certificate_and_change_nothing_else(network, tmp_path):
    options = {"effort": "fast"}
    plain = sq.quantize(network, 0.1, (-1.0, 1.0), **options)
    named = sq.quantize(network, 0.1, (-1.0, 1.0), output_names=["torque", "brake"], units={"torque": "N m"}, **options)
    assert replace(named.certificate, labels=Labels()).digest == plain.certificate.digest != named.certificate.digest
    assert "labels" not in plain.certificate.to_json()
    again = sq.load(named.save(tmp_path / "out"))
    assert again.certificate.labels == named.certificate.labels == Labels((), ("torque", "brake"), {"torque": "N m"})
    assert again.origin == named.origin
    assert named.origin is not None
    assert Certificate.from_json(named.certificate.to_json()).digest == named.certificate.digest


def test_files_are_named_by_their_bytes(tmp_path):
    file = tmp_path / "model.keras"
    file.write_bytes(b"bytes")
    (found,) = source_files("model", file)
    assert (found.role, found.name, found.sha256) == ("model", "model.keras", hashlib.sha256(b"bytes").hexdigest())
    assert [one.name for one in source_files("model", tmp_path)] == [f"{tmp_path.name}/model.keras"]
    assert len(source_files("model", (file, file))) == 2
    assert source_files("model", object()) == source_files("reference", "latent") == ()
