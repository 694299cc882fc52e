"""Certify published controllers and compare with the reference tool of the field, network by network.

    python examples/aster_study.py NETS BASELINE.json --eps 1e-3 1e-5 --out out/study

NETS is a folder of .npz files (`W1, b1, ..., activations, lo, hi`); BASELINE.json holds what the reference tool needs per
network and tolerance: `released` (with the error it claims and the worst that was found) and `corrected`, the fair baseline.
Everything lands in the folder `--out`: table.json, table.csv and table.md, the results themselves (results/), plots
(bits.png, errors.png, runs.png, curve.png), the eps-versus-bits curve of one network (curve.json), and violation.json: the
input at which one network's released formats break their promise, with our own error there. A run that is interrupted goes
on where it stopped. The plots need matplotlib (pip install 'sound-qkeras[study]').
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np
from aster_plots import draw
from aster_reference import agrees, layers_of, solve, violation

import sound_qkeras as sq
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu, Table
from sound_qkeras.search.falsify import falsify

CURVE = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6")


def load(path: Path) -> tuple[Network, np.ndarray, np.ndarray]:
    """A Dense network and its box."""
    data = np.load(path)
    nodes = [Node("input", Input((data["W1"].shape[1],)), (), "input")]
    for number, activation in enumerate(data["activations"], 1):
        kernel = data[f"W{number}"].T.astype(np.float32).astype(np.float64)
        bias = data[f"b{number}"].astype(np.float32).astype(np.float64)
        layer = f"dense_{number}"
        nodes.append(Node(layer, Dense(kernel, bias), (nodes[-1].name,), layer))
        if activation in ("relu", "sigmoid", "tanh"):
            unit = Relu() if activation == "relu" else Table(str(activation))
            nodes.append(Node(f"{layer}_{activation}", unit, (layer,), layer))
    return Network(tuple(nodes)), data["lo"].astype(np.float64), data["hi"].astype(np.float64)


def best(baseline: dict, kind: str, number: str) -> float:
    """The reference tool's better setting, or NaN where it found none."""
    found = [entry[number] for entry in baseline.get(kind, {}).values() if entry]
    return min(found, default=math.nan)


def run(options: argparse.Namespace, name: str, eps: str, **settings: bool) -> tuple[sq.Result, float]:
    """Quantise, save, and look for the worst error as hard as the study asks."""
    network, lower, upper = load(options.nets / f"{name}.npz")
    result = sq.quantize(network, eps=float(eps), box=(lower, upper), effort=options.effort, **settings)
    result.save(options.out / "results" / "_".join([name, eps, *settings]))
    worst = falsify(result.pair, result.certificate.box, evaluations=options.evaluations)
    return result, max(worst.error, result.observed_error)


def study(options: argparse.Namespace, name: str, eps: str, baseline: dict) -> dict:
    """One row of the table."""
    result, observed = run(options, name, eps)
    weights = sum(op.kernel.size for _, op in load(options.nets / f"{name}.npz")[0].affine())
    broken = [
        entry["observed_error"] / entry["claimed_error"] for entry in baseline.get("released", {}).values() if entry
    ]
    row = {
        "network": name,
        "eps": eps,
        "effort": options.effort,
        "bound": result.certificate.bound,
        "observed_error": observed,
        "ratio": result.certificate.bound / max(observed, 1e-300),
        "leaves": result.certificate.tree.leaf_count,
        "weights": weights,
        "mean_weight_bits": result.cost.weight_bits / weights,
        **sizes(result, baseline),
        "released_observed_over_claimed": max(broken, default=math.nan),
        "seconds": result.seconds,
    }
    if options.keep_architecture:
        kept, observed = run(options, name, eps, keep_architecture=True)
        more = {"bound": kept.certificate.bound, "observed_error": observed, **sizes(kept, baseline)}
        row |= {f"kept_{key}": value for key, value in {**more, "seconds": kept.seconds}.items()}
    return row


def sizes(result: sq.Result, baseline: dict) -> dict:
    """Bits, and their share of what the reference tool needs."""
    bits = {"weight_bits": result.cost.weight_bits, "bit_operations": result.cost.bit_operations}
    names = {"weight_bits": "total_weight_bits", "bit_operations": "mult_bit_products"}
    shares = {
        f"{key}_over_{kind}": value / best(baseline, kind, names[key])
        for kind in ("corrected", "released")
        for key, value in bits.items()
    }
    return bits | shares


def geometric_mean(values: list[float]) -> float:
    """Over the entries that exist."""
    known = [value for value in values if not math.isnan(value)]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else math.nan


def curve(options: argparse.Namespace, name: str) -> list[dict]:
    """Bits of one network against the tolerance."""
    path = options.out / "curve.json"
    found = json.loads(path.read_text()) if path.exists() else []
    done = {(row["network"], row["eps"], row["effort"]) for row in found}
    for eps in CURVE:
        if (name, eps, options.effort) not in done:
            network, lower, upper = load(options.nets / f"{name}.npz")
            try:
                result = sq.quantize(network, eps=float(eps), box=(lower, upper), effort=options.effort)
            except sq.SoundQKerasError as error:
                print(f"curve of {name} at {eps}: {error}")
                continue
            weights = sum(op.kernel.size for _, op in network.affine())
            row = {"network": name, "eps": eps, "effort": options.effort, "bound": result.certificate.bound}
            found.append({**row, "mean_weight_bits": result.cost.weight_bits / weights, **sizes(result, {})})
            path.write_text(json.dumps(found, indent=1))
            print(f"curve of {name} at {eps}: {found[-1]['mean_weight_bits']:.2f} bits a weight")
    return [row for row in found if row["network"] == name and row["effort"] == options.effort]


