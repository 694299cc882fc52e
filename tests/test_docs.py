"""What the README and the pages in docs/ show is run, and links lead somewhere. What is made of the pages: test_site.py."""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# Longest guide, in lines: what does not fit belongs on another page.
LONGEST_GUIDE = 130
# Pages that the site fills with a file of the folder above.
FROM_ABOVE = "\n<!--"
# Snippets are Python and shell; other fences are there to be read, or to be filled when the site is made.
READ_ONLY = {"text", "pycon", "{toctree}"}
# What `.ci/run` does with a network and a fresh environment, the tests themselves, and what tests/test_cli.py runs.
NOT_RUN = ("python3 -m venv .venv", ".venv/bin/pip install", ".venv/bin/pytest", ".venv/bin/sound-qkeras demo")
# Runs on a cluster that a test of its own starts: tests/verify/test_cluster.py.
ELSEWHERE = "parallel_config"
# Hours of search become seconds: the same command, with as little of everything as it takes.
LONG = dict.fromkeys(
    ("--trials 50", "--preset quick"),
    "--trials 1 --search-epochs 1 --epochs 1 --retrained 1 --modes random --spaces fair --effort fast "
    "--methods ours,autoqkeras",
)


def fences(page):
    """The page's snippets, in order: language and text."""
    return snippets(page.read_text(encoding="utf-8"))


def snippets(text):
    """Those of a text."""
    tokens = pytest.importorskip("markdown_it").MarkdownIt().parse(text)
    return [(token.info.strip(), token.content) for token in tokens if token.type in {"fence", "code_block"}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_is_of_a_kind_that_is_run(page):
    assert {language for language, _ in fences(page)} <= {"python", "sh"} | READ_ONLY


def anchors(page):
    """What links may point at in a page: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    links = [target.partition("#") for target in targets if "://" not in target]
    assert [file for file, _, _ in links if file and not (page.parent / file).exists()] == []
    places = [(page.parent / file if file else page, anchor) for file, _, anchor in links if anchor]
    assert [f"{file.name}#{anchor}" for file, anchor in places if anchor not in anchors(file)] == []


def test_guides_are_short_and_listed():
    listed = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert page.name == "README.md" or f"]({page.name})" in listed or text.startswith(FROM_ABOVE), page.name
        assert page.name == "mathematics.md" or len(text.splitlines()) <= LONGEST_GUIDE, page.name


def test_sample_counts_are_those_of_the_limit():
    from sound_qkeras.verify.binomial import upper_limit

    rows = re.findall(r"^\| (0\.\d+) \| (\d+) \|$", (DOCS / "deep_cnn.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 3
    for limit, count in rows:
        assert upper_limit(0, int(count), 0.99) <= float(limit) + 2.0**-24 < upper_limit(0, int(count) - 1, 0.99)


@pytest.mark.keras
def test_layers_that_are_listed_are_those_that_are_read():
    pytest.importorskip("tensorflow")
    from sound_qkeras.keras_io.read.layers import TRAINING_ONLY
    from sound_qkeras.keras_io.read.readers import KINDS

    text = (DOCS / "layers.md").read_text(encoding="utf-8")
    table = text.partition("## What is read")[2].partition("Functions on tensors")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    listed = re.findall(r"`(\w+)`", " ".join(rows))
    assert len(listed) == len(set(listed))
    assert set(listed) | set(TRAINING_ONLY) == KINDS


def given():
    """What the reader of a page without a set-up of its own has: a model, samples, files, and what others quantised."""
    import keras
    import tf_keras

    import sound_qkeras
    from sound_qkeras.callbacks import SoundQuant
    from sound_qkeras.keras_io import model_quantize

    def build(keras):
        layers = keras.layers
        model = keras.Sequential([layers.Input((3,)), layers.Dense(4, "relu"), layers.Dense(2)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    keras.utils.set_random_seed(0)
    model, legacy = build(keras), build(tf_keras)
    legacy.set_weights(model.get_weights())
    bits = "quantized_bits(6,1,alpha=1.0)"
    config = {layer.name: {"kernel_quantizer": bits, "bias_quantizer": bits} for layer in legacy.layers}
    qmodel = model_quantize(legacy, config, transfer_weights=True)
    qmodel.save("q.h5")
    x = np.random.default_rng(0).uniform(size=(120, 3))
    y = (x[:, 0] > x[:, 1]).astype(int)
    model.save("model.keras")
    for name in ("model.h5", "f.h5"):
        legacy.save(name)
    for name, array in {"x": x, "x_train": x, "y": y}.items():
        np.save(f"{name}.npy", array)
    return {"model": model, "qmodel": qmodel, "x": x, "y": y, "SoundQuant": SoundQuant, "sq": sound_qkeras}


GIVEN = {"command_line.md", "compare.md", "tiers.md"}
NEEDS = {"README.md": ("hls4ml",), "hls4ml_user.md": ("hls4ml",), "compare.md": ("keras_tuner",)}
# Commands in a process of their own: keras_tuner stays with the Keras that it sees first.
APART = ("sound-qkeras compare",)
# Page -> what has to be so after its snippets ran, in their own names and of what they printed.
TRUE_AFTERWARDS = {
    "README.md": (
        "result.certificate.bound <= 0.01",
        "'<Result proved for every input in the box: error at most 0.0' in printed and ' (eps 0.01); weights 1,' in printed",
        "Path('report.html').exists() and Path('project').exists() and Path('c-code').exists()",
    ),
    "controller.md": ("1e-2 >= certificate.bound >= result.observed_error", "sound.error is None"),
    "classifier.md": ("found.agreement >= found.proved >= 0.9", "kept.any()", "local.certificate.tier == 'local'"),
    "deep_cnn.md": ("result.certificate.tier == 'statistical'", "evidence.probability < 0.1", "certified.any()"),
    "autoqkeras_user.md": ("found.certificate.bound >= found.observed_error", "result.certificate.bound <= 1e-2"),
    "training.md": ("sound.result.certificate.bound <= 3.0", "better.finetuned"),
    "hls4ml_user.md": ("project.bit_exact", "bench.passed"),
    "next_step.md": (
        "1e-2 >= tighter.certificate.bound >= tighter.observed_error",
        "kept.classification.proved >= 0.95",
        "outside.any()",
        "'no word length up to 4 bits was found to reach eps = 0.01: the best proved bound is ' in printed",
        "'bits with word_lengths=(2, ' in printed and \"shrink the box, or use effort='max'\" in printed",
        "'raise eps to ' in printed and ' (eps 0.01)' in printed and '% of the bound' in printed",
        "', class proved for ' in printed and ' bytes of flash, about ' in printed",
    ),
    "command_line.md": ("Path('out/report.html').exists()",),
    "compare.md": ("Path('study/study.csv').exists()",),
    "tiers.md": ("result.certificate.tier == 'statistical'", "evidence.certified(0.05).any()"),
    "tf_keras.md": ("isinstance(model, keras.Model)", "isinstance(qmodel, tf_keras.Model)"),
}
RUN = [page for page in PAGES if page.name in TRUE_AFTERWARDS and page != DOCS / "README.md"]


def test_every_page_with_snippets_is_run():
    with_snippets = {page for page in PAGES if any(language not in READ_ONLY for language, _ in fences(page))}
    assert with_snippets == set(RUN)


def shell(text):
    """Run a snippet's lines as a reader would, in the directory of the page; our own commands without a new process for each."""
    from sound_qkeras.cli import main

    bins = Path(sys.executable).parent
    for step in (step.strip() for line in text.splitlines() for step in line.split("&&")):
        if not step or step.startswith(NOT_RUN):
            continue
        line = step
        for long, short in LONG.items():
            line = line.replace(long, short)
        name, *arguments = shlex.split(line, comments=True)
        if name == "sound-qkeras" and not line.startswith(APART):
            assert main(arguments) == 0, line
        else:
            environment = {**os.environ, "PATH": f"{bins}:{os.environ['PATH']}"}
            done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}{done.stdout}{done.stderr[-2000:]}"


