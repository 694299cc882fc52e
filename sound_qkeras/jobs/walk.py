"""Which tolerances are tried for an accuracy, and how many networks that could lead to."""

from __future__ import annotations

import math
from collections.abc import Generator
from functools import cache

# Networks that are tried at most. Tolerances grow, or shrink, by a factor until one loses too much, or little enough; then what
# lies between two of them is halved this many times.
LOOKS, FACTOR, HALVINGS = 10, 4.0, 3


def tolerances(first: float) -> Generator[float, bool | None, None]:
    """The tolerances that are tried, the first one first; each is answered by whether what came out loses no more than allowed.

    The answer is None where nothing came out: no words were long enough, or what training made of them was not proved.
    """
    eps, within, tried = first, (yield first), 1
    least, beyond = (eps, None) if within else (None, eps)
    while tried < LOOKS and (least is None or beyond is None):
        eps = eps / FACTOR if least is None else eps * FACTOR
        within, tried = (yield eps), tried + 1
        if within is None:
            # Below it nothing comes out either: what lies between is left. Above, the last one stays the best.
            least, beyond = (eps, beyond) if least is None else (least, eps)
        elif within:
            least = eps
        else:
            beyond = eps
    for _ in range(HALVINGS):
        if least is None or beyond is None or tried >= LOOKS:
            return
        middle = math.sqrt(least * beyond)
        within, tried = (yield middle), tried + 1
        least, beyond = (middle, beyond) if within or (within is None and middle < first) else (least, middle)


@cache
def networks() -> int:
    """How many networks held-out samples can choose from: those at the end of every sequence of answers."""

    def below(answers: tuple[bool, ...]) -> int:
        path = tolerances(1.0)
        next(path)
        try:
            for answer in answers:
                path.send(answer)
        except StopIteration:
            return 0
        return 1 + below((*answers, True)) + below((*answers, False))

    return below(())
