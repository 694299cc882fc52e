"""AutoQKeras and everyone else beside ours on five networks: the studies of the documentation, one command each.

    python examples/compare_studies.py digits_mlp --out out/digits_mlp
    python examples/compare_studies.py telescope --data nets/keras --out out/telescope

| study | network | samples | files in --data |
|---|---|---|---|
| digits_mlp, digits_cnn | trained here | scikit-learn's digits | none |
| telescope | 10-20-40-60-30-2, published | 19,020 showers | telescope_complex.npz, telescope_data.npz |
| watch | 1-D CNN, trained here | 2,369 windows, people unseen in the test | seglearn_watch_win100.npz |
| jets | 16-64-32-32-5, published | drawn as its standardised inputs are, its own classes as labels | jets_mlp_nrp.h5 |

A study that was killed goes on where it was. Needs the extra [study], and scikit-learn for the digits.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras  # the published models are of Keras 2

import sound_qkeras as sq

layers: Any = keras.layers
Data = tuple[np.ndarray, np.ndarray]

TESTED = 0.25  # share of samples that every accuracy is on
VALIDATED = 0.25  # share of the others that choose epochs and trials, where the network is trained here
PEOPLE = (3, 6, 9)  # whose windows are tested on
JETS, WIDEST = 6000, 4.0  # samples of standardised inputs, and where they are cut off


@dataclass(frozen=True)
class Case:
    """A trained model, its samples, and what is tried on them.

    A model that is trained here is trained on `train` as everybody's are, and `validation` is apart. Of a published one nobody
    knows, and some of `train` validates.
    """

    model: Any
    train: Data
    validation: Data | None
    test: Data
    box: Any
    eps: tuple[float, ...]
    note: str
    settings: dict[str, Any] = field(default_factory=dict)


def digits(shape: tuple[int, ...], stack: list[Any]) -> Case:
    from sklearn.datasets import load_digits

    data = load_digits()
    train, test = divided((data.data / 16.0).reshape(-1, *shape), data.target, TESTED)
    train, validation = divided(*train, VALIDATED)
    eps = (100.0, 50.0, 20.0, 10.0, 8.0, 6.5, 5.0, 3.0, 2.0)
    return Case(trained(train, stack, 40), train, validation, test, (0.0, 1.0), eps, "Trained here.")


def divided(x: np.ndarray, y: np.ndarray, share: float) -> tuple[Data, Data]:
    """Samples to train on, and a share of others."""
    order = np.random.default_rng(0).permutation(len(x))
    cut = round(len(x) * (1.0 - share))
    train, others = ((x[part].astype(np.float32), y[part]) for part in (order[:cut], order[cut:]))
    return train, others


def trained(train: Data, stack: list[Any], epochs: int) -> Any:
    """A classifier trained in floating point."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Input(train[0].shape[1:]), *stack])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*train, batch_size=32, epochs=epochs, verbose=0)
    return model


def digits_mlp(data: Path) -> Case:
    return digits((64,), [layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])


def digits_cnn(data: Path) -> Case:
    convolutions = [layers.Conv2D(8, 3, activation="relu"), layers.Conv2D(12, 3, activation="relu")]
    stack = [*convolutions, layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(10, "softmax")]
    return digits((8, 8, 1), stack)


def telescope(data: Path) -> Case:
    stored, samples = np.load(data / "telescope_complex.npz"), np.load(data / "telescope_data.npz")
    widths = [len(stored[f"b{i}"]) for i in range(1, 6)]
    stack = [*(layers.Dense(width, "relu") for width in widths[:-1]), layers.Dense(widths[-1])]
    model = keras.Sequential([layers.Input((10,)), *stack])
    model.set_weights([part for i in range(1, 6) for part in (stored[f"W{i}"].T, stored[f"b{i}"])])
    train, test = divided(samples["x"], samples["y"], TESTED)
    note = "Published; it is not known which of the samples it was trained on, so what starts from it may be flattered."
    eps = (100.0, 50.0, 30.0, 10.0, 2.0, 1.5, 1.0, 0.7, 0.5)
    return Case(model, train, None, test, (stored["lo"], stored["hi"]), eps, note, {"batch_size": 128})


