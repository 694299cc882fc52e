"""Let keras-tuner look for the pendulum's controller that needs the fewest certified bits, and still controls it.

`SoundQuant` writes what the formats cost into the logs of every n-th epoch, so a tuner can minimise it. By itself that would
find networks that have learnt nothing, for those need hardly any bits: one that does not imitate the expert well enough
counts as worse than any that does.

    python examples/fewest_bits_architecture.py --out out/fewest_bits

Needs the extra [study]. A search that was killed goes on where it was.
"""

import argparse
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np

import sound_qkeras
from sound_qkeras.callbacks import SoundQuant
from sound_qkeras.cli.demo import STATES, expert, simulate, starts

EPS = 2e-2  # Nm between the trained and the fixed-point network, proved
ACCEPTED = 0.1  # Nm, root mean square, between the trained network and the expert
REJECTED = 1e7  # more bits than any network here needs


def counted(bits: float, error: float) -> float:
    """Certified bits; beyond all of them where the network does not imitate well or was not quantised, worse ones higher."""
    if error <= ACCEPTED and np.isfinite(bits):
        return bits
    return REJECTED * (1.0 + error / ACCEPTED)


class Controller(keras_tuner.HyperModel):
    """Controllers of one or two hidden layers, trained to imitate the expert."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        rng = np.random.default_rng(0)
        self.train, self.test = (
            (x, expert(x)) for x in (STATES * rng.uniform(-1.0, 1.0, (n, 2)) for n in (4096, 1024))
        )

    def build(self, hp: Any) -> keras.Model:
        layers: Any = keras.layers
        keras.utils.set_random_seed(0)  # a trial depends on its values, not on those before it
        widths = [hp.Int("first", 2, 24, sampling="log"), hp.Int("second", 0, 16)]
        hidden = [layers.Dense(width, hp.Choice("activation", ["relu", "tanh"])) for width in widths if width]
        model = keras.Sequential([layers.Input((2,)), *hidden, layers.Dense(1)])
        steps = self.epochs * len(self.train[0]) // 64
        model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps)), "mse")
        return model

    def fit(self, hp: Any, model: keras.Model, sound: SoundQuant | None = None, **options: Any) -> dict[str, float]:
        """Train, quantise after the last epoch, and judge by the logs."""
        sound = sound or SoundQuant(EPS, box=(-STATES, STATES), cost="total_bits", every=self.epochs, effort="fast")
        options |= {"callbacks": [sound, *options.get("callbacks", [])], "verbose": 0}
        logs = model.fit(*self.train, validation_data=self.test, batch_size=64, epochs=self.epochs, **options).history
        error = float(np.sqrt(logs["val_loss"][-1]))
        return {"sound_total_bits": counted(logs["sound_total_bits"][-1], error), "error": error}


def main(out: Path, trials: int, epochs: int) -> None:
    # 1. The tuner minimises what the callback logs.
    controller = Controller(epochs)
    tuner = keras_tuner.BayesianOptimization(
        controller,
        objective=keras_tuner.Objective("sound_total_bits", "min"),
        max_trials=trials,
        seed=1,
        directory=out,
        project_name="trials",
    )
    tuner.search(verbose=0)
    done = [trial for trial in tuner.oracle.trials.values() if trial.status == "COMPLETED"]
    for trial in sorted(done, key=lambda trial: trial.score):
        error = trial.metrics.get_best_value("error")
        bits = f"{trial.score:6.0f} bits" if trial.score < REJECTED else "   rejected"
        print(f"{bits}  {error:.3f} Nm from the expert  {trial.hyperparameters.values}")

    # 2. The best one again, with its certificate this time.
    best = tuner.get_best_hyperparameters()[0]
    sound = SoundQuant(EPS, box=(-STATES, STATES), cost="total_bits", every=epochs, effort="fast", out=out / "result")
    found = controller.fit(best, controller.build(best), sound)
    if sound.result is None or found["sound_total_bits"] >= REJECTED:
        raise SystemExit(
            f"none of {trials} networks imitates the expert within {ACCEPTED} Nm; allow more trials or epochs"
        )
    print(sound.result.summary())

    # 3. It closes the loop.
    trajectory = simulate(sound.result.simulate, starts())
    rest, inside = abs(trajectory[-1, :, 0]).max(), bool(np.all(abs(trajectory) <= STATES))
    print(f"after 5 s within {rest:.4f} rad of upright; always in the box: {inside}")
    loaded = sound_qkeras.load(out / "result")
    sound_qkeras.check(loaded.pair, loaded.certificate)
    print(f"{loaded.cost.total_bits} bits, saved in {out / 'result'}, loaded and proved again")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune a controller's architecture for the fewest certified bits.")
    parser.add_argument("--out", type=Path, default=Path("out/fewest_bits"), help="new, or of a search to go on with")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=30, help="of a trial")
    given = parser.parse_args()
    main(given.out, given.trials, given.epochs)
