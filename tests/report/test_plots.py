"""Figures of results: what is drawn is what the result says."""

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

import sound_qkeras as sq
from sound_qkeras.errors import InputError
from sound_qkeras.results.curve import Curve

from ..results import random_result

pytest.importorskip("matplotlib")


def test_a_result_draws_its_formats_bounds_and_budget(tmp_path):
    result = random_result(0)
    figure = result.plot(tmp_path / "result.svg")
    formats, errors = figure.axes[:2]
    drawn = [row for row in result.formats if row.kind != "accumulator"]
    assert [text.get_text() for text in formats.texts] == [str(row.word_length) for row in drawn]
    assert {float(bar.get_width()) for bar in errors.patches} == {
        *result.certificate.eps.tolist(),
        *result.certificate.output_bounds.tolist(),
    }
    assert (tmp_path / "result.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert figure._repr_png_()[:4] == b"\x89PNG"


def test_what_was_counted_is_drawn_as_no_bound():
    samples = np.random.default_rng(0).uniform(-1.0, 1.0, (60, 3))
    result = sq.quantize(
        random_result(0).pair.reference, 0.5, (-1.0, 1.0), tier="statistical", samples=samples, effort="fast"
    )
    errors = result.plot().axes[1]
    assert {float(bar.get_width()) for bar in errors.patches} == {0.5}
    shown = [text.get_text() for text in errors.get_legend().get_texts()]
    assert sorted(shown) == ["at the worst held-out sample", "tolerance eps"]


def test_names_are_drawn_as_they_are(tmp_path):
    result = random_result(0)
    names = ("$\\frac$", *(f"${n}" for n in range(1, result.certificate.eps.size)))
    labels = replace(result.certificate.labels, outputs=names)
    result = replace(result, certificate=replace(result.certificate, labels=labels))
    drawn = result.plot(tmp_path / "result.png").axes[1].get_yticklabels()
    assert drawn[0].get_text() == names[0]


def test_a_curve_draws_every_tolerance(tmp_path):
    results = Curve([random_result(0), random_result(0)])
    points = results.plot().axes[0].lines[1].get_xdata()
    np.testing.assert_array_equal(points, [float(one.certificate.eps.max()) for one in results])
    assert len(repr(results).splitlines()) == 1


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"accepted: a \.png, \.svg or \.pdf file"):
        random_result(0).plot(tmp_path / "result.doc")


def test_a_notebook_shows_the_claim_and_every_format():
    result = random_result(0)
    html = result._repr_html_()
    assert all(line in unescape(html) for line in result.lines)
    assert [int(bits) for bits in re.findall(r"right\">(\d+)</td>", html)] == [
        row.word_length for row in result.formats if row.kind != "accumulator"
    ]
    assert "<script" not in html
    assert f"{result.cost.total_bits:,}" in Curve([result])._repr_html_()


def test_what_a_result_is_made_of_is_one_line_each():
    result = random_result(0)
    for one in (result, result.certificate, result.pair, result.pair.reference):
        assert "\n" not in repr(one)
        assert len(repr(one)) < 300
