"""What each technique of the tuner is worth: bits per weight with all of them, and with each one switched off.

    python tests/benchmarks/ablation.py NETS [--only NAME ...] [--eps 1e-3] [--effort normal] [--off TECHNIQUE ...] [--out FILE]

Nearly linear networks shrink to so little that nothing else shows: --keep-architecture measures the other techniques on all
units. NETS is a folder of networks as `examples/aster_study.py` reads them. With --out, finished runs are kept in a json file and
not repeated. Run it on an idle machine: efforts have time budgets, so what other processes take is lost to the search.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

import sound_qkeras as sq
from sound_qkeras.tuning import rounding, tune
from sound_qkeras.tuning.effort import EFFORTS
from sound_qkeras.tuning.search import Search

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from aster_study import load

Patch = Callable[[ExitStack], None]


def effort(**changes: int) -> Patch:
    """Every effort with some budgets changed."""

    def patch(stack: ExitStack) -> None:
        stack.enter_context(mock.patch.dict(EFFORTS, {name: replace(old, **changes) for name, old in EFFORTS.items()}))

    return patch


def without_compensation(stack: ExitStack) -> None:
    """Biases are rounded as they are: weight errors are corrected by the bias at an input of zero, where they have no effect."""
    original = rounding.round_parameters

    def plain(network, bits, centers, *others):
        return original(network, bits, {name: np.zeros_like(center) for name, center in centers.items()}, *others)

    stack.enter_context(mock.patch.object(rounding, "round_parameters", plain))


def without_shaving(stack: ExitStack) -> None:
    """What the MILP found is final."""
    stack.enter_context(mock.patch.object(tune, "trim", lambda _, best: best))


def without_milp(stack: ExitStack) -> None:
    """The proved uniform formats are where trimming begins."""
    stack.enter_context(mock.patch.object(Search, "_sweep", lambda self, tables, current, number: current))


def without_milp_and_shaving(stack: ExitStack) -> None:
    without_milp(stack)
    without_shaving(stack)


# What is switched off: a patch of the tuner, or an argument of `quantize`.
TECHNIQUES: dict[str, Patch | dict[str, bool]] = {
    "nothing": {},
    "splitting": effort(leaves=1, most_leaves=1),
    "error-aware rounding": effort(samples=0),
    "bias compensation": without_compensation,
    "rescaling": {"rescale_units": False},
    "simplification": {"keep_architecture": True},
    "splitting for phases": effort(stability_leaves=1),
    "trimming": without_shaving,
    "MILP": without_milp,
    "MILP and trimming": without_milp_and_shaving,
}


@contextmanager
def switched_off(technique: str) -> Iterator[dict[str, bool]]:
    """The tuner without a technique; yields arguments for `quantize`."""
    change = TECHNIQUES[technique]
    with ExitStack() as stack:
        if not isinstance(change, dict):
            change(stack)
            yield {}
        else:
            yield change


def measure(path: Path, eps: float, options: argparse.Namespace, technique: str) -> dict[str, float]:
    """Bits per trained weight and seconds; NaN where nothing was proved."""
    network, lower, upper = load(path)
    weights = sum(op.kernel.size for _, op in network.affine())
    try:
        with switched_off(technique) as arguments:
            arguments = {"keep_architecture": options.keep_architecture, **arguments}
            result = sq.quantize(network, eps, (lower, upper), effort=options.effort, **arguments)
    except sq.SoundQKerasError:
        return {"mean_bits": math.nan, "seconds": math.nan}
    return {"mean_bits": result.cost.weight_bits / weights, "seconds": result.seconds}


def table(found: dict[str, dict[str, float]], names: list[str], techniques: list[str]) -> None:
    """Bits per weight by network and technique, and what a technique saves on average."""
    print(
        f"{'switched off':24}" + "".join(f"{name[:11]:>12}" for name in names) + f"{'mean':>9}{'adds':>8}{'times':>8}"
    )
    for technique in techniques:
        bits = [found[f"{name} {technique}"]["mean_bits"] for name in names]
        base = [found[f"{name} nothing"]["mean_bits"] for name in names]
        both = [(a, b) for a, b in zip(bits, base, strict=True) if not math.isnan(a + b)]
        adds = np.mean([a - b for a, b in both]) if both else math.nan
        times = math.exp(np.mean([math.log(a / b) for a, b in both])) if both else math.nan
        mean = np.mean([a for a, _ in both]) if both else math.nan
        print(f"{technique:24}" + "".join(f"{value:12.2f}" for value in bits) + f"{mean:9.2f}{adds:+8.2f}{times:8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path)
    parser.add_argument("--only", nargs="*", help="names of networks; all ReLU networks of the folder otherwise")
    parser.add_argument("--off", nargs="*", choices=list(TECHNIQUES), help="techniques; all otherwise")
    parser.add_argument("--eps", type=float, default=1e-3)
    parser.add_argument("--effort", default="normal", choices=list(EFFORTS))
    parser.add_argument("--keep-architecture", action="store_true", help="switch simplification off throughout")
    parser.add_argument("--out", type=Path, help="json file of finished runs")
    options = parser.parse_args()
    names = options.only or [path.stem for path in sorted(options.nets.glob("*.npz")) if only_relu(path)]
    techniques = list(dict.fromkeys(["nothing", *(options.off or TECHNIQUES)]))
    kept = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    kind = f"{options.eps:g} {options.effort}{' kept' * options.keep_architecture}"
    found = kept.setdefault(kind, {})
    for name in names:
        for technique in techniques:
            key = f"{name} {technique}"
            if key not in found:
                found[key] = measure(options.nets / f"{name}.npz", options.eps, options, technique)
                print(
                    f"{name}, without {technique}: {found[key]['mean_bits']:.2f} bits, {found[key]['seconds']:.1f} s",
                    flush=True,
                )
                if options.out:
                    options.out.write_text(json.dumps(kept, indent=1))
    table(found, names, techniques)


def only_relu(path: Path) -> bool:
    """Whether the network has no activation but ReLU, and is a controller by size."""
    data = np.load(path)
    few = "lo" in data.files and data["lo"].size <= 32
    return few and "in_mean" not in data.files and set(map(str, data["activations"])) <= {"relu", "linear"}


if __name__ == "__main__":
    main()
