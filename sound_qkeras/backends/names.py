"""C names: the user's own is checked, those of layers are mended and made unique."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sound_qkeras.errors import InputError

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KEYWORDS = """
alignas alignof and asm auto bitand bitor bool break case catch char class compl const constexpr continue decltype
default delete do double else enum explicit export extern false final float for friend goto if inline int long main
module mutable namespace new noexcept not nullptr operator or override private protected public register restrict
return short signed sizeof static struct switch template this throw true try typedef typeid typename union unsigned
using virtual void volatile wchar while xor
always assign begin end endmodule function generate initial input inout integer localparam negedge output parameter
posedge real reg time tri wand wire wor
"""
# What our templates call their own, and the stems of the types that the standard headers end in `_t`.
_TAKEN = """
bench c code column expected exact folder i input inputs j k o output outputs product r replay row rows status sum value x y
add_product add_shifted as_signed_32 as_signed_64 round_even_32 round_even_64 shift_left_64 from_code code_of fraction
blkcnt blksize clock clockid dev div double fpos float gid id imaxdiv ino int8 int16 int32 int64 intmax intptr key ldiv
lldiv max_align mbstate mode nlink off pid ptrdiff size ssize suseconds time uid uint8 uint16 uint32 uint64 uintmax
uintptr useconds wint
abs acos asin atan bsearch calloc ceil close cos div erf exit exp fabs fclose fma fmod fopen fputs free frexp gamma getc
getenv hypot index isinf isnan j0 j1 jn ldexp lgamma log logb malloc memcpy memset modf open pow printf putc puts qsort
raise rand read realloc remainder remove rename rewind rint round scanf signal sin sprintf sqrt srand std strlen system
tan tgamma trunc write y0 y1 yn
"""
RESERVED = frozenset(_KEYWORDS.split()) | frozenset(_TAKEN.split())

# Everything a layer called `name` may define is `name` plus one of these, or plus `_out` and a number.
SUFFIXES = (
    *("_layer", "_y", "_w", "_b", "_w_fraction", "_b_fraction", "_which"),
    *("_t", "_code_t", "_exact_t", "_acc_t", "_sum_t", "_w_t"),
)


def check_name(name: str) -> str:
    """The name of the top function, unchanged.

    Raises:
        InputError: it is not a C identifier, or C, C++, Verilog or their libraries keep it for themselves.

    >>> check_name("steering")
    'steering'
    """
    if not _IDENTIFIER.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"name '{name}' cannot name a C function; accepted: a letter, then letters, digits and underscores, and no "
            f"word of C, C++, Verilog or their libraries; for example name='{_mend(name)}_net'"
        )
    return name


def identifiers(sizes: Mapping[str, int], top: str) -> dict[str, str]:
    """A C name for each layer, close to its own: unique, and so are all names derived from it.

    Args:
        sizes: number of outputs by layer name.
        top: the name of the top function.

    >>> identifiers({"dense/kernel:0": 2, "int8": 1, "3rd": 1, "dense_kernel_0": 1}, "net")
    {'dense/kernel:0': 'dense_kernel_0', 'int8': 'int8_1', '3rd': 'n3rd', 'dense_kernel_0': 'dense_kernel_0_1'}
    """
    taken = {top, f"{top}_quantize_input", *(word + suffix for word in RESERVED for suffix in ("", "_t"))}
    found: dict[str, str] = {}
    for name, size in sizes.items():
        stem = identifier = _mend(name)
        attempt = 0
        while not taken.isdisjoint(derived := _derived(identifier, size)):
            attempt += 1
            identifier = f"{stem}_{attempt}"
        taken |= derived
        found[name] = identifier
    return found


def _mend(name: str) -> str:
    letters = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return letters if _IDENTIFIER.fullmatch(letters) else f"n{letters}"


def _derived(identifier: str, size: int) -> set[str]:
    return {identifier + suffix for suffix in SUFFIXES} | {f"{identifier}_out{index}" for index in range(size)}
