"""How long published networks take to be proved again in exact arithmetic, every leaf on all cores.

    python tests/benchmarks/exact.py NETS [--only NAME ...] [--keep DIR]
    python tests/benchmarks/exact.py --saved DIR ...

NETS is a folder with `controllers` (.npz, as `examples/aster_study.py` reads them) and `keras` (.h5 models): the thirteen ReLU
controllers at eps 1e-3 and 1e-5, an attitude controller with sigmoids and one of tora with tanh at 1e-3, and two jet taggers at 0.1
are quantised, and kept in --keep. With --saved, results that were saved are proved again. Run it on an idle machine. The exit
code is 1 where one is refused or takes longer than five minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import sound_qkeras as sq
from sound_qkeras.exact.check import prove_again
from sound_qkeras.jobs.job import read

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from aster_study import load

LIMIT = 300.0
SMOOTH = ("attitude_3x64_sigmoid", "tora_het_relu_tanh")
JETS = ("jets_mlp_nrp.h5", "jets_mlp_bn_hls4ml.h5")


def results(nets: Path, only: list[str], keep: Path | None) -> Iterator[tuple[str, sq.Result]]:
    """Quantise them, one by one."""
    folder = nets / "controllers"
    found = sorted(
        path.stem for path in folder.glob("*.npz") if path.stem.endswith("NN") or path.stem in ("AC6", "AC7")
    )
    wanted = [(name, eps) for eps in (1e-3, 1e-5) for name in found] + [(name, 1e-3) for name in SMOOTH]
    for name, eps in [*wanted, *((name, 0.1) for name in JETS)]:
        if only and name not in only:
            continue
        if name in JETS:
            result = sq.quantize(read(nets / "keras" / name), eps, (-4.0, 4.0))
        else:
            network, lower, upper = load(folder / f"{name}.npz")
            result = sq.quantize(network, eps, (lower, upper))
        if keep is not None:
            result.save(keep / f"{name}_{eps:g}")
        yield f"{name} {eps:g}", result


def main() -> int:
    """Print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--saved", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    if (options.nets is None) == (not options.saved):
        parser.error("give either NETS or --saved DIR ...")
    cases = ((path.name, sq.load(path)) for path in options.saved)
    late = 0
    for name, result in cases if options.nets is None else results(options.nets, options.only, options.keep):
        certificate = result.certificate
        started = time.monotonic()
        try:
            prove_again(result.pair, certificate)
            said = ""
        except sq.SoundQKerasError as error:
            said = f" refused: {error}"
        seconds = time.monotonic() - started
        late += bool(said) or seconds > LIMIT
        leaves = f"{certificate.tree.leaf_count} + {certificate.stability_tree.leaf_count} leaves"
        sys.stdout.write(f"{name:36} {leaves:>18} {seconds:7.1f} s{said}\n")
        sys.stdout.flush()
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
