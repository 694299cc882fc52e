"""Networks on disk: an exact round trip, and every damaged or dishonest file refused."""

import io
import json
import pickle
import zipfile
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.network import Network, Node, Pair
from sound_qkeras.network.files import _checksum, load_network, save_network
from sound_qkeras.network.ops import Dense, Input
from sound_qkeras.support.npz import read_arrays
from sound_qkeras.support.reading import MAX_JSON_BYTES

from ..networks import box, quantized, random_network, random_quantized, samples


def twin(seed=0, sizes=(4, 6, 3, 2)):
    """A network with notes, a head, a slash in a name and folded parameters, and its fixed-point network."""
    network = random_network(np.random.default_rng(seed), sizes)
    dense, op = list(network.affine())[-1]
    bias = op.bias.copy()
    bias[0] = -0.0
    op = replace(op, kernel_radius=np.full(op.kernel.shape, 5e-324), bias=bias)
    renamed = {node.name: f"model/{node.name}:0" for node in network.nodes}
    nodes = tuple(
        Node(renamed[n.name], op if n is dense else n.op, tuple(renamed[i] for i in n.inputs), n.layer)
        for n in network.nodes
    )
    return quantized(Network(nodes, "softmax", ("Set aside: softmax.", "naïve")), box(network))


def same(one, other):
    """Whether two fixed-point networks are equal bit for bit."""
    return (one.network.weight_hash, one.code_hash) == (other.network.weight_hash, other.code_hash)


@pytest.mark.parametrize("seed", range(5))
def test_the_round_trip_is_exact(tmp_path, seed):
    saved, ranges = random_quantized(np.random.default_rng(seed))
    save_network(tmp_path, saved.network, saved)
    network, loaded = load_network(tmp_path)
    assert isinstance(loaded, Pair)
    assert loaded.network is network
    assert same(loaded, saved)
    assert (loaded.formats, loaded.accumulators) == (saved.formats, saved.accumulators)
    for name, codes in saved.parameters.items():
        assert loaded.parameters[name].kernel.tolist() == codes.kernel.tolist()
        assert loaded.parameters[name].bias.dtype == np.int64
    x = samples(np.random.default_rng(1), ranges, 20)
    everything = zip(saved.simulate_all(x).values(), loaded.simulate_all(x).values(), strict=True)
    assert all((a == b).all() for a, b in everything)


def test_names_notes_heads_radii_and_negative_zeros_survive(tmp_path):
    saved = twin()
    save_network(tmp_path, saved.network, saved)
    network, loaded = load_network(tmp_path)
    assert same(loaded, saved)
    assert (network.head, network.notes) == (saved.network.head, saved.network.notes)
    assert [(n.name, n.inputs, n.layer) for n in network.nodes] == [
        (n.name, n.inputs, n.layer) for n in saved.network.nodes
    ]
    *_, (_, op) = network.affine()
    assert op.kernel_radius is not None
    assert (op.kernel_radius == 5e-324).all()
    assert np.signbit(op.bias[0])


def test_a_network_without_a_twin(tmp_path):
    network = twin().network
    save_network(tmp_path, network)
    loaded, none = load_network(tmp_path)
    assert none is None
    assert loaded.weight_hash == network.weight_hash