def watch(data: Path) -> Case:
    stored = np.load(data / "seglearn_watch_win100.npz")
    x, unseen = stored["x"].astype(np.float32), np.isin(stored["subject"], PEOPLE)
    channels = x[~unseen].reshape(-1, x.shape[-1])
    x = (x - channels.mean(axis=0)) / channels.std(axis=0)
    train, validation = divided(x[~unseen], stored["y"][~unseen], VALIDATED)
    test = (x[unseen], stored["y"][unseen])
    convolutions = [
        layers.Conv1D(12, 8, strides=4, activation="relu"),
        layers.Conv1D(16, 5, strides=2, activation="relu"),
    ]
    stack = [*convolutions, layers.MaxPooling1D(2), layers.Flatten(), layers.Dense(7, "softmax")]
    note = "Trained here; the windows of three of ten people are tested on. The box is what was measured, channel by channel."
    widest = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
    box = (np.broadcast_to(-widest, x.shape[1:]), np.broadcast_to(widest, x.shape[1:]))
    eps = (100.0, 30.0, 15.0, 10.0, 8.0, 7.0, 6.0, 5.0, 3.0, 1.0)
    return Case(trained(train, stack, 20), train, validation, test, box, eps, note, {"batch_size": 64})


def jets(data: Path) -> Case:
    model = keras.models.load_model(data / "jets_mlp_nrp.h5", compile=False)
    x = np.clip(np.random.default_rng(0).normal(size=(JETS, 16)), -WIDEST, WIDEST).astype(np.float32)
    train, test = divided(x, np.argmax(model.predict(x, verbose=0), axis=1), TESTED)
    note = (
        "Published, without its samples: inputs are drawn as its standardisation makes them, and labels are the network's own "
        "classes, so accuracy is agreement with it, and its own is 1."
    )
    eps = (300.0, 100.0, 30.0, 12.0, 8.0, 6.0, 5.0, 3.0, 2.0, 1.0)
    return Case(model, train, None, test, (-WIDEST, WIDEST), eps, note, {"batch_size": 64})


STUDIES: dict[str, Callable[[Path], Case]] = {
    "digits_mlp": digits_mlp,
    "digits_cnn": digits_cnn,
    "telescope": telescope,
    "watch": watch,
    "jets": jets,
}
SHORT: dict[str, Any] = {
    "trials": 1,
    "search_epochs": 1,
    "epochs": 1,
    "retrained": 1,
    "spaces": ("fair",),
    "bits": (6,),
}


def main(name: str, data: Path, out: Path, trials: int, mode: str, short: bool) -> None:
    case = STUDIES[name](data)
    settings: dict[str, Any] = {"trials": trials, "modes": (mode,), "costs": ("total_bits", "weight_bits")}
    settings |= {"our_tiers": ("sound", "statistical"), "epochs": 30, "effort": "fast", **case.settings}
    if short:
        settings |= {**SHORT, "costs": ("total_bits",), "our_tiers": ("sound",)}
    print(f"{name}: {case.note}")
    study = sq.compare(
        case.model,
        case.train,
        case.eps[:1] if short else case.eps,
        validation=case.validation,
        test=case.test,
        box=case.box,
        out=out,
        progress=lambda candidate: print(f"  {candidate}", flush=True),
        **settings,
    )
    print(f"metric of the float network: {study.float_metric:.4g}; {len(study.rows)} rows in {study.directory}")
    for row in sorted(study.rows, key=lambda row: row.total_bits):
        print(f"  {row.total_bits:9,} bits  {row.metric:.4f}  {row.name}")
    for line in study.both_ways:
        print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="AutoQKeras and other ways to choose formats beside ours.")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", type=Path, default=Path(), help="directory of the study's files")
    parser.add_argument("--out", type=Path, required=True, help="new, or of a study to go on with")
    parser.add_argument("--trials", type=int, default=50, help="of each AutoQKeras search")
    parser.add_argument("--mode", default="random", help="of AutoQKeras: random, its default, bayesian or hyperband")
    parser.add_argument("--short", action="store_true", help="one trial and one tolerance, to see that it runs")
    given = parser.parse_args()
    main(given.study, given.data, given.out, given.trials, given.mode, given.short)
