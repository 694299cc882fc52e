"""What `SoundQuant(fewer_bits=...)` saves on the pendulum's controller and the diabetes regression, over several seeds.

Needs scikit-learn, and takes about ten minutes on two cores; interrupted, the same call goes on after the last network:

    python examples/fewer_bits.py --out out/fewer_bits.json

Every network is the one of `pendulum.py` or `diabetes_regression.py`, certified at 0.001. The strength is chosen by the
validation loss alone: the largest whose mean is at most 2% above that of training without.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diabetes_regression
import numpy as np
import pendulum
import tf_keras  # what fewer_bits works on
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import sound_qkeras
from sound_qkeras.callbacks import SoundQuant
from sound_qkeras.cli.demo import STATES, expert

STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.3)
MOST_LOSS = 1.02
Rows = dict[str, dict[str, float]]


def pendulum_task(seed: int) -> tuple[Any, dict[str, Any], list[np.ndarray]]:
    """The model, how it is fitted, and training and validation data."""
    x, x_new = (STATES * np.random.default_rng(number).uniform(-1.0, 1.0, (4096, 2)) for number in (seed, 1000 + seed))
    tf_keras.utils.set_random_seed(seed)
    return pendulum.build(tf_keras), {"batch_size": 64}, [x, x_new, expert(x), expert(x_new)]


def diabetes_task(seed: int) -> tuple[Any, dict[str, Any], list[np.ndarray]]:
    """The same for the regression; every seed has another split, too."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    data = train_test_split(x, y[:, None], test_size=0.2, random_state=seed)
    tf_keras.utils.set_random_seed(seed)
    return diabetes_regression.build(tf_keras, data[0], data[2]), {"batch_size": 32}, data


TASKS: dict[str, tuple[Callable[[int], Any], float]] = {
    "pendulum": (pendulum_task, 0.0),
    "diabetes": (diabetes_task, 0.1),
}


def run(task: str, seed: int, strength: float, epochs: int) -> dict[str, float]:
    """Train one network and certify it; the validation loss is that of the float network."""
    make, margin = TASKS[task]
    model, options, (x, x_new, y, y_new) = make(seed)
    steps = -(-len(x) // options["batch_size"])
    model.compile(model.optimizer, "mse", steps_per_execution=steps)
    sound = SoundQuant(1e-3, x, margin=margin, effort="fast", fewer_bits=strength)
    model.fit(x, y, epochs=epochs, verbose=0, callbacks=[sound], **options)
    if sound.result is None:
        raise SystemExit(f"{task}, seed {seed}: not quantised: {sound.error}")
    sound_qkeras.check(sound.result.pair, sound.result.certificate)
    loss = float(np.mean((model.predict(x_new, verbose=0) - y_new) ** 2))
    return {"loss": loss, "weight_bits": sound.result.cost.weight_bits, "bound": sound.result.certificate.bound}


def ratios(rows: Rows, task: str, strength: float, seeds: Sequence[int], what: str) -> np.ndarray:
    """Of each seed's number and that without the force."""
    found = [[rows[f"{task} {seed} {one:g}"][what] for seed in seeds] for one in (strength, 0.0)]
    return np.array(found[0]) / np.array(found[1])


def mean_ratio(rows: Rows, task: str, strength: float, seeds: Sequence[int], what: str) -> float:
    """Of the means over all seeds."""
    found = [np.mean([rows[f"{task} {seed} {one:g}"][what] for seed in seeds]) for one in (strength, 0.0)]
    return float(found[0] / found[1])


def table(rows: Rows, task: str, seeds: Sequence[int]) -> None:
    """Print all strengths, and the one the validation loss chooses."""
    chosen = 0.0
    for strength in STRENGTHS:
        shown = []
        for what in ("loss", "weight_bits"):
            each, mean = ratios(rows, task, strength, seeds, what), mean_ratio(rows, task, strength, seeds, what)
            shown.append(f"{mean:.3f} ({each.min():.3f} to {each.max():.3f})")
        print(f"| {task} | {strength:g} | {' | '.join(shown)} |")
        if mean_ratio(rows, task, strength, seeds, "loss") <= MOST_LOSS:
            chosen = max(chosen, strength)
    print(f"{task}: chosen by validation loss: fewer_bits={chosen:g}")


def main(out: Path, seeds: Sequence[int], epochs: int) -> None:
    rows: Rows = json.loads(out.read_text()) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        for strength in STRENGTHS:
            for seed in seeds:
                key = f"{task} {seed} {strength:g}"
                if key not in rows:
                    rows[key] = run(task, seed, strength, epochs)
                    print(key, rows[key], flush=True)
                    out.write_text(json.dumps(rows, indent=1))
    print("| network | fewer_bits | validation loss, of without | weight bits, of without |\n|---|---|---|---|")
    for task in TASKS:
        table(rows, task, seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train with and without the force towards fewer bits, and compare.")
    parser.add_argument("--out", type=Path, default=Path("out/fewer_bits.json"), help="json to keep the numbers in")
    parser.add_argument("--seeds", type=int, default=5, help="networks of each kind and strength")
    parser.add_argument("--epochs", type=int, default=60, help="of each fit")
    arguments = parser.parse_args()
    main(arguments.out, range(arguments.seeds), arguments.epochs)
