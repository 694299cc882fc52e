"""What is installed is what is in the tree, under the right names, from a wheel as well as from a checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import sound_qkeras

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]


def test_every_package_is_listed():
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "sound_qkeras").rglob("__init__.py")}
    assert set(PACKAGES) == found | {"sound_qkeras.callbacks"}


def test_every_folder_with_code_is_a_package():
    folders = {file.parent for name in ("sound_qkeras", "callbacks") for file in (ROOT / name).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def names_in_all(file):
    """The literal value of `__all__` in a module."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    pytest.fail(f"{file} has no __all__")


def test_stub_lists_the_public_callbacks():
    stub = ROOT / "sound_qkeras" / "callbacks.pyi"
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    imported = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == names_in_all(stub) == names_in_all(ROOT / "callbacks" / "__init__.py")


def python(code, cwd, **environment):
    """Runs code as if from a script elsewhere: the working directory is not on the import path."""
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_callbacks_are_there_without_an_import_of_their_own(tmp_path):
    done = python("import sound_qkeras as sq; print(sq.callbacks.__name__)", tmp_path)
    assert done.stdout == "sound_qkeras.callbacks\n", done.stderr


def test_callbacks_refuses_another_name():
    done = python("import sys; sys.path.insert(0, '.'); import callbacks", ROOT)
    assert done.returncode == 1
    assert "ImportError: received an import as 'callbacks'" in done.stderr


def test_callbacks_is_not_installed_at_top_level(tmp_path):
    done = python("import callbacks", tmp_path)
    assert "ModuleNotFoundError" in done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tree, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("sound_qkeras", "callbacks", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((source / "dist").glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_code_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "sound_qkeras").rglob("*.py")}
    callbacks = {f"sound_qkeras/{file.relative_to(ROOT)}" for file in (ROOT / "callbacks").rglob("*.py")}
    templates = {str(file.relative_to(ROOT)) for file in (ROOT / "sound_qkeras").rglob("*.j2")}
    assert names == code | callbacks | templates | {"sound_qkeras/py.typed"}
    assert wheel.stat().st_size < 850_000


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder the wheel is installed into."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return target


@pytest.mark.slow
def test_installed_wheel_has_the_command_and_no_top_level_callbacks(installed, tmp_path):
    assert {entry.name for entry in installed.iterdir() if "." not in entry.name} == {"sound_qkeras", "bin"}
    assert [entry.name for entry in (installed / "bin").iterdir()] == ["sound-qkeras"]
    done = python("import sound_qkeras; print(sound_qkeras.__file__)", tmp_path, PYTHONPATH=str(installed))
    assert done.stdout.startswith(str(installed)), done.stderr


TRAIN = """
import numpy as np
import sound_qkeras.callbacks
import tf_keras

model = tf_keras.Sequential([tf_keras.layers.Input((2,)), tf_keras.layers.Dense(4, "relu"), tf_keras.layers.Dense(1)])
model.compile("adam", "mse")
x = np.random.default_rng(0).uniform(-1, 1, (64, 2))
sound = sound_qkeras.callbacks.SoundQuant(1e-2)
model.fit(x, x[:, :1], verbose=0, callbacks=[sound])
print(sound_qkeras.callbacks.__file__, sound.result.certificate.bound, sep="\\n")
"""


@pytest.mark.keras
@pytest.mark.slow
def test_callback_runs_from_the_wheel(installed, tmp_path):
    environment = {"PYTHONPATH": str(installed), "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = python(TRAIN, tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    file, bound = done.stdout.splitlines()[-2:]
    assert file.startswith(str(installed))
    assert 0 < float(bound) <= 1e-2


def test_one_version_everywhere():
    released = re.search(
        r"^## \[(\d[^\]]*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert released is not None
    assert released[1] == sound_qkeras.__version__
    assert f"\nversion: {released[1]}\n" in cited
    assert f"\ndate-released: {released[2]}\n" in cited
