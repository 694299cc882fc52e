"""Does cost ever rise with eps? Eight tolerances in one run, and on demand the same ones in runs of their own.

    python tests/benchmarks/curve.py [--nets FOLDER] [--effort fast] [--single] [--only NAME ...] [--count 8]

Four controllers in the tier sound, weight bits minimised; and ResNet-8 in the statistical tier on 100 images, with total bits
minimised (there is no proof over all images that says anything). Prints bits, bound and seconds for every tolerance; with
`--single` also those of a run of its own. Ends with 1 where cost rises with eps along a curve. Single runs may do that: each
is a search from nothing. ResNet-8 takes up to half an hour.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

import sound_qkeras as sq
from sound_qkeras.jobs.sweep import answers
from sound_qkeras.support.progress import silent

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from aster_study import load

CONTROLLERS = ("SinglePendulumNN", "UnicycleNN", "ACC5NN", "ControllerToraNN")
RESNET = "ResNet-8"
# Coarsest and finest tolerance.
ENDS = {RESNET: (16.0, 0.125)}
OTHERS = (0.3, 1e-4)


def subject(nets, name):
    """Model, box and options."""
    if name != RESNET:
        network, lower, upper = load(nets / "controllers" / f"{name}.npz")
        return network, (lower, upper), {"cost": "weight_bits"}
    from sound_qkeras.jobs.job import read

    images = np.load(nets / "keras" / "cifar10_100_eval.npz")["x_uint8"].astype(np.float64)
    options = {"cost": "total_bits", "tier": "statistical", "samples": images}
    return read(nets / "keras" / "resnet8_cifar10.h5"), (0.0, 255.0), options


def line(eps, result, single, kind):
    """A row: the curve's, and beside it that of a single run."""
    text = described(result)
    if single is not None:
        more = getattr(single.cost, kind) / getattr(result.cost, kind) - 1.0
        text += f" | alone {described(single)} ({more:+.1%})"
    return f"  eps {eps:<8.3g} {text}"


def described(result):
    """Bits, bound and seconds."""
    cost = result.cost
    return (
        f"{cost.weight_bits:>9,} {cost.total_bits:>11,} bits, bound {result.certificate.bound:.3g}, "
        f"{result.seconds:6.1f} s, {result.ended_by}"
    )


def rises(results, kind):
    """How often cost rises from one tolerance to the next looser one; they are in order, the loosest first."""
    return sum(getattr(loose.cost, kind) > getattr(tight.cost, kind) for loose, tight in pairwise(results))


def main():
    """Every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "nets")
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--count", type=int, default=8)
    options = parser.parse_args()
    risen = 0
    for name in (*CONTROLLERS, RESNET):
        if options.only and not any(part in name for part in options.only):
            continue
        model, box, chosen = subject(options.nets, name)
        tolerances = np.geomspace(*ENDS.get(name, OTHERS), options.count).tolist()
        kind = chosen["cost"]
        chosen["effort"] = options.effort
        print(name, flush=True)
        found, alone = [], []
        for index, result in answers(model, tolerances, box, box_source="given", report=silent, **chosen):
            single = sq.quantize(model, tolerances[index], box, **chosen) if options.single else None
            found.insert(0, result)
            alone.insert(0, single)
            print(line(tolerances[index], result, single, kind), flush=True)
        risen += rises(found, kind)
        print(f"  {kind} rise {rises(found, kind)} times, {sum(one.seconds for one in found):.1f} s", flush=True)
        if options.single:
            print(
                f"  alone they rise {rises(alone, kind)} times, {sum(one.seconds for one in alone):.1f} s", flush=True
            )
    return int(risen > 0)


if __name__ == "__main__":
    sys.exit(main())
