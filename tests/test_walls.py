"""Imports point one way, and only the rooms that need a framework import it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = "sound_qkeras"
FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "qkeras"}

# Foreign package -> the rooms that may import it, anywhere in their code.
MAY_IMPORT = {
    **{framework: {"keras_io", "callbacks"} for framework in FRAMEWORKS},
    # One of the rules others choose formats by is a model in Pyomo.
    "pyomo": {"tuning", "baselines"},
    "highspy": {"tuning"},
    "keras_tuner": {"keras_io"},
}

# Room -> the only other rooms it may import, from the ground up. A bug in the tuner cannot certify itself: verify never sees it,
# and the exact proof sees nothing of verify but the certificate, its tree and its evidence.
GROUND = {"errors", "types", "support", "fixed_point", "interval"}
PROVED = GROUND | {"network", "verify"}
STANDS_ON = {
    "errors": set(),
    "types": set(),
    "support": {"errors", "types"},
    "fixed_point": {"errors", "types"},
    "interval": {"errors", "types"},
    "network": GROUND,
    "verify": GROUND | {"network"},
    "exact": GROUND - {"interval"} | {"network", "verify"},
    "floating": PROVED,
    "search": PROVED | {"exact"},
    "splitting": PROVED,
    "tuning": PROVED | {"splitting"},
    "backends": GROUND | {"network"},
    "keras_io": GROUND | {"network"},
    "results": PROVED | {"floating", "search", "tuning", "backends", "keras_io", "report"},
    "report": PROVED | {"exact", "floating", "search", "tuning", "backends", "results"},
    "jobs": PROVED | {"exact", "floating", "search", "splitting", "tuning", "keras_io", "results"},
    "baselines": PROVED | {"splitting", "tuning", "keras_io"},
    "study": PROVED | {"search", "tuning", "keras_io", "results", "jobs", "baselines"},
    "callbacks": PROVED | {"tuning", "keras_io", "results", "jobs"},
    "cli": PROVED | {"exact", "backends", "keras_io", "results", "report", "jobs", "study", "callbacks"},
}


def files():
    """(module name as installed, file) of all library code."""
    for folder, package in ((HOUSE, HOUSE), ("callbacks", f"{HOUSE}.callbacks")):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *parts]), file


FILES = dict(files())


def room(module):
    """'sound_qkeras.network.graph' -> 'network'; the hall, `__version__` in it, and anything foreign -> None."""
    house, _, inside = module.partition(".")
    return inside.split(".")[0] if house == HOUSE and inside and not inside.startswith("__") else None


def imports(module, text):
    """(line, full dotted name) of every import at any depth, those for type checkers and those by string included."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `module` ends in the file's own name, "__init__" for a package, so one level up is one name less.
            base = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def breaches(module, text):
    """A line for each import that goes through a wall."""
    here = room(module) or ""
    for line, name in imports(module, text):
        package, there = name.split(".")[0], room(name)
        if here not in MAY_IMPORT.get(package, {here}):
            yield f"{module}:{line} imports {name}; only {sorted(MAY_IMPORT[package])} may"
        if here and there and there != here and there not in STANDS_ON[here]:
            yield f"{module}:{line} imports {name}; {here} stands below it"


@pytest.mark.parametrize("module", FILES)
def test_no_import_goes_through_a_wall(module):
    assert list(breaches(module, FILES[module].read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("sound_qkeras.jobs.quantize", "import tensorflow as tf"),
        ("sound_qkeras.cli", "def f():\n    from tf_keras.models import load_model"),
        ("sound_qkeras.tuning.milp", "import qkeras"),
        ("sound_qkeras.verify.checker", "import pyomo.environ as pyo"),
        ("sound_qkeras.baselines.autoqkeras", "import keras_tuner"),
        ("sound_qkeras.tuning.search", "from sound_qkeras.baselines import uniform"),
        ("sound_qkeras.keras_io.autoqkeras.search", "from sound_qkeras.baselines import Candidate"),
        ("sound_qkeras.verify.checker", "from sound_qkeras import analysis"),
        ("sound_qkeras.verify.checker", "from sound_qkeras import quantize"),
        ("sound_qkeras.verify.checker", "from ..tuning import milp"),
        ("sound_qkeras.verify.__init__", "from ..tuning import milp"),
        ("sound_qkeras.splitting.ranges", "if TYPE_CHECKING:\n    from sound_qkeras.jobs.quantize import Result"),
        ("sound_qkeras.network.graph", "import importlib\nimportlib.import_module('sound_qkeras.keras_io')"),
        ("sound_qkeras.interval", "from sound_qkeras.network import Network"),
        ("sound_qkeras.jobs.quantize", "from sound_qkeras.callbacks import SoundQuant"),
    ],
)
def test_the_walls_notice(module, text):
    assert list(breaches(module, text)) != []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("sound_qkeras.keras_io.read.reader", "import tensorflow as tf"),
        ("sound_qkeras.callbacks.sound_quant", "import tf_keras\nfrom sound_qkeras.jobs.quantize import quantize"),
        ("sound_qkeras.tuning.milp", "import pyomo.environ as pyo\nfrom sound_qkeras.verify import Certificate"),
        ("sound_qkeras.network.__init__", "from .graph import Network\nfrom sound_qkeras.interval import Interval"),
        ("sound_qkeras.verify.checker", "from sound_qkeras import __version__, errors, network\nimport numpy"),
    ],
)
def test_the_doors_are_open(module, text):
    assert list(breaches(module, text)) == []


def test_the_exact_proof_sees_nothing_of_the_first_but_its_claim():
    seen = {
        name.removeprefix("sound_qkeras.verify.").split(".")[0]
        for module, file in FILES.items()
        if room(module) == "exact"
        for _, name in imports(module, file.read_text(encoding="utf-8"))
        if room(name) == "verify"
    }
    assert seen == {"certificate", "evidence", "split_tree"}


def test_every_wall_is_as_high_as_it_can_be():
    seen = {}
    for module, file in FILES.items():
        for _, name in imports(module, file.read_text(encoding="utf-8")):
            seen.setdefault(room(module), set()).add(room(name))
    unused = {here: below - GROUND - seen.get(here, set()) for here, below in STANDS_ON.items()}
    assert {here: rooms for here, rooms in unused.items() if rooms} == {}


def run(code):
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_package_loads_no_framework_and_no_solver():
    done = run("import sys, sound_qkeras; print(*{name.split('.')[0] for name in sys.modules})")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & set(MAY_IMPORT) == set()


@pytest.mark.slow
def test_everything_but_keras_io_and_callbacks_imports_where_no_framework_is_installed():
    core = [module.removesuffix(".__init__") for module in FILES if room(module) not in {"keras_io", "callbacks"}]
    done = run(
        "import importlib, sys\n"
        f"for name in {sorted(FRAMEWORKS)}: sys.modules[name] = None  # makes any import of it raise\n"
        f"for name in {core}: importlib.import_module(name)\n"
    )
    assert done.returncode == 0, done.stderr


def test_an_array_type_is_declared_once():
    declared = [
        (name.id, module)
        for module, file in FILES.items()
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name) and name.id in {"Array", "Codes", "Indices", "Reals", "Shape"}
    ]
    assert {module for _, module in declared} == {f"{HOUSE}.types"}
    assert len(declared) == len(set(declared))
