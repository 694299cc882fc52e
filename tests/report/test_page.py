"""The report: it says what the certificate says and no more, and needs nothing but itself."""

import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pytest

from sound_qkeras.errors import InputError, VerificationError
from sound_qkeras.exact.proof import exact_error
from sound_qkeras.interval import Interval
from sound_qkeras.network import Network
from sound_qkeras.network.labels import Labels
from sound_qkeras.report.accuracy import budget_table, errors_at_worst
from sound_qkeras.report.claim import claim_of
from sound_qkeras.report.coverage import box_table, moved_ends, not_covered
from sound_qkeras.report.formats import comparison_table, uniform_of
from sound_qkeras.report.naming import Naming
from sound_qkeras.report.page import page
from sound_qkeras.report.picture import picture_of
from sound_qkeras.report.sweep import sweep_of
from sound_qkeras.report.tables import filled, table
from sound_qkeras.results.origin import Origin, SourceFile
from sound_qkeras.support.decimals import tolerance
from sound_qkeras.tuning.uniform import Trial, smallest_uniform
from tests.report.results import SAMPLES, TIERS, result_of
from tests.results import random_result

VOID = {"input", "meta", "link", "rect", "line", "circle", "polyline"}


@pytest.fixture(scope="module")
def results():
    """One result of every tier; those that rest on samples saturate."""
    return {tier: result_of(tier, saturate=True) for tier in TIERS}


@pytest.fixture(scope="module")
def pages(results):
    return {tier: page(result) for tier, result in results.items()}


