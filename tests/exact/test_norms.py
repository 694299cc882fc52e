"""Layer normalisation in the exact proof: every enclosure and form, at members of narrow and wide rows."""

from fractions import Fraction

import numpy as np
import pytest

from sound_qkeras.errors import VerificationError
from sound_qkeras.exact.dyadic import Dyadic, Range
from sound_qkeras.exact.norms import ExactLayerNorm
from sound_qkeras.exact.tensors import ExactFacts, ExactRows
from sound_qkeras.network.ops import LayerNorm, layer_norm_pair

from .. import units
from ..property.rationals import to_fractions
from ..property.test_layer_norm import TINY, exact

OP = LayerNorm(4, 1e-3)


def meaning():
    """The operation between formats of some bits, and its integers."""
    quantized, _ = units.twin(units.network(OP), {"x": 6, "first": 7, "unit": 6})
    return ExactLayerNorm(quantized.network.by_name["unit"], quantized), quantized.pairs["unit"]


def around(*members):
    lower, upper = np.minimum.reduce(members), np.maximum.reduce(members)
    return Range(Dyadic.of(lower), Dyadic.of(upper))


def holds(enclosure, values):
    ends = zip(enclosure.lower.fractions(), values.ravel(), enclosure.upper.fractions(), strict=True)
    return all(low - TINY <= value <= high + TINY for low, value, high in ends)


@pytest.mark.parametrize("reach", [0, 1, 8, 100])
def test_every_enclosure_and_form_holds(reach):
    """Codes within `reach` steps of one another, and real values within a step of them."""
    node, pair = meaning()
    step, rng = pair.source.step, np.random.default_rng(reach)
    for _ in range(12):
        center = rng.integers(-60, 60, 4)
        codes = [center + rng.integers(-reach, reach + 1, 4) for _ in range(3)]
        fixed = [code * step for code in codes]
        reals = [x + step * rng.integers(-16, 17, 4) / 16.0 for x in fixed]
        facts = ExactFacts(
            around(*reals), around(*fixed), around(*(a - b for a, b in zip(fixed, reals, strict=True))), 7
        )
        rows = ExactRows(*(Dyadic.of(rng.integers(-8, 9, (2, 4)) / 4.0) for _ in range(2)))
        (pulled,), rest = node.pull(rows, 0, facts)
        for code, x, z in zip(codes, fixed, reals, strict=True):
            y = exact(OP, to_fractions(z)[None])[0]
            made = to_fractions(pair.results(code)) * Fraction(2) ** -pair.result_bits
            assert holds(node.real(facts.value), y)
            assert holds(node.fixed(facts.fixed), made)
            assert holds(node.difference(facts), made - y)
            form = at(rows, y, made - y) - at(pulled, to_fractions(z), to_fractions(x) - to_fractions(z))
            assert holds(rest, form)
            alone = Range.point(Dyadic.of(x))
            assert node.fixed(alone).lower.fractions() == node.fixed(alone).upper.fractions() == list(made)


def at(rows, value, difference):
    """The forms at exact members."""
    parts = []
    for part, x in ((rows.value, value), (rows.difference, difference)):
        held = np.array(part.fractions(), dtype=object).reshape(part.shape)
        parts.append(held @ x)
    return parts[0] + parts[1]


def test_the_error_of_the_table_is_that_of_the_first_proof_and_no_less_than_what_occurs():
    node, pair = meaning()
    # No more than a share of the margin of recorded ranges above the first proof, which would be refused otherwise.
    assert 0.99 * pair.relative_error <= float(node.relative_error) <= (1.0 + 2.0**-40) * pair.relative_error
    index = np.arange(1 << pair.index_bits, 4 << pair.index_bits)
    piece, rest = (index >> pair.shift) - (1 << pair.piece_bits), index & ((1 << pair.shift) - 1)
    held = pair.codes
    read = (held[piece] + (held[piece + 1] - held[piece]) * rest / 2.0**pair.shift) * 2.0**-pair.entry_bits
    ends = [read * np.sqrt((index + off) / 2.0**pair.index_bits) for off in (-0.5, 1.0)]
    worst = max(float(np.max(np.abs(end - 1.0))) for end in ends)
    assert worst <= float(node.relative_error) <= 1.2 * worst


def test_what_the_table_is_off_by_is_charged():
    """At codes alone the two networks differ by nothing else."""
    node, _ = meaning()
    x = Range.point(Dyadic.of(np.array([1.0, -2.0, 0.5, 0.25])))
    zero = Range.point(Dyadic.zeros(4))
    value, off = node.real(x).magnitude().fractions(), node.difference(ExactFacts(x, x, zero, 7)).upper.fractions()
    assert all(a >= v * node.relative_error for a, v in zip(off, value, strict=True))
    (_,), rest = node.pull(ExactRows(Dyadic.zeros(4, 4), Dyadic.identity(4)), 0, ExactFacts(x, x, zero, 7))
    assert all(a >= v * node.relative_error for a, v in zip(rest.upper.fractions(), value, strict=True))


def test_entries_that_are_not_positive_are_refused(monkeypatch):
    wrong = layer_norm_pair.derived.__wrapped__(*[5, 10, 12]).copy()
    wrong[3] = 0
    monkeypatch.setattr(layer_norm_pair, "derived", lambda *_: wrong)
    node, _ = meaning()
    with pytest.raises(VerificationError, match="not positive"):
        _ = node.relative_error
