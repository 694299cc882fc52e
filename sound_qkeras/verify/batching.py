"""The same work on many leaves, batch by batch: here, on the other cores, or on the cluster that joblib is told of.

How leaves are cut into batches never depends on who does the work, so neither do the results: with the same kind of
processor they are the same to the last bit.
"""

# pyright: standard
# joblib and threadpoolctl have no type stubs.
from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from uuid import uuid4

from sound_qkeras.interval import Interval, Reals
from sound_qkeras.network import Network, Pair
from sound_qkeras.support.deadline import Deadline
from sound_qkeras.support.scratch import at_once
from sound_qkeras.verify.propagation import FACT_NUMBERS, batches, numbers_per_box, proof_work

Found = TypeVar("Found")
Part = tuple[Any, ...]

# Seconds of the processor, by the first batch's measure, from which handing out the rest is worth asking joblib.
WORTH_ASKING = 0.05
# Threads share one interpreter: unless told otherwise they are used only where numpy is long outside of it, with batches
# of at least so many coefficients and seconds. Deep narrow networks were 10 % slower on two threads, wide ones 1.7x faster.
THREADS_NUMBERS = 500_000
THREADS_SECONDS = 0.1
# Signals of a terminal, which reach every process in it.
UNHEARD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
# A forked process keeps the name, and the settings of its parent with it.
_PROCESS = uuid4().hex


def over_batches(
    work: Callable[..., Found],
    subject: Network | Pair,
    boxes: Interval,
    deadline: Deadline | None = None,
    beside: Reals | None = None,
) -> list[Found]:
    """Do `work` on every batch of boxes (shape `(boxes, *input_shape)`), results in their order.

    The first batch is done here. If the rest is long, it goes where `joblib.parallel_config` says: processes, Dask, Ray.
    If that says nothing, it is done here too, on the cores that numpy's BLAS leaves free where that pays.

    Args:
        work: a function at the top level of a module, or a `functools.partial` of one; its results must not depend on
            anything but its arguments.
        subject: a network, or a pair of networks; processes get its fields, nothing derived.
        boxes: the leaves.
        deadline: when it passes, no further batch is begun, and the results are those of the first ones: of one at least.
        beside: numbers about every box that the work is given beside it.
    """
    deadline = deadline or Deadline()
    network = subject if isinstance(subject, Network) else subject.network
    parts = [(boxes[part],) if beside is None else (boxes[part], beside[part]) for part in batches(network, boxes)]
    if not parts:
        return []
    each = proof_work(network)
    deadline.count(each * parts[0][0].shape[0])
    started = time.thread_time()
    first = work(subject, *parts[0])
    seconds = time.thread_time() - started
    rest = parts[1:]
    if seconds * len(rest) < WORTH_ASKING:
        return [first, *(work(subject, *part) for part in _in_time(rest, deadline, each))]
    boxes_each = parts[0][0].shape[0]
    wide = boxes_each * numbers_per_box(network) >= THREADS_NUMBERS
    most = at_once(FACT_NUMBERS * boxes_each * network.value_count) if wide and seconds >= THREADS_SECONDS else 1
    return [first, *_spread(work, subject, _in_time(rest, deadline, each), most)]


def _in_time(parts: Iterable[Part], deadline: Deadline, each: float) -> Iterator[Part]:
    """Those that are asked for before the deadline passes; so much work a box is counted."""
    for part in parts:
        if deadline.passed:
            return
        deadline.count(each * part[0].shape[0])
        yield part


def _spread(work: Callable[..., Found], subject: Network | Pair, parts: Iterable[Part], most: int) -> list[Found]:
    """The work on every part: on at most so many threads, unless joblib was told otherwise."""
    import joblib
    from threadpoolctl import threadpool_info

    blas = max((int(found["num_threads"]) for found in threadpool_info() if found["user_api"] == "blas"), default=1)
    parallel = joblib.Parallel()
    if not _told():
        parallel = joblib.Parallel(
            n_jobs=max(1, min(most, joblib.cpu_count() // blas)), prefer="threads", pre_dispatch="n_jobs"
        )
    found: Any = parallel(joblib.delayed(_work_anywhere)(work, subject, part, _PROCESS, blas) for part in parts)
    return list(found)


def _told() -> bool:
    """Whether joblib was given a backend or a number of jobs, by the user or by being inside a job of its own."""
    from joblib.parallel import BACKENDS, DEFAULT_BACKEND, get_active_backend

    backend, jobs = get_active_backend()
    return jobs is not None or type(backend) is not BACKENDS[DEFAULT_BACKEND]


def _work_anywhere(work: Callable[..., Found], subject: Network | Pair, part: Part, process: str, blas: int) -> Found:
    """The work, in another process with as many BLAS threads as at home: their number can change the last bit."""
    if process == _PROCESS:
        return work(subject, *part)
    from threadpoolctl import threadpool_limits

    if threading.current_thread() is threading.main_thread():
        # A terminal sends these to workers too. What they mean is decided at home, where the answer is still wanted.
        for number in UNHEARD:
            signal.signal(number, signal.SIG_IGN)
    with threadpool_limits(blas, user_api="blas"):
        return work(subject, *part)
