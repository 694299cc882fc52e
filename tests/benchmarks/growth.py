"""How time and memory grow with a network: widths doubled at effort "fast", and a million weights; each in a fresh process.

    python tests/benchmarks/growth.py [--widths 64 128 256 512] [--runs 3] [--million] [--eps 0.01]

The networks are random: He weights, three Dense layers 16-w-w-10 with ReLUs between, the box from -1 to 1; the large one is
64-700-700-700-10. Goals: doubling the width takes at most 5 times as long, a million weights finish within 5 minutes and
4 GiB. Prints medians with their spread (growth is judged by processor seconds), and says which goal is missed (exit code 1).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np

import sound_qkeras as sq
from sound_qkeras.network import Network, Node
from sound_qkeras.network.ops import Dense, Input, Relu

MOST_GROWTH = 5.0
MOST_SECONDS = 300.0
MOST_GIBIBYTES = 4.0
MILLION = (64, 700, 700, 700, 10)


def he_network(sizes: tuple[int, ...], seed: int) -> Network:
    """Random float32 parameters, ReLU after every layer but the last."""
    rng = np.random.default_rng(seed)
    nodes = [Node("x", Input((sizes[0],)), (), "x")]
    for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        kernel = rng.normal(size=(fan_in, fan_out)) * np.sqrt(2.0 / fan_in)
        op = Dense(kernel.astype(np.float32).astype(np.float64), np.zeros(fan_out))
        nodes.append(Node(f"dense_{number}", op, (nodes[-1].name,), f"dense_{number}"))
        if number < len(sizes) - 2:
            nodes.append(Node(f"relu_{number}", Relu(), (nodes[-1].name,), f"dense_{number}"))
    return Network(tuple(nodes))


def measure(sizes: tuple[int, ...], eps: float, seed: int) -> dict[str, float]:
    """Seconds of one quantisation, on the clock and of processors, and the peak of this process's memory in GiB."""
    network = he_network(sizes, seed)
    started, busy = time.perf_counter(), time.process_time()
    result = sq.quantize(network, eps, (-1.0, 1.0), effort="fast")
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    weights = sum(op.kernel.size for _, op in network.affine())
    mean_bits = result.cost.weight_bits / weights
    return {
        "seconds": seconds,
        "processor_seconds": busy,
        "gibibytes": peak,
        "weights": weights,
        "mean_bits": mean_bits,
        "bound": result.certificate.bound,
    }


def runs(sizes: tuple[int, ...], eps: float, count: int) -> list[dict[str, float]]:
    """The same in fresh processes, one seed each."""
    found = []
    for seed in range(count):
        line = [sys.executable, __file__, "--one", *map(str, sizes), "--eps", str(eps), "--seed", str(seed)]
        found.append(
            json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        )
    return found


def describe(sizes: tuple[int, ...], found: list[dict[str, float]]) -> float:
    """Print a line; returns the median of the processor's seconds, which other processes disturb less than the clock's."""
    clock, busy = ([row[key] for row in found] for key in ("seconds", "processor_seconds"))
    print(
        f"{'-'.join(map(str, sizes)):20} {found[0]['weights']:9,} weights  {statistics.median(clock):7.2f} s "
        f"({min(clock):.2f} to {max(clock):.2f}), of processors {statistics.median(busy):.2f} s "
        f"({min(busy):.2f} to {max(busy):.2f})  {max(row['gibibytes'] for row in found):.2f} GiB  "
        f"{found[0]['mean_bits']:.2f} bits a weight",
        flush=True,
    )
    return statistics.median(busy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 128, 256, 512])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--eps", type=float, default=0.01)
    parser.add_argument("--one", type=int, nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(tuple(options.one), options.eps, options.seed)))
        return 0
    missed, medians = [], []
    for width in options.widths:
        sizes = (16, width, width, 10)
        medians.append(describe(sizes, runs(sizes, options.eps, options.runs)))
    for (narrow, before), (wide, after) in pairwise(zip(options.widths, medians, strict=True)):
        print(f"width {narrow} to {wide}: {after / before:.2f} times the processor seconds")
        if after > MOST_GROWTH * before:
            missed.append(f"growth from {narrow} to {wide}")
    if options.million:
        found = runs(MILLION, options.eps, 1)
        describe(MILLION, found)
        if found[0]["seconds"] > MOST_SECONDS or found[0]["gibibytes"] > MOST_GIBIBYTES:
            missed.append("a million weights")
    print(f"missed: {', '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
