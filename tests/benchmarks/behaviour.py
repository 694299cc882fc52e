"""What the library computes, recorded and compared: a change of its insides must not change a result.

    python tests/benchmarks/behaviour.py record OUT.json [--nets FOLDER] [--effort fast] [--only NAME ...]
    python tests/benchmarks/behaviour.py compare BEFORE.json AFTER.json

Records integers, formats, bounds and split trees of 13 control networks at eps 1e-3 and 1e-5, of two jet classifiers, an
attitude controller (sigmoid) and a vehicle (tanh), and what `certify` says about four QKeras models of others. What is recorded
already is skipped, so an interrupted run goes on. Results of searches that the clock ended may differ; `compare` counts the
others, says for every bound whether it became smaller or larger, and ends with 1 where anything differs.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

import sound_qkeras as sq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from aster_study import load

SMOOTH = {"attitude_3x64_sigmoid": 1e-3, "tora_het_relu_tanh": 1e-3}
JETS = ("jets_mlp_nrp.h5", "jets_mlp_bn_hls4ml.h5")
GIVEN = {
    "qkeras_3layer_jets.h5": ("latent", (-4.0, 4.0)),
    "mnist_qcnn_pruned_theodoros.h5": ("mnist_floatcnn_pruned_theodoros.h5", (0.0, 1.0)),
    "mnist_floatcnn_pruned_theodoros.h5": ("mnist_floatcnn_pruned_theodoros.h5", (0.0, 1.0)),
    "cifar_rn07_hls4mlfinn.h5": ("latent", (0.0, 1.0)),
}


def integers(result):
    """SHA-256 of all integers, and every format as text."""
    digest, formats = hashlib.sha256(), {}
    for name, codes in sorted(result.pair.parameters.items()):
        for array in (codes.kernel, codes.bias):
            digest.update(repr(array.shape).encode() + array.astype("<i8").tobytes())
        formats[name] = [text(one) for one in (*codes.own_formats, codes.bias_format)]
    for kind in ("formats", "accumulators"):
        formats[kind] = {name: text(one) for name, one in sorted(getattr(result.pair, kind).items())}
    return digest.hexdigest(), formats


def text(one):
    """A format."""
    return f"{one.word_length},{one.integer_bits},{int(one.signed)}"


def quantised(model, eps, box, effort):
    """One quantisation, as plain json."""
    try:
        result = sq.quantize(model, eps, box, effort=effort)
    except sq.InfeasibleError as error:
        return {"bounds": [float(error.best_bound)], "ended_by": "search", "infeasible": True}
    digest, formats = integers(result)
    certificate = result.certificate
    return {
        "integers": digest,
        "formats": formats,
        "bits": [result.cost.weight_bits, result.cost.total_bits],
        "bounds": [float(bound) for bound in certificate.output_bounds],
        "tree": hashlib.sha256(repr(certificate.tree.axes).encode()).hexdigest(),
        "leaves": certificate.tree.leaf_count,
        "ended_by": result.ended_by,
    }


def certified(folder, name, effort):
    """What is proved about a model that somebody else quantised."""
    reference, box = GIVEN[name]
    other = reference if reference == "latent" else folder / reference
    found = sq.certify(folder / name, other, box=box, effort=effort, seed=1)
    exact = sq.certify(folder / name, box=box, effort=effort, seed=1, input_bits=8)
    quantizers = [[row.layer, row.quantizer, row.lower, row.upper, row.may_saturate] for row in found.model.quantizers]
    return {
        "quantizers": quantizers,
        "sums": [[row.layer, row.lower, row.upper, row.fractional_bits] for row in found.model.sums],
        "bounds": [float(bound) for bound in found.certificate.output_bounds],
        "floating": [float(found.evaluation.error), bool(exact.evaluation.exact)],
        "leaves": found.certificate.tree.leaf_count,
        "ended_by": "search",
    }


def tasks(nets, effort):
    """Name -> what computes its record."""
    found = {}
    controllers = nets / "controllers"
    for path in sorted([*controllers.glob("*NN.npz"), controllers / "AC6.npz", controllers / "AC7.npz"]):
        for eps in (1e-3, 1e-5):
            found[f"{path.stem} {eps:g}"] = lambda path=path, eps=eps: from_npz(path, eps, effort)
    for name, eps in SMOOTH.items():
        found[name] = lambda name=name, eps=eps: from_npz(controllers / f"{name}.npz", eps, effort)
    for name in JETS:
        found[name] = lambda name=name: quantised(nets / "keras" / name, 0.1, (-4.0, 4.0), effort)
    for name in GIVEN:
        found[name] = lambda name=name: certified(nets / "qkeras", name, effort)
    return found


def from_npz(path, eps, effort):
    """A controller."""
    network, lower, upper = load(path)
    return quantised(network, eps, (lower, upper), effort)


def record(options):
    """Everything that is not recorded yet."""
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, work in tasks(options.nets, options.effort).items():
        if name in found or (options.only and not any(part in name for part in options.only)):
            continue
        found[name] = work()
        options.out.write_text(json.dumps(found, indent=1))
        print(f"{name}: bound {max(found[name]['bounds']):.9g}, ended by {found[name]['ended_by']}", flush=True)
    return 0


def compare(options):
    """How two records differ."""
    before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
    counted = differing = 0
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            print(f"{name}: recorded in one only")
            continue
        if not {one["ended_by"], other["ended_by"]} <= {"search", "work"}:
            print(f"{name}: not counted, the clock ended a search")
            continue
        counted += 1
        parts = [part for part in one if one[part] != other.get(part)]
        if parts:
            differing += 1
            bounds = np.array(one["bounds"]), np.array(other["bounds"])
            change = "as many outputs no more" if len(bounds[0]) != len(bounds[1]) else moved(*bounds)
            print(f"{name}: {', '.join(parts)} differ; bounds {change}")
    print(f"{counted} results compared, {differing} differ")
    return int(differing > 0)


def moved(before, after):
    """In which direction bounds went, and how far."""
    if np.array_equal(before, after):
        return "equal"
    ratio = float(np.max(after)) / float(np.max(before))
    return f"{'smaller' if ratio <= 1.0 else 'larger'} (times {ratio:.12g})"


def main():
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("--nets", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "nets")
    recording.add_argument("--effort", default="fast")
    recording.add_argument("--only", nargs="+", default=[])
    recording.set_defaults(work=record)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.set_defaults(work=compare)
    options = parser.parse_args()
    return options.work(options)


if __name__ == "__main__":
    sys.exit(main())
