"""Whole networks with tables, clipped and leaky units: both proofs hold, and wrong entries are refused."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.exact.proof import exact_bound, exact_error
from sound_qkeras.fixed_point import Format
from sound_qkeras.floating.fixed import float_reports
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network, Node
from sound_qkeras.network.files import load_network, save_network
from sound_qkeras.network.ops import Add, Dense, Input, Table, table_pair
from sound_qkeras.network.pair import Pair
from sound_qkeras.search.falsify import errors
from sound_qkeras.verify.certificate import make_certificate
from sound_qkeras.verify.checker import check
from sound_qkeras.verify.proof import bound_leaves, prove
from sound_qkeras.verify.split_tree import SplitTree
from tests import units

COARSE, FINE = {"x": 6, "first": 4, "unit": 7}, {"x": 9, "first": 12, "unit": 10}
every = pytest.mark.parametrize("name", units.UNITS)
QUICK = pytest.mark.parametrize("name", ["odd", "prelu", "tanh"])
TREE = SplitTree((0, 1, -1, -1, 2, -1, -1))


def worst_points(quantized, box, count):
    """Samples and corners with the largest errors."""
    rng = np.random.default_rng(3)
    x = rng.uniform(*box, (600, 3))
    x[:100] = np.where(rng.random((100, 3)) < 0.5, *box)
    return x[np.argsort(-errors(quantized, x).max(axis=1))[:count]]


def assert_bounds_hold(name, bits, count, reach):
    quantized, box = units.twin(units.network(units.UNITS[name]), bits, reach=reach)
    proof = prove(quantized, Interval(*box), TREE)
    for x in worst_points(quantized, box, count):
        found = [abs(error) for error in exact_error(quantized, x)]
        assert all(error <= Fraction(float(b)) for error, b in zip(found, proof.output_bounds, strict=True))
    return quantized, box, proof


@QUICK
def test_no_error_exceeds_the_bound(name):
    assert_bounds_hold(name, COARSE, 4, 1.0)


@pytest.mark.slow
@every
@pytest.mark.parametrize("bits", [COARSE, FINE], ids=["coarse", "fine"])
@pytest.mark.parametrize("reach", [1.0, 0.05])
def test_no_error_exceeds_either_bound(name, bits, reach):
    """And the exact proof, of the whole box at once, is about as tight as the first."""
    quantized, box, _ = assert_bounds_hold(name, bits, 20, reach)
    exact = exact_bound(quantized, *box)
    whole = prove(quantized, Interval(*box)).output_bounds
    for x in worst_points(quantized, box, 20):
        assert all(abs(e) <= b for e, b in zip(exact_error(quantized, x), exact, strict=True))
    assert all(0.5 * float(e) <= w <= 2.0 * float(e) for e, w in zip(exact, whole, strict=True))


@every
def test_a_small_box_is_proved_tightly(name):
    """Around one point a unit is a line, so nothing but roundings is left of the bound."""
    quantized, box = units.twin(units.network(units.UNITS[name]), FINE, weight_bits=20, reach=2.0**-12)
    bound = prove(quantized, Interval(*box)).bound
    steps = {node: output.step for node, output in quantized.formats.items()}
    last = np.abs(quantized.network.by_name["last"].op.arrays()["kernel"]).sum(axis=0).max()
    slope = {"exponential": 3e3, "prelu": 1.5}.get(name, 1.2)
    assert bound <= last * (slope * (6.0 * steps["x"] + steps.get("first", 0.0)) + 1.3 * steps["unit"])


@QUICK
def test_quantize_certifies(name, tmp_path):
    network = units.network(units.UNITS[name])
    result = sq.quantize(network, 0.02, box=(-np.ones(3), np.ones(3)), effort="fast")
    assert result.observed_error <= result.certificate.bound <= 0.02
    check(result.pair, result.certificate)
    save_network(tmp_path, result.pair.network, result.pair)
    network, loaded = load_network(tmp_path)
    assert loaded is not None
    assert loaded.code_hash == result.pair.code_hash
    assert network.weight_hash == result.pair.network.weight_hash


@pytest.mark.slow
def test_a_table_at_the_end_is_rounded_coarsely_when_asked():
    network = units.network(Table("tanh"), after=False)
    box = -0.1 * np.ones(3), 0.1 * np.ones(3)
    fine, coarse = (sq.quantize(network, 0.02, box=box, effort="fast", round_output=asked) for asked in (False, True))
    assert coarse.pair.formats["unit"].word_length <= fine.pair.formats["unit"].word_length
    assert coarse.certificate.bound <= 0.02


def corrupted(monkeypatch, quantized, piece, by):
    """The same network with one entry of its table changed."""
    table = quantized.tables["unit"]
    codes = table.entries.codes.copy()
    codes[piece] += by
    made = table_pair.measured(table, codes)
    monkeypatch.setattr(table_pair, "derived", lambda found: made)
    return Pair(quantized.network, quantized.parameters, quantized.formats, quantized.accumulators)


INTERPOLATED = pytest.param(FINE, id="interpolated", marks=pytest.mark.slow)


@pytest.mark.parametrize("bits", [pytest.param(COARSE, id="plain"), INTERPOLATED])
@pytest.mark.parametrize("rehashed", [False, True])
def test_one_wrong_entry_is_refused(monkeypatch, bits, rehashed):
    """By its hash; and, should the certificate name the wrong table, because the proof finds what it costs."""
    quantized, box = units.twin(units.network(Table("tanh"), scale=0.4), bits)
    region = Interval(*box)
    claim = make_certificate(quantized, region, np.full(2, 1.0), SplitTree())
    check(quantized, claim)
    plain = bound_leaves(quantized, region).bound
    table = quantized.tables["unit"]
    middle = -table.source.min_code >> table.shift
    wrong = corrupted(monkeypatch, quantized, middle, 40)
    if rehashed:
        claim = replace(claim, code_hash=wrong.code_hash)
    with pytest.raises(
        VerificationError, match="the proved bound is|values reach" if rehashed else "integers and formats"
    ):
        check(wrong, claim)
    assert bound_leaves(wrong, region).bound > plain
    assert max(exact_bound(wrong, *box)) > 1.1 * plain


def test_an_entry_nobody_reads_may_be_anything(monkeypatch):
    """Only codes within the proved range are charged."""
    quantized, box = units.twin(units.network(Table("tanh"), scale=0.4), FINE)
    low, _ = prove(quantized, Interval(*box)).ranges["first"]
    table = quantized.tables["unit"]
    assert low > table.source.minimum + 2 * table.source.step * 2**table.shift
    before = bound_leaves(quantized, Interval(*box)).bound
    assert bound_leaves(corrupted(monkeypatch, quantized, 0, 40), Interval(*box)).bound == before


def test_huge_tables_are_for_the_search_only():
    quantized, box = units.twin(units.network(Table("tanh")), {**FINE, "first": 20})
    wide = {**quantized.formats, "first": Format(40, 19, True), "unit": Format(30, 1, True)}
    huge = replace(quantized, formats=wide, accumulators={})
    assert bound_leaves(huge, Interval(*box)).bound < 0.1
    with pytest.raises(VerificationError, match=r"'unit'.*pieces"):
        prove(huge, Interval(*box))
    for use in (lambda: huge.code_hash, lambda: huge.simulate_all(np.zeros((1, 3)))):
        with pytest.raises(InputError, match="pieces"):
            use()


def test_an_exponential_beyond_float64_is_refused():
    quantized, _ = units.twin(units.network(Table("exponential"), scale=0.1), COARSE)
    with np.errstate(all="ignore"), pytest.raises(VerificationError, match=r"finite|reach"):
        prove(quantized, Interval(np.full(3, -1e5), np.full(3, 1e5)))


@QUICK
def test_floating_point_reports_cover_units(name):
    """In float32 with more bits than it has: the report's error holds for an evaluation that is off by as much."""
    quantized, box = units.twin(units.network(units.UNITS[name]), FINE, weight_bits=5)
    exact = float_reports(quantized, Interval(*box), 0.0)[0]
    assert exact.exact == (name != "prelu")
    wide, _ = units.twin(units.network(units.UNITS[name]), {"x": 16, "first": 18, "unit": 12}, weight_bits=14)
    report = float_reports(wide, Interval(*box), 0.0)[0]
    assert 0.0 < report.error < 0.1


