"""How few bits a weight may have where the float network is the teacher, and nobody has labels?

    python tests/benchmarks/teacher.py [--nets FOLDER] [--only mlp cnn resnet8] [--bits 2 3] [--epochs N] [--seeds 3]

Each network is quantised in the tier "statistical", its layers' weights are given words of so many bits, with a step for every
output channel (`--shared-steps`: for every layer), and `finetune` trains towards the float network on images without labels,
block by block in the deep one. For MNIST these are at most a thousand, and as many again `--moved` times, each moved by up to
two pixels; accuracies are of 4,000 others. For CIFAR they are the 50 that calibrated the formats; the accuracy is of the 100
there are. Prints bits and accuracies before and after, for every seed.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tf_keras

import sound_qkeras as sq
from sound_qkeras.fixed_point import Format
from sound_qkeras.jobs.finetune import Prover, renewed
from sound_qkeras.jobs.recertify import Demand
from sound_qkeras.tuning.effort import effort_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

NETS = Path(__file__).resolve().parents[3] / "shared" / "nets"
# eps of the formats of results, samples of the tier, images to train on, the box, epochs, whether block by block.
PLANS = {
    "mlp": (0.3, 256, 1000, (0, 1), 12, False),
    "cnn": (0.3, 256, 1000, (0, 1), 6, False),
    "resnet8": (4.0, 100, 100, (0, 255), 60, True),
}


def read(name, nets, seed):
    """The model or network, images and labels in an order of the seed."""
    if name == "resnet8":
        model = tf_keras.models.load_model(nets / "keras" / "resnet8_cifar10.h5", compile=False)
        x, y = np.load(nets / "keras" / "cifar10_100_eval.npz").values()
        x = x.astype(np.float32)
    else:
        x, y = np.load(nets / "keras" / "mnist5k.npz").values()
        x = x.astype(np.float32) / (255 if x.max() > 1.5 else 1)
        if name == "mlp":
            from aster_study import load

            model, x = load(nets / "controllers" / "mnist_relu_3x100.npz")[0], x.reshape(len(x), -1)
        else:
            path = nets / "keras" / "mnist_convnet_maxpool.h5"
            model, x = tf_keras.models.load_model(path, compile=False), x.reshape(-1, 28, 28, 1)
    order = np.random.default_rng(seed).permutation(len(x))
    y = np.argmax(y, axis=1) if y.ndim > 1 and y.shape[1] > 1 else y.reshape(-1)
    return model, x[order], y[order]


def shortened(result, bits, shared):
    """The result with so many bits for each weight, of the step that loses least in its layer or channel, certified anew."""
    made = dict(result.pair.parameters)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for node, op in result.pair.network.owners():
        if op.kind == "average_pool":
            continue
        columns = op.kernel.reshape(-1, 1 if shared else op.kernel.shape[-1])
        steps = np.arange(-4, 20)[:, None, None]
        near = np.clip(np.rint(np.ldexp(columns, steps)), low, high)
        fractional = steps.reshape(-1)[np.sum((np.ldexp(near, -steps) - columns) ** 2, axis=1).argmin(axis=0)]
        finest = fractional.max()
        codes = np.clip(np.rint(np.ldexp(columns, fractional)), low, high).astype(np.int64) << (finest - fractional)
        own = tuple(_format(bits, int(one)) for one in fractional)
        made[node.name] = replace(
            made[node.name],
            kernel=codes.reshape(op.kernel.shape),
            kernel_format=_format(bits + int(finest - fractional.min()), int(finest)),
            channel_formats=None if shared else own,
        )
    pair = replace(result.pair, parameters=made, accumulators={})
    return renewed(result, *Prover(Demand.of(result.certificate), None, effort_of("fast")).prove(pair))


def _format(bits, fractional):
    return Format(bits, bits - 1 - fractional, True)


def moved(x, times, seed):
    """Images, and as many again so many times, each moved by up to two pixels."""
    rng = np.random.default_rng(seed)
    images = x.reshape(-1, 28, 28)
    found = [images, *(np.roll(images, rng.integers(-2, 3, 2), (1, 2)) for _ in range(times))]
    return np.concatenate(found).reshape(-1, *x.shape[1:])


def accuracy(outputs, labels):
    """Share of the samples whose largest output is their class's."""
    return float(np.mean(outputs.reshape(len(labels), -1).argmax(axis=1) == labels))


def one(name, options, seed):
    """A line for every number of bits."""
    eps, samples, most, box, epochs, blocks = PLANS[name]
    model, x, y = read(name, options.nets, seed)
    started = time.monotonic()
    tier = {"tier": "statistical", "samples": x[:samples], "coverage": 0.5}
    first = sq.quantize(model, eps, box, word_lengths=(2, 8), effort="fast", seed=seed, **tier)
    held_out = {row.astype(np.float32).tobytes() for row in first.certificate.evidence.samples}
    train = np.array([row for row in x[:most] if row.tobytes() not in held_out])
    if name != "resnet8":
        train = moved(train, options.moved, seed)
    test = slice(None) if name == "resnet8" else slice(most, None)
    network = first.pair.reference
    weights, ideal = sum(op.kernel.size for _, op in network.owners()), accuracy(network.evaluate(x[test]), y[test])

    def line(label, result):
        mean = sum(codes.kernel_bits for codes in result.pair.parameters.values()) / weights
        found = accuracy(result.simulate(x[test]), y[test])
        share = result.cost.weight_bits / (8 * network.parameter_count)
        print(
            f"{name} seed {seed} {label:18} {mean:.2f} bits a weight, {share:.1%} of uniform 8 bits, accuracy {found:.4f} "
            f"(float {ideal:.4f}), {time.monotonic() - started:.0f} s",
            flush=True,
        )

    line("quantised", first)
    for bits in options.bits:
        short = shortened(first, bits, options.shared_steps)
        line(f"{bits} bits", short)
        epochs = options.epochs or epochs
        found = sq.finetune(short, train, epochs, teacher=True, blocks=blocks, effort="fast", seed=seed)
        line(f"{bits} bits, taught", found)


def main():
    """Every network and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--only", nargs="+", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--shared-steps", action="store_true")
    parser.add_argument("--moved", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for name in options.only:
        for seed in options.seeds:
            one(name, options, seed)


if __name__ == "__main__":
    main()