def break_promise(options: argparse.Namespace, baselines: dict, rows: list[dict]) -> None:
    """Show the input at which the released formats of one network err most beyond their promise, and our error there."""
    broken = [
        (entry["observed_error"] / entry["claimed_error"], row["network"], row["eps"], setting, entry)
        for row in rows
        for setting, entry in baselines[row["network"]].get(row["eps"], {}).get("released", {}).items()
        if entry and entry["violated"]
    ]
    if not broken:
        return
    _, name, eps, setting, entry = max(broken, key=lambda found: found[0])
    network, lower, upper = load(options.nets / f"{name}.npz")
    layers = layers_of(network, lower, upper)
    formats = solve(layers, float(eps), setting)
    if formats is None:
        print(f"{name} at {eps}: the released formulation could not be solved again")
        return
    same = agrees(layers, formats, lower, upper, entry)
    found = violation(network, (lower, upper), formats)
    ours = sq.load(options.out / "results" / f"{name}_{eps}")
    own = float(max(abs(error) for error in exact_error(ours.pair, found["input"])))
    found |= {"network": name, "eps": eps, "setting": setting, "agrees_with_baseline": same, "our_error": own}
    found |= {"our_bound": ours.certificate.bound, "baseline_observed": entry["observed_error"]}
    found["input"] = found["input"].tolist()
    (options.out / "violation.json").write_text(json.dumps(found, indent=1))
    print(
        f"{name} at {eps}, released setting {setting} (formats found again; as in the baseline: {same}):\n"
        f"  input {found['input']}\n"
        f"  claimed {found['claimed']:.3g}, emitted code errs by {found['truncated']:.3g} (baseline's search: "
        f"{entry['observed_error']:.3g}), with rounding types {found['nearest']:.3g}\n"
        f"  ours at that input {own:.3g}, proved {ours.certificate.bound:.3g}"
    )


def write_tables(out: Path, rows: list[dict]) -> None:
    """The rows as csv and as markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    lines = [columns, ["---"] * len(columns)]
    lines += [[_short(row.get(column, "")) for column in columns] for row in rows]
    (out / "table.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def report(row: dict) -> str:
    """A row in a line."""
    return (
        f"{row['network']} {row['eps']}: bound {row['bound']:.3g} observed {row['observed_error']:.3g} ratio {row['ratio']:.2f} "
        f"mean bits {row['mean_weight_bits']:.2f} x{row['weight_bits_over_corrected']:.2f} "
        f"operations x{row['bit_operations_over_corrected']:.2f} leaves {row['leaves']} {row['seconds']:.1f} s"
    )


def summary(rows: list[dict]) -> str:
    """All rows in a line."""
    means = [
        geometric_mean([row[f"{key}_over_corrected"] for row in rows]) for key in ("weight_bits", "bit_operations")
    ]
    return (
        f"{len(rows)} certified, weight bits x{means[0]:.3f}, bit operations x{means[1]:.3f} of corrected, ratio <= 2 on "
        f"{sum(row['ratio'] <= 2 for row in rows)}, <= 20 on {sum(row['ratio'] <= 20 for row in rows)}, "
        f"{sum(row['seconds'] for row in rows):.0f} s, longest {max((row['seconds'] for row in rows), default=0):.1f} s"
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path)
    parser.add_argument("baseline", type=Path)
    parser.add_argument("--eps", nargs="+", default=["1e-3", "1e-5"])
    parser.add_argument("--only", nargs="*", default=None, help="names of networks; all that have a baseline otherwise")
    parser.add_argument("--effort", default="normal", help="fast, normal, max, or seconds")
    parser.add_argument("--evaluations", type=int, default=1_000_000, help="of the search for the worst error")
    parser.add_argument("--keep-architecture", action="store_true", help="columns with every layer and unit kept, too")
    parser.add_argument("--curve", default="LyapunovNN", help="the network of the eps-versus-bits curve")
    parser.add_argument("--out", type=Path, default=Path("study"))
    options = parser.parse_args()
    options.effort = options.effort if options.effort.isalpha() else float(options.effort)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    """Run what is missing, then write tables, plots and the summary."""
    options = parse()
    baselines = json.loads(options.baseline.read_text())
    path = options.out / "table.json"
    done = json.loads(path.read_text()) if path.exists() else {}
    asked = [(name, eps) for eps in options.eps for name in options.only or baselines]
    for number, (name, eps) in enumerate(asked, 1):
        key = f"{name} {eps} {options.effort}{' kept' * options.keep_architecture}"
        try:
            if key not in done:
                done[key] = study(options, name, eps, baselines.get(name, {}).get(eps, {}))
                path.write_text(json.dumps(done, indent=1))
                print(f"{number}/{len(asked)} {report(done[key])}", flush=True)
        except sq.SoundQKerasError as error:
            print(f"{number}/{len(asked)} {name} {eps}: {error}", flush=True)
    rows = list(done.values())
    write_tables(options.out, rows)
    points = curve(options, options.curve)
    draw(options.out, rows, baselines, points)
    break_promise(options, baselines, rows)
    for eps in dict.fromkeys(row["eps"] for row in rows):
        print(f"{eps}: {summary([row for row in rows if row['eps'] == eps])}")
    print(f"all: {summary(rows)}")


if __name__ == "__main__":
    main()