@pytest.mark.solver
def test_tables_without_saturation_are_tuned_on_samples():
    """A table exists in formats as narrow as they will be, not in those of provisional width."""
    network = units.network(Table("sigmoid"))
    samples = np.random.default_rng(0).uniform(-1, 1, (600, *network.input_shape))
    found = sq.quantize(network, 0.05, (-1, 1), tier="statistical", samples=samples, saturate=False, effort="fast")
    assert not found.pair.saturating
    check(found.pair, found.certificate)


def test_one_operation_in_two_nodes_has_the_integers_of_each():
    """Both read one tensor, one coarse and one fine: what is worked out for one is not taken for the other."""
    table, rng = Table("tanh"), np.random.default_rng(0)
    ends = [Dense(np.array([[weight], [0.0]]), np.zeros(1)) for weight in (64.0, 1.0)]

    def pair(other):
        nodes = (Node("x", Input((2,))), Node("coarse", table, ("x",)), Node("fine", other, ("x",)))
        nodes += (Node("a", ends[1], ("fine",)), Node("b", ends[0], ("coarse",)))
        network = Network((*nodes, Node("sum", Add((False, False)), ("a", "b"))))
        return units.twin(network, {"x": 12, "fine": 14, "coarse": 3})

    (same, box), (apart, _) = pair(table), pair(Table("tanh"))
    proof = prove(same, Interval(*box), SplitTree())
    assert proof.bound == prove(apart, Interval(*box), SplitTree()).bound
    assert np.abs(errors(same, rng.uniform(*box, (2000, 2)))).max() <= proof.bound
