"""Published networks in all three tiers: bits, bounds, accuracy, seconds and memory, one process a network.

    python tests/benchmarks/published.py NETS [--only NAME ...] [--out FILE]

NETS is a folder with `controllers` (.npz, as `examples/aster_study.py` reads them) and `keras` (.h5 models and .npz data). Run it
on an idle machine. With --out, finished runs are kept in a json file and not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sound_qkeras as sq
from sound_qkeras.backends import compile_and_run
from sound_qkeras.baselines.fixed import fitting_bits, round_affine
from sound_qkeras.fixed_point import Format
from sound_qkeras.jobs.job import read
from sound_qkeras.network import Network, Pair
from sound_qkeras.network.classes import margins_of, outputs_of
from sound_qkeras.tuning.costs import cost_of
from sound_qkeras.tuning.survey import Survey

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from aster_study import load

Case = Callable[[Path], dict[str, Any]]


def controller(name: str, eps: float) -> Case:
    """A controller over its whole box."""

    def run(nets: Path) -> dict[str, Any]:
        network, lower, upper = load(nets / "controllers" / f"{name}.npz")
        return row(network, sq.quantize(network, eps, (lower, upper)))

    return run


def jets(name: str) -> Case:
    """A jet tagger's logits."""

    def run(nets: Path) -> dict[str, Any]:
        network = read(nets / "keras" / name)
        return row(network, sq.quantize(network, 0.1, (-4.0, 4.0)))

    return run