def test_the_same_network_gives_the_same_bytes(tmp_path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        saved = twin()
        save_network(tmp_path / name, saved.network, saved)
        contents.append([(file.name, file.read_bytes()) for file in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]
    assert [name for name, _ in contents[0]] == ["network.json", "parameters.npz"]


def test_a_twin_of_another_network_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="another network"):
        save_network(tmp_path, twin().network, twin(1))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing.*cannot be written"):
        save_network(tmp_path / "missing", twin().network)


@pytest.fixture
def saved(tmp_path):
    """A directory with a network and its twin."""
    one = twin()
    save_network(tmp_path, one.network, one)
    return tmp_path


@pytest.mark.parametrize("name", ["network.json", "parameters.npz"])
def test_missing_and_empty_files_are_refused(saved, name):
    (saved / name).write_bytes(b"")
    with pytest.raises(FileFormatError):
        load_network(saved)
    (saved / name).unlink()
    with pytest.raises(FileFormatError, match=r"cannot be read|No such file"):
        load_network(saved)


@given(st.sampled_from(["network.json", "parameters.npz"]), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damaged_byte_goes_unnoticed(saved, name, where, flip):
    """Either the damage is refused, or it did not change the meaning (white space in the json)."""
    original = (saved / name).read_bytes()
    data = bytearray(original)
    data[int(where * len(data))] ^= flip
    (saved / name).write_bytes(data)
    try:
        network, loaded = load_network(saved)
    except FileFormatError:
        return
    else:
        assert name == "network.json"
        assert same(loaded, twin())
        assert (network.head, network.notes) == (twin().network.head, twin().network.notes)
    finally:
        (saved / name).write_bytes(original)


@given(st.sampled_from(["network.json", "parameters.npz"]), st.floats(0, 1, exclude_max=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_truncated_files_are_refused(saved, name, where):
    original = (saved / name).read_bytes()
    (saved / name).write_bytes(original[: int(where * (len(original) - 2))])
    try:
        with pytest.raises(FileFormatError):
            load_network(saved)
    finally:
        (saved / name).write_bytes(original)


def rewrite(directory, change):
    """Change the json as someone would who also renews the checksum."""
    document = json.loads((directory / "network.json").read_text(encoding="utf-8"))
    change(document)
    document["checksum"] = _checksum(document, directory / "parameters.npz")
    (directory / "network.json").write_text(json.dumps(document), encoding="utf-8")


def put(*path_and_value):
    """A change that sets the element at a path."""
    *path, last, value = path_and_value

    def change(document):
        for step in path:
            document = document[step]
        document[last] = value

    return change


def remove(*path):
    """A change that removes the element at a path."""

    def change(document):
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return change


DENSE = 2  # nodes: input, reshape, dense, ...
FORMAT = ("fixed_point", "formats", "model/x:0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("nodes", DENSE, "kind", "exec"), r"node 'model/dense_0:0' is of unknown kind 'exec'.*dense"),
        (put("nodes", DENSE, "kind", "__class__"), "unknown kind"),
        (put("nodes", DENSE, "kind", ["dense"]), "a list where a str"),
        (put("version", 2), "version 2, this library reads 1"),
        (put("format", "tar"), "not of the format"),
        (put("nodes", 0, "settings", "shape", [4, 1 << 40]), "exceeds"),
        (put("nodes", 0, "settings", "shape", [1 << 20, 1 << 20]), "exceeds"),
        (put("nodes", 0, "settings", "shape", [-1, -4]), "negative"),
        (put("nodes", 0, "settings", "shape", [5]), "cannot reshape"),
        (put("nodes", 0, "settings", "shape", {"a": 1}), "setting is a dict"),
        (put("nodes", 0, "settings", "kernel", 1), "described by"),
        (put("nodes", DENSE, "settings", "kernel", 1), "described by"),
        (put("nodes", DENSE, "arrays", ["kernel"]), "does not hold the arrays"),
        (put("nodes", DENSE, "arrays", ["kernel", "bias", "kernel_codes"]), "described by"),
        (put("nodes", DENSE, "arrays", ["kernel", "../bias"]), "does not hold the arrays"),
        (put("nodes", DENSE, "inputs", ["later"]), "no earlier node"),
        (put("nodes", DENSE, "inputs", []), "ModelError|IndexError"),
        (put("nodes", DENSE, "name", "model/x:0"), "KeyError|unique"),
        (put("nodes", {}), "a dict where a list"),
        (put("nodes", []), "KeyError"),
        (put("nodes", DENSE, 7), "TypeError"),
        (put("head", 3), "a int where a str"),
        (put("notes", "all fine"), "a str where a list"),
        (put("fixed_point", []), "TypeError"),
        (put("fixed_point", "parameters", {}), "does not hold the arrays"),
        (put(*FORMAT, "word_length", 60), "at most 53 bits"),
        (put(*FORMAT, "word_length", 10**30), "outside 1 to"),
        (put(*FORMAT, "word_length", 8.0), "expected two integers"),
        (put(*FORMAT, "word_length", True), "expected two integers"),
        (put(*FORMAT, "integer_bits", 10**9), "integer bits"),
        (put(*FORMAT, "integer_bits", -(10**9)), "integer bits"),
        (put(*FORMAT, "signed", 1), "expected two integers"),
        (put(*FORMAT, "extra", 1), "expected two integers"),
        (remove(*FORMAT), "no format"),
        (remove(*FORMAT, "signed"), "KeyError"),
        (put("fixed_point", "formats", "nowhere", {"word_length": 8, "integer_bits": 0, "signed": True}), "no node"),
        (put("fixed_point", "parameters", "model/dense_0:0", "kernel_format", "word_length", 2), "does not fit"),
        (remove("fixed_point", "parameters", "model/dense_0:0"), "does not hold the arrays"),
        (remove("nodes"), "KeyError"),
        (remove("head"), "KeyError"),
    ],
)
def test_files_that_lie_are_refused(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(FileFormatError, match=message):
        load_network(saved)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"format": NaN}', "\udc80", '{"version": ' + "1" * 5000]
)
def test_json_that_is_none_is_refused(saved, text):
    (saved / "network.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(FileFormatError):
        load_network(saved)


def test_a_huge_json_is_refused_before_it_is_read(saved):
    with (saved / "network.json").open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(FileFormatError, match="the limit is"):
        load_network(saved)


def npz(**members):
    """The bytes of an npz with these members as they are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(array, **changes):
    """The bytes of an npy, its header edited."""
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    for old, new in changes.items():
        assert old.encode() in data or old == "shape"
        data = data.replace(*new)
    return data


class Bomb:
    """Unpickling it would raise."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


NUMBERS = np.arange(6.0)
TALL = npy(NUMBERS, shape=(b"(6,), }            ", b"(1000000000000,), }"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npz(a=npy(NUMBERS), b=npy(NUMBERS)), "odd one: .*b.npy"),
        (npz(b=npy(NUMBERS)), "odd one"),
        (npz(), "odd one"),
        (npz(a=TALL), "its header says"),
        (npz(a=npy(NUMBERS) + b"more"), "its header says"),
        (npz(a=npy(NUMBERS)[:-1]), "its header says"),
        (npz(a=npy(NUMBERS.astype(np.float32))), "accepted: float64 or int64"),
        (npz(a=npy(NUMBERS.astype(">f8"))), "accepted: float64 or int64"),
        (npz(a=npy(np.asfortranarray(np.ones((2, 3))))), "accepted: float64 or int64"),
        (npz(a=npy(np.zeros((0, 3)))), "accepted: float64 or int64"),
        (npz(a=npy(np.array([Bomb(), Bomb()], dtype=object))), "accepted: float64 or int64"),
        (npz(a=pickle.dumps(Bomb())), "magic"),
        (npz(a=b""), "EOF|magic"),
        (npz(a=b"\x93NUMPY\x09\x00" + bytes(50)), "version"),
        (npz(a=b"\x93NUMPY\x01\x00\xff\xff" + b" " * 70_000), "not readable"),
        (npz(a=b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').getcwd()".ljust(32)), "not readable"),
        (b"PK", "not readable"),
        (pickle.dumps(Bomb()), "not readable"),
    ],
)
def test_arrays_that_are_none_are_refused(tmp_path, data, message):
    file = tmp_path / "parameters.npz"
    file.write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        read_arrays(file, ["a"])


def test_a_zip_bomb_is_refused_unopened(tmp_path):
    file = tmp_path / "parameters.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10**7))
    assert file.stat().st_size < 10**5
    with pytest.raises(FileFormatError, match="compressed"):
        read_arrays(file, ["a"])


def test_a_size_that_only_the_directory_claims_is_refused(tmp_path):
    file = tmp_path / "parameters.npz"
    data = npz(a=npy(NUMBERS))
    size = len(npy(NUMBERS)).to_bytes(4, "little")
    file.write_bytes(data.replace(size + size, (2**31).to_bytes(4, "little") * 2))
    with pytest.raises(FileFormatError, match="claims to hold"):
        read_arrays(file, ["a"])


def test_a_member_twice_is_refused(tmp_path):
    file = tmp_path / "parameters.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(NUMBERS))
        archive.writestr("b.npy", npy(NUMBERS))
    file.write_bytes(file.read_bytes().replace(b"b.npy", b"a.npy"))
    with pytest.raises(FileFormatError, match="odd one"):
        read_arrays(file, ["a"])


def test_float_codes_and_integer_kernels_are_refused(saved):
    with np.load(saved / "parameters.npz") as stored:
        arrays = dict(stored)
    for name, other in ((f"{DENSE}.kernel", np.int64), (f"{DENSE}.kernel_codes", np.float64)):
        np.savez(saved / "parameters.npz", **{**arrays, name: arrays[name].astype(other)})
        rewrite(saved, lambda _document: None)
        with pytest.raises(FileFormatError, match="int64"):
            load_network(saved)


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [("bias", lambda bias: bias * np.nan, "NaN"), ("kernel", np.ravel, "expected")],
    ids=["not finite", "one axis"],
)
def test_arrays_that_are_no_parameters_are_refused(saved, name, damage, says):
    with np.load(saved / "parameters.npz") as stored:
        arrays = dict(stored)
    np.savez(saved / "parameters.npz", **{**arrays, f"{DENSE}.{name}": damage(arrays[f"{DENSE}.{name}"])})
    rewrite(saved, lambda _document: None)
    with pytest.raises(FileFormatError, match=says):
        load_network(saved)


def test_fortran_ordered_parameters_are_saved_in_c_order(tmp_path):
    kernel = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    network = Network((Node("x", Input((2,))), Node("d", Dense(kernel, np.zeros(3)), ("x",), "d")))
    save_network(tmp_path, network)
    loaded, _ = load_network(tmp_path)
    assert loaded.weight_hash == network.weight_hash
    *_, (_, op) = loaded.affine()
    assert (op.kernel == kernel).all()
