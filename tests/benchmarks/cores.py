"""What other cores, and a cluster, are worth: the same leaves by one core, threads, processes and Dask, with the same bits.

    python tests/benchmarks/cores.py [--nets FOLDER] [--only NAME ...] [--leaves 4096] [--runs 3] [--jobs 2] [--keep LEAVES.npz]
    python tests/benchmarks/cores.py --workers 1 2 4 --only ControllerToraNN

For each controller, and for random networks such as 16-300-300-4, the box is cut into leaves as `leaves.py` does it. The
error on all of them is bounded as a search does it, with the reference's enclosures given, and as the proof does it. Prints
the fastest run in seconds of the wall clock, how many times faster than one core it is, what of the processor it took, and what
strangers took of it meanwhile: where that is not about 0.0, compare processor seconds, not the clock's. Processes are timed apart
with their start. With `--workers` the proof alone is timed, on local Dask clusters of so many processes of one thread each.
Exit code 1 if bits differ.
"""

import argparse
import os
import re
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import psutil
from growth import he_network
from joblib.externals.loky import get_reusable_executor
from leaves import CONTROLLERS, NETS, leaves_of, load, rounded

from sound_qkeras.interval import Interval
from sound_qkeras.jobs.cores import cores_for
from sound_qkeras.splitting.refine import _measure_batch, flat
from sound_qkeras.verify.batching import over_batches
from sound_qkeras.verify.proof import _bound_batch
from sound_qkeras.verify.propagation import batches, propagate

WIDE = "16-300-300-4"
WIDE_LEAVES = 256


def made(name, options):
    """A pair, and the leaves."""
    random = re.fullmatch(r"\d+(-\d+)+", name) is not None
    if random:
        network = he_network(tuple(map(int, name.split("-"))), 0)
        lower, upper = np.full(network.input_shape, -0.1), np.full(network.input_shape, 0.1)
    else:
        network, lower, upper = load(options.nets / f"{name}.npz")
    box = Interval(np.asarray(lower, np.float64), np.asarray(upper, np.float64))
    with cores_for(network):
        pair = rounded(network, box)
        return pair, leaves_of(
            name, pair, box, min(options.leaves, WIDE_LEAVES) if random else options.leaves, options.keep
        )


def works(pair, boxes):
    """What a search and a proof do on all leaves: called without arguments, the first result of each batch in bytes."""
    network = pair.network
    parts = [boxes[part] for part in batches(network, boxes)]
    values = np.concatenate([flat({n: f.value for n, f in propagate(network, p).facts.items()}) for p in parts])
    search = partial(_measure_batch, eps=np.full(pair.network.output_shape, 1e-3).ravel())

    def bits(work, beside):
        return b"".join(one[0].tobytes() for one in over_batches(work, pair, boxes, beside=beside))

    return {"search": lambda: bits(search, values), "proof": lambda: bits(_bound_batch, None)}


def processor():
    """Seconds of the processor so far: of this process, of those that it started and that are there, and of everybody."""
    others = [psutil.Process(one.pid).cpu_times() for one in psutil.Process().children(recursive=True)]
    total = psutil.cpu_times()
    everybody = sum(getattr(total, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))
    return np.array([time.process_time(), sum(one.user + one.system for one in others), everybody])


class Bits:
    """What every way has to give, and how long it took."""

    def __init__(self, runs):
        self.runs, self.alike, self.expected, self.alone = runs, True, None, None

    def timed(self, label, work, config, before=lambda: None):
        """Run, and print about the fastest run."""
        found, rows = [], []
        for _ in range(self.runs):
            before()
            started, busy = time.perf_counter(), processor()
            with config():
                found.append(work())
            rows.append((time.perf_counter() - started, *(processor() - busy)))
        seconds, here, elsewhere, everybody = min(rows)
        self.expected, self.alone = self.expected or found[0], self.alone or seconds
        alike = all(one == self.expected for one in found)
        self.alike &= alike
        foreign = max(0.0, everybody - here - elsewhere) / seconds
        print(
            f"    {label:32} {seconds:7.2f} s, {self.alone / seconds:5.2f}x; processor {here:.2f} s here, {elsewhere:.2f} s "
            f"in other processes; strangers took {foreign:.1f} cores{'' if alike else '; OTHER BITS'}",
            flush=True,
        )


def stop_processes():
    """No worker process is left."""
    get_reusable_executor().shutdown(wait=True)


def here(name, pair, boxes, options):
    """One core, threads, processes; what nothing was said about."""
    alike, jobs = True, options.jobs
    told = partial(partial, joblib.parallel_config)
    for label, work in works(pair, boxes).items():
        print(f"{name}, {len(boxes.lower)} leaves, {len(batches(pair.network, boxes))} batches, {label}")
        bits = Bits(options.runs)
        with cores_for(pair.reference):
            bits.timed("one core", work, told(n_jobs=1))
            bits.timed("by default", work, told())
            bits.timed(f"{jobs} threads", work, told(backend="threading", n_jobs=jobs))
            loky = told(backend="loky", n_jobs=jobs)
            bits.timed(f"{jobs} processes and their start", work, loky, stop_processes)
            bits.timed(f"{jobs} processes", work, loky)
            bits.timed("one core once more", work, told(n_jobs=1))
        stop_processes()
        alike &= bits.alike
    return alike


def on_clusters(name, pair, boxes, options):
    """The proof on local clusters of some sizes."""
    from dask.distributed import Client, LocalCluster

    proof, bits = works(pair, boxes)["proof"], Bits(options.runs)
    print(f"{name}, {len(boxes.lower)} leaves, {len(batches(pair.network, boxes))} batches, proof")
    with cores_for(pair.reference):
        bits.timed("one core", proof, partial(joblib.parallel_config, n_jobs=1))
        for count in options.workers:
            with (
                LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster),
            ):
                dask = partial(joblib.parallel_config, backend="dask")
                bits.timed(f"Dask, {count} workers, first time", proof, dask)
                bits.timed(f"Dask, {count} workers", proof, dask)
    return bits.alike


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, default=NETS)
    parser.add_argument("--only", nargs="+", default=(*CONTROLLERS, WIDE))
    parser.add_argument("--leaves", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count())
    parser.add_argument("--workers", type=int, nargs="+")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    load_now = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{joblib.cpu_count()} cores; load average {load_now} over the last 1, 5 and 15 minutes")
    alike = True
    for name in options.only:
        alike &= (on_clusters if options.workers else here)(name, *made(name, options), options)
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