class Reader(HTMLParser):
    """Tags, attributes, text, and the tables of a page; refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tables, self.ids = [], [], [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if "id" in found:
            assert found["id"] not in self.ids
            self.ids.add(found["id"])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "th"}:
            self.tables[-1][-1][-1] += data


@pytest.mark.parametrize("tier", TIERS)
def test_it_needs_nothing_but_itself(pages, tier):
    read = Reader(pages[tier])
    assert {tag for tag, _, _ in read.attributes} & {"script", "img", "iframe", "object", "embed"} == set()
    links = [value for _, name, value in read.attributes if name in {"href", "src", "action", "data", "xlink:href"}]
    assert all(link == "data:," or link[1:] in read.ids for link in links)
    assert any(link.startswith("#") for link in links)
    assert not re.search(r"url\(|@import|https?://", pages[tier])
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]


@pytest.mark.parametrize("tier", TIERS)
def test_every_row_has_a_cell_for_every_column(pages, tier):
    tables = Reader(pages[tier]).tables
    assert len(tables) > 9
    for rows in tables:
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}


@pytest.mark.parametrize("tier", TIERS)
def test_the_certificate_is_quoted_and_the_page_is_always_the_same(results, pages, tier):
    quoted = re.search(r"<q>(.*?)</q>", pages[tier])
    assert quoted
    assert quoted[1].replace("&lt;", "<") == results[tier].certificate.claim
    assert f"tier: {tier}" in pages[tier]
    assert page(results[tier]) == pages[tier]


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_in_words_is_not_below_the_proved_one(seed):
    certificate = random_result(seed).certificate
    said = Fraction(dict(claim_of(random_result(seed)).facts)["Proved bound"])
    assert Fraction(certificate.bound) <= said <= Fraction(float(certificate.eps.max()))


def test_the_limits_of_other_tiers_claim_no_more_than_the_certificate(results):
    local, statistical = (claim_of(results[tier]) for tier in TIERS[1:])
    certificate = results["local"].certificate
    assert Fraction(dict(local.facts)["Radius"]) <= Fraction(certificate.evidence.radius)
    assert Fraction(dict(local.facts)["Proved bound there"]) >= Fraction(certificate.bound)
    evidence = results["statistical"].certificate.evidence
    limit = dict(statistical.facts)["Share that may exceed eps"].removeprefix("at most ").removesuffix("%")
    assert Fraction(limit) / 100 >= Fraction(evidence.probability)
    assert f"at most {limit}%" in statistical.sentence
    assert "proved" not in statistical.sentence
    assert f"within {certificate.evidence.radius!r} of" in certificate.claim
    for failures in range(8):
        other = replace(evidence, failures=failures)
        stated = re.search(r"probability at most ([0-9.e+-]+);", other.claim)
        assert stated
        assert Fraction(stated[1]) >= Fraction(other.probability)


def test_a_reference_in_float64_is_said(results):
    result = results["statistical"]
    assert "float64" not in claim_of(result).sentence
    evidence = replace(result.certificate.evidence, reference="float64")
    weaker = replace(result, certificate=replace(result.certificate, evidence=evidence))
    assert "as float64 evaluates it" in claim_of(weaker).sentence
    assert any("as float64 evaluates it" in item for item in not_covered(weaker))
    assert not any("exact arithmetic" in item for item in not_covered(weaker))


def test_what_saturates_is_said(results, pages):
    names = results["local"].pair.saturating
    assert names
    for tier in TIERS[1:]:
        assert "Where results saturate" in pages[tier]
        assert "ever overflows" not in claim_of(results[tier]).sentence
    assert "Where results saturate" not in pages["sound"]
    assert "ever overflows its format" in claim_of(results["sound"]).sentence


def test_accuracies_are_shown_where_there_are_labels(results, pages):
    found = results["statistical"].classification
    assert f"{found.float_accuracy:.2%}" in pages["statistical"]
    assert "proved to be the same class" not in pages["statistical"]
    assert "proved to be the same class" in pages["local"]
    assert "Accuracy" not in pages["sound"]


def test_names_of_the_user_are_only_text():
    result = random_result()
    evil = '<script>alert("x")</script>'
    nodes = tuple(replace(node, layer=evil) for node in result.pair.reference.nodes)
    quantized = replace(result.pair, reference=Network(nodes, notes=(evil,)))
    certificate = replace(
        result.certificate,
        box_source=evil,
        weight_hash=quantized.reference.weight_hash,
        code_hash=quantized.code_hash,
        notes=(evil,),
        error_budget=(replace(result.certificate.error_budget[0], layer=evil),),
    )
    text = page(replace(result, pair=quantized, certificate=certificate))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 3
    Reader(text)


def test_a_claim_that_does_not_hold_gets_no_page(tmp_path):
    result = random_result()
    wrong = replace(result.certificate, output_bounds=result.certificate.output_bounds / 2)
    with pytest.raises(VerificationError, match="the certificate claims"):
        replace(result, certificate=wrong).report(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_only_reports_are_replaced(tmp_path):
    result, path = random_result(), tmp_path / "new" / "page.html"
    assert result.report(path) == path
    first = path.read_bytes()
    result.report(path)
    assert path.read_bytes() == first
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not written by sound_qkeras"):
        result.report(path)
    assert path.read_text(encoding="utf-8") == "mine"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(InputError, match="is a directory"):
        result.report(tmp_path)


def test_a_sweep_of_counted_results_has_no_bounds():
    one = result_of("statistical")
    drawn = sweep_of(one, [one])
    assert drawn is not None
    text = str(drawn.table)
    assert "Share that may exceed it" in text
    assert "Proved bound" not in text
    assert claim_of(result_of("local")).facts[3][0] == "Bound of dense_1[0], closest to its tolerance"


def test_a_sweep_is_drawn_and_about_one_claim():
    result = random_result()
    finer = replace(result, certificate=replace(result.certificate, eps=np.full(2, 5.0)))
    text = page(result, [finer])
    read = Reader(text)
    assert "Bits against eps" in text
    assert text.count("<circle") == 2
    assert [row[0] for row in next(rows for rows in read.tables if rows[0][0] == "eps")] == ["eps", "5", "10"]
    assert "Bits against eps" not in page(result)
    for other, says in (
        (random_result(1), "another trained network"),
        (
            replace(result, certificate=replace(result.certificate, box=result.certificate.box.mapped(np.negative))),
            "box",
        ),
        (replace(result, certificate=replace(result.certificate, tier="local")), "tier"),
    ):
        with pytest.raises(InputError, match=says):
            page(result, [other])


def test_errors_at_the_worst_input_are_exact_and_rounded_down():
    result = random_result()
    found, exact = errors_at_worst(result)
    wanted = [abs(error) for error in exact_error(result.pair, result.observed_input)]
    assert exact
    assert all(0.0 <= error <= limit for error, limit in zip(found, wanted, strict=True))
    assert all(error >= limit * Fraction(1 - 1e-12) for error, limit in zip(found, wanted, strict=True))


@pytest.mark.parametrize("tier", TIERS)
def test_the_smallest_uniform_format_has_the_fewest_bits_that_do(results, tier):
    result = results[tier]
    eps = result.certificate.eps if tier != "sound" else np.full(2, 0.05)
    certificate = replace(result.certificate, eps=eps)
    saturate = bool(result.pair.saturating)
    found = smallest_uniform(result.pair.reference, certificate, saturate=saturate)
    assert found is not None
    assert found.relative <= 1.0
    trial = Trial(result.pair.reference, certificate, saturate, 64)
    bits = found.format.fractional_bits
    assert trial.attempt(bits)[1] == found
    assert trial.attempt(bits - 1)[0] > 1.0
    if tier != "sound":
        evidence = certificate.evidence
        allowed = evidence.failures if tier == "statistical" else int((~evidence.certified(eps)).sum())
        assert beyond(result.pair.reference, bits, eps) <= allowed


def beyond(network, bits, eps):
    """How many of the samples exceed the tolerance if everything is rounded to so many fractional bits; plain numpy."""

    def rounded(x):
        return np.rint(x * 2.0**bits) / 2.0**bits

    exact, coarse = SAMPLES, rounded(SAMPLES)
    layers = [op for _, op in network.affine()]
    for index, op in enumerate(layers):
        exact, coarse = exact @ op.kernel + op.bias, coarse @ rounded(op.kernel) + rounded(op.bias)
        if index < len(layers) - 1:
            exact, coarse = np.maximum(exact, 0.0), rounded(np.maximum(coarse, 0.0))
    return int(np.any(np.abs(coarse - exact) > eps, axis=1).sum())


def test_bits_are_compared_with_others(results):
    result = results["sound"]
    rows = comparison_table(result, uniform_of(result)).rows
    assert [row[0].split(":")[0] for row in rows] == ["chosen", "uniform", "32 bits"]
    assert rows[0][5] == f"{result.cost.total_bits:,}"
    assert rows[2][6] == "100%"


@pytest.mark.slow
def test_long_networks_are_summed_up_and_scroll():
    assert 'class="long"' not in page(random_result())
    text = page(random_result(1, (3, *(2,) * 12, 2)))
    assert "Word lengths by kind" in text
    assert 'class="long"' in text


def test_small_parts():
    assert tolerance(0.001) == "0.001"
    assert tolerance(1 / 3) == "0.3334"
    assert [part.style for part in filled(0.5).segments] == ["inner", "frame"]
    assert [part.style for part in filled(1.5, 2.0).segments] == ["inner", "beyond", "frame"]
    assert [column.kind for column in table("t", "A:name, B, C:number range", []).columns] == [
        "name",
        "text",
        "number range",
    ]


def test_a_claim_that_every_sample_breaks_has_a_page(results):
    result = results["statistical"]
    evidence = replace(result.certificate.evidence, failures=len(SAMPLES))
    assert smallest_uniform(result.pair.reference, replace(result.certificate, evidence=evidence)) is not None


def test_names_units_date_and_files_are_said():
    found = random_result()
    labels = Labels(("angle", "rate", "goal"), ("torque", "brake"), {"angle": "rad", "torque": "N m"})
    digest = "0123456789abcdef" * 4
    origin = Origin("2026-02-03T04:05:06+00:00", (SourceFile("model", "controller.keras", digest),))
    text = page(replace(found, origin=origin, certificate=replace(found.certificate, labels=labels)))
    tables = {row[0]: row for rows in Reader(text).tables for row in rows}
    assert {"angle (rad)", "rate", "goal", "torque (N m)", "brake"} <= set(tables)
    assert tables["Model controller.keras (SHA-256, as recorded)"][1] == digest
    assert "3 February 2026, 04:05 UTC of controller.keras (SHA-256 0123456789ab" in text
    assert "Made on" not in page(found)


def test_outputs_with_tolerances_of_their_own_have_their_bounds_in_the_claim():
    found = random_result()
    certificate = replace(found.certificate, eps=found.certificate.eps * np.array([1.0, 2.0]))
    said = claim_of(replace(found, certificate=certificate)).sentence
    for k, name in enumerate(("dense_1[0]", "dense_1[1]")):
        stated = re.search(rf"([0-9.e+-]+) for {re.escape(name)} \(eps = ([0-9.e+-]+)\)", said)
        assert stated
        assert Fraction(float(certificate.output_bounds[k])) <= Fraction(stated[1])
        assert float(stated[2]) == certificate.eps[k]
    unasked = replace(certificate, eps=certificate.output_bounds, eps_source="what is proved")
    assert "eps" not in claim_of(replace(found, certificate=unasked)).sentence


def test_ends_of_float32_are_explained():
    low = float(np.float32(-0.1))
    found = random_result()
    box = Interval(np.full(3, low), np.array([0.5, 1.0, 2.0]))
    (rows,) = (table.rows for table in [box_table(box, Naming.of(found))])
    assert rows[0] == ("x[0]", f"-0.1 ({low!r})", "0.5")
    assert moved_ends(box) == ("-0.1", repr(low))
    assert moved_ends(Interval(np.full(3, -0.5), np.full(3, 0.25))) is None


def test_what_is_only_counted_has_no_bound_beside_it(results, pages):
    for group in picture_of(results["statistical"], None, np.array([0.01, 0.02]), Naming.of(results["statistical"])):
        assert not any("bound" in label or "proved" in label for label, _, _ in group.rows)
    card = pages["statistical"].partition("<nav")[0]
    assert "no bound is proved" in card
    assert len(re.findall(r"bound|proved", card.partition("<body>")[2])) == 3  # that one, and that nothing is proved


def test_a_budget_of_several_tolerances_says_whose_share_it_is():
    result = random_result(0)
    eps = np.linspace(1.0, 2.0, result.certificate.eps.size)
    several = replace(result, certificate=replace(result.certificate, eps=eps))
    labels = [[column.label for column in budget_table(one).columns] for one in (result, several)]
    assert "Of eps" in labels[0]
    assert "Of an output's own eps" in labels[1]
