"""Are the integers the same alone, again, and on a busy machine? For every effort with a name.

    python tests/benchmarks/same_bits.py [--nets FOLDER] [--efforts fast normal max] [--only NAME ...] [--busy 8]

ACC5 and a single pendulum at eps 1e-3: quantised twice in processes of their own, and once beside so many processes that keep
the cores busy. Prints hash, bits and seconds of every run, and ends with 1 where hashes differ.
"""

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

NAMES = ("ACC5NN", "SinglePendulumNN")
SPIN = "while True: pass"


def one(path, effort):
    """One quantisation, as json; in this process."""
    from aster_study import load

    import sound_qkeras as sq

    network, lower, upper = load(path)
    result = sq.quantize(network, 1e-3, (lower, upper), effort=effort)
    found = {"hash": result.certificate.code_hash, "bits": result.cost.weight_bits, "bound": result.certificate.bound}
    return json.dumps(found | {"seconds": result.seconds, "ended_by": result.ended_by})


def run(path, effort, busy):
    """The same in a fresh process, beside so many busy ones."""
    with ExitStack() as stack:
        for _ in range(busy):
            spinning = subprocess.Popen([sys.executable, "-c", SPIN])
            stack.callback(spinning.wait)
            stack.callback(spinning.kill)
        line = [sys.executable, __file__, "--one", str(path), "--efforts", effort]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Every network and effort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[3] / "shared" / "nets" / "controllers"
    parser.add_argument("--nets", type=Path, default=default)
    parser.add_argument("--efforts", nargs="+", default=["fast", "normal", "max"])
    parser.add_argument("--only", nargs="+", default=NAMES)
    parser.add_argument("--busy", type=int, default=8)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(one(options.one, options.efforts[0]))
        return 0
    differing = 0
    for name in options.only:
        for effort in options.efforts:
            hashes = set()
            for label, busy in (("alone", 0), ("again", 0), (f"beside {options.busy}", options.busy)):
                found = run(options.nets / f"{name}.npz", effort, busy)
                hashes.add(found["hash"])
                print(
                    f"{name} {effort:6} {label:9} {found['hash'][:16]} {found['bits']:,} weight bits, bound "
                    f"{found['bound']:.6g}, {found['seconds']:.1f} s, ended by {found['ended_by']}",
                    flush=True,
                )
            print(f"{name} {effort}: {'equal' if len(hashes) == 1 else 'DIFFERENT'}", flush=True)
            differing += len(hashes) > 1
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
