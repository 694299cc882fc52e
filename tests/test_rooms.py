"""Every operation has a meaning in every room that must know all of them, or is declared to have none there."""

import pytest

from sound_qkeras.backends.cost import WORK
from sound_qkeras.backends.targets import TARGETS
from sound_qkeras.exact.matrices import ENTRIES
from sound_qkeras.exact.proof import MEANINGS
from sound_qkeras.keras_io.write.writer import WRITERS as KERAS_WRITERS
from sound_qkeras.network.ops import AFFINE, MOVES, OPS, UNITS

KINDS = {kind for kind in OPS if kind != "input"}

# Room -> the kinds of operations that have a meaning there.
ROOMS = {
    "exact": {op.kind for op in MEANINGS},
    "exact, layers as matrices": {op.kind for op in ENTRIES},
    **{name: set(target.kinds) for name, target in TARGETS.items()},
    "QKeras": set(KERAS_WRITERS),
    "cost": set(WORK),
}
# (room, kinds) -> why there is none.
DECLARED = {
    ("exact, layers as matrices", frozenset(KINDS - {op.kind for op in AFFINE})): "they have no weights",
    (
        "verilog",
        frozenset(
            {
                "add",
                "concatenate",
                "crop",
                "layer_norm",
                "leaky",
                "matmul",
                "max_pool",
                "multiply",
                "pad",
                "permute",
                "table",
                "upsample",
            }
        ),
    ): "Verilog has layers with weights, rectifiers and reshapes",
    (
        "hls4ml",
        frozenset({"layer_norm", "matmul"}),
    ): "it multiplies no two matrices, and its normalisation rounds in between",
    (
        "cost",
        frozenset({"concatenate", *(op.kind for op in (*AFFINE, *MOVES, *UNITS))}),
    ): "layers with weights are counted by their integers; the others neither add nor multiply",
}


@pytest.mark.parametrize("room", ROOMS)
def test_every_operation_has_a_meaning_or_is_declared_to_have_none(room):
    declared = {kind for (where, kinds), _ in DECLARED.items() if where == room for kind in kinds}
    assert KINDS - ROOMS[room] == declared, "a hole that is not declared, or a declaration of what is none"
    assert ROOMS[room] <= KINDS, "a meaning of what is no operation"


def test_an_operation_is_saved_under_its_own_kind():
    assert {kind: op.kind for kind, op in OPS.items()} == {kind: kind for kind in OPS}
