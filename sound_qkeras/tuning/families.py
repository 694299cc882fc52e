"""Families of numbers that weights may be: fixed point, powers of two, ternary and binary values.

Of one length, a word of few values holds other numbers than one of fixed point: of one bit, both signs; of four, numbers that are
128 times smaller than others. Two words of one length cost the same, so the one that loses least is chosen, and what a program
chooses between are lengths.

Reference: Rastegari et al., XNOR-Net (ECCV 2016), for signs with a scale; Li et al., Ternary weight networks (2016); Miyashita et
al., Convolutional neural networks using logarithmic data representation (2016), for powers of two.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from sound_qkeras.errors import InputError
from sound_qkeras.interval import Reals
from sound_qkeras.network.rewrite.rescale import Indices
from sound_qkeras.tuning.words import Words
from sound_qkeras.types import Codes

# Family -> lengths of its words, where there are not all.
LENGTHS = {"fixed": None, "po2": (2, 5), "ternary": (2, 2), "binary": (1, 1)}
FAMILIES = tuple(LENGTHS)
FIXED = ("fixed",)
LEVELS = {"ternary": np.array([-1, 0, 1]), "binary": np.array([-1, 1])}
# Signs have one of so many scales, each half as large as the one before it, from the largest weight on.
SCALES = 7


def families_of(given: Any) -> tuple[str, ...]:
    """Families by name, a sequence or a text with commas, in the order of `FAMILIES`.

    Raises:
        InputError: none, or one that is unknown.
    """
    names: Any = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not names or any(name not in FAMILIES for name in cast(list[Any], names)):
        raise InputError(
            f"families is {given!r}; accepted: some of {', '.join(FAMILIES)}, a tuple or a text with commas"
        )
    return tuple(family for family in FAMILIES if family in names)


def lengths(families: tuple[str, ...], shortest: int, longest: int) -> set[int]:
    """Bits that words of weights may have, where fixed point may have from the shortest to the longest."""
    found: set[int] = set()
    for family in families:
        least, most = LENGTHS[family] or (shortest, longest)
        found.update(range(least, min(most, longest) + 1))
    return found


def words_of(kernel: Reals, bits: int, offsets: Indices | None, families: tuple[str, ...]) -> Words:
    """Words as long as those of fixed point that hold all of a kernel at so many fractional bits, of the family that loses least.

    Args:
        kernel: the weights.
        bits: fractional bits.
        offsets: so many more fractional bits than the kernel's words of fixed point have each output channel's. A channel without
            more or fewer has the kernel's word, so that its codes are those that it would have without formats of channels; their
            own format may be shorter. Signs have a scale of their own for each channel then.
        families: what to choose from; where none of them has words of this length, they are of fixed point.

    Raises:
        InputError: a code would need more than 53 bits.
    """
    fixed = Words.of(kernel, bits)
    few = [
        words
        for family in families
        if LENGTHS[family] is not None and fixed.length in lengths((family,), 1, fixed.length)
        for words in _few(kernel, family, fixed.length, offsets)
    ]
    found = [fixed, *few] if "fixed" in families or not few else few
    best = min(found, key=lambda words: words.error(kernel)) if few else fixed
    return best if best is not fixed or offsets is None else _by_channel(kernel, fixed, offsets)


def _by_channel(kernel: Reals, whole: Words, offsets: Indices) -> Words:
    own, same = Words.of(kernel, whole.bits + offsets), offsets == 0
    return Words(
        np.where(same, whole.bits, own.bits),
        np.where(same, whole.low, own.low),
        np.where(same, whole.high, own.high),
    )


def _few(kernel: Reals, family: str, length: int, offsets: Indices | None) -> list[Words]:
    """Words of few values."""
    if family == "po2":
        powers = np.int64(1) << np.arange(1 << (length - 1))
        levels = np.concatenate([-powers[::-1], powers])
        # What QKeras has, which knows no scale: exponents are negative, or have a sign of their own.
        return [Words.few(np.array(bits), levels) for bits in (1 << (length - 1), (1 << length) >> 2)]
    return [_signs(kernel, LEVELS[family], offsets)]


def _signs(kernel: Reals, levels: Codes, offsets: Indices | None) -> Words:
    """Signs with the scale that loses least, for all or for each output channel."""
    columns = kernel.reshape(-1, 1 if offsets is None else kernel.shape[-1])
    largest = np.abs(columns).max(axis=0)
    # Channels of next to nothing get no scale far from the others': a sum would have as many bits more.
    largest = np.maximum(largest, (float(largest.max()) or 1.0) * 2.0**-SCALES)
    bits = -np.frexp(largest)[1].astype(np.int64)
    tried = [Words.few(bits + more, levels) for more in range(SCALES)]
    errors = [np.sum((words.value(words.nearest(columns)) - columns) ** 2, axis=0) for words in tried]
    chosen = bits + np.argmin(errors, axis=0)
    return Words.few(chosen.reshape(() if offsets is None else (-1,)), levels)
