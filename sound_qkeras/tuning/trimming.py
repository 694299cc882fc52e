"""Single bits taken away while the evaluator accepts what is left, where most is saved first."""

from __future__ import annotations

from sound_qkeras.tuning.evaluator import E
from sound_qkeras.tuning.groups import Group
from sound_qkeras.tuning.search import Attempt, Search

# Groups whose last bit is worth less than this share of the cost are left alone.
LEAST_SAVING = 1e-4
# Steps that samples which did not choose may refuse: going on until they accept one would make them choose too.
MOST_REFUSALS = 3


def trim(search: Search[E], best: Attempt[E]) -> Attempt[E]:
    """Take bits away until nothing more comes off, the time is up, or samples that did not choose refuse."""
    space, improved, left = search.space, True, 1.0
    last = search.refusals + MOST_REFUSALS
    while improved and not search.deadline.passed:
        improved = False
        worth = [group for group in space.groups if space.saving(best.bits, group) > LEAST_SAVING * best.cost]
        worth.sort(key=lambda group: -space.saving(best.bits, group))
        for number, group in enumerate(worth):
            # Nobody knows how many more passes there will be: each is half of what is left.
            search.tell("trim", 1.0 - left * (1.0 - 0.5 * number / len(worth)))
            step = 1
            while step:
                found = _trimmed(search, best, group, step, last)
                if search.refusals >= last:
                    return best if found is None else found
                if found is not None:
                    best, improved = found, improved or group.kind == "weight"
                # Twice as far after a success, for weights that had run out of bits to lose; one bit after a failure.
                step = 2 * step if found is not None else int(step > 1)
        left *= 0.5
    return best


def _trimmed(search: Search[E], best: Attempt[E], group: Group, step: int, last: int) -> Attempt[E] | None:
    """An accepted attempt with `step` bits less in `group`, or None.

    A weight bit that does not come off alone is tried with a bit more on everything that is not a weight, and then on
    the smaller layers' weights too, as long as the whole gets cheaper, and samples have not refused so often.
    """
    space = search.space
    fewer = {**best.bits, group: best.bits[group] - step}
    options = [fewer]
    if group.kind == "weight" and step == 1:
        finer = space.finer(fewer, lambda other: other.kind != "weight")
        options += [finer, space.finer(finer, lambda other: other.kind == "weight" and other.count < group.count)]
    for bits in options:
        if search.deadline.passed or search.refusals >= last:
            return None
        if space.holds(bits) and space.cost(bits) < best.cost:
            search.attempt(bits, start=best)
            if search.best is not None and search.best is not best:
                return search.best
    return None
