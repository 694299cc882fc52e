"""What a proof costs on one leaf, and how tight it is: the same leaves, one thread.

    python tests/benchmarks/leaves.py [--nets FOLDER] [--leaves 512 4096] [--runs 5] [--only NAME ...] [--keep LEAVES.npz]

For each controller, weights and values rounded to 12 fractional bits, the box is cut into so many leaves where the bound is
largest. Then the error on all of them is bounded again: as a search does it for a new candidate, with the reference's
enclosures kept and coefficients in float32; the same in float64; and as the proof does it, from nothing. Prints the median of
runs with their spread, in milliseconds a leaf, and the worst and mean bound. `--keep` saves the leaves, or takes them from a
file that is there, so that two versions are measured on the same ones.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from sound_qkeras.interval import DOUBLE, SINGLE, Interval
from sound_qkeras.splitting.refine import refine
from sound_qkeras.tuning.build import narrow, provisional, round_parameters
from sound_qkeras.tuning.groups import groups_of
from sound_qkeras.verify.proof import bound_leaves
from sound_qkeras.verify.propagation import batches, output_difference, propagate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from aster_study import load

NETS = Path(__file__).resolve().parents[3] / "shared" / "nets" / "controllers"
CONTROLLERS = ("ACC5NN", "ControllerToraNN", "ACC10NN")
BITS = 12


def rounded(network, box):
    """A pair with as many fractional bits everywhere."""
    groups = groups_of(network, round_output=False)
    bits = {group: BITS + (BITS if group.kind == "bias" else 0) for group in groups}
    centers = {node.name: np.zeros(network.shapes[node.inputs[0]]) for node, _ in network.affine()}
    pair = provisional(network, bits, round_parameters(network, bits, centers))
    return narrow(pair, bound_leaves(pair, box).ranges)


def leaves_of(name, pair, box, count, path):
    """The leaves, cut or from a file."""
    known = dict(np.load(path)) if path is not None and path.exists() else {}
    keys = [f"{name}/{count}/{end}" for end in ("lower", "upper")]
    if keys[0] not in known:
        eps = np.full(int(np.prod(pair.network.output_shape)), 1e-12)
        state = refine(pair, box, eps, max_leaves=count)
        found = state.boxes.boxes(state.leaves, box.shape)
        known.update(zip(keys, (found.lower, found.upper), strict=True))
        if path is not None:
            np.savez(path, **known)
    return Interval(*(known[key] for key in keys))


def timed(work, runs):
    """Milliseconds of the processor: the median, the least and the most."""
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        found = work()
        seconds.append(1e3 * (time.process_time() - started))
    return found, (statistics.median(seconds), min(seconds), max(seconds))


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--leaves", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=CONTROLLERS)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with threadpool_limits(1, user_api="blas"):
        measure(options)


def measure(options):
    """All networks and numbers of leaves."""
    for name in options.only:
        network, lower, upper = load(options.nets / f"{name}.npz")
        lower, upper = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
        pair = rounded(network, Interval(lower, upper))
        for count in options.leaves:
            boxes = leaves_of(name, pair, Interval(lower, upper), count, options.keep)
            parts = [boxes[part] for part in batches(network, boxes)]
            known = [{key: facts.value for key, facts in propagate(network, part).facts.items()} for part in parts]

            def bounds(values, precision, parts=parts, pair=pair):
                found = (
                    output_difference(propagate(pair.network, part, pair, values=some, precision=precision)).magnitude
                    for part, some in zip(parts, values, strict=True)
                )
                return np.concatenate(list(found)).max(axis=1)

            nothing = [None] * len(parts)
            for label, values, precision in (
                ("search", known, SINGLE),
                ("search in float64", known, DOUBLE),
                ("proof", nothing, DOUBLE),
            ):
                found, spread = timed(lambda v=values, p=precision: bounds(v, p), options.runs)
                middle, least, most = (one / len(found) for one in spread)
                print(
                    f"{name}, {len(found)} leaves, {label}: {middle:.3f} ms a leaf ({least:.3f} to {most:.3f}), "
                    f"worst bound {found.max():.5g}, mean {found.mean():.5g}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
