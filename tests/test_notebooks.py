"""Every notebook runs from top to bottom, from a directory of its own, in Keras 3 as its reader has it."""

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.keras, pytest.mark.solver, pytest.mark.hls, pytest.mark.slow]
NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples" / "notebooks").glob("*.py"))


@pytest.mark.parametrize("program", NOTEBOOKS, ids=lambda program: program.stem)
def test_notebook_runs(program, tmp_path, monkeypatch):
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in [name for name in os.environ if name.startswith("TF_")]:
        monkeypatch.delenv(name)
    notebook = jupytext.read(program)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
