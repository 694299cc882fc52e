"""How many bit operations does ours need for the accuracy of HGQ2, which trains a width for every weight?

    python tests/benchmarks/training_peer.py --hgq-python PYTHON --out FOLDER [--nets FOLDER] [--only digits_mlp] [--seeds 1 2 3]

Both start from the same float network, and train on the same samples for the same number of epochs; what HGQ2 keeps, and the epochs
of ours, are chosen on the same validation samples. Every accuracy is on held-out samples. HGQ2 trains with four charges for a bit
operation; ours chooses formats at several tolerances, with and without pruning (half of the epochs), on training samples, and each
result has a bound over the box that is proved. Three tasks are those of `examples/compare_studies.py`, the fourth is the published
MNIST network of 3x100 units, trained on with 3,000 of 5,000 images. A seed is that of all training but the float network's.

For each accuracy of the float network less a drop, the least that a row of either side needs is compared: EBOPs, counted from the
integers, and bit operations of weights that are not zero. `-` is where HGQ2 does not reach an accuracy, `none` where ours does not.
A study that was killed goes on where it was.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import tf_keras as keras

import sound_qkeras as sq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

NETS = ROOT.parent / "shared" / "nets"
DROPS = (0.0, 0.005, 0.01, 0.02, 0.03)
COUNTS = {"EBOPs": "ebops", "bit operations": "nonzero_operations"}
# Tolerances, shares of zeros, epochs and learning rate of ours; the rate is that of pruning, too.
PLANS = {
    "digits_mlp": ((2.0, 3.0, 5.0), (0.6,), 30, 5e-3),
    "telescope": ((0.7, 2.0), (0.5,), 10, 3e-3),
    "watch": ((1.0, 2.5, 5.0), (0.6,), 20, 3e-3),
    "mnist": ((4.0, 8.0, 16.0), (0.85,), 20, 2e-3),
}


def mnist(data):
    """A published MLP, and 5,000 images that it has not seen, or nobody says so."""
    from compare_studies import Case, divided

    x, y = (np.load(data / "mnist5k.npz")[name] for name in ("x", "y"))
    train, test = divided((x / 255.0).reshape(len(x), -1), y, 0.2)
    train, validation = divided(*train, 0.25)
    stored = np.load(data.parent / "controllers" / "mnist_relu_3x100.npz")
    activations = [str(one) for one in stored["activations"]]
    weights = [stored[f"{kind}{i}"].T for i in range(1, len(activations) + 1) for kind in "Wb"]
    stack = [keras.layers.Dense(len(b), kind) for b, kind in zip(weights[1::2], activations, strict=True)]
    model = keras.Sequential([keras.layers.Input((784,)), *stack])
    model.set_weights(weights)
    return Case(model, train, validation, test, (0.0, 1.0), (), "Published.", {"batch_size": 64})


def least(rows, accuracy, count):
    """The row of those at least so accurate that needs least, or None."""
    enough = [row for row in rows if row.metric >= accuracy]
    return min(enough, key=lambda row: getattr(row, count), default=None)


def one(name, seed, options):
    """The study of one seed: a line for every drop and count; returns the ratios."""
    from compare_studies import STUDIES

    case = {**STUDIES, "mnist": mnist}[name](options.nets / "keras")
    eps, sparsities, epochs, rate = PLANS[name]
    started = time.monotonic()
    study = sq.compare(
        case.model,
        case.train,
        eps,
        validation=case.validation,
        test=case.test,
        box=case.box,
        out=options.out / f"{name}_{seed}",
        methods=("ours", "hgq2"),
        spaces=("fair",),
        costs=("bit_operations",),
        our_tiers=("statistical",),
        sparsities=sparsities,
        epochs=epochs,
        learning_rate=rate,
        effort="fast",
        seed=seed,
        hgq_python=options.hgq_python,
        **case.settings,
    )
    theirs = [row for row in study.rows if row.name.startswith("HGQ2")]
    ours = [row for row in study.rows if row.name.startswith("ours")]
    print(
        f"{name} seed {seed}: float {study.float_metric:.4f}, {time.monotonic() - started:.0f} s {study.failures or ''}"
    )
    found = {}
    for drop in DROPS:
        accuracy = study.float_metric - drop
        for label, count in COUNTS.items():
            mine, other = least(ours, accuracy, count), least(theirs, accuracy, count)
            if mine and other:
                found[drop, label] = getattr(mine, count) / getattr(other, count)
            told = [said(row, count) if row else "not reached" for row in (mine, other)]
            share = ratio(mine is not None, found.get((drop, label)))
            print(f"  {label}, drop {drop:.1%}: ours {told[0]}; HGQ2 {told[1]}: {share}", flush=True)
    return found, {drop: least(ours, study.float_metric - drop, "ebops") is not None for drop in DROPS}


def said(row, count):
    """What a row needs, and what is proved about it."""
    bound = "" if row.bound is None else f", bound {row.bound:.3g} ({row.tier})"
    return f"{getattr(row, count):,} at {row.metric:.4f} ({row.name}{bound})"


def ratio(reached, value):
    """As in the table."""
    return f"{value:.2f}" if value is not None else "-" if reached else "none"


def main():
    """Every study and seed, and the table of ratios, ours over HGQ2's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hgq-python", help="a Python that has HGQ2; not needed for studies that are complete")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--only", nargs="+", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = []
    for name in options.only:
        runs = [one(name, seed, options) for seed in options.seeds]
        for label in COUNTS:
            cells = [
                ", ".join(ratio(reached[drop], found.get((drop, label))) for found, reached in runs) for drop in DROPS
            ]
            table.append(f"| {name} | {label} | {' | '.join(cells)} |")
    print(
        f"| ours / HGQ2's | | {' | '.join(f'drop {drop:.1%}' for drop in DROPS)} |",
        "|---" * (2 + len(DROPS)) + "|",
        sep="\n",
    )
    print(*table, sep="\n")


if __name__ == "__main__":
    main()