@pytest.mark.keras
@pytest.mark.solver
@pytest.mark.hls
@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_snippets_run(page, tmp_path, monkeypatch, capsys):
    for needed in NEEDS.get(page.name, ()):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed}")
    monkeypatch.chdir(tmp_path)
    Path(".venv").symlink_to(sys.prefix)
    names: dict[str, object] = {}
    known = given() if page.name in GIVEN else {}
    for language, text in fences(page):
        if language == "sh":
            shell(text)
        elif language == "python" and ELSEWHERE not in text:
            names |= known
            exec(compile(text, page.name, "exec"), names)
    printed = capsys.readouterr().out
    assert [
        claim for claim in TRUE_AFTERWARDS[page.name] if not eval(claim, names | {"Path": Path, "printed": printed})
    ] == []


@pytest.mark.keras
@pytest.mark.solver
@pytest.mark.slow
def test_snippets_of_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [file for folder in ("sound_qkeras", "callbacks") for file in sorted((ROOT / folder).rglob("*.py"))]
    trees = [ast.parse(text) for text in (file.read_text(encoding="utf-8") for file in files) if "```" in text]
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    texts = [ast.get_docstring(node) or "" for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    names = given()
    for language, text in (snippet for one in texts for snippet in snippets(one)):
        if language == "python":
            exec(compile(text, "a docstring", "exec"), names)
    assert names["sound"].result.certificate.bound <= 1e-3
