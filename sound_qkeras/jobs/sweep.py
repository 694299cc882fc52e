"""Several tolerances in one run: what they cost, each answer a start for the next looser one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.jobs.options import QuantizeOptions
from sound_qkeras.jobs.quantize import Job, Progress
from sound_qkeras.network.boxes import make_tolerance
from sound_qkeras.network.graph import size_of
from sound_qkeras.results.result import Result


def sweep(
    model: Any,
    eps: Iterable[Any],
    box: Any,
    *,
    box_source: str = "given",
    progress: Progress | None = None,
    **options: Any,
) -> list[Result]:
    """Quantise one network for several tolerances, in one run.

    Guarantee: every result is proved as `quantize` proves it; and none costs more than one of a tighter tolerance, for what meets
    that meets a looser one too. The network is read and rewritten once, and every search begins with the answer before.

    Args:
        model: as for `quantize`.
        eps: tolerances, each a number or one number per output, such that of any two one is nowhere larger than the other.
        box: the inputs.
        box_source: where the box comes from.
        progress: called with a stage's name and the fraction of it that is done.
        options: all others of `quantize`.

    Returns:
        The results, in the order of `eps`. `results[0].report(path, sweep=results[1:])` shows bits against eps.

    Raises:
        InputError: an argument is not usable.
        InfeasibleError: no allowed word length is proved to reach the tightest tolerance that is asked for.
    """
    named = QuantizeOptions.named(options)
    job = Job.of(model, box, named.samples, named, box_source, progress)
    wanted = list(eps)
    if not wanted or any(isinstance(one, str) for one in wanted):
        raise InputError(f"eps is {wanted}; accepted: a list of one tolerance or more, such as [1e-1, 1e-2, 1e-3]")
    rows = [make_tolerance(one, size_of(job.trained.output_shape)) for one in wanted]
    order = sorted(range(len(rows)), key=lambda index: float(rows[index].sum()))
    for tighter, looser in pairwise(order):
        if np.any(rows[tighter] > rows[looser]):
            raise InputError(
                f"eps {wanted[tighter]} is tighter than {wanted[looser]} for some outputs alone; sweep them apart"
            )
    found, before = dict[int, Result](), None
    for index in order:
        found[index], before = job.answer(wanted[index], before)
    return [found[index] for index in range(len(wanted))]
