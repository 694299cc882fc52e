"""Formats of single channels: the same values in fewer bits, in every place that stores, counts or rounds them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sound_qkeras.errors import FileFormatError, ModelError
from sound_qkeras.fixed_point import Format
from sound_qkeras.interval import Interval
from sound_qkeras.network import Pair
from sound_qkeras.network.files import load_network, save_network
from sound_qkeras.network.simulate import simulate_codes
from sound_qkeras.tuning.build import round_parameters
from sound_qkeras.tuning.channels import sensitivities
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.tuning.groups import groups_of
from sound_qkeras.tuning.rounding import cancel_errors, linearise, sample_box
from tests.networks import box, quantized, random_network, samples

# One column each of the finest grid, of a coarser one, of a coarser unsigned one, and of zeros.
KERNEL = np.array([[5, -8, 16, 0], [-3, 12, 48, 0], [0, 4, 0, 0]])
FORMATS = (Format(4, 2, True), Format(3, 3, True), Format(2, 5, False), Format(1, 0, False))


def with_channels(formats: tuple[Format, ...] | None = FORMATS) -> Pair:
    """3 -> 4 -> 2; the formats are those of the first layer, whose own has one fractional bit."""
    network = random_network(np.random.default_rng(0), (3, 4, 2))
    plain = quantized(network, box(network, -4.0, 4.0))
    codes = replace(plain.parameters["dense_0"], kernel=KERNEL, kernel_format=Format(8, 6, True))
    parameters = {**plain.parameters, "dense_0": replace(codes, channel_formats=formats)}
    return replace(plain, parameters=parameters, accumulators={})


def test_no_value_changes():
    twin, plain = with_channels(), with_channels(None)
    codes = twin.parameters["dense_0"]
    assert codes.channel_codes.tolist() == [[5, -2, 1, 0], [-3, 3, 3, 0], [0, 1, 0, 0]]
    assert codes.channel_shifts.tolist() == [0, 2, 4, 0]
    np.testing.assert_array_equal(codes.kernel_value, plain.parameters["dense_0"].kernel_value)
    steps = [output.step for output in FORMATS]
    np.testing.assert_array_equal(codes.channel_codes * steps, codes.kernel_value)
    x = samples(np.random.default_rng(1), box(twin.network), 50)
    np.testing.assert_array_equal(simulate_codes(twin, x), simulate_codes(plain, x))
    assert twin.code_hash != plain.code_hash


def test_the_cost_counts_every_channel():
    twin, plain = cost_of(with_channels()), cost_of(with_channels(None))
    assert plain.weight_bits - twin.weight_bits == 3 * (4 * 8 - (4 + 3 + 2 + 1))
    read = with_channels().formats["x"].word_length
    assert plain.bit_operations - twin.bit_operations == read * (plain.weight_bits - twin.weight_bits)
    assert (twin.bias_bits, twin.activation_bits) == (plain.bias_bits, plain.activation_bits)


@pytest.mark.parametrize(
    ("channel", "other"),
    [
        (0, Format(3, 1, True)),  # 5 does not fit
        (1, Format(3, 4, True)),  # too coarse for 12 of these steps
        (1, Format(3, 3, False)),  # one is negative
        (2, Format(9, 6, True)),  # finer than the kernel
        (2, Format(60, 54, False)),  # longer than a stored word
        (3, Format(1, 70, False)),  # so coarse that a code could not be shifted there
    ],
)
def test_formats_that_do_not_hold_the_values_are_refused(channel, other):
    wrong = (*FORMATS[:channel], other, *FORMATS[channel + 1 :])
    with pytest.raises(ModelError, match=f"'dense_0' channel {channel}: "):
        with_channels(wrong)


def test_every_channel_has_a_format():
    with pytest.raises(ModelError, match="3 channel formats, expected 4"):
        with_channels(FORMATS[:3])


def test_they_are_saved_and_loaded(tmp_path):
    twin = with_channels()
    save_network(tmp_path, twin.network, twin)
    _, loaded = load_network(tmp_path)
    assert loaded is not None
    assert loaded.parameters["dense_0"].channel_formats == FORMATS
    assert loaded.parameters["dense_1"].channel_formats is None
    assert loaded.code_hash == twin.code_hash


@pytest.mark.parametrize("entry", ["text", None, [{"word_length": 4}], [7]])
def test_damaged_ones_are_refused(tmp_path, monkeypatch, entry):
    from sound_qkeras.network import files

    twin = with_channels()
    save_network(tmp_path, twin.network, twin)
    document = json.loads((tmp_path / files.NETWORK_FILE).read_text(encoding="utf-8"))
    document["fixed_point"]["parameters"]["dense_0"]["channel_formats"] = entry
    (tmp_path / files.NETWORK_FILE).write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(files, "check_header", lambda *_: None)
    with pytest.raises(FileFormatError):
        load_network(tmp_path)


def test_errors_cancel_between_the_neighbours_on_the_own_grid():
    network = random_network(np.random.default_rng(3), (4, 6, 2))
    low, high = box(network)
    groups = groups_of(network)
    offsets = {"dense_0": np.array([0, -3, 2, 1, -1, -2]), "dense_1": np.array([1, -2])}
    bits = {group: {"weight": 4, "bias": 14, "activation": 14}[group.kind] for group in groups}
    centers = {node.name: np.zeros(op.kernel.shape[0]) for node, op in network.affine()}
    rounded = round_parameters(network, bits, centers, offsets)
    looked_at = linearise(network, sample_box(Interval(low, high), 128), np.full(2, 1e-3))
    cancelled = cancel_errors(network, rounded, looked_at)
    flipped = 0
    for node, op in network.affine():
        codes = cancelled[node.name].to_codes()
        words = rounded[node.name].words
        steps = np.ldexp(1.0, -words.bits)
        inside = (words.low * steps <= op.kernel) & (op.kernel <= words.high * steps)
        assert np.all((np.abs(codes.kernel_value - op.kernel) < steps) | ~inside)
        assert np.all((words.low <= codes.channel_codes) & (codes.channel_codes <= words.high))
        np.testing.assert_array_equal(codes.channel_codes * steps, codes.kernel_value)
        flipped += int(np.sum(cancelled[node.name].kernel != rounded[node.name].kernel))
    assert flipped > 0


def test_a_channel_that_matters_more_is_more_sensitive():
    """Output 1 is allowed a fourth of the error; doubling what leaves a unit doubles what its weights matter."""
    network = random_network(np.random.default_rng(4), (3, 5, 2), linear=(0,))
    twin = quantized(network, box(network), 12, 12)
    leaves = Interval(*(end[None] for end in box(network)))
    centers = {"dense_0": np.zeros(3), "dense_1": np.zeros(5)}
    found = sensitivities(twin, leaves, np.array([1.0, 0.25]), centers)
    np.testing.assert_allclose(found["dense_1"][1] / found["dense_1"][0], 4.0)
    outgoing = np.abs(twin.parameters["dense_1"].kernel_value) * [1.0, 4.0]
    np.testing.assert_allclose(found["dense_0"], outgoing.max(axis=1) * np.sqrt(3.0), rtol=1e-3)
