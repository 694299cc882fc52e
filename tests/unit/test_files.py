"""Output directories: the old one or the new one, whatever happens in between."""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from sound_qkeras.errors import InputError
from sound_qkeras.support import files, manifest
from sound_qkeras.support.files import RESULT, atomic_directory, check_writable, recover
from sound_qkeras.support.manifest import check_manifest

POSIX = pytest.mark.skipif(os.name == "nt", reason="kills a process with a POSIX signal")


def fill(directory, version):
    """What a run writes."""
    (directory / "network.json").write_text(version, encoding="utf-8")
    (directory / "parts").mkdir()
    (directory / "parts" / "numbers").write_text(version, encoding="utf-8")


def version_of(directory):
    """The version a complete directory holds; None if there is no directory. Anything else fails."""
    if not directory.exists():
        return None
    ours = [directory / "network.json", directory / "parts" / "numbers"]
    found = {file.read_text(encoding="utf-8") for file in ours}
    assert len(found) == 1
    check_manifest(directory, RESULT)
    return found.pop()


def entries(directory):
    """Names in a directory, hidden ones too."""
    return sorted(entry.name for entry in directory.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def out(request, tmp_path, monkeypatch):
    """A directory to write, on systems that exchange directories and on those that do not."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    return tmp_path / "deep" / "out"


def snapshot(directory):
    """Everything a directory holds."""
    return sorted((str(file), file.is_file() and file.read_bytes()) for file in directory.rglob("*"))


def write(out, version):
    """One complete run, of which nothing is seen before its end."""
    before = snapshot(out)
    with atomic_directory(out) as directory:
        fill(directory, version)
        assert snapshot(out) == before


def test_new_and_replaced_directories_are_complete(out):
    for version in ("one", "two", "three"):
        write(out, version)
        assert version_of(out) == version
        assert entries(out.parent) == ["out"]


def test_an_empty_directory_is_filled(out):
    out.mkdir(parents=True)
    write(out, "one")
    assert version_of(out) == "one"
    assert entries(out.parent) == ["out"]


def test_a_new_directory_has_ordinary_permissions(out):
    write(out, "one")
    other = out.parent / "other"
    other.mkdir()
    assert out.stat().st_mode == other.stat().st_mode


def interrupted(out, error):
    """A run that ends in an exception after everything is written."""
    with atomic_directory(out) as directory:
        fill(directory, "two")
        raise error


@pytest.mark.parametrize("before", [None, "one"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_changes_nothing(out, before, error):
    if before:
        write(out, before)
    with pytest.raises(error):
        interrupted(out, error)
    assert version_of(out) == before
    assert entries(out.parent) == ([] if before is None else ["out"])


def test_a_rename_that_fails_changes_nothing(out, monkeypatch):
    write(out, "one")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError, match="No space left"):
        write(out, "two")
    assert version_of(out) == "one"
    assert entries(out.parent) == ["out"]


CHILD = """
import os, pathlib, shutil, signal, sys
from sound_qkeras.support import files
out, moment, way = sys.argv[1:]
def die(*_args, **_kwargs): os.kill(os.getpid(), signal.SIGKILL)
def dying(function, before):
    def call(*args, **kwargs):
        if before: die()
        result = function(*args, **kwargs)
        die()
    return call
if way == "two renames": files._exchange = lambda *_: False
with files.atomic_directory(out) as directory:
    (directory / "network.json").write_text("two")
    if moment == "half written": die()
    (directory / "parts").mkdir()
    (directory / "parts" / "numbers").write_text("two")
    if moment == "before putting in place": files._put_in_place = dying(files._put_in_place, True)
    if moment == "after moving aside": pathlib.Path.rename = dying(pathlib.Path.rename, False)
    if moment == "before clearing": files._clear = die
sys.exit("not killed")
"""


@POSIX
@pytest.mark.parametrize("before", [None, "one"])
@pytest.mark.parametrize("way", ["exchange", "two renames"])
@pytest.mark.parametrize("moment", ["half written", "before putting in place", "after moving aside", "before clearing"])
def test_a_killed_process_leaves_the_old_or_the_new_directory(tmp_path, moment, way, before):
    out = tmp_path / "out"
    if before:
        write(out, before)
    command = [sys.executable, "-c", CHILD, str(out), moment, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if (moment, way, before) == ("after moving aside", "exchange", "one") or (moment, before) == (
        "before clearing",
        None,
    ):
        assert done.returncode == 1, done.stderr  # nothing is moved aside, or cleared
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr
    late = moment in {"after moving aside", "before clearing"}
    if (moment, way, before) == ("after moving aside", "two renames", "one"):
        assert version_of(out) is None
        recover(out)
        assert version_of(out) == "one"
    else:
        assert version_of(out) == ("two" if late else before)
    recover(out)
    write(out, "three")
    assert version_of(out) == "three"
    assert entries(tmp_path) == ["out"]


def test_recovering_keeps_a_directory_that_is_there(out):
    write(out, "new")
    write(out.parent / ".out.previous", "old")
    recover(out)
    assert version_of(out) == "new"
    assert entries(out.parent) == ["out"]


def test_the_next_run_mends_what_a_killed_one_left(out):
    """The old directory was moved aside and the new one not yet put in its place."""
    write(out, "old")
    out.rename(out.parent / ".out.previous")
    assert check_writable(out) == out
    assert version_of(out) == "old"
    write(out, "new")
    assert version_of(out) == "new"
    assert entries(out.parent) == ["out"]


def test_someone_elses_directory_is_left_alone(out):
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(InputError, match=r"was not written by sound_qkeras.*thesis.txt"):
        check_writable(out)
    with pytest.raises(InputError, match="was not written"):
        write(out, "one")
    assert entries(out) == ["thesis.txt"]
    assert entries(out.parent) == ["out"]


def run_beside_a_writer(out):
    """A run during which someone puts a file where the result will be."""
    with atomic_directory(out) as directory:
        fill(directory, "one")
        out.mkdir()
        (out / "thesis.txt").write_text("years", encoding="utf-8")


def test_files_that_appear_during_the_run_are_not_lost(out):
    with pytest.raises(InputError, match="was not written"):
        run_beside_a_writer(out)
    assert entries(out) == ["thesis.txt"]


# What is ours, and what is not.


@pytest.mark.parametrize("name", ["certificate.json", "network.json", "manifest.json", "report.json"])
def test_a_name_proves_nothing(out, name):
    out.mkdir(parents=True)
    (out / name).write_text("{}", encoding="utf-8")
    (out / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(InputError, match=r"was not written by sound_qkeras"):
        write(out, "one")
    assert entries(out) == sorted([name, "thesis.txt"])


def test_files_of_others_stay(out):
    write(out, "one")
    (out / "thesis.txt").write_text("years", encoding="utf-8")
    (out / "parts" / "notes").mkdir()
    (out / "parts" / "notes" / "page").write_text("1", encoding="utf-8")
    (out / "pictures").symlink_to("/nowhere")
    write(out, "two")
    write(out, "three")
    assert version_of(out) == "three"
    assert entries(out) == ["manifest.json", "network.json", "parts", "pictures", "thesis.txt"]
    assert (out / "thesis.txt").read_text(encoding="utf-8") == "years"
    assert (out / "parts" / "notes" / "page").read_text(encoding="utf-8") == "1"
    assert entries(out.parent) == ["out"]


def test_files_of_ours_go_where_the_new_run_writes_fewer(out):
    write(out, "one")
    (out / "parts" / "mine").write_text("1", encoding="utf-8")
    with atomic_directory(out) as directory:
        (directory / "network.json").write_text("two", encoding="utf-8")
    assert sorted(file.name for file in out.rglob("*")) == ["manifest.json", "mine", "network.json", "parts"]


@pytest.mark.parametrize("change", ["written", "made a directory", "made a link"])
def test_files_that_were_altered_stay_unless_told_otherwise(out, change):
    write(out, "one")
    file = out / "network.json"
    if change == "written":
        file.write_text("mine now", encoding="utf-8")
    else:
        file.unlink()
        file.symlink_to("thesis.txt") if change == "made a link" else file.mkdir()
    before = snapshot(out)
    with pytest.raises(InputError, match=r"network.json' was altered.*overwrite=True"):
        check_writable(out)
    with pytest.raises(InputError, match="was altered"):
        write(out, "two")
    assert snapshot(out) == before
    if change == "written":
        with atomic_directory(out, overwrite=True) as directory:
            fill(directory, "two")
        assert version_of(out) == "two"


def test_files_in_the_way_are_named_before_the_work(out):
    with atomic_directory(out) as directory:
        (directory / "network.json").write_text("one", encoding="utf-8")
    (out / "parts").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"parts.*is in the way"):
        check_writable(out, names=["network.json", "parts/numbers"])
    with pytest.raises(InputError, match=r"parts.*is in the way"):
        write_over(out)
    assert (out / "parts").read_text(encoding="utf-8") == "mine"
    assert entries(out.parent) == ["out"]


def write_over(out):
    """A run that replaces whatever is ours."""
    with atomic_directory(out, overwrite=True) as directory:
        fill(directory, "two")


def test_a_directory_of_another_kind_is_not_replaced(out):
    write(out, "one")
    with pytest.raises(InputError, match="holds a result and no export"):
        check_writable(out, kind="export", overwrite=True)


def test_a_manifest_that_names_files_elsewhere_is_none(out):
    write(out, "one")
    thesis = out.parent / "thesis.txt"
    thesis.write_text("years", encoding="utf-8")
    found = manifest.read_manifest(out)
    for name in ("../thesis.txt", str(thesis), "parts/../../thesis.txt", "manifest.json", "", "C:/thesis.txt"):
        manifest._write(out, replace(found, files={**found.files, name: manifest.digest_of(thesis, 100)[1]}))
        with pytest.raises(InputError, match="was not written"):
            write_over(out)
    assert thesis.exists()


def test_nothing_is_deleted_through_a_link(out):
    write(out, "one")
    elsewhere = out.parent / "elsewhere"
    (out / "parts").rename(elsewhere)
    (out / "parts").symlink_to(elsewhere)
    with pytest.raises(InputError, match="altered"):
        write(out, "two")
    with atomic_directory(out, overwrite=True) as directory:
        (directory / "network.json").write_text("two", encoding="utf-8")
    assert (elsewhere / "numbers").exists()


# What killed runs leave behind.


@POSIX
def test_the_next_run_clears_what_killed_runs_left(out):
    write(out, "one")
    begun = out.parent / ".out.0123abcd.partial"
    begun.mkdir()
    manifest.mark_begun(begun)
    (begun / "network.json").write_text("half", encoding="utf-8")
    old = out.parent / ".out.89abcdef.partial"
    write(old, "old")
    (old / "thesis.txt").write_text("years", encoding="utf-8")
    recover(out)
    assert entries(out.parent) == ["out"]
    assert version_of(out) == "one"
    assert (out / "thesis.txt").read_text(encoding="utf-8") == "years"


def test_what_was_moved_aside_is_cleared_where_nothing_can_be_locked(out, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    write(out, "new")
    previous = out.parent / ".out.previous"
    write(previous, "old")
    (previous / "thesis.txt").write_text("years", encoding="utf-8")
    recover(out)
    write(out, "newer")
    assert version_of(out) == "newer"
    assert (out / "thesis.txt").exists()
    assert entries(out.parent) == ["out"]


TURNS = """
import pathlib, sys
from sound_qkeras.support import files
out, way, name = sys.argv[1:]
if way == "two renames": files._exchange = lambda *_: False
for number in range(25):
    with files.atomic_directory(out) as directory:
        (directory / "network.json").write_text(f"{name} {number}")
        (directory / "parts").mkdir()
        (directory / "parts" / "numbers").write_text(f"{name} {number}")
    files.recover(out)
"""


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_two_runs_that_write_one_directory_take_turns(tmp_path, way):
    out = tmp_path / "out"
    out.mkdir()
    write(out, "first")
    (out / "thesis.txt").write_text("years", encoding="utf-8")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TURNS, str(out), way, name],
            stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )
        for name in ("one", "other")
    ]  # fmt: skip
    assert [run.communicate()[1] for run in runs] == ["", ""]
    assert version_of(out).endswith(" 24")
    assert (out / "thesis.txt").read_text(encoding="utf-8") == "years"
    assert entries(tmp_path) == ["out"]


@POSIX
def test_names_and_contents_are_asked_onto_the_disk(out, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    write(out, "one")
    ends = {place.name for place in asked}
    assert {"network.json", "numbers", "manifest.json", "parts", out.parent.name} <= ends


def test_a_hidden_name_proves_nothing(out):
    for name in (".out.previous", ".out.0123abcd.partial"):
        (out.parent / name).mkdir(parents=True)
        (out.parent / name / "thesis.txt").write_text("years", encoding="utf-8")
    before = snapshot(out.parent)
    check_writable(out)
    recover(out)
    assert snapshot(out.parent) == before


def test_a_directory_stays_as_private_as_it_was(out):
    write(out, "one")
    out.chmod(0o700)
    write(out, "two")
    assert out.stat().st_mode & 0o777 == 0o700


@POSIX
def test_what_a_living_run_writes_is_left_alone(out):
    with atomic_directory(out) as directory:
        fill(directory, "one")
        recover(out)
        assert directory.is_dir()
    assert version_of(out) == "one"


def test_checking_leaves_no_trace(tmp_path):
    assert check_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert entries(tmp_path) == []


def test_a_file_in_the_way_is_named(tmp_path):
    file = tmp_path / "out"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="is a file"):
        check_writable(file)
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(file / "inside")
    assert file.read_text(encoding="utf-8") == "mine"


def test_the_current_directory_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (".", "..", tmp_path):
        with pytest.raises(InputError, match="current directory"):
            check_writable(path)
    assert check_writable("out") == tmp_path / "here" / "out"


def test_a_mount_point_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path.name == "volume")
    (tmp_path / "volume").mkdir()
    with pytest.raises(InputError, match="mount point"):
        check_writable(tmp_path / "volume")
    assert check_writable(tmp_path / "volume" / "out").name == "out"


def test_a_place_that_cannot_be_written_is_found_out_before_the_work(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        check_writable(tmp_path / "out")


def test_a_directory_without_write_permission(locked):
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(locked / "out")


def test_a_link_is_followed_and_kept(tmp_path):
    write(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    write(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert version_of(tmp_path / "real") == "two"
