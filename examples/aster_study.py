"""Certify published controllers and compare with the reference tool of the field, network by network.

    python examples/aster_study.py NETS BASELINE.json --eps 1e-3 1e-5 --out study/

NETS is a folder of .npz files (`W1, b1, ..., activations, lo, hi`); BASELINE.json holds what the reference tool needs per
network and tolerance, as released and corrected. Writes study/table.csv and the plots; a run that is interrupted goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np

import sound_qkeras as sq
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu
from sound_qkeras.verify.falsify import falsify

COLUMNS = (
    "network", "eps", "bound", "observed_error", "slack", "leaves", "weights", "mean_weight_bits", "weight_bits",
    "bit_operations", "weight_bits_over_corrected", "bit_operations_over_corrected", "weight_bits_over_released", "seconds",
)  # fmt: skip


def load(path: Path) -> tuple[Network, np.ndarray, np.ndarray]:
    """A ReLU network and its box."""
    data = np.load(path)
    nodes = [Node("input", Input((data["W1"].shape[1],)), (), "input")]
    for number, activation in enumerate(data["activations"], 1):
        kernel = data[f"W{number}"].T.astype(np.float32).astype(np.float64)
        bias = data[f"b{number}"].astype(np.float32).astype(np.float64)
        layer = f"dense_{number}"
        nodes.append(Node(layer, Dense(kernel, bias), (nodes[-1].name,), layer))
        if activation == "relu":
            nodes.append(Node(f"{layer}_relu", Relu(), (layer,), layer))
    return Network(tuple(nodes)), data["lo"].astype(np.float64), data["hi"].astype(np.float64)


def best(baseline: dict, kind: str, number: str) -> float:
    """The reference tool's better setting, or NaN where it found none."""
    found = [entry[number] for entry in baseline.get(kind, {}).values() if entry]
    return min(found, default=math.nan)


def study(path: Path, eps: float, baseline: dict, effort: str, evaluations: int) -> dict:
    """One row of the table."""
    network, lower, upper = load(path)
    result = sq.quantize(network, eps=eps, box=(lower, upper), effort=effort)
    worst = falsify(result.quantized, result.certificate.box, evaluations=evaluations)
    weights = sum(op.kernel.size for _, op in network.affine())
    bound = result.certificate.bound
    return {
        "network": path.stem,
        "eps": eps,
        "bound": bound,
        "observed_error": max(worst.error, result.observed_error),
        "slack": bound / max(worst.error, result.observed_error, 1e-300),
        "leaves": result.certificate.tree.leaf_count,
        "weights": weights,
        "mean_weight_bits": result.cost.weight_bits / weights,
        "weight_bits": result.cost.weight_bits,
        "bit_operations": result.cost.bit_operations,
        "weight_bits_over_corrected": result.cost.weight_bits / best(baseline, "corrected", "total_weight_bits"),
        "bit_operations_over_corrected": result.cost.bit_operations / best(baseline, "corrected", "mult_bit_products"),
        "weight_bits_over_released": result.cost.weight_bits / best(baseline, "released", "total_weight_bits"),
        "seconds": result.seconds,
    }


def geometric_mean(values: list[float]) -> float:
    """Over the entries that exist."""
    known = [value for value in values if not math.isnan(value)]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else math.nan


def main() -> None:
    """Run what is missing, then print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path)
    parser.add_argument("baseline", type=Path)
    parser.add_argument("--eps", nargs="+", default=["1e-3", "1e-5"])
    parser.add_argument("--only", nargs="*", default=None, help="names of networks; all that have a baseline otherwise")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--evaluations", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("study"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    baselines = json.loads(options.baseline.read_text())
    table, done = options.out / "table.json", {}
    if table.exists():
        done = json.loads(table.read_text())
    for eps in options.eps:
        for name in options.only or baselines:
            key = f"{name} {eps} {options.effort}"
            if key in done:
                continue
            try:
                done[key] = study(
                    options.nets / f"{name}.npz",
                    float(eps),
                    baselines[name].get(eps, {}),
                    options.effort,
                    options.evaluations,
                )
            except sq.SoundQKerasError as error:
                print(f"{name} {eps}: {error}")
                continue
            table.write_text(json.dumps(done, indent=1))
            row = done[key]
            print(
                f"{name} {eps}: bound {row['bound']:.3g} observed {row['observed_error']:.3g} slack {row['slack']:.2f} "
                f"mean bits {row['mean_weight_bits']:.2f} x{row['weight_bits_over_corrected']:.2f} "
                f"operations x{row['bit_operations_over_corrected']:.2f} leaves {row['leaves']} {row['seconds']:.1f} s"
            )
    rows = list(done.values())
    with (options.out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(
        f"{len(rows)} certified, weight bits x{geometric_mean([r['weight_bits_over_corrected'] for r in rows]):.3f}, "
        f"bit operations x{geometric_mean([r['bit_operations_over_corrected'] for r in rows]):.3f} of corrected, "
        f"slack <= 2 on {sum(r['slack'] <= 2 for r in rows)}, <= 20 on {sum(r['slack'] <= 20 for r in rows)}, "
        f"{sum(r['seconds'] for r in rows):.0f} s, longest {max((r['seconds'] for r in rows), default=0):.1f} s"
    )


if __name__ == "__main__":
    main()
