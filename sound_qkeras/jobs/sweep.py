"""Several tolerances in one run: what they cost, each answer a start for the next looser one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from sound_qkeras.errors import InfeasibleError, InputError
from sound_qkeras.jobs.job import Job
from sound_qkeras.jobs.options import QuantizeOptions
from sound_qkeras.network.boxes import make_tolerance
from sound_qkeras.network.graph import size_of
from sound_qkeras.results.curve import Curve
from sound_qkeras.results.result import Result
from sound_qkeras.support.progress import Progress, shown


def sweep(
    model: Any,
    eps: Iterable[Any],
    box: Any,
    *,
    box_source: str = "given",
    progress: Progress | bool = False,
    **options: Any,
) -> Curve:
    """Quantise one network for several tolerances, in one run.

    Guarantee: every result is proved as `quantize` proves it; and none costs more than one of a tighter tolerance, for what meets
    that meets a looser one too. The network is read and rewritten once, and every search begins with the answer before. A budget
    in seconds is for each of them. Ctrl-C ends the search; looser tolerances get what was found for tighter ones.

    Args:
        model: as for `quantize`.
        eps: tolerances, each a number or one number per output, such that of any two one is nowhere larger than the other.
        box: the inputs.
        box_source: where the box comes from.
        progress: as for `quantize`; a stage's name comes behind the tolerance and its number.
        options: all others of `quantize`.

    Returns:
        The results, in the order of `eps`: a tuple that can `plot` itself and write one `report` of all.

    Raises:
        InputError: an argument is not usable.
        InfeasibleError: no allowed word length is proved to reach the tightest tolerance that is asked for.
    """
    wanted = list(eps)
    with shown(progress) as report:
        found = dict(answers(model, wanted, box, box_source=box_source, report=report, **options))
    return Curve(found[index] for index in range(len(wanted)))


def answers(
    model: Any, wanted: list[Any], box: Any, *, box_source: str, report: Progress, **options: Any
) -> Iterator[tuple[int, Result]]:
    """As `sweep`: each result with its place in the list as soon as it is there, the tightest tolerance first."""
    named = QuantizeOptions.named(options)
    named.check_goal(wanted)
    if not wanted or any(isinstance(one, str) for one in wanted):
        raise InputError(f"eps is {wanted}; accepted: a list of one tolerance or more, such as [1e-1, 1e-2, 1e-3]")
    job = Job.of(model, box, named.samples, named, box_source, report)
    rows = [make_tolerance(one, size_of(job.trained.output_shape)) for one in wanted]
    order = sorted(range(len(rows)), key=lambda index: float(rows[index].sum()))
    for tighter, looser in pairwise(order):
        if np.any(rows[tighter] > rows[looser]):
            raise InputError(
                f"eps {wanted[tighter]} is tighter than {wanted[looser]} for some outputs alone; sweep them apart"
            )
    before = None
    for number, index in enumerate(order, 1):
        text = f"{wanted[index]:g}" if isinstance(wanted[index], Real) else f"up to {rows[index].max():g}"
        job.report = partial(_of_several, report, f"eps {text}, {number} of {len(order)}: ")
        try:
            result, before = job.answer(wanted[index], before)
        except InfeasibleError as error:
            error.args = (
                f"{error}; this is the tightest of {len(order)} tolerances: without it the others may be met",
            )
            raise
        yield index, result


def _of_several(report: Progress, which: str, stage: str, fraction: float) -> None:
    report(f"{which}{stage}", fraction)
