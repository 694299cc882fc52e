"""How well a budget in seconds is kept: seconds asked for and taken, and where they went.

    python tests/benchmarks/overrun.py [--nets FOLDER] [--only NAME ...] [--seconds N ...]

A temporal convolutional network of ten layers, 16 channels, 64 steps (random weights) at effort=16, the controller ACC10
at 60 and 180, and a random 16-1000-1000-4 at 16. Each line has the seconds of the whole call, by the clock and of
processors, what ended it, and the seconds from one progress report to the next, by stage. Ends with 1 where a call takes
more than 1.2 times what was asked for. Times are of the clock: leave the machine alone.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np

import sound_qkeras as sq
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Conv, Crop, Dense, Input, Relu, Reshape
from sound_qkeras.network.ops.window import causal_padding

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from aster_study import load
from growth import he_network

MOST = 1.2


def tcn(layers=10, channels=16, steps=64, kernel=3, seed=0):
    """Causal convolutions with dilations 1, 2, 4, 8, 16, again and again, each with a ReLU; a Dense layer reads the last step."""
    rng = np.random.default_rng(seed)
    nodes, inputs = [Node("x", Input((steps, 4)), (), "x")], 4
    for number in range(layers):
        weights = rng.normal(size=(kernel, inputs, channels)) * np.sqrt(2.0 / (kernel * inputs))
        dilation = (2 ** (number % 5),)
        op = Conv(
            weights.astype(np.float32).astype(np.float64),
            np.zeros(channels),
            input_shape=(steps, inputs),
            strides=(1,),
            dilation=dilation,
            padding=causal_padding((kernel,), dilation),
        )
        nodes.append(Node(f"conv_{number}", op, (nodes[-1].name,), f"conv_{number}"))
        nodes.append(Node(f"relu_{number}", Relu(), (nodes[-1].name,), f"conv_{number}"))
        inputs = channels
    nodes.append(Node("last", Crop((steps - 1, 0), (0, 0)), (nodes[-1].name,), "last"))
    nodes.append(Node("flat", Reshape((1, inputs), (inputs,)), ("last",), "flat"))
    weights = (rng.normal(size=(inputs, 2)) / np.sqrt(inputs)).astype(np.float32).astype(np.float64)
    nodes.append(Node("out", Dense(weights, np.zeros(2)), ("flat",), "out"))
    return Network(tuple(nodes))


def subjects(nets):
    """Name -> network, box, tolerance, seconds to ask for."""
    acc10, lower, upper = load(nets / "ACC10NN.npz")
    return {
        "TCN": (tcn(), (-1.0, 1.0), 0.5, (16.0,)),
        "ACC10": (acc10, (lower, upper), 1e-3, (60.0, 180.0)),
        "16-1000-1000-4": (he_network((16, 1000, 1000, 4), 0), (-1.0, 1.0), 0.05, (16.0,)),
    }


def measure(network, box, eps, seconds):
    """A result, and seconds by stage."""
    at = [("", time.monotonic())]

    def progress(stage, _):
        if stage != at[-1][0]:
            at.append((stage, time.monotonic()))

    result = sq.quantize(network, eps, box, effort=seconds, progress=progress)
    stages = dict[str, float]()
    for (stage, start), (_, end) in itertools.pairwise(at[1:]):
        stages[stage] = stages.get(stage, 0.0) + end - start
    return result, stages


def main():
    """Each network with each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[3] / "shared" / "nets" / "controllers"
    parser.add_argument("--nets", type=Path, default=default)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--seconds", type=float, nargs="+", default=[])
    options = parser.parse_args()
    over = 0
    for name, (network, box, eps, budgets) in subjects(options.nets).items():
        if options.only and not any(part in name for part in options.only):
            continue
        for asked in options.seconds or budgets:
            started, busy = time.monotonic(), time.process_time()
            result, stages = measure(network, box, eps, asked)
            taken, busy = time.monotonic() - started, time.process_time() - busy
            over += taken > MOST * asked
            print(
                f"{name}: asked {asked:g} s, took {taken:.1f} s ({taken / asked:.2f}; of processors {busy:.1f} s), "
                f"ended by {result.ended_by}; {result.cost.weight_bits:,} weight bits, bound {result.certificate.bound:.3g}, "
                f"{result.certificate.tree.leaf_count} leaves, {result.evaluations:,} tries found {result.observed_error:.3g}"
            )
            print("    " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in stages.items()), flush=True)
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