def digits(nets: Path, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Some images of digits, in [0, 1]."""
    data = np.load(nets / "keras" / "mnist5k.npz")
    chosen = np.random.default_rng(seed).permutation(len(data["x"]))[:count]
    images = data["x"][chosen].astype(np.float64).reshape(count, -1)
    return images / (255.0 if images.max() > 1.0 else 1.0), data["y"][chosen]


def local_digits(name: str, shape: tuple[int, ...] | None) -> Case:
    """Within 2/255 of 100 images, half the median margin."""

    def run(nets: Path) -> dict[str, Any]:
        network = read(nets / "keras" / name) if shape else load(nets / "controllers" / name)[0]
        x, y = digits(nets, 100)
        x = x.reshape(100, *network.input_shape)
        eps = 0.5 * float(np.median(margins_of(outputs_of(network, x))))
        options = {"tier": "local", "radius": 2 / 255, "samples": x, "labels": y, "task": "classifier"}
        return row(network, sq.quantize(network, eps, (0.0, 1.0), **options))

    return run


def sound_digits(nets: Path) -> dict[str, Any]:
    """The convolutional network on all images whatever."""
    network = read(nets / "keras" / "mnist_convnet_maxpool.h5")
    return row(network, sq.quantize(network, 0.5, (0.0, 1.0), word_lengths=(2, 24)))


def cifar(eps: float) -> Case:
    """ResNet-8 on 100 images, all bits together."""

    def run(nets: Path) -> dict[str, Any]:
        network, data = resnet(nets)
        chosen = {"tier": "statistical", "samples": data["x_uint8"], "labels": data["y"], "task": "classifier"}
        result = sq.quantize(network, eps, (0.0, 255.0), cost="total_bits", **chosen)
        return row(network, result) | shares(result)

    return run


def words_alike(word_length: int) -> Case:
    """ResNet-8 by habit: one word length for every tensor, its step as the images' own ranges ask for, nearest rounding."""

    def run(nets: Path) -> dict[str, Any]:
        network, data = resnet(nets)
        x = data["x_uint8"].astype(np.float64)
        parameters = {
            node.name: round_affine(op.kernel, op.bias, word_length, word_length) for node, op in network.affine()
        }
        ends = Survey.of(network, x).ends
        formats = {name: word_for(*ends[name], word_length) for name in network.rounding_points}
        first = network.nodes[0].name
        formats[first] = word_for(0.0, 255.0, word_length)
        twin = Pair(network, parameters, formats, {}, saturating=frozenset(formats) - {first})
        found, scores = twin.simulate_all(x, exact=False)[network.output.name], outputs_of(network, x)
        cost = cost_of(twin).total_bits
        return {
            "total_over_8_bits": round(cost / eight_bits(twin), 3),
            "accuracy": float(np.mean(found.reshape(len(x), -1).argmax(1) == data["y"])),
            "agreement": float(np.mean(found.reshape(len(x), -1).argmax(1) == scores.argmax(1))),
        }

    return run


def word_for(low: float, high: float, word_length: int) -> Format:
    """The format of that length that holds a range with the smallest step."""
    signed = low < 0.0
    integer_bits = Format.for_range(low, high, fitting_bits(low, high, word_length)).integer_bits
    return Format(word_length, min(integer_bits, word_length - signed), signed)


def augmented(eps: float, count: int = 2000) -> Case:
    """The same with images drawn from a distribution that is known: any of the 100, shifted, mirrored and brightened at random."""

    def run(nets: Path) -> dict[str, Any]:
        network, data = resnet(nets)
        x, y = draw(data["x_uint8"].astype(np.float64), data["y"], count)
        chosen = {"tier": "statistical", "samples": x, "labels": y, "task": "classifier", "coverage": 0.999}
        result = sq.quantize(network, eps, (0.0, 255.0), cost="total_bits", **chosen)
        scores = result.simulate(data["x_uint8"])
        return (
            row(network, result) | shares(result) | {"accuracy_of_100": float(np.mean(scores.argmax(1) == data["y"]))}
        )

    return run


def resnet(nets: Path) -> tuple[Network, Any]:
    """The network, and 100 labelled images in [0, 255]."""
    return read(nets / "keras" / "resnet8_cifar10.h5"), np.load(nets / "keras" / "cifar10_100_eval.npz")


def draw(images: np.ndarray, labels: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Independent draws: an image, shifted by up to 4 pixels, mirrored or not, brighter or darker by up to a tenth."""
    rng = np.random.default_rng(seed)
    chosen, shifts = rng.integers(len(images), size=count), rng.integers(9, size=(count, 2))
    mirrored, light = rng.integers(2, size=count), rng.uniform(0.9, 1.1, count)
    size = images.shape[1]
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    found = np.empty((count, *images.shape[1:]))
    for n, (k, (top, left)) in enumerate(zip(chosen, shifts, strict=True)):
        found[n] = padded[k, top : top + size, left : left + size][:, :: 1 - 2 * mirrored[n]]
    return np.clip(np.round(found * light[:, None, None, None]), 0.0, 255.0), labels[chosen]


def shares(result: sq.Result) -> dict[str, float]:
    """What a curve of accuracy against bits is drawn from."""
    found = result.classification
    assert found is not None
    assert found.fixed_accuracy is not None
    return {
        "total_over_8_bits": round(result.cost.total_bits / eight_bits(result.pair), 3),
        "accuracy": found.fixed_accuracy,
        "agreement": found.agreement,
    }


def eight_bits(quantized: Pair) -> int:
    """Bits of the same network with 8 for everything."""
    network = quantized.network
    values = sum(op.kernel.size + op.bias.size for _, op in network.affine())
    results = sum(int(np.prod(network.shapes[name])) for name in quantized.formats)
    return 8 * (values + results)


def autoencoder(eps: float, effort: float | str = "normal") -> Case:
    """The anomaly detector on spectra of a toy car; its figure is the reconstruction error."""

    def run(nets: Path) -> dict[str, Any]:
        network = read(nets / "keras" / "fc_autoencoder_toycar.h5")
        data = np.load(nets / "keras" / "ad01_sample_windows.npz")
        frames = data["spectrogram"].astype(np.float64)
        x = np.stack([frames[start : start + 5].reshape(-1) for start in range(len(frames) - 4)])
        box = (-67.0, 2.125)
        result = sq.quantize(network, eps, box, tier="statistical", samples=x, coverage=0.95, effort=effort)
        before, after = (np.mean((y - x) ** 2) for y in (outputs_of(network, x), result.simulate(x)))
        return row(network, result) | {"reconstruction": float(before), "change": float(after / before - 1.0)}

    return run


def application(name: str, **settings: float) -> Case:
    """A large architecture with random weights, normalised on synthetic images as training would."""

    def run(nets: Path) -> dict[str, Any]:
        import tf_keras

        tf_keras.utils.set_random_seed(0)
        model = getattr(tf_keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10, **settings)
        x = np.random.default_rng(0).uniform(0.0, 255.0, (24, 96, 96, 3))
        x = np.clip(np.kron(x[:, ::8, ::8], np.ones((1, 8, 8, 1))) + 0.1 * x, 0.0, 255.0)
        for layer in model.layers:
            layer.momentum = 0.0  # of moving means and variances, where it has any
        model(x, training=True)
        network = read(model)
        scale = float(np.std(outputs_of(network, x[:4])))
        result = sq.quantize(network, 0.5 * scale, (0.0, 255.0), tier="statistical", samples=x, effort="fast")
        return row(network, result) | executions(result, x[:2])

    return run


def executions(result: sq.Result, x: np.ndarray) -> dict[str, Any]:
    """Wrong numbers of the QKeras model in float64 and of the compiled C code, beside the simulation."""
    started = time.monotonic()
    with sq.float64():
        found = np.asarray(result.to_qkeras(dtype="float64")(x))
    emitted = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = compile_and_run(result.export_hls(Path(folder) / "c", target="c", style="loops", vectors=2))
    return {
        "qkeras_mismatches": int(np.sum(found.reshape(len(x), -1) != result.simulate(x).reshape(len(x), -1))),
        "qkeras_seconds": round(emitted - started, 1),
        "c_mismatches": bench.output_mismatches,
        "c_vectors": bench.vectors,
        "c_seconds": round(time.monotonic() - emitted, 1),
    }


CASES: dict[str, Case] = {
    "attitude": controller("attitude_3x64_sigmoid", 1e-3),
    "tora tanh": controller("tora_het_relu_tanh", 1e-3),
    "acasxu": controller("acasxu_1_1", 1e-2),
    "jets": jets("jets_mlp_nrp.h5"),
    "jets BatchNorm": jets("jets_mlp_bn_hls4ml.h5"),
    "mnist 3x100 local": local_digits("mnist_relu_3x100.npz", None),
    "mnist convnet": sound_digits,
    "mnist convnet local": local_digits("mnist_convnet_maxpool.h5", (28, 28, 1)),
    **{f"ResNet-8 {eps:g}": cifar(eps) for eps in (16.0, 8.0, 4.0, 2.0, 1.0, 0.5)},
    **{f"ResNet-8 all {bits} bits": words_alike(bits) for bits in (4, 5, 6, 7, 8, 10)},
    "ResNet-8 augmented 4": augmented(4.0),
    "autoencoder": autoencoder(1.5, 90.0),
    "autoencoder 4": autoencoder(4.0),
    "MobileNet 0.25": application("MobileNet", alpha=0.25),
    "MobileNetV2": application("MobileNetV2"),
    "EfficientNetB0": application("EfficientNetB0"),
}


def row(network: Network, result: sq.Result) -> dict[str, Any]:
    """What is worth knowing about a result."""
    weights = sum(op.kernel.size for _, op in network.affine())
    return {
        "summary": result.summary(),
        "mean_weight_bits": round(result.cost.weight_bits / weights, 3),
        "saturating": len(result.pair.saturating),
        "seconds": round(result.seconds, 1),
    }


def draw_curve(rows: dict[str, Any], path: Path) -> None:
    """Accuracy and agreement of ResNet-8 against its bits: formats that were chosen, and one word length for everything."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    for kind, style in (("chosen formats", "o-"), ("one word length", "s--")):
        found = [
            (one["total_over_8_bits"], one["accuracy"], one["agreement"])
            for name, one in rows.items()
            if "accuracy" in one and "augmented" not in name and (" all " in name) == (kind == "one word length")
        ]
        bits, accuracies, agreements = zip(*sorted(found), strict=True)
        (line,) = axes.plot(bits, accuracies, style, label=f"{kind}: accuracy")
        axes.plot(
            bits,
            agreements,
            style[1:],
            marker="x",
            color=line.get_color(),
            alpha=0.5,
            label=f"{kind}: agreement with float",
        )
    axes.set(xlabel="bits of weights, biases and results, relative to 8 for each", ylabel="share of 100 images")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path, help="draw ResNet-8's accuracy against its bits from the runs in --out")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        started = time.monotonic()
        found = CASES[options.one](options.nets)
        found["all_seconds"] = round(time.monotonic() - started, 1)
        found["peak_gigabytes"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
        sys.stdout.write("\n" + json.dumps(found))  # solvers may print before
        return
    rows: dict[str, Any] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for name in [name for name in options.only if name not in rows]:
        command = [sys.executable, __file__, str(options.nets), "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = done.stderr.strip().splitlines()[-1:] or [""]
        rows[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": failed[0]}
        sys.stdout.write(f"{name}: {rows[name]}\n")
        sys.stdout.flush()
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1))
    if options.draw:
        draw_curve(rows, options.draw)


if __name__ == "__main__":
    main()
