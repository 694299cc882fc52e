"""Files that a user names: nothing is opened that never ends, and nothing is read that does not fit."""

import io
import os
import zipfile

import numpy as np
import pytest

from sound_qkeras.cli import BAD_INPUT, main
from sound_qkeras.cli.options import load_samples
from sound_qkeras.errors import FileFormatError, InputError
from sound_qkeras.jobs import quantize as pipeline
from sound_qkeras.support import given_files
from sound_qkeras.support.given_files import load_array, load_member

OPTIONS = ("--data", "--samples", "--labels", "--box", "--train", "--freeze")
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs pipes and devices")


def saved(save, **settings):
    file = io.BytesIO()
    save(file, **settings)
    return file.getvalue()


# The same numbers in a .npy file, and compressed in an .npz file.
FILES = saved(np.save, arr=np.arange(6.0)), saved(np.savez_compressed, x=np.arange(6.0))


def endless(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@POSIX
@pytest.mark.parametrize(
    ("option", "kind"),
    [(option, kind) for option in OPTIONS for kind in ("pipe", "device", "directory")]
    + [("model", "pipe"), ("model", "device")],
)
def test_what_is_no_regular_file_is_refused(tmp_path, monkeypatch, capfd, kind, option):
    monkeypatch.setattr(pipeline, "quantize", lambda *_, **__: pytest.fail("the work came first"))
    (tmp_path / "model.h5").write_bytes(b"stands for a model")
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    name = "model.keras" if option == "model" else "odd.npz:x" if option == "--labels" else "odd.npy"
    path = f"{endless(tmp_path, name.removesuffix(':x'), kind)}{':x' * name.endswith(':x')}"
    model = path if option == "model" else str(tmp_path / "model.h5")
    arguments = ["quantize", model, "--eps", "1", "--out", str(tmp_path / "out"), "--box", "-1", "1"]
    if option == "--train":
        arguments = ["compare", model, "--eps", "1", "--train", path, path]
    elif option == "--freeze":
        arguments = ["certify", model, "--box", "-1", "1", "--freeze", path]
    elif option in ("--data", "--box"):
        arguments = [*arguments[:6], *([option, path] if option == "--data" else [option, path, path])]
    elif option != "model":
        arguments += [option, path]
    assert main(arguments) == BAD_INPUT
    accepted = "a whole model" if option == "model" else "an .npz file" if option == "--labels" else "a .npy file"
    assert f"is a {kind}; accepted: {accepted}" in capfd.readouterr().err


@POSIX
def test_the_file_that_was_checked_is_the_one_that_is_read(tmp_path, monkeypatch):
    paths = tmp_path / "x.npy", tmp_path / "x.npz"
    for path, content in zip(paths, FILES, strict=True):
        path.write_bytes(content)
    unhooked = given_files.open_regular

    def swapped(path, *given, **settings):
        """Somebody puts another file in its place as soon as it is open."""
        file = unhooked(path, *given, **settings)
        path.unlink()
        path.write_bytes(b"another file")
        return file

    monkeypatch.setattr(given_files, "open_regular", swapped)
    assert np.array_equal(load_array(paths[0]), load_member(paths[1], "x"))


def member(path, shape, *, data=None, dtype="<f8", compression=zipfile.ZIP_DEFLATED):
    """An .npz file whose header says one thing and whose data may be another."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", header.getvalue() + (b"" if data is None else data))
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool, ">f4"])
def test_members_are_what_was_saved(tmp_path, save, dtype, order):
    array = np.asarray(np.arange(12).reshape(3, 4) % 5, dtype=dtype, order=order)
    save(tmp_path / "data.npz", x=array, y=array[:0])
    found = load_samples(f"{tmp_path / 'data.npz'}:x")
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype
    assert load_member(tmp_path / "data.npz", "y").shape == (0, 4)


def test_what_unpacks_to_far_more_than_it_is_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(given_files, "SMALL", 1 << 16)
    path = member(tmp_path / "bomb.npz", (1000, 1000), data=bytes(8 * 10**6))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(
        FileFormatError,
        match=r"^'\S+bomb\.npz': 'x\.npy' unpacks from 7\.\d KiB to 7\.6 MiB; accepted: arrays",
    ):
        load_member(path, "x")


@pytest.mark.parametrize(
    ("shape", "settings", "says"),
    [
        ((10**12,), {}, "float64; accepted: 16.0 GiB"),
        ((10**6, 10**6), {"dtype": "|b1"}, "float64; accepted: 16.0 GiB"),
        ((100,), {"data": bytes(8)}, "other numbers than its header says"),
        ((1,), {"data": bytes(800)}, "other numbers than its header says"),
        ((2,), {"data": bytes(32), "dtype": "<c16"}, "no array of real numbers"),
        ((2,), {"data": bytes(8), "dtype": "<U1"}, "no array of real numbers"),
        ((2,), {"data": bytes(16), "dtype": "|O"}, "no array of real numbers"),
        ((), {"data": bytes(8)}, "no array of real numbers"),
    ],
)
def test_a_header_is_not_believed(tmp_path, shape, settings, says):
    with pytest.raises(FileFormatError, match=says):
        load_member(member(tmp_path / "x.npz", shape, **settings), "x")


def test_a_large_array_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(1, np.uint8))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (3 << 30, 1)})
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + (3 << 30))  # a hole
    with pytest.raises(FileFormatError, match=r"shape \(3221225472, 1\), 24\.0 GiB in float64; accepted: 16\.0 GiB"):
        load_array(path)


def test_names_and_other_files(tmp_path):
    np.savez(tmp_path / "many.npz", **{f"a{number}": np.zeros(1) for number in range(30)})
    with pytest.raises(InputError, match=r"^'\S+many\.npz' holds \['a0'.*and more; accepted: .*many.npz:NAME"):
        load_member(tmp_path / "many.npz", "b")
    member(tmp_path / "lzma.npz", (1,), data=bytes(8), compression=zipfile.ZIP_LZMA)
    with pytest.raises(FileFormatError, match=r"'x.npy' is compressed by method 14; accepted: .*numpy"):
        load_member(tmp_path / "lzma.npz", "x")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(FileFormatError, match=r"no .npz file"):
        load_member(tmp_path / "text.npz", "x")
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_array(tmp_path / "missing.npy")
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_array(tmp_path / "nul\0.npy")


@pytest.mark.parametrize("content", FILES, ids=["npy", "npz"])
@pytest.mark.parametrize("byte", b"(\xff")
def test_whatever_byte_is_damaged_an_error_says_so(tmp_path, content, byte):
    path, refused = tmp_path / "x", 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
        try:
            load_array(path) if content is FILES[0] else load_member(path, "x")
        except InputError:
            refused += 1
    assert refused > 10
