"""An option is one thing wherever a user gives it: its name, type, default and flag are those of its declaration."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

import sound_qkeras as sq
from sound_qkeras.backends import export_hls
from sound_qkeras.backends.options import Options as ExportOptions
from sound_qkeras.backends.options import TargetName
from sound_qkeras.backends.targets import TARGETS
from sound_qkeras.cli.commands import app
from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import CertifyOptions, FinetuneOptions, QuantizeOptions
from sound_qkeras.study import compare
from sound_qkeras.study.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
# Of no job: what the call is about, and how it reports.
BESIDE = {"model", "qmodel", "reference", "result", "data", "eps", "box", "box_source", "progress", "validation"}
# Job -> its declaration, and the options that the command line does not have.
JOBS = {
    "quantize": (sq.quantize, QuantizeOptions, {"train", "epochs"}),
    "certify": (sq.certify, CertifyOptions, set()),
    "finetune": (sq.finetune, FinetuneOptions, {"metrics"}),
    "compare": (compare, Plan, {"batch_size", "learning_rate"}),
    "export": (export_hls, ExportOptions, set()),
}
# Whose default is chosen later, by what else is given.
LATER = {"style"}


@pytest.mark.parametrize("name", ["quantize", "certify", "finetune"])
def test_a_signature_is_the_declaration(name):
    job, declared, _ = JOBS[name]
    parameters = inspect.signature(job).parameters
    found = {one.name: (one.annotation, one.default) for one in parameters.values() if one.name not in BESIDE}
    assert found == {one.name: (one.type, one.default) for one in fields(declared)}
    explained = re.findall(r"^    (\w+): ", inspect.getdoc(job), re.MULTILINE)
    assert {one.name for one in fields(declared)} <= set(explained)


def test_the_callback_has_the_defaults_of_the_declaration():
    """Read and not imported: it needs TensorFlow. What it does not name it passes on by name, to the declaration."""
    (maker,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "callbacks" / "sound_quant.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    arguments = maker.args
    given = [*zip(arguments.args[-len(arguments.defaults) :], arguments.defaults, strict=True)]
    given += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = {one.arg: (ast.unparse(one.annotation), ast.literal_eval(default)) for one, default in given}
    declared = {one.name: (one.type, one.default) for one in fields(QuantizeOptions) if one.name in found}
    assert declared.keys() == {"cost", "margin"}
    assert {name: found[name] for name in declared} == declared
    assert arguments.kwarg.arg == "options"


@pytest.mark.parametrize("name", JOBS)
def test_a_command_has_the_declared_flags_and_defaults(name):
    _, declared, elsewhere = JOBS[name]
    flags = {one.name: one for one in get_command(app).commands[name].params}
    for one in fields(declared):
        if one.name not in elsewhere | {"eps"}:
            assert f"--{one.name.replace('_', '-')}" in flags[one.name].opts
            default = None if name == "compare" else one.default  # a comparison's preset has them
            assert one.name in LATER or flags[one.name].default == default, one.name


def test_the_command_line_names_every_target():
    (target,) = (one for one in get_command(app).commands["export"].params if one.name == "target")
    assert set(re.findall(r"\b[a-z0-9]+\b", target.help)) >= set(TARGETS) == set(get_args(TargetName))


def test_an_option_is_refused_in_the_same_words_everywhere(tmp_path):
    """Those of one declaration, before anything is read."""
    says = "effort is 'heroic'; accepted: fast, normal, max, or a time budget in seconds"
    asked = {"effort": "heroic"}
    for call in (
        lambda: sq.quantize(tmp_path, 1e-2, (0, 1), **asked),
        lambda: sq.certify(tmp_path, box=(0, 1), **asked),
        lambda: sq.finetune(None, None, **asked),
        lambda: QuantizeOptions.named(asked),
    ):
        with pytest.raises(InputError, match=says):
            call()
    for wrong in (0, True, 1.5, "all"):
        with pytest.raises(InputError, match=f"n_jobs is {wrong!r}; accepted: None, a number of processes"):
            sq.check(None, None, n_jobs=wrong)
    with pytest.raises(InputError, match="options \\['efort'\\] are unknown; accepted: effort, seed, n_jobs"):
        QuantizeOptions.named({"efort": "fast"})
