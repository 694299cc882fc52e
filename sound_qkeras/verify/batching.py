"""The same work on many leaves, batch by batch: here, on the other cores, or on the cluster that joblib is told of.

How leaves are cut into batches never depends on who does the work, so neither do the results: with the same kind of
processor they are the same to the last bit.
"""

# pyright: standard
# joblib and threadpoolctl have no type stubs.
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

from sound_qkeras.interval import Interval
from sound_qkeras.network.graph import Network
from sound_qkeras.network.twin import Pairing
from sound_qkeras.verify.propagation import batches, numbers_per_box

Found = TypeVar("Found")
Subject = TypeVar("Subject", bound=Network | Pairing)

# Seconds of the processor, by the first batch's measure, from which handing out the rest is worth asking joblib.
WORTH_ASKING = 0.05
# Threads share one interpreter: unless told otherwise they are used only where numpy is long outside of it, with batches
# of at least so many coefficients and seconds. Deep narrow networks were 10 % slower on two threads, wide ones 1.7x faster.
THREADS_NUMBERS = 500_000
THREADS_SECONDS = 0.1
# A forked process keeps the name, and the settings of its parent with it.
_PROCESS = uuid4().hex


def over_batches(work: Callable[[Subject, Interval], Found], subject: Subject, boxes: Interval) -> list[Found]:
    """Do `work` on every batch of boxes (shape `(boxes, *input_shape)`), results in their order.

    The first batch is done here. If the rest is long, it goes where `joblib.parallel_config` says: processes, Dask, Ray.
    If that says nothing, it is done here too, on the cores that numpy's BLAS leaves free where that pays.

    Args:
        work: a function at the top level of a module, or a `functools.partial` of one; its results must not depend on
            anything but its arguments.
        subject: a network, or a pair of networks; processes get its fields, nothing derived.
        boxes: the leaves.
    """
    network = subject if isinstance(subject, Network) else subject.network
    parts = [boxes[part] for part in batches(network, boxes)]
    if not parts:
        return []
    started = time.thread_time()
    first = work(subject, parts[0])
    seconds = time.thread_time() - started
    rest = parts[1:]
    if seconds * len(rest) < WORTH_ASKING:
        return [first, *(work(subject, part) for part in rest)]
    wide = parts[0].shape[0] * numbers_per_box(network) >= THREADS_NUMBERS
    return [first, *_spread(work, subject, rest, threads=wide and seconds >= THREADS_SECONDS)]


def _spread(
    work: Callable[[Subject, Interval], Found], subject: Subject, parts: list[Interval], *, threads: bool
) -> list[Found]:
    import joblib
    from threadpoolctl import threadpool_info

    blas = max((int(found["num_threads"]) for found in threadpool_info() if found["user_api"] == "blas"), default=1)
    parallel = joblib.Parallel()
    if not _told():
        parallel = joblib.Parallel(n_jobs=max(1, joblib.cpu_count() // blas) if threads else 1, prefer="threads")
    found: Any = parallel(joblib.delayed(_work_anywhere)(work, subject, part, _PROCESS, blas) for part in parts)
    return list(found)


def _told() -> bool:
    """Whether joblib was given a backend or a number of jobs, by the user or by being inside a job of its own."""
    from joblib.parallel import BACKENDS, DEFAULT_BACKEND, get_active_backend

    backend, jobs = get_active_backend()
    return jobs is not None or type(backend) is not BACKENDS[DEFAULT_BACKEND]


def _work_anywhere(
    work: Callable[[Subject, Interval], Found], subject: Subject, boxes: Interval, process: str, blas: int
) -> Found:
    """The work, in another process with as many BLAS threads as at home: their number can change the last bit."""
    if process == _PROCESS:
        return work(subject, boxes)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(blas, user_api="blas"):
        return work(subject, boxes)
