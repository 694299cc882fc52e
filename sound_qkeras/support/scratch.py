"""How much memory a stage may take for its work, beside what it is given and what it returns: batch sizes follow from it."""

# Float64 numbers: 1 GiB.
SCRATCH_NUMBERS = 1 << 27


def at_once(numbers: int, parts: int = 1) -> int:
    """How many things of so many float64 numbers each are in memory together, in one of so many equal parts; one at least.

    >>> at_once(1 << 20), at_once(1 << 20, 8), at_once(1 << 40)
    (128, 16, 1)
    """
    return max(1, SCRATCH_NUMBERS // (parts * max(1, numbers)))
